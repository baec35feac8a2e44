//! Checks the folder that is named: a line for each expectation, `ok` or not; the exit code says whether all went well.

use std::path::PathBuf;
use std::process::ExitCode;

use isolab_file_semantics::{EXPECTATIONS, check};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    let mut code = ExitCode::SUCCESS;
    for expectation in EXPECTATIONS {
        // One that fails panics, and tells on standard error what it found; the others are checked all the same.
        // SAFETY: this process has one thread.
        let ended = match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                check(&folder, &[expectation]);
                std::process::exit(0);
            }
            Ok(ForkResult::Parent { child }) => waitpid(child, None),
            Err(errno) => Err(errno),
        };
        let is_met = matches!(ended, Ok(WaitStatus::Exited(_, 0)));
        println!("{}: {}", expectation.0, if is_met { "ok" } else { "not so" });
        if !is_met {
            code = ExitCode::FAILURE;
        }
    }
    code
}
