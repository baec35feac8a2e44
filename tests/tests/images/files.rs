//! The files of images that others made, as a workload sees them.

use isolab_tests::odd_image::{MAKERS, Made};

/// Leaves the images for the test `files`, which looks at them at every level.
#[test]
fn images_of_every_maker_have_all_their_files() {
    for (maker, make) in MAKERS {
        let work = tempfile::tempdir().unwrap();
        let made: Made = make(work.path());
        let sandbox = made.load();
        for level in ["process", "container"] {
            made.check(&sandbox, maker, &["--isolation", level]);
        }
        made.keep(maker);
    }
}
