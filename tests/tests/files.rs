//! The same files at every level, whoever made the image.

use isolab_tests::odd_image::{MAKERS, Made};

#[test]
fn every_level_has_all_files_of_every_maker_s_image() {
    for (maker, _) in MAKERS {
        let made = Made::kept(maker);
        let sandbox = made.load();
        for level in ["process", "container"] {
            made.check(&sandbox, maker, &["--isolation", level]);
        }
        for level in ["paravirt", "fullvirt"] {
            let options = ["--isolation", level, "--kernel", "slim", "--memory", "128M"];
            made.check(&sandbox, maker, &options);
        }
    }
}

/// The stock kernel's EROFS, ext4 and overlayfs are modules, and its own.
#[test]
fn the_stock_kernel_has_all_files() {
    let (maker, _) = MAKERS[0];
    let made = Made::kept(maker);
    made.check(&made.load(), maker, &["--isolation", "fullvirt", "--kernel", "stock"]);
}
