//! Options about what a workload may do beyond running.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use isolab_command::format::parse_size;
use isolab_isolation::{
    CapabilityChoice, Device, Seccomp, Security, UNCONFINED, Ulimit, UserNamespace, read_profile,
};

/// The options, with podman's names and words.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Rights and limits")]
pub struct SecurityOptions {
    /// Give the workload more capabilities: names of capabilities(7), with or without CAP_, or ALL. A container has 13
    /// of its own, a guest all of its kernel's, a plain process those of its caller. Another user than root keeps
    /// what is added by name.
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_add: Vec<CapabilityChoice>,
    /// Take capabilities from the workload.
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_drop: Vec<CapabilityChoice>,
    /// seccomp=FILE (a profile in podman's or the OCI's form) or seccomp=unconfined; no-new-privileges or
    /// no-new-privileges:false (a container's default is true); mask=PATHS, unmask=ALL or unmask=PATHS, with colons
    /// between; apparmor=PROFILE; label=disable. Profiles and mask are for containers.
    #[arg(long, value_name = "OPTION", value_parser = parse_option)]
    security_opt: Vec<SecurityOption>,
    /// Let a container do nearly all that its caller may: all capabilities and devices, no seccomp filter, nothing
    /// masked or read-only. Nothing at the other levels, whose root has all that they have.
    #[arg(long)]
    privileged: bool,
    /// Give a container a device of the host, or those in a folder. Permissions are of r, w and m (mknod).
    #[arg(long, value_name = "HOST[:CONTAINER[:PERMISSIONS]]")]
    device: Vec<Device>,
    /// Limit what each process uses of a resource, as ulimit -a names them: nofile=1024:4096. -1 is no limit.
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Set a kernel parameter: of a container's own namespaces, or of a guest's kernel.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_sysctl)]
    sysctl: Vec<(String, String)>,
    /// How much /dev/shm holds: 64M in a container, half of its RAM in a guest. Not at level process.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    shm_size: Option<u64>,
    /// Make the command a child of a process of ours, which passes signals on and reaps orphans. In a guest it always
    /// is one.
    #[arg(long)]
    init: bool,
    /// Whom a container's ids stand for. Without root: host and auto make the caller root, and the other ids those of
    /// its ranges of /etc/subuid and /etc/subgid; keep-id makes the caller itself. As root auto gives it 65536 ids of its
    /// own, of the ranges of the name containers.
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    userns: UserNamespace,
    /// Share the host's processes: host.
    #[arg(long, value_name = "MODE", value_parser = parse_sharing)]
    pid: Option<Sharing>,
    /// Share the host's System V objects and message queues: host.
    #[arg(long, value_name = "MODE", value_parser = parse_sharing)]
    ipc: Option<Sharing>,
    /// Share the host's name: host.
    #[arg(long, value_name = "MODE", value_parser = parse_sharing, conflicts_with = "hostname")]
    uts: Option<Sharing>,
    /// Put the command into a further group, by name or number.
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// The file mode creation mask, in octal; 0022 by default.
    #[arg(long, value_name = "MASK", value_parser = parse_umask)]
    umask: Option<u32>,
    /// How soon the kernel kills the command when memory runs out: -1000 (never) to 1000.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,
}

/// One of `--security-opt`.
#[derive(Clone, Debug)]
enum SecurityOption {
    SeccompUnconfined,
    SeccompProfile(PathBuf),
    NoNewPrivileges(bool),
    AppArmor(String),
    Mask(Vec<String>),
    Unmask(Vec<String>),
    /// SELinux, which no level uses.
    LabelDisable,
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Host,
    Private,
}

fn parse_sharing(text: &str) -> Result<Sharing, &'static str> {
    match text {
        "host" => Ok(Sharing::Host),
        "private" => Ok(Sharing::Private),
        _ => Err("expected host or private"),
    }
}

fn parse_option(text: &str) -> Result<SecurityOption, String> {
    // podman takes a colon as well.
    let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
    let paths = || -> Result<Vec<String>, String> {
        let paths: Vec<String> = value.split(':').map(str::to_owned).collect();
        match paths.iter().find(|path| !path.starts_with('/') && *path != "ALL") {
            Some(path) => Err(format!("`{path}` is not an absolute path")),
            None => Ok(paths),
        }
    };
    match (name, value) {
        ("seccomp", "") => Err("expected seccomp=FILE or seccomp=unconfined".to_owned()),
        ("seccomp", UNCONFINED) => Ok(SecurityOption::SeccompUnconfined),
        ("seccomp", path) => Ok(SecurityOption::SeccompProfile(path.into())),
        ("no-new-privileges", "" | "true") => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
        ("apparmor", profile) if !profile.is_empty() => {
            Ok(SecurityOption::AppArmor(profile.to_owned()))
        }
        ("mask", _) if value.split(':').any(|path| path == "ALL") => {
            Err("mask takes paths".to_owned())
        }
        ("mask", _) => paths().map(SecurityOption::Mask),
        ("unmask", _) => paths().map(SecurityOption::Unmask),
        ("label", "disable") => Ok(SecurityOption::LabelDisable),
        ("label", _) => {
            Err("isolab gives no SELinux labels; only label=disable is possible".to_owned())
        }
        _ => {
            Err("expected seccomp=, no-new-privileges, apparmor=, mask=, unmask= or label=disable"
                .to_owned())
        }
    }
}

fn parse_sysctl(text: &str) -> Result<(String, String), &'static str> {
    let expected = "expected NAME=VALUE, for example net.ipv4.ip_forward=1";
    let (name, value) = text.split_once('=').ok_or(expected)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) || name.contains("..") {
        return Err(expected);
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_umask(text: &str) -> Result<u32, &'static str> {
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or("expected octal digits up to 0777")
}

impl SecurityOptions {
    /// What they ask for, with the content of the files that they name.
    pub fn security(&self) -> Result<Security> {
        let mut security = Security {
            privileged: self.privileged,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            devices: self.device.clone(),
            ulimits: self.ulimit.clone(),
            sysctls: self.sysctl.iter().cloned().collect::<BTreeMap<_, _>>(),
            shm_size: self.shm_size.filter(|size| *size != 0),
            init: self.init,
            user_namespace: self.userns,
            host_pid: self.pid == Some(Sharing::Host),
            host_ipc: self.ipc == Some(Sharing::Host),
            host_uts: self.uts == Some(Sharing::Host),
            groups: self.group_add.clone(),
            umask: self.umask,
            oom_score_adj: self.oom_score_adj,
            ..Security::default()
        };
        for option in &self.security_opt {
            match option {
                SecurityOption::SeccompUnconfined => security.seccomp = Seccomp::Unconfined,
                SecurityOption::SeccompProfile(path) => security.seccomp = profile(path)?,
                SecurityOption::NoNewPrivileges(on) => security.no_new_privileges = Some(*on),
                SecurityOption::AppArmor(name) => security.apparmor = Some(name.clone()),
                SecurityOption::Mask(paths) => security.mask.extend(paths.iter().cloned()),
                SecurityOption::Unmask(paths) => security.unmask.extend(paths.iter().cloned()),
                SecurityOption::LabelDisable => {}
            }
        }
        Ok(security)
    }
}

fn profile(path: &Path) -> Result<Seccomp> {
    let content = read_profile(path)?;
    Ok(Seccomp::Profile { path: path.display().to_string(), content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_podman_s() {
        for good in [
            "seccomp=unconfined",
            "seccomp=/p.json",
            "no-new-privileges",
            "no-new-privileges:true",
            "no-new-privileges=false",
            "apparmor=unconfined",
            "mask=/proc/version:/sys/class",
            "unmask=ALL",
            "unmask=/proc/*",
            "label=disable",
        ] {
            assert!(parse_option(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "seccomp",
            "no-new-privileges=maybe",
            "mask=ALL",
            "mask=proc",
            "label=type:x",
            "x=y",
        ] {
            assert!(parse_option(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_and_masks() {
        assert!(parse_sysctl("net.ipv4.conf.eth0/5.forwarding=1").is_ok());
        for bad in ["net.x", "=1", "a b=1", "net...x=1"] {
            assert!(parse_sysctl(bad).is_err(), "{bad}");
        }
        assert_eq!((parse_umask("0027"), parse_umask("0")), (Ok(0o27), Ok(0)));
        assert!(parse_umask("1000").is_err() && parse_umask("8").is_err());
    }
}
