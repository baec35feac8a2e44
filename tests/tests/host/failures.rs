//! What an operator reads when something fails: the exact words, for every command.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use isolab_tests::{Run, Sandbox, cached, isolab_path, text};

use super::as_nobody;

/// Words of a command, the exit code, and all of standard error. `{data}` is the store's folder, `{dir}` that of
/// the fixtures, `{registry}` a registry that lets nobody in.
type Case = (&'static [&'static str], i32, &'static str);

const RUN: &[Case] = &[
    (
        &["run", "--pull", "never", "absent", "true"],
        125,
        "isolab: there is no image `absent` here\n\
         isolab: hint: `isolab image ls` shows the images that are here, `isolab image pull` or `isolab image load` brings one\n",
    ),
    (
        &["run", "--pull", "never", "Two Words", "true"],
        125,
        "isolab: `Two Words` is not an image reference: invalid reference format\n",
    ),
    (
        &["run", "--quiet", "localhost:1/app", "true"],
        125,
        "isolab: there is no image `localhost:1/app` here: cannot pull localhost:1/app:latest: localhost:1 cannot be reached: Connection refused (os error 111)\n\
         isolab: hint: a registry that has no TLS is reached with --insecure\n",
    ),
    (
        &["run", "sha256:0123456789ab", "true"],
        125,
        "isolab: there is no image `sha256:0123456789ab` here\n\
         isolab: hint: `isolab image ls` shows the images that are here, `isolab image pull` or `isolab image load` brings one\n",
    ),
    (&["run", "busybox", "no-such-command"], 127, "isolab: no-such-command: command not found\n"),
    (
        &["run", "--isolation", "process", "busybox", "no-such-command"],
        127,
        "isolab: no-such-command: command not found\n",
    ),
    (
        &["run", "busybox", "/etc/passwd"],
        126,
        "isolab: /etc/passwd: cannot be executed: Permission denied (os error 13)\n",
    ),
    (
        &["run", "-u", "mallory", "busybox", "true"],
        125,
        "isolab: user `mallory`: no such name in the image's /etc/passwd\n",
    ),
    (
        &["run", "--memory", "12X", "busybox", "true"],
        125,
        "error: invalid value '12X' for '--memory <SIZE>': `12X`: expected a size such as 512M or 1.5G\n\
         \n\
         For more information, try '--help'.\n",
    ),
    (
        &["run"],
        125,
        "error: the following required arguments were not provided:\n\
         \x20 <IMAGE>\n\
         \n\
         Usage: isolab run <IMAGE> [COMMAND]...\n\
         \n\
         For more information, try '--help'.\n",
    ),
    (
        &["run", "--network", "tap=t0,ip=10.0.0.2/24", "busybox", "true"],
        125,
        "isolab: network: a tap is for the levels paravirt and fullvirt\n",
    ),
    (
        &["run", "--isolation", "paravirt", "--kernel", "none", "busybox", "true"],
        125,
        "isolab: there is no guest kernel `none`: it is neither a file nor the name of a kernel in {cache}/kernels\n\
         isolab: hint: `isolab kernel fetch` brings stock and cloud, `isolab kernel build` makes slim\n",
    ),
    (
        &["run", "--timings", "/no/such/folder/t", "busybox", "true"],
        125,
        "isolab: cannot write /no/such/folder/t: No such file or directory (os error 2)\n",
    ),
];

const IMAGE: &[Case] = &[
    (
        &["image", "pull", "localhost:1/app"],
        125,
        "isolab: cannot pull localhost:1/app:latest: localhost:1 cannot be reached: Connection refused (os error 111)\n\
         isolab: hint: a registry that has no TLS is reached with --insecure\n",
    ),
    (
        &["image", "pull", "--insecure", "localhost:1/app"],
        125,
        "isolab: cannot pull localhost:1/app:latest: localhost:1 cannot be reached: Connection refused (os error 111)\n",
    ),
    (
        &["image", "pull", "--insecure", "{registry}/app"],
        125,
        "isolab: cannot pull {registry}/app:latest: {registry} denies it, or there is no such image\n\
         isolab: hint: `isolab image login {registry}` takes a user and a password\n",
    ),
    (
        &["image", "push", "--insecure", "busybox", "{registry}/app"],
        125,
        "isolab: cannot push {registry}/app:latest: {registry} denies it, or there is no such image\n\
         isolab: hint: `isolab image login {registry}` takes a user and a password\n",
    ),
    (
        &["image", "login", "--insecure", "-u", "me", "--password-stdin", "{registry}"],
        125,
        "isolab: cannot log in to {registry}: it does not take this user and password\n",
    ),
    (
        &["image", "login", "{registry}"],
        125,
        "isolab: there is no terminal to ask at; use --password-stdin\n",
    ),
    (
        &["image", "pull", "--cert-dir", "/no/such", "localhost:1/app"],
        125,
        "isolab: cannot read the certificates in /no/such: No such file or directory (os error 2)\n",
    ),
    (
        &["image", "rm", "absent"],
        125,
        "isolab: there is no image `absent` here\n\
         isolab: hint: `isolab image ls` shows the images that are here, `isolab image pull` or `isolab image load` brings one\n",
    ),
    (
        &["image", "tag", "busybox", "No Name"],
        125,
        "isolab: `No Name` is not an image reference: invalid reference format\n",
    ),
    (
        &["image", "inspect", "absent"],
        125,
        "isolab: there is no image `absent` here\n\
         isolab: hint: `isolab image ls` shows the images that are here, `isolab image pull` or `isolab image load` brings one\n",
    ),
    (
        &["image", "save", "-o", "/no/such/folder/a.tar", "busybox"],
        125,
        "isolab: cannot write to /no/such/folder/a.tar: No such file or directory (os error 2)\n",
    ),
    (
        &["image", "load", "/no/such.tar"],
        125,
        "isolab: cannot open /no/such.tar: No such file or directory (os error 2)\n",
    ),
    (
        &["image", "load", "{dir}/text"],
        125,
        "isolab: {dir}/text is not an OCI image layout, nor an archive of one: unexpected end of file\n",
    ),
    (
        &["image", "load", "{dir}/cut.tar"],
        125,
        "isolab: {dir}/cut.tar is not an OCI image layout, nor an archive of one: unexpected end of file\n",
    ),
];

const BUILD: &[Case] = &[
    (
        &["image", "build", "{dir}/empty"],
        125,
        "isolab: cannot read {dir}/empty/Dockerfile: No such file or directory (os error 2)\n",
    ),
    (
        &["image", "build", "-q", "-f", "{dir}/unknown", "{dir}/empty"],
        125,
        "isolab: {dir}/unknown: line 2: `RUNN` is no instruction of a Dockerfile\n",
    ),
    (
        &["image", "build", "-q", "-f", "{dir}/copy", "{dir}/empty"],
        125,
        "isolab: {dir}/copy:2: COPY absent /: there is no `absent` in what is copied from (.dockerignore counts)\n",
    ),
    (
        &["image", "build", "-q", "-f", "{dir}/fails", "{dir}/empty"],
        125,
        "isolab: {dir}/fails:2: RUN exit 3: the command ended with exit code 3\n",
    ),
    (
        &["image", "build", "-q", "-f", "{dir}/secret", "{dir}/empty"],
        125,
        "isolab: {dir}/secret:2: RUN --mount=type=secret,id=token,required true: the secret `token` is required, but was not given\n\
         isolab: hint: --secret id=token,src=FILE gives it\n",
    ),
    (
        &["image", "build", "-q", "-f", "{dir}/network", "{dir}/empty"],
        125,
        "isolab: {dir}/network:2: RUN --network=host true: the build is not allowed the host's network\n\
         isolab: hint: --network host allows it\n",
    ),
    (
        &["image", "build", "-q", "-f", "{dir}/user", "{dir}/empty"],
        125,
        "isolab: {dir}/user:3: RUN true: user `mallory`: no such name in the image's /etc/passwd\n",
    ),
];

/// What fails before a machine is there, on a host without KVM alike.
const MACHINES: &[Case] = &[
    (
        &["vm", "run", "--kernel", "/no/such/vmlinux"],
        125,
        "isolab: cannot read kernel /no/such/vmlinux: No such file or directory (os error 2)\n",
    ),
    (
        &["vm", "run", "--kernel", "{dir}/cut-elf"],
        125,
        "isolab: kernel {dir}/cut-elf is truncated: it has 100 bytes where its headers need 624\n",
    ),
    (
        &["vm", "run", "--kernel", "{dir}/cut-bzimage"],
        125,
        "isolab: kernel {dir}/cut-bzimage starts in real mode and needs a BIOS, as iPXE's .lkrn and boot floppies do: put it on a disk or CD, and start that by PC firmware\n",
    ),
    (
        &["vm", "run", "--kernel", "{dir}/text"],
        125,
        "isolab: {dir}/text is not a kernel: neither ELF nor an x86 bzImage or multiboot image\n",
    ),
    (
        &["vm", "run", "--kernel", "{dir}/text", "--disk", "{dir}/text,cache=none,engine=fast"],
        2,
        "error: invalid value '{dir}/text,cache=none,engine=fast' for '--disk <DISK>': disk option engine=fast: expected sync or io_uring\n\
         \n\
         For more information, try '--help'.\n",
    ),
    (
        &["vm", "info", "/no/such.sock"],
        125,
        "isolab: cannot reach a machine at /no/such.sock: No such file or directory (os error 2)\n\
         isolab: hint: is a machine running that was started with --api-socket /no/such.sock?\n",
    ),
    (
        &["vm", "kill", "{dir}/text"],
        125,
        "isolab: cannot reach a machine at {dir}/text: Connection refused (os error 111)\n\
         isolab: hint: is a machine running that was started with --api-socket {dir}/text?\n",
    ),
    (
        &["bench", "startup", "--image", "absent", "--runs", "1", "--isolation", "container"],
        125,
        "isolab: there is no image `absent` here\n\
         isolab: hint: `isolab image ls` shows the images that are here, `isolab image pull` or `isolab image load` brings one\n",
    ),
    (
        &["bench", "startup", "--isolation", "chroot"],
        2,
        "error: invalid value 'chroot' for '--isolation <LEVEL,...>': no isolation level `chroot`; there are process, container, paravirt and fullvirt\n\
         \n\
         For more information, try '--help'.\n",
    ),
    (
        &["check", "--format", "xml"],
        2,
        "error: invalid value 'xml' for '--format <FORMAT>'\n\
         \x20 [possible values: table, json]\n\
         \n\
         For more information, try '--help'.\n",
    ),
    (
        &["system", "df", "--format", "xml"],
        2,
        "error: invalid value 'xml' for '--format <FORMAT>'\n\
         \x20 [possible values: table, json]\n\
         \n\
         For more information, try '--help'.\n",
    ),
];

/// The files that the cases name.
fn fixtures(sandbox: &Sandbox, folder: &Path) {
    let write = |name: &str, content: &[u8]| {
        fs::write(folder.join(name), content).expect("the folder is ours");
    };
    let archive = text(&folder.join("whole.tar")).to_owned();
    sandbox.isolab(&["image", "save", "-o", &archive, "busybox"]).finish().success();
    let whole = fs::read(archive).expect("it was saved");
    write("cut.tar", &whole[..whole.len() / 2]);
    write("text", b"no program, no archive, no disk\n");
    let elf = fs::read(isolab_path()).expect("it is there");
    let mut elf = elf[..100].to_vec();
    // e_phnum: how many program headers there would be, whatever the linker made.
    elf[56] = 10;
    write("cut-elf", &elf);
    // Documentation/arch/x86/boot.rst: the boot sector's mark, the header's, its version.
    let mut bzimage = vec![0; 0x300];
    bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bzimage[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
    write("cut-bzimage", &bzimage);
    write("qcow2", &[&b"QFI\xfb\0\0\0\x03"[..], &[0; 504]].concat());
    fs::create_dir(folder.join("empty")).expect("the folder is ours");
    for (name, dockerfile) in [
        ("unknown", "FROM busybox\nRUNN true\n"),
        ("copy", "FROM busybox\nCOPY absent /\n"),
        ("fails", "FROM busybox\nRUN exit 3\n"),
        ("secret", "FROM busybox\nRUN --mount=type=secret,id=token,required true\n"),
        ("network", "FROM busybox\nRUN --network=host true\n"),
        ("user", "FROM busybox\nUSER mallory\nRUN true\n"),
    ] {
        write(name, dockerfile.as_bytes());
    }
}

/// A registry that lets nobody in, for as long as the test runs; its address.
fn closed_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            // One request a connection, which fits.
            let _ = stream.read(&mut request);
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"closed\"\r\n\
                  Content-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    address
}

fn check(all: &[&[Case]]) {
    let sandbox = Sandbox::with_busybox();
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    fixtures(&sandbox, dir.path());
    let registry = closed_registry();
    let cache = cached("kernels").parent().expect("it is in a folder").to_owned();
    let names = [
        ("{cache}", text(&cache)),
        ("{data}", text(sandbox.data())),
        ("{dir}", text(dir.path())),
        ("{registry}", &registry),
    ];
    let mut wrong = Vec::new();
    for (words, code, says) in all.iter().copied().flatten() {
        let fill = |word: &&str| {
            names.iter().fold((*word).to_owned(), |word, (name, value)| word.replace(name, value))
        };
        let words: Vec<String> = words.iter().map(fill).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = sandbox.isolab(&words).finish_with_input(b"wrong\n");
        let said = names.iter().fold(done.stderr, |said, (name, value)| said.replace(value, name));
        if (done.status.code(), said.as_str()) != (Some(*code), *says) {
            wrong.push(format!("{words:?} ended with {:?} and said\n{said}", done.status.code()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn failures_of_run_and_image_say_what_to_do() {
    check(&[RUN, IMAGE, BUILD]);
}

#[test]
fn failures_of_the_other_commands_say_what_to_do() {
    check(&[MACHINES]);
}

/// Without root, without a home, and on a full disk.
#[test]
fn failures_of_the_host_s_making_say_whose_they_are() {
    let sandbox = Sandbox::with_busybox();
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    fixtures(&sandbox, dir.path());
    let archive = dir.path().join("whole.tar");
    let full = |room: &str| {
        let mut unshare = Command::new("unshare");
        let script = format!("mount -t tmpfs -o {room} tmpfs $2; exec $1 image load $3");
        unshare.args(["-m", "sh", "-ec", &script, "sh"]).arg(isolab_path()).arg(sandbox.data());
        unshare.arg(&archive).env("XDG_DATA_HOME", sandbox.data());
        Run::new(unshare)
    };
    let data = text(sandbox.data());
    let mut wrong = Vec::new();
    for (run, code, says) in [
        (
            as_nobody(None, &["image", "ls"]),
            125,
            "isolab: cannot create /nonexistent/.local/share/isolab: Permission denied (os error 13)\n\
             isolab: hint: XDG_DATA_HOME names another folder to keep images and instances in\n",
        ),
        (
            as_nobody(None, &["run", "busybox", "true"]),
            125,
            "isolab: cannot create /nonexistent/.local/share/isolab: Permission denied (os error 13)\n\
             isolab: hint: XDG_DATA_HOME names another folder to keep images and instances in\n",
        ),
        (
            as_nobody(None, &["system", "prune"]).env("XDG_DATA_HOME", data),
            125,
            "isolab: cannot create {data}/isolab/instances: Permission denied (os error 13)\n\
             isolab: hint: XDG_DATA_HOME names another folder to keep images and instances in\n",
        ),
        (
            full("nr_inodes=1"),
            125,
            "isolab: cannot create {data}/isolab: No space left on device (os error 28)\n\
             isolab: hint: `isolab image prune` and `isolab system prune` free room, XDG_DATA_HOME names another folder to keep images and instances in\n",
        ),
        (
            sandbox.isolab(&["image", "ls"]).env("XDG_DATA_HOME", "/proc/self"),
            125,
            "isolab: cannot create /proc/self/isolab: No such file or directory (os error 2)\n\
             isolab: hint: XDG_DATA_HOME names another folder to keep images and instances in\n",
        ),
        (
            sandbox.isolab(&["image", "ls"]).env("ISOLAB_LOG", "isolab=loud"),
            125,
            "isolab: ISOLAB_LOG=isolab=loud: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5\n",
        ),
    ] {
        let done = run.finish();
        let said = done.stderr.replace(data, "{data}").replace(text(dir.path()), "{dir}");
        if (said.as_str(), done.status.code()) != (says, Some(code)) {
            wrong.push(format!("{:?}, and said\n{said}", done.status.code()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
