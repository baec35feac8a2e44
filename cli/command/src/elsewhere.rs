//! The commands of `isolab` that other executables of the package do, which it becomes ([`crate::program`]).
//!
//! `isolab` knows of them what its own `--help` says; options and commands below are theirs
//! ([`crate::description`]).

/// A command of `isolab` that another executable does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The command.
    pub name: &'static str,
    /// What it does, in the words in which the executable itself says it.
    pub about: &'static str,
    /// The executable.
    pub executable: &'static str,
}

/// All of them.
pub const ELSEWHERE: &[Elsewhere] = &[
    whole("bench", "Measure the levels of isolation side by side", "isolab-bench"),
    whole(
        "compose",
        "Bring up the services of a compose file, at any level of isolation, and look after them",
        "isolab-compose",
    ),
    whole(
        "cp",
        "Copy files and folders into an instance, or out of it, or between two",
        "isolab-cp",
    ),
    whole("image", "Manage the images in the local store", "isolab-image"),
    whole("kernel", "Bring guest kernels for the VM levels, and list them", "isolab-kernel"),
    whole("network", "Make networks for instances, and list them", "isolab-network"),
    whole(
        "tiers",
        "Run a shop in three tiers, put load on it, and follow a request through it",
        "isolab-tiers",
    ),
    whole("volume", "Make volumes for instances, and list them", "isolab-volume"),
    of_instance(
        "attach",
        "Show what an instance writes from now on, pass on what is typed, and exit with its code",
    ),
    of_instance(
        "check",
        "Show what this host can do, found by trying, and which isolation levels are ready",
    ),
    of_instance("exec", "Run a further command in an instance that runs"),
    of_instance("inspect", "Tell all there is to tell of instances, as JSON under podman's names"),
    of_instance("kill", "Send a signal to the workloads of instances"),
    of_instance("logs", "Print what an instance has written, each of its two streams to ours"),
    of_instance("pause", "Make everything in instances stand still"),
    of_instance(
        "port",
        "List the ports that an instance publishes, or where one of its ports is to be had",
    ),
    of_instance("ps", "List instances: those that run, or all"),
    of_instance("rename", "Give an instance that does not run another name"),
    of_instance("rm", "Remove instances, with what they wrote and their logs"),
    of_instance("stats", "Tell what instances use, seen from the host: again and again, or once"),
    of_instance(
        "stop",
        "End the workloads of instances: by their stop signal, and after a while by SIGKILL",
    ),
    of_instance("system", "Look after what isolab keeps on this host"),
    of_instance("top", "List the processes in an instance"),
    of_instance("unpause", "Let instances go on that were paused"),
    of_instance("wait", "Wait until instances have ended, and print their exit codes"),
];

/// The whole of an executable.
const fn whole(name: &'static str, about: &'static str, executable: &'static str) -> Elsewhere {
    Elsewhere { name, about, executable }
}

/// A command of the executable for instances: those of them that talk to a supervisor or read what is on the disk, and
/// start nothing.
const fn of_instance(name: &'static str, about: &'static str) -> Elsewhere {
    Elsewhere { name, about, executable: "isolab-instance" }
}

impl Elsewhere {
    /// The one of this name.
    pub fn find(name: &str) -> Option<Self> {
        ELSEWHERE.iter().find(|it| it.name == name).copied()
    }

    /// Whether the executable does nothing else, and takes the command's arguments without its name.
    pub fn is_whole(self) -> bool {
        self.executable.strip_prefix("isolab-") == Some(self.name)
    }
}
