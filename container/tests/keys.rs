//! Kernel keys of the caller: out of a container's reach. Needs root and gcc.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::ffi::CString;
use std::process::Command;

use support::{Fixture, run};

/// Searches the session and the user keyring for the key that `argv[1]` names, by all three ways into the kernel.
const SEARCH: &str = r#"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char description[64];

static long i386(long number, long a, long b, long c, long d) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void no_such_way(int signal) {
    puts("i386 absent");
    fflush(stdout);
    _exit(0);
}

static void tell(const char *way, const char *ring, long result) {
    printf("%s %s %s\n", way, ring, result >= 0 ? "found" : strerror(-result));
    fflush(stdout);
}

int main(int argc, char **argv) {
    const char *names[] = {"session", "user"};
    strncpy(description, argv[1], sizeof description - 1);
    signal(SIGSEGV, no_such_way);
    for (int way = 0; way < 3; way++)
        for (int ring = 0; ring < 2; ring++) {
            const char *type = "user"; /* below 4 GiB, as the program is not PIE */
            long id = ring == 0 ? -3 : -4, result;
            if (way == 2) {
                tell("i386", names[ring], i386(288, 10, id, (long)type, (long)description));
                continue;
            }
            result = syscall(way == 0 ? 250 : 0x40000000 | 250, 10L, id, type, description, 0L);
            tell(way == 0 ? "x86-64" : "x32", names[ring], result < 0 ? -errno : result);
        }
    syscall(248, "user", "of-the-container", "x", 1L, -3L) < 0 ? tell("add", "session", -errno) : tell("add", "session", 0);
    return 0;
}
"#;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_UNLINK: libc::c_int = 9;
const SESSION: libc::c_int = -3;
const USER: libc::c_int = -4;

/// A key of the caller's, in its session and user keyrings.
struct Secret {
    description: String,
    key: libc::c_long,
}

impl Secret {
    fn new() -> Self {
        let description = format!("isolab-test-{}", std::process::id());
        let name = CString::new(description.clone()).unwrap();
        // SAFETY: joins a new session keyring; then adds a key of six bytes, by C strings that live on.
        let key = unsafe {
            libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>());
            let add = |ring: libc::c_int| {
                let data = c"secret".as_ptr();
                libc::syscall(
                    libc::SYS_add_key,
                    c"user".as_ptr(),
                    name.as_ptr(),
                    data,
                    6usize,
                    ring,
                )
            };
            assert!(add(SESSION) > 0, "{}", std::io::Error::last_os_error());
            add(USER)
        };
        assert!(key > 0, "{}", std::io::Error::last_os_error());
        Secret { description, key }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: numbers only. The session keyring goes with this thread.
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_UNLINK, self.key, USER) };
    }
}

#[test]
fn keys_of_the_caller_cannot_be_found_from_inside() {
    let fixture = Fixture::new();
    let source = fixture.path("search.c");
    std::fs::write(&source, SEARCH).unwrap();
    let program = fixture.path("rootfs/bin/search");
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-no-pie", "-o"]).args([&program, &source]);
    assert!(gcc.status().expect("install gcc").success());
    let secret = Secret::new();
    let command = ["search", &secret.description];

    // On the host, from the same session: what the rest of the test relies on.
    let host = Command::new(&program).arg(&secret.description).output().unwrap();
    let host = String::from_utf8_lossy(&host.stdout).into_owned();
    assert!(host.contains("x86-64 session found\nx86-64 user found\n"), "{host}");

    for no_new_privs in [true, false] {
        let mut config = fixture.config(&command);
        let process = config.spec.process_mut().as_mut().unwrap();
        process.set_no_new_privileges(Some(no_new_privs));
        let output = run(config).unwrap().output;
        let denied: Vec<_> =
            output.lines().filter(|line| line.ends_with("not permitted")).collect();
        let absent = output.lines().filter(|line| *line == "i386 absent").count();
        let expected = if absent == 1 { 4 } else { 7 };
        assert_eq!(
            (denied.len(), output.lines().count()),
            (expected, expected + absent),
            "{output}"
        );
    }

    // The session keyring is a new one whatever the filter says.
    let mut config = fixture.config(&command);
    config.spec.linux_mut().as_mut().unwrap().set_seccomp(None);
    let output = run(config).unwrap().output;
    assert!(output.contains("x86-64 session Required key not available"), "{output}");
}
