//! The `isolab-cp` executable, which `isolab cp` becomes: files into instances, and out of them.

mod end;
mod place;
mod with_ids;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::{Error, Result, bail};
use clap::Parser;
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_instances::Catalogue;
use isolab_link as _;
use isolab_transfer::Kind;

use crate::end::CopyEnd;
use crate::place::{Place, destination};

/// Copy files and folders into an instance, or out of it, or between two.
///
/// One that does not run is made for the copy, with its volumes, and not started; at the VM levels, and without root, it
/// has to run.
///
/// With owners (as root), modes, times and attributes. A folder goes into one that is there, or else gets its name;
/// with `/.` behind it, what is in it goes. A link is copied as a link. `-` is an archive (tar) on standard input or
/// output. What comes to the host has neither set-user-ID nor set-group-ID. Nothing outside of the instance is read
/// or written, whatever the instance does meanwhile.
#[derive(Parser)]
#[command(
    name = "isolab-cp",
    bin_name = "isolab cp",
    version,
    after_help = "Examples:\n  isolab cp site/. web:/var/www\n  isolab cp web:/var/log - | tar t\n  isolab cp one:/etc/motd two:/etc/"
)]
struct Cp {
    #[command(flatten)]
    logging: Logging,
    /// Taken and ignored: files keep their owners. Here for podman's users.
    #[arg(long, short)]
    archive: bool,
    /// Where from: INSTANCE:PATH, a path of the host, or - for an archive.
    source: Place,
    /// Where to, likewise.
    target: Place,
}

fn main() -> ExitCode {
    isolab_command::run::<Cp>()
}

impl Executable for Cp {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        let Self { source, target, .. } = &self;
        if !source.is_instance() && !target.is_instance() {
            bail!("neither {source} nor {target} is in an instance: INSTANCE:PATH");
        }
        let catalogue = Catalogue::open_default()?;
        let mut held = Vec::new();
        let from = CopyEnd::open(&catalogue, source, &mut held)?;
        let to = CopyEnd::open(&catalogue, target, &mut held)?;
        match (source.path(), target.path()) {
            (None, Some(folder)) => {
                match to.look(folder)? {
                    Some(found) if found.0 == Kind::Folder => {}
                    Some(_) => bail!("{target} is no folder, and an archive goes into one"),
                    None => bail!("{target}: no such file or directory"),
                }
                to.receive(folder, io::stdin().as_fd().try_clone_to_owned()?)?;
            }
            (Some(path), None) => {
                let name = destination(from.look(path)?, source, None)?;
                from.send(path, &name.name, io::stdout().as_fd().try_clone_to_owned()?)?;
            }
            (Some(path), Some(target_path)) => {
                let found = from.look(path)?;
                let name = destination(found, source, Some((to.look(target_path)?, target)))?;
                to.check_folder(&name.folder)?;
                copy(&from, path, &name.name, &to, &name.folder)?;
            }
            (None, None) => bail!("an archive is copied to or from an instance"),
        }
        for one in held {
            one.release()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Both at once, with a pipe between them.
fn copy(from: &CopyEnd, path: &Path, name: &Path, to: &CopyEnd, folder: &Path) -> Result<()> {
    let (reader, writer) = io::pipe()?;
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(move || from.send(path, name, writer.into()));
        let received = to.receive(folder, reader.into());
        (sender.join(), received)
    });
    let sent = sent.unwrap_or_else(|_| bail!("the sender panicked"));
    // Who receives tells why it stopped; who sends then has only a broken pipe to tell of.
    match (sent, received) {
        (Err(sent), Err(received)) => Err(if is_broken_pipe(&sent) { received } else { sent }),
        (sent, received) => sent.and(received),
    }
}

/// Whether nobody reads any more what was to be written.
fn is_broken_pipe(error: &Error) -> bool {
    error.chain().any(|cause| {
        let of_kind = |it: &io::Error| it.kind() == io::ErrorKind::BrokenPipe;
        cause.downcast_ref::<io::Error>().is_some_and(of_kind)
    })
}
