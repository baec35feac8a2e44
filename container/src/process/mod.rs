//! What a process is given before execve: streams, rlimits, credentials, capabilities, and the program itself.
//! Containers and plain host processes share all of it, which is what makes their exit codes, errors and environment
//! alike.

pub(crate) mod capabilities;
pub(crate) mod credentials;
pub(crate) mod exec;
pub(crate) mod keyring;
pub(crate) mod labels;
pub(crate) mod plan;
pub(crate) mod rlimits;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod stdio;
pub(crate) mod terminal;
pub(crate) mod trampoline;
