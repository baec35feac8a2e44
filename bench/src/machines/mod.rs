//! The bare machine beside other VMMs, all with one kernel, one initramfs, the same RAM and vCPUs.
//!
//! Their start needs nothing of the guest but a line on its console. The other measurements hold a
//! [`conversation`](conversation::Conversation) with it: they send it commands.

pub mod conversation;
pub(crate) mod guest;
pub(crate) mod observe;
pub(crate) mod run;

use std::io;

pub use self::observe::{EXITS_NEED, Exits};

/// The name of the bare machine where there is one of it only.
pub const OWN: &str = "vmm";

/// Why a measurement cannot go on: half a comparison is none.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// A file or a process.
    #[error("cannot {action} {subject}")]
    Host {
        /// What was attempted: a verb, for example `start`.
        action: &'static str,
        /// The subject whose turn it was, as the tables call it.
        subject: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No line on the console where one was due.
    #[error("the guest of {subject} did not answer ({how}); console and messages: {said}")]
    NotUp {
        /// The subject whose turn it was, as the tables call it.
        subject: &'static str,
        /// How it ended, or that it did not.
        how: String,
        /// Its console and messages.
        said: String,
    },
    /// The init line, and then a failure or no end.
    #[error("{subject} did not end well after its guest's init ({how}); messages: {said}")]
    NotDown {
        /// The subject whose turn it was, as the tables call it.
        subject: &'static str,
        /// How it ended, or that it did not.
        how: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// A program of the host's is to run in the guest.
    #[error(transparent)]
    Program(#[from] isolab_guest::programs::ProgramError),
    /// The guest's console is no reliable channel.
    #[error("the guest of {subject} answered with `{line}`: {fault}")]
    Garbled {
        /// The subject whose turn it was, as the tables call it.
        subject: &'static str,
        /// A line of the console.
        line: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A program in the guest failed, or printed what nobody understands.
    #[error("`{command}` in the guest of {subject}: {fault}")]
    Job {
        /// The subject whose turn it was, as the tables call it.
        subject: &'static str,
        /// The command that the guest was given.
        command: String,
        /// Its exit status and messages, or what is wrong with its output.
        fault: String,
    },
    /// Sizes of mappings contradict the plan.
    #[error(
        "no mapping of {subject} is as large as the guest's RAM, so what is beyond it is unknown"
    )]
    NoRam {
        /// The subject whose turn it was, as the tables call it.
        subject: &'static str,
    },
}
