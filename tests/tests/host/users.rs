//! Whom a workload runs as, and that an image cannot make it root.

use std::fs;

use isolab_tests::Sandbox;

/// A store with an image `odd` that has these files in /etc, and a Dockerfile's further lines.
fn image(passwd: &str, group: &str, lines: &str) -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    let context = tempfile::tempdir().expect("a temporary folder takes files");
    fs::write(context.path().join("passwd"), passwd).expect("a temporary folder takes files");
    fs::write(context.path().join("group"), group).expect("a temporary folder takes files");
    let dockerfile = format!("FROM busybox\nCOPY passwd group /etc/\n{lines}");
    fs::write(context.path().join("Dockerfile"), dockerfile)
        .expect("a temporary folder takes files");
    sandbox.isolab(&["image", "build", "-t", "odd"]).arg(context.path()).finish().success();
    sandbox
}

const TRAPS: &str = "short\nroot:x:0:0::/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\n\
    minus:x:4294967295:0::/:\nweb:x:33:34::/var:\n";
const GROUPS: &str = "short\nbad:x:none:web\n55:x:0:\nminus:x:4294967295:web\nlogs:x:40:web\n";
const WHO: &str = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' '";

#[test]
fn a_number_is_a_number_and_minus_one_is_nobody() {
    let sandbox = image(TRAPS, GROUPS, "");
    let run = |level: &str, user: &str| {
        let words = ["run", "--isolation", level, "-u", user, "odd", "sh", "-c", WHO];
        sandbox.isolab(&words).finish()
    };
    for level in ["process", "container"] {
        for (user, uid, gid, groups) in [
            ("1000", 1000, 0, "0"),
            ("web", 33, 34, "34 40"),
            ("web:55", 33, 55, "55"),
            ("4294967294:4294967294", 4_294_967_294u32, 4_294_967_294u32, "4294967294"),
        ] {
            let wanted = format!(
                "Uid: {uid} {uid} {uid} {uid}\nGid: {gid} {gid} {gid} {gid}\nGroups: {groups} \n"
            );
            assert_eq!(run(level, user).success(), wanted, "{level}: {user}");
        }
        for user in ["4294967295", "0:4294967295", "minus", "web:minus", "bad", "+0"] {
            run(level, user).fails_with(125, &[user]);
        }
    }
}

#[test]
fn what_an_image_says_of_its_user_is_held_to_the_same() {
    for user in ["4294967295", "1000:4294967295", "minus"] {
        let sandbox = image(TRAPS, GROUPS, &format!("USER {user}\n"));
        sandbox.isolab(&["run", "odd", "id"]).finish().fails_with(125, &[user]);
        // No user is as if none was given.
        let words = ["run", "-u", "", "odd", "id"];
        sandbox.isolab(&words).finish().fails_with(125, &[user]);
    }
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("Dockerfile"), "FROM busybox\nUSER 4294967295\nRUN id\n")
        .unwrap();
    let build = Sandbox::with_busybox().isolab(&["image", "build"]).arg(context.path()).finish();
    build.fails_with(125, &["4294967295"]);
}
