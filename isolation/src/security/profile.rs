//! Seccomp profiles in podman's and Docker's form, whose rules depend on capabilities and architecture, and in the
//! OCI specification's, whose rules do not.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSyscall,
};
use serde::Deserialize;
use serde_json::Value;

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read the seccomp profile {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is no profile.
    #[error("{} is no seccomp profile", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// More is no profile, in bytes.
const MAX_LENGTH: u64 = 4 << 20;

/// Of this architecture, as podman's profiles call it.
const ARCHITECTURE: &str = "amd64";

/// Reads the file and makes sure that it can be used.
///
/// # Errors
/// It cannot be read, or is no profile.
pub fn read_profile(path: &Path) -> Result<Value, ProfileError> {
    let read = || {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_LENGTH).read_to_end(&mut text).map(|_| text)
    };
    let text = read().map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
    let form = |source| ProfileError::Form { path: path.to_owned(), source };
    let content = serde_json::from_slice(&text).map_err(form)?;
    to_oci(&content, &Capabilities::new()).map_err(form)?;
    Ok(content)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<Architectures>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    listener_path: Option<PathBuf>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

/// An architecture and those that its kernels run besides.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architectures {
    architecture: Value,
    #[serde(default)]
    sub_architectures: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

/// When a rule holds, or does not.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    /// `4.8`: of the kernel.
    min_kernel: Option<String>,
}

/// The profile for a container whose bounding set is `capabilities`.
pub(super) fn to_oci(
    content: &Value,
    capabilities: &Capabilities,
) -> Result<LinuxSeccomp, serde_json::Error> {
    let profile = Profile::deserialize(content)?;
    let has = |name: &String| {
        name.strip_prefix("CAP_")
            .and_then(|name| name.parse().ok())
            .is_some_and(|capability| capabilities.contains(&capability))
    };
    let holds = |rule: &Rule| {
        let includes = rule.includes.as_ref().is_none_or(|it| {
            it.caps.iter().all(has)
                && (it.arches.is_empty() || it.arches.iter().any(|arch| arch == ARCHITECTURE))
                && it.min_kernel.as_deref().is_none_or(kernel_is_at_least)
        });
        let excludes = rule.excludes.as_ref().is_some_and(|it| {
            it.caps.iter().any(has)
                || it.arches.iter().any(|arch| arch == ARCHITECTURE)
                || it.min_kernel.as_deref().is_some_and(kernel_is_at_least)
        });
        includes && !excludes
    };
    let to_rule = |rule: Rule| {
        let mut oci = LinuxSyscall::default();
        oci.set_names(rule.name.into_iter().chain(rule.names).collect())
            .set_action(rule.action)
            .set_errno_ret(rule.errno_ret)
            .set_args(rule.args.filter(|args| !args.is_empty()));
        oci
    };
    let rules = profile.syscalls.into_iter().flatten().filter(holds).map(to_rule).collect();
    let mapped = profile.arch_map.into_iter().flatten();
    let own = mapped
        .filter(|it| it.architecture == "SCMP_ARCH_X86_64")
        .flat_map(|it| [it.architecture].into_iter().chain(it.sub_architectures));
    let own: Vec<Arch> = own.map(serde_json::from_value).collect::<Result<_, _>>()?;
    let mut oci = LinuxSeccomp::default();
    oci.set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(Some(profile.architectures.unwrap_or(own)))
        .set_flags(profile.flags)
        .set_listener_path(profile.listener_path)
        .set_listener_metadata(profile.listener_metadata)
        .set_syscalls(Some(rules));
    Ok(oci)
}

fn kernel_is_at_least(version: &str) -> bool {
    let release = nix::sys::utsname::uname();
    let release = release.as_ref().map(|it| it.release().to_string_lossy().into_owned());
    is_at_least(&release.unwrap_or_default(), version)
}

fn is_at_least(release: &str, version: &str) -> bool {
    let numbers = |text: &str| {
        let mut parts = text.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    numbers(release) >= numbers(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;
    use serde_json::json;

    #[test]
    fn rules_hold_by_capability_and_architecture() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
            "archMap": [
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            ],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
                {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {"caps": ["CAP_BPF"]}},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_BPF"]}},
                {"name": "cacheflush", "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
                {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            ],
        });
        let actions = |capabilities: &[Capability]| -> Vec<String> {
            let oci = to_oci(&profile, &capabilities.iter().copied().collect()).unwrap();
            assert_eq!(oci.architectures().as_ref().unwrap().len(), 2);
            let rule =
                |rule: &LinuxSyscall| format!("{} {}", rule.names().join(" "), rule.action());
            oci.syscalls().iter().flatten().map(rule).collect()
        };
        assert_eq!(
            actions(&[]),
            ["read SCMP_ACT_ALLOW", "bpf SCMP_ACT_ERRNO", "ptrace SCMP_ACT_ALLOW"]
        );
        assert_eq!(
            actions(&[Capability::Bpf]),
            ["read SCMP_ACT_ALLOW", "bpf SCMP_ACT_ALLOW", "ptrace SCMP_ACT_ALLOW"]
        );
        for bad in [json!([]), json!({}), json!({"defaultAction": "ALLOW"})] {
            assert!(to_oci(&bad, &Capabilities::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_at_least("6.18.44-fc", "4.8") && is_at_least("4.8.0", "4.8"));
        assert!(!is_at_least("4.4.0-210", "4.8") && is_at_least("5.10-rc1", "5.9"));
    }
}
