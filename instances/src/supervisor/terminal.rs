//! The streams of one run of a workload, as its configuration asks for them.

use std::io;
use std::os::fd::OwnedFd;

use isolab_isolation::{Instance, Stdio, WindowSize};

use crate::error::InstanceError;
use crate::log::Stream;

/// A terminal's size until somebody is attached who has one.
const SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };

/// Our ends.
pub(super) struct Ends {
    pub(super) input: Option<OwnedFd>,
    pub(super) output: Vec<(Stream, OwnedFd)>,
}

/// What the workload gets, and what is ours of it.
pub(super) fn prepare(interactive: bool, terminal: bool) -> Result<(Stdio, Ends), InstanceError> {
    if terminal {
        return Ok((Stdio::Terminal(SIZE), Ends { input: None, output: Vec::new() }));
    }
    let pipe = || io::pipe().map_err(InstanceError::host("make a pipe"));
    let (stdout, out) = pipe()?;
    let (stderr, err) = pipe()?;
    let stdin = if interactive { Some(pipe()?) } else { None };
    let (stdin, input) = match stdin {
        Some((reader, writer)) => (Some(reader.into()), Some(writer.into())),
        None => (None, None),
    };
    let stdio = Stdio::Streams { stdin, stdout: out.into(), stderr: err.into() };
    let output = vec![(Stream::Stdout, stdout.into()), (Stream::Stderr, stderr.into())];
    Ok((stdio, Ends { input, output }))
}

impl Ends {
    /// Where to write its input to, if it has any, and to read its output from.
    pub(super) fn of(self, instance: &mut dyn Instance) -> Result<Self, InstanceError> {
        let Some(terminal) = instance.terminal() else { return Ok(self) };
        let input = terminal.try_clone();
        let input = input.map_err(InstanceError::host("duplicate a terminal"))?;
        Ok(Self { input: Some(input), output: vec![(Stream::Stdout, terminal)] })
    }
}
