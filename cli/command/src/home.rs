//! HOME, where whoever started us left it out, as a service manager does.
//!
//! Not by getpwuid(3), as `std::env::home_dir` has it: a static C library carries the name service's
//! modules, a resolver among them, and loads others of whatever C library the host has.

use std::{env, fs};

use nix::unistd::getuid;

/// Sets HOME to what the passwd file has for our user, if it is not set. Before any thread exists.
pub(crate) fn complete() {
    if env::var_os("HOME").is_some_and(|home| !home.is_empty()) {
        return;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if let Some(home) = home_of(getuid().as_raw(), &passwd) {
        // SAFETY: the caller has one thread, so that nobody reads the environment meanwhile.
        unsafe { env::set_var("HOME", home) };
    }
}

/// The sixth field of the line of passwd(5) whose third is `uid`.
fn home_of(uid: u32, passwd: &str) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let is_ours = fields.next()?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (is_ours && !home.is_empty()).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passwd_file_tells_a_home() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\nodd\nnobody:x:65534:65534:n::/bin/false\n\
                      a:x:1000:1000:A,,,:/home/a:/bin/sh";
        assert_eq!(home_of(0, passwd), Some("/root"));
        assert_eq!(home_of(1000, passwd), Some("/home/a"));
        assert_eq!(home_of(65534, passwd), None);
        assert_eq!(home_of(1, passwd), None);
    }
}
