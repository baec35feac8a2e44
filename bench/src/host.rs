//! What a measurement ran on: the head of every report.

use std::collections::BTreeMap;
use std::fs;

use raw_cpuid::{CpuId, Hypervisor};
use serde::{Deserialize, Serialize};

/// Whether KVM runs on a processor's own virtualisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvmKind {
    /// The host is no guest.
    Hardware,
    /// The host is itself a guest of a hypervisor that nests.
    Nested,
    /// The host is emulated by QEMU's TCG: compare within one run only.
    Emulated,
    /// As [`KvmKind::Emulated`], with instructions counted as time.
    EmulatedIcount,
}

impl KvmKind {
    /// A few words for people.
    pub fn describe(self) -> &'static str {
        match self {
            KvmKind::Hardware => "hardware",
            KvmKind::Nested => "nested (this host is a guest itself)",
            KvmKind::Emulated => {
                "EMULATED (QEMU TCG with SVM): ratios within this run mean something, times do not"
            }
            KvmKind::EmulatedIcount => {
                "EMULATED (QEMU TCG with SVM), instructions counted as 2 ns each: repeatable, \
                 no hardware's times"
            }
        }
    }

    fn detect() -> Self {
        let cpuid = CpuId::new();
        if !cpuid.get_feature_info().is_some_and(|features| features.has_hypervisor()) {
            return KvmKind::Hardware;
        }
        let hypervisor = cpuid.get_hypervisor_info().map(|it| it.identify());
        let icount = fs::read_to_string("/proc/cmdline")
            .is_ok_and(|line| line.split_whitespace().any(|word| word == "isolab.icount"));
        match (hypervisor, icount) {
            // Of its own making (TCG); with KVM it has KVM's signature.
            (Some(Hypervisor::QEMU), true) => KvmKind::EmulatedIcount,
            (Some(Hypervisor::QEMU), false) => KvmKind::Emulated,
            _ => KvmKind::Nested,
        }
    }
}

/// The host, as far as it matters to a figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// The processor's model name.
    pub cpu: String,
    /// Processors online.
    pub cpus: usize,
    /// Whether the figures are of hardware virtualisation.
    pub kvm: KvmKind,
    /// `uname -r` of the host.
    pub kernel: String,
    /// What the kernel does about each flaw of the processor's, in its own words.
    pub mitigations: BTreeMap<String, String>,
    /// The kernel that the guests ran: its name and release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_kernel: Option<String>,
    /// The image that was run, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its manifest's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

impl Host {
    /// Looks at the host. `image` is a name and a digest.
    pub fn detect(image: Option<(String, String)>, guest_kernel: Option<String>) -> Self {
        let (image, image_digest) = image.unzip();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let release = nix::sys::utsname::uname()
            .map_or_else(|_| "unknown".to_owned(), |u| u.release().to_string_lossy().into_owned());
        Self {
            cpu: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kvm: KvmKind::detect(),
            kernel: release,
            mitigations: mitigations().unwrap_or_default(),
            guest_kernel,
            image,
            image_digest,
        }
    }
}

/// Documentation/ABI/testing/sysfs-devices-system-cpu, "vulnerabilities".
fn mitigations() -> std::io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities")? {
        let entry = entry?;
        let state = fs::read_to_string(entry.path())?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), state.trim().to_owned());
    }
    Ok(found)
}
