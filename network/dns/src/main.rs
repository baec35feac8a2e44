//! `isolab-dns LEASES [--internal]`: answers names on one network of isolab, as long as it is used.
//!
//! The library `isolab-network` starts it, and hands the sockets over, bound, on standard input. What
//! clients send is read by a process that may do nothing but what any process may: the capabilities of
//! root are given up first.

mod answer;
mod elsewhere;
mod forward;
mod inherit;
mod privileges;
mod serve;
mod zone;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use isolab_link as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use serve::Service;
use zone::Names;

/// How long changes that nobody has asked for stay unread.
const SETTLING: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isolab-dns: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let folder = arguments.next().map(PathBuf::from).context("isolab starts isolab-dns itself")?;
    let internal = arguments.next().is_some_and(|word| word == "--internal");
    let inherited = inherit::receive()?;
    privileges::drop_all()?;
    let names = Names::watch(&folder)?;
    let own = inherited.datagrams.iter().filter_map(|socket| socket.local_addr().ok());
    let service = Arc::new(Service::new(names, own.map(|it| it.ip()).collect(), internal));
    let start = |work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().spawn(work).map(drop).context("cannot start a thread")
    };
    for socket in inherited.datagrams {
        let (service, socket) = (Arc::clone(&service), Arc::new(socket));
        start(Box::new(move || serve::datagrams(&service, &socket)))?;
    }
    for listener in inherited.streams {
        let service = Arc::clone(&service);
        start(Box::new(move || serve::streams(&service, &listener)))?;
    }
    // The lock, by which others know that we live, is held until the end.
    let _lock = inherited.lock;
    loop {
        let mut changes = [PollFd::new(service.names.changes(), PollFlags::POLLIN)];
        poll(&mut changes, PollTimeout::NONE).context("cannot wait for changes")?;
        // Who asks looks himself. What changes comes with an instance's start, which needs the processor now, and
        // often not alone.
        thread::sleep(SETTLING);
        service.names.now();
    }
}
