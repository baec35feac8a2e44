//! What a level cannot do of what is asked for, and why.

use nix::unistd::geteuid;

use super::{Seccomp, Security, UNCONFINED, UserNamespace};
use crate::error::IsolationError;
use crate::level::Level;

impl Security {
    /// Refuses what `level` cannot do. What is so at a level by itself is none of that: a guest has an init, a
    /// plain process the host's namespaces.
    ///
    /// # Errors
    /// The first thing that it cannot do, with the reason.
    pub fn check(&self, level: Level) -> Result<(), IsolationError> {
        let refused = match level {
            Level::Container => self.refused_by_containers(),
            Level::Process => self.refused_by_process(),
            Level::Paravirt | Level::Fullvirt => self.refused_by_machines(),
        };
        match refused.into_iter().find(|(is_asked, _)| *is_asked) {
            Some((_, what)) => Err(IsolationError::Unsupported { level, what }),
            None => Ok(()),
        }
    }

    fn filters_system_calls(&self) -> bool {
        matches!(self.seccomp, Seccomp::Profile { .. })
    }

    fn has_apparmor_profile(&self) -> bool {
        self.apparmor.as_ref().is_some_and(|name| name != UNCONFINED)
    }

    fn refused_by_containers(&self) -> Vec<(bool, &'static str)> {
        let is_kept = self.user_namespace == UserNamespace::KeepId;
        let what = "keep root's id in a user namespace: it is for ordinary users; root's have ids of their own (auto)";
        vec![(is_kept && geteuid().is_root(), what)]
    }

    fn refused_by_process(&self) -> Vec<(bool, &'static str)> {
        vec![
            (self.filters_system_calls(), "filter system calls: it is a plain process of the host"),
            (
                self.has_apparmor_profile(),
                "confine by an AppArmor profile: it is a plain process of the host",
            ),
            (!self.mask.is_empty(), "mask paths: its /proc and /sys are the host's"),
            (!self.devices.is_empty(), "be given devices: its /dev is the host's"),
            (!self.sysctls.is_empty(), "set kernel parameters: they would be the host's"),
            (self.shm_size.is_some(), "limit /dev/shm: it is the host's"),
            (
                !matches!(self.user_namespace, UserNamespace::Default | UserNamespace::Host),
                "have a user namespace: its ids are the host's",
            ),
            (
                self.privileged && (!self.cap_add.is_empty() || !self.cap_drop.is_empty()),
                "be privileged and have its capabilities changed",
            ),
        ]
    }

    fn refused_by_machines(&self) -> Vec<(bool, &'static str)> {
        vec![
            (
                self.filters_system_calls(),
                "filter system calls: they are answered by the guest's own kernel",
            ),
            (
                self.has_apparmor_profile(),
                "confine by an AppArmor profile: the guest's kernel has none loaded",
            ),
            (
                !self.mask.is_empty(),
                "mask paths: nothing of the host is in the guest's /proc and /sys",
            ),
            (!self.devices.is_empty(), "be given devices of the host: the guest has its own"),
            (
                matches!(self.user_namespace, UserNamespace::Host | UserNamespace::KeepId),
                "share the host's user ids: the guest has its own",
            ),
            (self.host_pid, "share the host's processes: the guest has its own kernel"),
            (self.host_ipc, "share the host's IPC objects: the guest has its own kernel"),
            (self.host_uts, "share the host's name: the guest has its own kernel"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_refuses_what_it_cannot_do() {
        let asked = |change: fn(&mut Security)| {
            let mut security = Security::default();
            change(&mut security);
            Level::ALL.map(|level| security.check(level).is_err())
        };
        // Process, container, paravirt, fullvirt.
        let (nobody, process, machines, both) = (
            [false; 4],
            [true, false, false, false],
            [false, false, true, true],
            [true, false, true, true],
        );
        assert_eq!(asked(|_| {}), nobody);
        assert_eq!(asked(|it| it.init = true), nobody);
        assert_eq!(asked(|it| it.privileged = true), nobody);
        assert_eq!(asked(|it| it.seccomp = Seccomp::Unconfined), nobody);
        assert_eq!(asked(|it| it.shm_size = Some(1)), process);
        assert_eq!(asked(|it| drop(it.sysctls.insert("a".into(), "b".into()))), process);
        let is_root = geteuid().is_root();
        let own = asked(|it| it.user_namespace = UserNamespace::Auto);
        assert_eq!(own, process);
        let kept = asked(|it| it.user_namespace = UserNamespace::KeepId);
        assert_eq!(kept, [true, is_root, true, true]);
        assert_eq!(asked(|it| it.host_pid = true), machines);
        assert_eq!(asked(|it| it.user_namespace = UserNamespace::Host), machines);
        assert_eq!(asked(|it| it.devices.push("/dev/null".parse().unwrap())), both);
        assert_eq!(asked(|it| it.mask.push("/proc/keys".into())), both);
    }
}
