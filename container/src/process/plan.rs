//! The OCI `process` section, converted to what the child can use without allocating.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use oci_spec::runtime::Process;

use super::capabilities::{self, CapabilitySets};
use super::exec::ExecPlan;
use super::labels::Label;
use super::rlimits::Rlimit;
use super::scheduling::SchedulingPlan;
use super::seccomp::Filter;
use super::terminal::TerminalPlan;
use crate::error::{Error, Result};
use crate::step::{Parts, Step};

/// Nobody: to setresuid(2) and setresgid(2) it means that the id does not change, which would leave root's.
pub const NO_ID: u32 = u32::MAX;

/// What the process is given.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub exec: ExecPlan,
    pub cwd: CString,
    /// Make `cwd` when it is missing.
    pub create_cwd: bool,
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    pub groups: Vec<libc::gid_t>,
    /// It is in another user namespace than the runtime's, which may deny setgroups(2) to everybody.
    pub user_namespace: bool,
    pub umask: libc::mode_t,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<CString>,
    pub capabilities: Option<CapabilitySets>,
    pub no_new_privileges: bool,
    /// Leave the caller's session keyring.
    pub new_keyring: bool,
    pub seccomp: Option<Arc<Filter>>,
    /// In place of the caller's streams.
    pub terminal: Option<TerminalPlan>,
    pub kill_with_parent: bool,
    pub scheduling: SchedulingPlan,
    pub label: Option<Label>,
    /// Put a process of ours between: the program's parent, which passes signals on and reaps orphans.
    pub init: bool,
}

impl ProcessPlan {
    /// `user_namespace`: the process starts with all capabilities, in a new user namespace.
    pub(crate) fn new(process: &Process, user_namespace: bool) -> Result<Self> {
        let cwd = process.cwd();
        if !cwd.is_absolute() {
            return Err(Error::invalid(
                "process.cwd",
                format!("{} is not absolute", cwd.display()),
            ));
        }
        let cwd = CString::new(cwd.as_os_str().as_bytes())
            .map_err(|_| Error::invalid("process.cwd", "contains a NUL byte"))?;
        let no_args = Vec::new();
        let exec = ExecPlan::new(
            process.args().as_ref().unwrap_or(&no_args),
            process.env().as_ref().unwrap_or(&no_args),
        )?;
        let capabilities = process.capabilities().as_ref().map(CapabilitySets::from_oci);
        if let (Some(sets), false) = (&capabilities, user_namespace) {
            check_held(sets)?;
        }
        let oom_score_adj = process.oom_score_adj().map(|score| {
            // Digits and a sign contain no NUL, so the default is never taken.
            CString::new(score.to_string()).unwrap_or_default()
        });
        let user = process.user();
        let groups = user.additional_gids().clone().unwrap_or_default();
        for (field, ids) in [
            ("process.user.uid", &[user.uid()][..]),
            ("process.user.gid", &[user.gid()]),
            ("process.user.additionalGids", &groups),
        ] {
            if ids.contains(&NO_ID) {
                return Err(Error::invalid(field, format!("{NO_ID} stands for none (-1)")));
            }
        }
        Ok(ProcessPlan {
            exec,
            cwd,
            create_cwd: false,
            uid: user.uid(),
            gid: user.gid(),
            groups,
            user_namespace,
            umask: user.umask().unwrap_or(0o022) & 0o777,
            rlimits: Rlimit::from_oci(process.rlimits().as_deref().unwrap_or_default())?,
            oom_score_adj,
            capabilities,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            new_keyring: false,
            seccomp: None,
            terminal: TerminalPlan::new(process)?,
            kill_with_parent: false,
            scheduling: SchedulingPlan::new(process)?,
            label: Label::new(process)?,
            init: false,
        })
    }
}

impl Parts for ProcessPlan {
    fn part(&self, step: Step, index: usize) -> String {
        match step {
            Step::Rlimit => self.rlimits.get(index).map(Rlimit::label).unwrap_or_default(),
            Step::CreateWorkingDirectory | Step::WorkingDirectory => {
                self.cwd.to_string_lossy().into_owned()
            }
            Step::Group => self.gid.to_string(),
            Step::User => self.uid.to_string(),
            Step::Exec => self.exec.command(),
            _ => String::new(),
        }
    }
}

/// Fails now, with names, rather than later with the EPERM of capset(2).
fn check_held(sets: &CapabilitySets) -> Result<()> {
    let held =
        capabilities::held().map_err(|source| Error::host("read our own capabilities", source))?;
    let missing = sets.missing_from(held);
    if missing.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "we do not hold {} ourselves; run with more privilege or ask for less",
        missing.join(", ")
    );
    Err(Error::invalid("process.capabilities", problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{ProcessBuilder, UserBuilder};

    #[test]
    fn an_id_that_would_change_nothing_is_refused_by_its_field() {
        let plan = |uid: u32, gid: u32, groups: &[u32]| {
            let user = UserBuilder::default().uid(uid).gid(gid).additional_gids(groups).build();
            let mut process = ProcessBuilder::default().user(user.unwrap()).build().unwrap();
            process.set_capabilities(None).set_args(Some(vec!["x".to_owned()]));
            ProcessPlan::new(&process, false).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(plan(NO_ID - 1, NO_ID - 1, &[NO_ID - 1]), Ok(()));
        for (result, field) in [
            (plan(NO_ID, 0, &[]), "process.user.uid"),
            (plan(0, NO_ID, &[]), "process.user.gid"),
            (plan(0, 0, &[1, NO_ID]), "process.user.additionalGids"),
        ] {
            assert!(result.as_ref().is_err_and(|error| error.contains(field)), "{result:?}");
        }
    }
}
