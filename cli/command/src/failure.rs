//! How a failure is told: the chain of errors once, in one line, then what the guest said last,
//! then a hint.
//!
//! The libraries' errors say what failed on what. What the operator can do about it, by which
//! option or command, is said here, for the libraries know no command line.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::path::Path;

use error_reporter::Report;
use isolab_container::{CgroupError, Error as ContainerError};
use isolab_guest::kernels::KernelError;
use isolab_guest::modules::ModuleError;
use isolab_images::ImageError;
use isolab_instances::InstanceError;
use isolab_isolation::IsolationError;
use isolab_vmm::control::client::ClientError;
use isolab_vmm::{machine, probe};

use crate::format::EXIT_OWN_FAILURE;

/// What the operator can do about one error of a chain.
pub type Hint = fn(&(dyn Error + 'static)) -> Option<String>;

/// Tells `error` on standard error.
pub fn tell(error: &(dyn Error + 'static)) {
    tell_with(error, |_| None);
}

/// As [`tell`]; `own` knows hints for errors of the executable's own, and is asked first.
pub fn tell_with(error: &(dyn Error + 'static), own: Hint) {
    eprint!("{}", text(error, own));
}

/// What [`tell`] would say, for somebody else to tell who calls it a failure of isolab's.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let text = text(error, |_| None);
    text.strip_prefix("isolab: ").unwrap_or(&text).trim_end().to_owned()
}

/// What an executable ends with that failed so: 126 and 127 say that a workload's command cannot be executed, or
/// is not there, and 125 all else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let of_instance = error.downcast_ref().map(InstanceError::exit_code);
    let of_level = || error.downcast_ref().map(IsolationError::exit_code);
    of_instance.or_else(of_level).unwrap_or(EXIT_OWN_FAILURE)
}

/// A transparent error stands for what it wraps, which is not in the chain then.
fn unwrapped<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    match error.downcast_ref() {
        Some(InstanceError::Isolation(error)) => error,
        Some(InstanceError::Image(error)) => error,
        _ => error,
    }
}

fn text(error: &(dyn Error + 'static), own: Hint) -> String {
    let chain = || successors(Some(unwrapped(error)), |&error| error.source());
    let mut text = format!("isolab: {}\n", Report::new(error));
    match chain().find_map(|error| error.downcast_ref::<IsolationError>()?.console()) {
        None => {}
        Some("") => text += "isolab: the guest's console is empty\n",
        Some(lines) => text += &format!("isolab: the end of the guest's console:\n{lines}\n"),
    }
    if let Some(hint) = chain().find_map(|error| own(error).or_else(|| hint(error))) {
        text += &format!("isolab: hint: {hint}\n");
    }
    text
}

/// What the operator can do about an error, where it does not say so itself.
pub fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    match error.downcast_ref() {
        // Transparent, too.
        Some(IsolationError::Image(error)) => of_image(error),
        Some(IsolationError::Kernel(error)) => Some(of_kernel(error)),
        Some(IsolationError::Module(ModuleError::Missing { .. })) => {
            Some("`isolab kernel ls` shows the kernels that --kernel takes".to_owned())
        }
        Some(IsolationError::Machine { source, .. }) => of_machine(source),
        Some(IsolationError::Container(error)) => of_container(error),
        Some(IsolationError::Io { path, source, .. }) => of_data_folder(path, source),
        Some(_) => None,
        None => {
            let image = || error.downcast_ref().and_then(of_image);
            let socket = || error.downcast_ref().and_then(of_socket);
            error.downcast_ref().and_then(of_machine).or_else(image).or_else(socket)
        }
    }
}

/// What the operator can do about an image, or a store, that cannot be used.
pub fn of_image(error: &ImageError) -> Option<String> {
    Some(match error {
        ImageError::NotFound(_) => {
            "`isolab image ls` shows the images that are here, `isolab image pull` or \
             `isolab image load` brings one"
                .to_owned()
        }
        ImageError::NotUnpacked(digest) => {
            format!("`isolab image pull --policy never --unpack {digest}` unpacks it")
        }
        ImageError::Damaged { name, .. } => {
            format!("remove it (`isolab image rm {name}`), then pull or load it again")
        }
        ImageError::SeveralNames { .. } => {
            "remove the names one by one, or all of them with --force".to_owned()
        }
        // A file of a layer is told by its name there; where it goes is ours.
        ImageError::Io { action: "unpack", source, .. } => {
            return of_data_folder(&isolab_images::data_dir(), source);
        }
        ImageError::Io { path, source, .. } => return of_data_folder(path, source),
        _ => return None,
    })
}

/// Of what we keep on this host: images, cache, instances.
fn of_data_folder(path: &Path, source: &io::Error) -> Option<String> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, QuotaExceeded};
    use io::ErrorKind::{ReadOnlyFilesystem, StorageFull};
    let elsewhere = "XDG_DATA_HOME names another folder to keep images and instances in";
    if !path.starts_with(isolab_images::data_dir()) {
        return None;
    }
    match source.kind() {
        StorageFull | QuotaExceeded => {
            Some(format!("`isolab image prune` and `isolab system prune` free room, {elsewhere}"))
        }
        PermissionDenied | ReadOnlyFilesystem | NotADirectory | NotFound => {
            Some(elsewhere.to_owned())
        }
        _ => None,
    }
}

fn of_machine(error: &machine::Error) -> Option<String> {
    match error {
        machine::Error::UnfaithfulKvm { .. } => Some(probe::HINT.to_owned()),
        _ => None,
    }
}

fn of_socket(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Connect { path, .. } => Some(format!(
            "is a machine running that was started with --api-socket {}?",
            path.display()
        )),
        _ => None,
    }
}

fn of_kernel(error: &KernelError) -> String {
    match error {
        KernelError::Unknown(..) => {
            "`isolab kernel fetch` brings stock and cloud, `isolab kernel build` makes slim"
        }
        KernelError::NoneFound(_) => {
            "`isolab kernel fetch` brings Debian's, `isolab kernel build` makes the slim one"
        }
    }
    .to_owned()
}

fn of_container(error: &ContainerError) -> Option<String> {
    match error {
        ContainerError::Cgroup(error) => of_cgroup(error),
        ContainerError::RootNotMounted { .. } => Some(
            "make the folder a mount before it is entered: `mount --bind FOLDER FOLDER`, then chroot"
                .to_owned(),
        ),
        _ => None,
    }
}

fn of_cgroup(error: &CgroupError) -> Option<String> {
    Some(match error {
        CgroupError::NotWritable { .. } => "run as root on a writable cgroup mount, delegate a cgroup (systemd-run --user --scope -p \
             Delegate=yes), or ask for no limits"
            .to_owned(),
        CgroupError::DeviceProgram { .. } => "it takes CAP_BPF, CAP_NET_ADMIN and a kernel with CONFIG_CGROUP_BPF".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &(dyn Error + 'static)) -> String {
        super::text(error, |_| None)
    }

    #[test]
    fn a_chain_is_told_once_and_the_hint_behind_it() {
        let damaged = || ImageError::Damaged {
            name: "web".to_owned(),
            source: Box::new(ImageError::MissingBlob("sha256:1".to_owned())),
        };
        // As `isolab run` has it, and as `isolab image` has it.
        for told in [text(&IsolationError::from(damaged())), text(&damaged())] {
            assert_eq!(
                told,
                "isolab: image `web` is damaged: blob sha256:1 is missing\nisolab: hint: remove it \
                 (`isolab image rm web`), then pull or load it again\n"
            );
        }
    }

    #[test]
    fn a_guest_s_last_words_are_told() {
        let source = io::Error::from_raw_os_error(libc::EIO);
        let host = IsolationError::Host { action: "wait", source };
        assert_eq!(text(&host), "isolab: cannot wait: Input/output error (os error 5)\n");
        let ended = |console: &str| IsolationError::GuestEnded {
            reason: "reset".to_owned(),
            console: console.to_owned(),
        };
        let empty = text(&ended("\n"));
        assert!(empty.ends_with("workload did\nisolab: the guest's console is empty\n"), "{empty}");
        let panic = text(&ended("Kernel panic\n"));
        assert!(panic.ends_with("guest's console:\nKernel panic\n"), "{panic}");
    }
}
