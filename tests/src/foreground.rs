//! `isolab run -it` as somebody at a terminal has it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::{Sandbox, TIME_LIMIT, pieces_of};

/// Says what it reads, which signals come, and how large its terminal is.
const SCRIPT: &str =
    "trap 'echo interrupted' INT; trap 'stty size' WINCH; stty size; echo $TERM; echo ready
while :; do read line && echo got $line; [ \"$line\" = end ] && exit 5; done";

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Keys go to the command, Ctrl-C too; the window's size follows; the terminal is as it was afterwards.
pub fn terminal(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let pty = openpty(Some(&winsize(33, 99)), None).expect("there are terminals");
    let before = tcgetattr(&pty.slave).expect("it is a terminal");
    let words = ["run", "-it", "--isolation", level, "busybox", "sh", "-c", SCRIPT];
    let isolab = sandbox.isolab(&words).0;
    // A session whose terminal it is, as a login has it.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(isolab.get_program()).args(isolab.get_args());
    command.env("XDG_DATA_HOME", sandbox.data());
    let side = || Stdio::from(pty.slave.try_clone().expect("there are descriptors"));
    let mut running =
        command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("setsid is installed");
    let mut screen = Screen::new(&pty.master);
    let mut keyboard = File::from(pty.master.try_clone().expect("there are descriptors"));
    let mut press = |keys: &[u8]| keyboard.write_all(keys).expect("there is room");
    screen.wait_for("33 99\r\nxterm\r\nready");
    assert!(!is_cooked(&pty.slave), "keys are still edited by the outer terminal");
    press(b"\x03");
    // busybox's shell runs a trap between commands.
    press(b"\n");
    screen.wait_for("interrupted");
    let size = winsize(50, 132);
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
    let resized = unsafe { libc::ioctl(pty.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(resized, 0);
    // The signal takes its time.
    screen.wait_while("50 132", || press(b"\n"));
    press(b"end\n");
    screen.wait_for("got end");
    assert_eq!(running.wait().expect("it is ours").code(), Some(5));
    let after = tcgetattr(&pty.slave).expect("it is a terminal");
    assert!(is_cooked(&pty.slave) && before.local_flags == after.local_flags);
    // Without a terminal it says so, and leaves nothing.
    let done = sandbox.isolab(&words).finish();
    done.fails_with(125, &["--tty needs a terminal"]);
    assert_eq!(sandbox.instances(), [""; 0]);
}

fn is_cooked(terminal: &OwnedFd) -> bool {
    tcgetattr(terminal).expect("it is a terminal").local_flags.contains(LocalFlags::ICANON)
}

/// What is shown.
struct Screen {
    pieces: std::sync::mpsc::Receiver<String>,
    seen: String,
}

impl Screen {
    fn new(master: &impl AsFd) -> Self {
        let master = master.as_fd().try_clone_to_owned().expect("there are descriptors");
        Screen { pieces: pieces_of(File::from(master)), seen: String::new() }
    }

    fn wait_for(&mut self, text: &str) {
        self.wait_while(text, || {});
    }

    /// Waits until `text` is shown, and calls `again` now and then.
    fn wait_while(&mut self, text: &str, mut again: impl FnMut()) {
        let deadline = std::time::Instant::now() + TIME_LIMIT;
        while !self.seen.contains(text) {
            assert!(std::time::Instant::now() < deadline, "no {text:?} in {:?}", self.seen);
            match self.pieces.recv_timeout(std::time::Duration::from_millis(200)) {
                Ok(piece) => self.seen += &piece,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => again(),
                Err(error) => panic!("{error}: {:?}", self.seen),
            }
        }
    }
}
