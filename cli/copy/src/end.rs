//! One side of a copy: a tree that this process reaches, or a guest that is asked.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail};
use isolab_instances::{Catalogue, Held, Instance, InstanceError, Streams};
use isolab_transfer::{FileRequest, Found, Kind, Rights, Tree};

use crate::place::Place;
use crate::with_ids::{self, WithIds};

/// Where files are.
pub enum CopyEnd {
    /// The host's, or a container's.
    Tree(Tree, Rights),
    /// A container's that runs with ids of its own.
    WithIds(WithIds),
    /// A virtual machine's.
    Guest(Catalogue, Box<Instance>),
    /// An archive.
    Archive,
}

impl CopyEnd {
    /// `held` are the instances that do not run and are held for this copy.
    pub fn open(catalogue: &Catalogue, place: &Place, held: &mut Vec<Held>) -> Result<Self> {
        let name = match place {
            Place::Archive => return Ok(Self::Archive),
            Place::Host(_) => return Ok(Self::Tree(Tree::open(Path::new("/"))?, Rights::Dropped)),
            Place::Instance(name, _) => name,
        };
        let instance = catalogue.find(name)?;
        let other_end = held.iter().find(|one| one.id() == instance.entry.id);
        let process = match other_end {
            Some(one) => Some(one.process()?),
            None if !instance.entry.is_owned => {
                let one = catalogue.hold(&instance, "copy files")?;
                let process = one.process()?;
                held.push(one);
                Some(process)
            }
            None => None,
        };
        if let Some(process) = process {
            return Self::of_process(process);
        }
        if !instance.state.status.is_running() {
            return Err(instance.wrong_state("copy files").into());
        }
        if instance.entry.level.is_virtual_machine() {
            return Ok(Self::Guest(catalogue.clone(), Box::new(instance)));
        }
        let lost = || InstanceError::NoSuchInstance(name.clone());
        let process = instance.entry.process.ok_or_else(lost)?;
        let end = Self::of_process(process)?;
        // Its number may have become another's before that was opened, but not if it is the instance's still.
        let again = catalogue.find(&instance.entry.id)?;
        if !again.entry.is_owned || again.entry.process != Some(process) {
            return Err(lost().into());
        }
        Ok(end)
    }

    /// The files that a process of a container's sees.
    fn of_process(process: i32) -> Result<Self> {
        let tree = Tree::open(Path::new(&format!("/proc/{process}/root")))?;
        Ok(match with_ids::namespace_of(process)? {
            Some(namespace) => Self::WithIds(WithIds { tree, namespace }),
            None => Self::Tree(tree, Rights::Kept),
        })
    }

    /// What is at a path.
    pub fn look(&self, path: &Path) -> Result<Option<Found>> {
        match self {
            Self::Archive => bail!("an archive is read once"),
            Self::Tree(tree, _) | Self::WithIds(WithIds { tree, .. }) => Ok(tree.look(path)?),
            Self::Guest(catalogue, instance) => {
                let (mut answer, writer) = io::pipe()?;
                ask(catalogue, instance, FileRequest::Look(path.to_owned()), None, writer)?;
                let mut letter = [0];
                answer.read_exact(&mut letter).context("the guest does not say what is there")?;
                Found::from_letter(letter[0]).context("the guest does not say what is there")
            }
        }
    }

    /// Says that something can go there, before it is on its way.
    pub fn check_folder(&self, folder: &Path) -> Result<()> {
        match self.look(folder)? {
            Some(Found(Kind::Folder)) => Ok(()),
            Some(_) => bail!("{} is no folder", folder.display()),
            None => bail!("{}: no such folder", folder.display()),
        }
    }

    pub fn send(&self, path: &Path, name: &Path, output: OwnedFd) -> Result<()> {
        match self {
            Self::Archive => bail!("an archive has its own names"),
            Self::Tree(tree, _) => {
                Ok(tree.send(path, name, io::BufWriter::new(File::from(output)))?)
            }
            Self::WithIds(container) => container.perform(&send(path, name), None, Some(output)),
            Self::Guest(catalogue, instance) => {
                ask(catalogue, instance, send(path, name), None, output)
            }
        }
    }

    pub fn receive(&self, folder: &Path, input: OwnedFd) -> Result<()> {
        match self {
            Self::Archive => bail!("an archive has its own names"),
            Self::Tree(tree, rights) => {
                let mut input = io::BufReader::new(File::from(input));
                tree.receive(folder, *rights, &mut input)?;
                // What stands behind the archive's end is the sender's to write without a broken pipe.
                io::copy(&mut input, &mut io::sink())?;
                Ok(())
            }
            Self::WithIds(container) => {
                container.perform(&FileRequest::Receive(folder.to_owned()), Some(input), None)
            }
            Self::Guest(catalogue, instance) => {
                let request = FileRequest::Receive(folder.to_owned());
                let null = File::options().write(true).open("/dev/null")?;
                ask(catalogue, instance, request, Some(input), null)
            }
        }
    }
}

fn send(path: &Path, name: &Path) -> FileRequest {
    FileRequest::Send { path: path.to_owned(), name: name.to_owned() }
}

/// Has a guest do something with its files.
fn ask(
    catalogue: &Catalogue,
    instance: &Instance,
    request: FileRequest,
    input: Option<OwnedFd>,
    output: impl Into<OwnedFd>,
) -> Result<()> {
    let (mut errors, their_errors) = io::pipe()?;
    let output: OwnedFd = output.into();
    let streams = Streams {
        stdin: input.as_ref().map(AsFd::as_fd),
        stdout: output.as_fd(),
        stderr: their_errors.as_fd(),
    };
    let session = catalogue.files(instance, request, &streams)?;
    drop((input, output, their_errors));
    let why = thread::spawn(move || {
        let mut why = String::new();
        // A guest may say anything.
        let _ = (&mut errors).take(4096).read_to_string(&mut why);
        let _ = io::copy(&mut errors, &mut io::sink());
        why
    });
    let code = session.wait()?;
    let why = why.join().unwrap_or_default();
    if code != 0 {
        let line = why.lines().next().unwrap_or("it was ended").escape_debug().to_string();
        bail!("{}: {line}", instance.name());
    }
    Ok(())
}
