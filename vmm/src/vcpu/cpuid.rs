//! What CPUID tells each vCPU: KVM's host-wide answer, made true for one CPU of this machine.
//!
//! Sources: Intel SDM 2A, CPUID; AMD APM 3, appendix E; Documentation/virt/kvm/x86/cpuid.rst.
//! The topology is one package of `cpus` cores with one thread each; APIC ids count from 0.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use crate::kvm::KvmError;

/// The leaves that hypervisors use.
const HYPERVISOR_LEAVES: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;

/// The frequency of KVM's local APIC timer, which Linux takes for the crystal's.
const APIC_HZ: u32 = 1_000_000_000;

/// What the host's KVM supports.
pub struct HostCpuid {
    entries: Vec<kvm_cpuid_entry2>,
    has_tsc_deadline: bool,
}

impl HostCpuid {
    /// Asks KVM.
    ///
    /// # Errors
    /// KVM refused.
    pub fn read(kvm: &Kvm) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::call("KVM_GET_SUPPORTED_CPUID"))?;
        let has_tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self { entries: supported.as_slice().to_vec(), has_tsc_deadline })
    }

    /// The width of guest-physical addresses.
    pub fn physical_address_bits(&self) -> u32 {
        let leaf = self.entries.iter().find(|e| e.function == 0x8000_0008);
        leaf.map_or(36, |e| e.eax & 0xff)
    }

    /// The answers for vCPU `id` of `cpus`, which shows itself as KVM's if `shows_kvm` is set.
    /// `tsc_khz` is its time stamp counter's frequency, where KVM knows it.
    ///
    /// # Errors
    /// More leaves than KVM takes.
    pub fn for_vcpu(
        &self,
        id: u32,
        cpus: u32,
        shows_kvm: bool,
        tsc_khz: Option<u32>,
    ) -> Result<CpuId, KvmError> {
        let vcpu = Vcpu { id, cpus, shows_kvm, has_tsc_deadline: self.has_tsc_deadline };
        let entries = vcpu.patch(&self.entries, tsc_khz);
        CpuId::from_entries(&entries).map_err(|_| KvmError::Call {
            call: "KVM_SET_CPUID2 (too many leaves)",
            source: std::io::Error::from_raw_os_error(libc::E2BIG),
        })
    }
}

struct Vcpu {
    id: u32,
    cpus: u32,
    shows_kvm: bool,
    has_tsc_deadline: bool,
}

impl Vcpu {
    fn patch(&self, host: &[kvm_cpuid_entry2], tsc_khz: Option<u32>) -> Vec<kvm_cpuid_entry2> {
        let hidden = !self.shows_kvm;
        let mut entries: Vec<_> = host
            .iter()
            .filter(|e| !(hidden && HYPERVISOR_LEAVES.contains(&e.function)))
            .filter(|e| !matches!(e.function, 0x0b | 0x15 | 0x16 | 0x1f))
            .copied()
            .collect();
        entries.iter_mut().for_each(|entry| self.patch_leaf(entry));
        let highest = host.iter().find(|e| e.function == 0).map_or(0, |e| e.eax);
        if highest >= 0x0b {
            entries.extend(self.extended_topology(0x0b));
        }
        if highest >= 0x1f {
            entries.extend(self.extended_topology(0x1f));
        }
        // A guest with kvmclock is told the frequency there.
        if let Some(khz) = tsc_khz.filter(|_| hidden && highest >= 0x15) {
            entries.push(tsc_frequency(khz));
        }
        entries
    }

    fn patch_leaf(&self, entry: &mut kvm_cpuid_entry2) {
        const X2APIC_ID_BITS: u32 = 8;
        match entry.function {
            0x1 => self.features(entry),
            // Cache sharing and, on Intel, the number of cores.
            0x4 if entry.eax & 0x1f != 0 => {
                let sharing = self.cpus_sharing(entry) - 1;
                entry.eax = entry.eax & 0x3fff | sharing << 14 | (self.cpus - 1).min(63) << 26;
            }
            0x8000_001d if entry.eax & 0x1f != 0 => {
                let sharing = self.cpus_sharing(entry) - 1;
                entry.eax = entry.eax & 0x3fff | sharing << 14;
            }
            // CmpLegacy: the logical processors of leaf 1 are cores.
            0x8000_0001 if is_amd(entry) => set_bit(&mut entry.ecx, 1, self.cpus > 1),
            0x8000_0008 => {
                entry.ecx = entry.ecx & !0xf0ff | (self.cpus - 1) & 0xff | X2APIC_ID_BITS << 12;
            }
            0x8000_001e => {
                entry.eax = self.id;
                entry.ebx = self.id & 0xff; // Core id; one thread per core.
                entry.ecx = 0; // One node.
            }
            _ => {}
        }
    }

    fn features(&self, entry: &mut kvm_cpuid_entry2) {
        const TSC_DEADLINE: u32 = 24;
        const HYPERVISOR: u32 = 31;
        const HTT: u32 = 28;
        entry.ebx = entry.ebx & 0xffff | self.cpus.min(255) << 16 | self.id << 24;
        // Not in KVM's supported leaves before Linux 6.9, because it needs the in-kernel APIC.
        // Without it Linux calibrates the APIC timer for a quarter of a second.
        set_bit(&mut entry.ecx, TSC_DEADLINE, self.has_tsc_deadline);
        set_bit(&mut entry.ecx, HYPERVISOR, self.shows_kvm);
        set_bit(&mut entry.edx, HTT, self.cpus > 1);
    }

    /// Only the last-level cache is shared.
    fn cpus_sharing(&self, entry: &kvm_cpuid_entry2) -> u32 {
        let level = entry.eax >> 5 & 7;
        if level >= 3 { self.cpus } else { 1 }
    }

    /// Leaves 0xB and 0x1F: levels "thread", "core", and the end of the list.
    fn extended_topology(&self, function: u32) -> Vec<kvm_cpuid_entry2> {
        const SIGNIFICANT_INDEX: u32 = 1; // KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        const THREAD: u32 = 1;
        const CORE: u32 = 2;
        let core_bits = self.cpus.next_power_of_two().trailing_zeros();
        let level = |index, bits, count, kind: u32| kvm_cpuid_entry2 {
            function,
            index,
            flags: SIGNIFICANT_INDEX,
            eax: bits,
            ebx: count,
            ecx: index | kind << 8,
            edx: self.id,
            ..kvm_cpuid_entry2::default()
        };
        vec![level(0, 0, 1, THREAD), level(1, core_bits, self.cpus, CORE), level(2, 0, 0, 0)]
    }
}

/// Leaf 0x15: the counter's frequency as a ratio to the crystal's, as new Intel CPUs tell it.
/// Linux looks at it on Intel only, and calibrates against the PIT elsewhere.
fn tsc_frequency(khz: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: 0x15,
        eax: APIC_HZ / 1000,
        ebx: khz,
        ecx: APIC_HZ,
        ..kvm_cpuid_entry2::default()
    }
}

/// CmpLegacy is reserved on Intel, whose leaf 0x80000001 has no SVM (bit 2) and SSE4A (bit 6).
fn is_amd(entry: &kvm_cpuid_entry2) -> bool {
    entry.ecx & (1 << 2 | 1 << 6) != 0
}

fn set_bit(register: &mut u32, bit: u32, value: bool) {
    *register = *register & !(1 << bit) | u32::from(value) << bit;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn host() -> HostCpuid {
        HostCpuid {
            entries: vec![
                entry(0, 0, [0x1f, 0, 0, 0]),
                entry(1, 0, [0, 0x0701_0800, 1 << 31, 0]),
                entry(4, 0, [0x1c00_4121, 0, 0, 0]), // L1 data
                entry(4, 3, [0x1c03_c163, 0, 0, 0]), // L3
                entry(4, 4, [0, 0, 0, 0]),
                entry(0xb, 0, [9, 9, 9, 9]),
                entry(0x4000_0000, 0, [0x4000_0001, 0, 0, 0]),
                entry(0x4000_0001, 0, [0xff, 0, 0, 0]),
                entry(0x8000_0008, 0, [48, 0, 0, 0]),
                entry(0x8000_001e, 0, [7, 7, 7, 7]),
            ],
            has_tsc_deadline: true,
        }
    }

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> Option<[u32; 4]> {
        let found = cpuid.as_slice().iter().find(|e| (e.function, e.index) == (function, index))?;
        Some([found.eax, found.ebx, found.ecx, found.edx])
    }

    #[test]
    fn every_vcpu_has_its_own_apic_id_in_every_leaf() {
        let cpuid = host().for_vcpu(2, 3, true, None).unwrap();
        assert_eq!(leaf(&cpuid, 1, 0).unwrap()[1], 0x0203_0800);
        assert_eq!(leaf(&cpuid, 0xb, 0).unwrap(), [0, 1, 0x100, 2]);
        assert_eq!(leaf(&cpuid, 0xb, 1).unwrap(), [2, 3, 0x201, 2]);
        assert_eq!(leaf(&cpuid, 0x1f, 2).unwrap(), [0, 0, 2, 2]);
        assert_eq!(leaf(&cpuid, 0x8000_001e, 0).unwrap()[..2], [2, 2]);
        assert_eq!(leaf(&cpuid, 0x8000_0008, 0).unwrap()[2], 0x8002);
        let shared_by = |index| (leaf(&cpuid, 4, index).unwrap()[0] >> 14 & 0xfff) + 1;
        assert_eq!((shared_by(0), shared_by(3)), (1, 3));
        assert_eq!(leaf(&cpuid, 4, 4).unwrap()[0], 0);
        assert_eq!(host().physical_address_bits(), 48);
    }

    #[test]
    fn the_emulated_machine_shows_no_hypervisor() {
        let cpuid = host().for_vcpu(0, 1, false, Some(2_000_000)).unwrap();
        assert_eq!(leaf(&cpuid, 1, 0).unwrap()[2] >> 31, 0);
        assert!(cpuid.as_slice().iter().all(|e| !HYPERVISOR_LEAVES.contains(&e.function)));
        let [denominator, numerator, crystal, _] = leaf(&cpuid, 0x15, 0).unwrap();
        let hz = u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
        assert_eq!(hz, 2_000_000_000);
    }

    #[test]
    fn the_paravirtual_machine_shows_kvm() {
        let cpuid = host().for_vcpu(0, 1, true, Some(2_000_000)).unwrap();
        let [_, _, features, feature_flags] = leaf(&cpuid, 1, 0).unwrap();
        assert_eq!((features >> 31, features >> 24 & 1), (1, 1));
        assert_eq!(feature_flags >> 28 & 1, 0);
        assert_eq!(leaf(&cpuid, 0x4000_0001, 0).unwrap()[0], 0xff);
        assert!(leaf(&cpuid, 0x15, 0).is_none());
    }
}
