//! What is the same at every level, in containers with ids of their own (`--userns auto` as root).

use isolab_tests::user_ids::with_own_ids;
use isolab_tests::{copies, ends, foreground, lifecycle, volumes, workloads};

/// Tests by these names.
macro_rules! tests {
    ($($name:ident: $test:expr;)*) => {
        $(#[test]
        fn $name() {
            with_own_ids($test);
        })*
    };
}

tests! {
    a_service: lifecycle::a_service;
    courses: lifecycle::courses;
    writes: lifecycle::writes;
    health: lifecycle::health;
    detach_keys: lifecycle::detach_keys;
    kills: |level| lifecycle::kills(level, 3);
    out_of_memory: ends::out_of_memory;
    terminal: foreground::terminal;
    copies: copies::in_and_out;
    archives: copies::archives;
    volumes_are_kept: volumes::kept_and_gone;
    volumes_begin_with_the_image: volumes::copied_up;
    volumes_are_as_good_as_folders: volumes::semantics;
    what_cannot_be_written: volumes::read_only;
    a_volume_in_use: volumes::in_use;
    hostile_targets: volumes::hostile_targets;
    output_and_exit_code: workloads::output_and_exit_code;
    commands_that_do_not_start: workloads::commands_that_do_not_start;
    standard_input: workloads::standard_input;
    signals: workloads::signals;
    names: workloads::names;
    name_files: workloads::name_files;
    a_fresh_root: workloads::a_fresh_root_each_time;
    rights_and_limits: workloads::rights_and_limits;
}
