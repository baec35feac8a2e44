//! Volumes and other mounts, and copies of files, at the VM levels: needs a host with a working KVM, see `scripts/kvm-host`.

use isolab_tests::{copies, volumes};

const LEVELS: [&str; 2] = ["paravirt", "fullvirt"];

#[test]
fn what_is_kept_and_what_goes() {
    LEVELS.into_iter().for_each(volumes::kept_and_gone);
}

#[test]
fn what_the_image_has_is_there_at_first_use() {
    LEVELS.into_iter().for_each(volumes::copied_up);
}

#[test]
fn what_cannot_be_written() {
    LEVELS.into_iter().for_each(volumes::read_only);
}

#[test]
fn a_volume_is_as_good_as_a_folder() {
    LEVELS.into_iter().for_each(volumes::semantics);
}

#[test]
fn folders_and_disks_are_told_apart() {
    volumes::one_machine_at_a_time();
}

#[test]
fn what_is_synced_survives_a_kill_of_everything() {
    LEVELS.into_iter().for_each(volumes::survives_a_kill);
}

#[test]
fn names_of_hosts() {
    LEVELS.into_iter().for_each(volumes::hosts);
}

#[test]
fn files_are_copied() {
    LEVELS.into_iter().for_each(copies::in_and_out);
    LEVELS.into_iter().for_each(copies::archives);
}
