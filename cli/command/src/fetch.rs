//! Options of those who fetch images from registries.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Each time.
    Always,
    /// When it is not in the store.
    #[default]
    Missing,
    /// Never: it has to be in the store.
    Never,
}

/// How registries are reached.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// Plain HTTP instead of HTTPS, for a registry on this machine.
    #[arg(long)]
    pub insecure: bool,
    /// The folder with the certificates (*.crt) of the registry's CAs, beside the system's; by
    /// default /etc/containers/certs.d/HOST:PORT or /etc/docker/certs.d/HOST:PORT.
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
}

impl Access {
    /// The arguments that say the same to another executable of ours.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if self.insecure {
            arguments.push("--insecure".into());
        }
        if let Some(folder) = &self.cert_dir {
            // In one word, as a name may begin with a hyphen.
            let mut argument = OsString::from("--cert-dir=");
            argument.push(folder);
            arguments.push(argument);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        access: Access,
    }

    #[test]
    fn what_is_passed_on_is_what_was_given() {
        for given in [&[][..], &["--insecure"], &["--insecure", "--cert-dir=-odd/folder"]] {
            let parse = |given: Vec<OsString>| {
                let words = [OsString::from("command")].into_iter().chain(given);
                Command::try_parse_from(words).unwrap().access
            };
            let access = parse(given.iter().map(Into::into).collect());
            let again = parse(access.to_arguments());
            assert_eq!((again.insecure, &again.cert_dir), (access.insecure, &access.cert_dir));
        }
    }
}
