//! What init can be asked to start.

use isolab_transfer::FileRequest;
use serde::{Deserialize, Serialize};

use crate::rights::Rights;

/// Something to start in the guest, with streams to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// A program of the image.
    Process(Process),
    /// Something that init does itself, since no image has to have a program for it.
    Service(Service),
}

/// What init does itself, in a child of its own, with the standard streams that a program would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// Writes a [`ProcessRecord`] for each process, as a line of JSON.
    Processes,
    /// Writes a [`GuestUsage`], as a line of JSON.
    Usage,
    /// Files of the guest, to and from the host.
    Files(FileRequest),
}

/// The part of the OCI runtime specification's `process` object that holds inside a machine of
/// its own, under the specification's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// The command; the first is looked up in PATH as execvp does.
    pub args: Vec<String>,
    /// `NAME=value`, the whole environment.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// The user, group and supplementary groups that it runs as.
    pub user: User,
    /// What it may do.
    #[serde(default)]
    pub rights: Rights,
    /// The size of its terminal, if it gets one in place of three pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<WindowSize>,
    /// Whether the host sends standard input; otherwise it is at its end from the start. A terminal can
    /// always be typed on.
    pub stdin: bool,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// `process.user` of the OCI runtime specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
    /// File mode creation mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
}

impl User {
    /// Whether an id is -1, which to setresuid(2) and setresgid(2) means that nothing changes.
    pub fn is_unset(&self) -> bool {
        [self.uid, self.gid].iter().chain(&self.additional_gids).any(|id| *id == u32::MAX)
    }
}

/// A process of the guest, as [`Service::Processes`] tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRecord {
    /// Its id.
    pub pid: u32,
    /// Its parent's; 0 for a child of init's.
    pub parent: u32,
    /// Its effective user id.
    pub uid: u32,
    /// proc(5): R, S, D, Z, T …
    pub state: char,
    /// CPU time of all its threads, in milliseconds.
    pub cpu_time: u64,
    /// Milliseconds since its start.
    pub elapsed: u64,
    /// Bytes of memory resident.
    pub resident: u64,
    /// Its arguments; where it has none, its name in brackets.
    pub command: Vec<String>,
}

/// What a guest uses, as [`Service::Usage`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestUsage {
    /// Bytes of its memory that are not free for new programs.
    pub memory: u64,
    /// Processes and threads, without the kernel's own and init.
    pub tasks: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_minus_one_is_found_wherever_it_is() {
        let user = |uid, gid, additional_gids| User { uid, gid, additional_gids, umask: None };
        assert!(!user(u32::MAX - 1, 0, vec![5]).is_unset());
        assert!(user(u32::MAX, 0, vec![]).is_unset());
        assert!(user(0, u32::MAX, vec![]).is_unset());
        assert!(user(0, 0, vec![5, u32::MAX]).is_unset());
    }
}
