//! The files of a container that runs with ids of its own: the host's root has no id there, and could make no file
//! (EOVERFLOW). What is done with them, a child of ours does, as the container's root.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Error, Result, anyhow};
use isolab_isolation::as_root_of_joined_user_namespace;
use isolab_transfer::{FileRequest, Tree};
use nix::unistd::geteuid;

use crate::is_broken_pipe;

/// How much the child says of a failure at most: what a pipe takes although nobody reads yet (pipe(7)).
const MAX_WORDS: usize = 4096;
/// The child's exit code for a failure.
const FAILED: u8 = 1;
/// And where nobody reads any more what it writes.
const BROKEN_PIPE: u8 = 2;

/// The files, and whose root is theirs.
pub struct WithIds {
    /// The container's root directory.
    pub tree: Tree,
    /// Its user namespace.
    pub namespace: File,
}

/// The user namespace of a process, where root asks and it is another than ours. Who is not root stays outside: what it
/// makes is its own.
pub fn namespace_of(process: i32) -> Result<Option<File>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let open = |of: &str| {
        let path = format!("/proc/{of}/ns/user");
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        opened.with_context(|| format!("cannot open {path}"))
    };
    let (ours, _) = open("self")?;
    let (theirs, namespace) = open(&process.to_string())?;
    let is_ours = (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino());
    Ok((!is_ours).then_some(namespace))
}

impl WithIds {
    /// Does it, with these for standard input and output.
    pub fn perform(
        &self,
        request: &FileRequest,
        input: Option<OwnedFd>,
        output: Option<OwnedFd>,
    ) -> Result<()> {
        let (errors, their_errors) = io::pipe()?;
        let open = [&input, &output].into_iter().flatten().map(AsFd::as_fd);
        let keep: Vec<BorrowedFd> = open.chain([self.tree.root(), their_errors.as_fd()]).collect();
        let work = || match self.perform_here(request, input.as_ref(), output.as_ref()) {
            Ok(()) => 0,
            Err(error) => {
                let words = format!("{error:#}");
                let words = &words.as_bytes()[..words.len().min(MAX_WORDS)];
                // Where that fails, the code tells that it did not work.
                let _ = (&their_errors).write_all(words);
                if is_broken_pipe(&error) { BROKEN_PIPE } else { FAILED }
            }
        };
        let ended = as_root_of_joined_user_namespace(self.namespace.as_fd(), &keep, work)?;
        drop(their_errors);
        let mut words = Vec::new();
        errors.take(MAX_WORDS as u64).read_to_end(&mut words)?;
        let words = String::from_utf8_lossy(&words).into_owned();
        match ended.code() {
            0 => Ok(()),
            code if code == i32::from(BROKEN_PIPE) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, words).into())
            }
            _ if words.is_empty() => Err(anyhow!("who copies for the container ended: {ended}")),
            _ => Err(Error::msg(words)),
        }
    }

    fn perform_here(
        &self,
        request: &FileRequest,
        input: Option<&OwnedFd>,
        output: Option<&OwnedFd>,
    ) -> Result<()> {
        let open = |end: &OwnedFd| end.try_clone().map(File::from);
        let mut input: Box<dyn Read> = match input {
            Some(input) => Box::new(BufReader::new(open(input)?)),
            None => Box::new(io::empty()),
        };
        let output: Box<dyn Write> = match output {
            Some(output) => Box::new(BufWriter::new(open(output)?)),
            None => Box::new(io::sink()),
        };
        request.perform(&self.tree, &mut input, output)?;
        // What stands behind the archive's end is the sender's to write without a broken pipe.
        io::copy(&mut input, &mut io::sink())?;
        Ok(())
    }
}
