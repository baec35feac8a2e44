//! Volumes and other mounts at `process` and `container`, on any host; and `isolab volume`.

use isolab_tests::volumes;

const LEVELS: [&str; 2] = ["process", "container"];

#[test]
fn what_is_kept_and_what_goes() {
    LEVELS.into_iter().for_each(volumes::kept_and_gone);
}

#[test]
fn what_the_image_has_is_there_at_first_use() {
    LEVELS.into_iter().for_each(volumes::copied_up);
}

#[test]
fn folders_of_the_host() {
    LEVELS.into_iter().for_each(volumes::host_folders);
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
fn wrong_volumes_are_refused() {
    LEVELS.into_iter().for_each(volumes::refused);
}

#[test]
fn a_volume_in_use_stays_also_after_a_kill() {
    LEVELS.into_iter().for_each(volumes::in_use);
}

#[test]
fn names_of_hosts() {
    LEVELS.into_iter().for_each(volumes::hosts);
}

#[test]
fn a_hostile_image_leads_no_mount_out_of_its_root() {
    LEVELS.into_iter().for_each(volumes::hostile_targets);
}
