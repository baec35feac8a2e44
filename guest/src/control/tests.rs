//! A session with a guest that the test plays.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use isolab_protocol::{
    Decoder, Frame, FromGuest, FromHost, Message, OUTPUT_WINDOW, ProcessId, STDIN_WINDOW, Service,
    Stream, Task, WORKLOAD, WindowSize, mailbox,
};

use super::*;

/// For what does happen.
const LONG: Duration = Duration::from_secs(60);

struct Guest {
    socket: UnixStream,
    decoder: Decoder<FromHost>,
}

impl Guest {
    fn say(&mut self, process: ProcessId, message: FromGuest) {
        self.socket.write_all(&Frame { process, message }.encode()).unwrap();
    }

    fn hear(&mut self) -> (ProcessId, FromHost) {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return (frame.process, frame.message);
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).unwrap();
            assert!(count > 0, "the host has closed the channel");
            self.decoder.push(&bytes[..count]);
        }
    }
}

/// What the caller of the session has.
struct Caller {
    stdin: PipeWriter,
    stdout: PipeReader,
    stderr: PipeReader,
    end: Receiver<ProcessEnd>,
}

fn end(caller: &Receiver<ProcessEnd>) -> ProcessEnd {
    caller.recv_timeout(LONG).unwrap()
}

fn streams() -> (Streams, Caller, impl FnOnce(ProcessEnd) + Send) {
    let (input, stdin) = io::pipe().unwrap();
    let (stdout, output) = io::pipe().unwrap();
    let (stderr, errors) = io::pipe().unwrap();
    let (sender, end) = mpsc::channel();
    let streams =
        Streams { stdin: Some(input.into()), stdout: output.into(), stderr: Some(errors.into()) };
    let on_end = move |end| drop(sender.send(end));
    (streams, Caller { stdin, stdout, stderr, end }, on_end)
}

fn session() -> (Session, Guest, Caller) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    let (streams, caller, on_end) = streams();
    let session = Session::new(ours, None, streams, on_end).unwrap();
    session.start(Patience::default()).unwrap();
    (session, Guest { socket: theirs, decoder: Decoder::default() }, caller)
}

fn text(mut from: PipeReader) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

fn output(stream: Stream, data: &[u8]) -> FromGuest {
    FromGuest::Output(stream, data.to_vec())
}

#[test]
fn streams_are_told_apart_and_all_is_written_before_the_end_is_told() {
    let (_session, mut guest, caller) = session();
    guest.say(WORKLOAD, output(Stream::Stdout, b"out"));
    guest.say(WORKLOAD, output(Stream::Stderr, b"err"));
    guest.say(WORKLOAD, FromGuest::Exited(3));
    guest.say(WORKLOAD, FromGuest::Exited(4));
    guest.say(WORKLOAD, output(Stream::Stdout, b"lost"));
    assert_eq!(end(&caller.end), ProcessEnd::Exited(3));
    assert_eq!((text(caller.stdout), text(caller.stderr)), ("out".to_owned(), "err".to_owned()));
    assert!(caller.end.recv().is_err(), "an end is told once");
}

#[test]
fn input_is_sent_as_far_as_the_process_has_room_for_it() {
    let (_session, mut guest, mut caller) = session();
    caller.stdin.write_all(b"abcdef").unwrap();
    guest.say(WORKLOAD, FromGuest::StdinCredit(4));
    assert_eq!(guest.hear(), (WORKLOAD, FromHost::Stdin(b"abcd".to_vec())));
    guest.say(WORKLOAD, FromGuest::StdinCredit(100));
    assert_eq!(guest.hear(), (WORKLOAD, FromHost::Stdin(b"ef".to_vec())));
    drop(caller.stdin);
    assert_eq!(guest.hear(), (WORKLOAD, FromHost::Stdin(Vec::new())));
}

#[test]
fn the_end_of_an_input_comes_behind_however_much_of_it_waits() {
    let (session, mut guest, mut caller) = session();
    // More than a socket holds is on its way, and the guest does not read yet.
    guest.say(WORKLOAD, FromGuest::StdinCredit(u32::MAX));
    let piece = vec![7; 16 << 10];
    let mut sent = 0;
    // Credit comes back for what was not read, as of a process that discards it.
    for _ in 0..60 {
        caller.stdin.write_all(&piece).unwrap();
        sent += piece.len();
        guest.say(WORKLOAD, FromGuest::StdinCredit(piece.len() as u32));
    }
    // A signal finds room beside it.
    session.signal(WORKLOAD, 10).unwrap();
    drop(caller.stdin);
    let (mut heard, mut signals) = (0, 0);
    loop {
        match guest.hear().1 {
            FromHost::Stdin(data) if data.is_empty() => break,
            FromHost::Stdin(data) => heard += data.len(),
            FromHost::Signal(10) => signals += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((heard, signals), (sent, 1));
}

#[test]
fn a_guest_may_ask_for_any_amount_of_input_and_gets_a_window_of_it() {
    let (_session, mut guest, mut caller) = session();
    for _ in 0..3 {
        guest.say(WORKLOAD, FromGuest::StdinCredit(u32::MAX));
    }
    let writer = thread::spawn(move || {
        // As much as the pipe and the window hold, and more, which then waits.
        drop(caller.stdin.write_all(&vec![7; 4 * STDIN_WINDOW]));
    });
    let mut sent = 0;
    while sent < STDIN_WINDOW {
        let (_, FromHost::Stdin(data)) = guest.hear() else { panic!("no input") };
        sent += data.len();
    }
    assert_eq!(sent, STDIN_WINDOW);
    guest.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(guest.socket.read(&mut [0]).is_err(), "more than a window was sent");
    drop(guest);
    drop(caller.stdout);
    // The end of the conversation lets the thread that reads the input go.
    assert_eq!(
        end(&caller.end),
        ProcessEnd::Failed("it has closed the control channel".to_owned())
    );
    writer.join().unwrap();
}

#[test]
fn a_slow_reader_holds_up_its_own_stream_and_gets_no_more_than_a_window() {
    let (_session, mut guest, mut caller) = session();
    let piece = vec![1; 32 << 10];
    // Nobody reads stdout. A pipe's worth of it leaves the window, so that a window is what fits.
    for _ in 0..OUTPUT_WINDOW / piece.len() {
        guest.say(WORKLOAD, output(Stream::Stdout, &piece));
    }
    guest.say(WORKLOAD, output(Stream::Stderr, b"err\n"));
    let mut line = [0; 4];
    caller.stderr.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"err\n");
    // It reads on, and the guest hears that there is room.
    let mut read = vec![0; OUTPUT_WINDOW];
    caller.stdout.read_exact(&mut read).unwrap();
    let (process, message) = guest.hear();
    assert!(matches!(message, FromHost::OutputCredit(Stream::Stdout, 65_536..)), "{message:?}");
    assert_eq!(process, WORKLOAD);
}

#[test]
fn a_guest_that_sends_more_than_it_may_is_given_up() {
    let (_session, mut guest, caller) = session();
    let piece = vec![1; 64 << 10];
    // Until it is cut off: a pipe's worth more than a window at the most.
    let sent = (0..100).take_while(|_| {
        let frame = Frame { process: WORKLOAD, message: output(Stream::Stdout, &piece) };
        guest.socket.write_all(&frame.encode()).is_ok() && caller.end.try_recv().is_err()
    });
    assert!(sent.count() < 100);
    let frame = [0x77, 0, 0, 0, 0, 0, 0];
    let (_other, mut other_guest, other) = session();
    other_guest.socket.write_all(&frame).unwrap();
    let ProcessEnd::Failed(why) = end(&other.end) else { panic!("it has not failed") };
    assert!(why.contains("unknown kind 0x77"), "{why}");
}

#[test]
fn where_nobody_takes_output_the_guest_hears_it_once() {
    let (session, mut guest, caller) = session();
    guest.say(WORKLOAD, FromGuest::StdinCredit(1));
    drop(caller.stdout);
    for _ in 0..3 {
        guest.say(WORKLOAD, output(Stream::Stdout, b"x"));
    }
    assert_eq!(guest.hear(), (WORKLOAD, FromHost::OutputClosed(Stream::Stdout)));
    guest.say(WORKLOAD, output(Stream::Stderr, b"y"));
    session.signal(WORKLOAD, 10).unwrap();
    assert_eq!(guest.hear(), (WORKLOAD, FromHost::Signal(10)));
    guest.say(WORKLOAD, FromGuest::Killed(10));
    assert_eq!(end(&caller.end), ProcessEnd::Killed(10));
    assert_eq!(text(caller.stderr), "y");
}

#[test]
fn a_signal_never_waits_and_says_why_it_was_not_sent() {
    let (session, mut guest, caller) = session();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(session.signal(WORKLOAD, 15)), io::ErrorKind::NotConnected);
    guest.say(WORKLOAD, FromGuest::StdinCredit(1));
    let mut attempts = 0;
    while session.signal(WORKLOAD, 15).is_err() {
        assert!(attempts < 6000, "the guest is never heard");
        thread::sleep(Duration::from_millis(10));
        attempts += 1;
    }
    // A guest that does not read: what is kept for it has an end.
    let full = (0..1_000_000).find_map(|_| session.signal(WORKLOAD, 15).err()).unwrap();
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    guest.say(WORKLOAD, FromGuest::Exited(0));
    assert_eq!(end(&caller.end), ProcessEnd::Exited(0));
    assert_eq!(kind(session.signal(WORKLOAD, 15)), io::ErrorKind::BrokenPipe);
    assert_eq!(kind(session.signal(7, 15)), io::ErrorKind::BrokenPipe);
}

#[test]
fn further_processes_have_streams_and_ends_of_their_own() {
    let (session, mut guest, workload) = session();
    let starter = thread::spawn({
        let session = session.clone();
        move || {
            let (streams, caller, on_end) = streams();
            let task = Task::Service(Service::Processes);
            (session.start_process(task, streams, LONG, on_end).unwrap(), caller)
        }
    });
    // It waits for the guest, and then for the process.
    guest.say(WORKLOAD, FromGuest::StdinCredit(1));
    let (id, FromHost::Start(task)) = guest.hear() else { panic!("nothing is started") };
    assert_eq!((id, *task), (1, Task::Service(Service::Processes)));
    guest.say(id, FromGuest::StdinCredit(1));
    let (started, mut caller) = starter.join().unwrap();
    assert_eq!(started, id);
    let size = WindowSize { rows: 1, columns: 2 };
    session.resize(id, size).unwrap();
    assert_eq!(guest.hear(), (id, FromHost::Resize(size)));
    guest.say(id, output(Stream::Stdout, b"its own"));
    caller.stdin.write_all(b"z").unwrap();
    assert_eq!(guest.hear(), (id, FromHost::Stdin(b"z".to_vec())));
    guest.say(id, FromGuest::Exited(5));
    assert_eq!(end(&caller.end), ProcessEnd::Exited(5));
    assert_eq!(text(caller.stdout), "its own");
    guest.say(WORKLOAD, FromGuest::Exited(0));
    assert_eq!(end(&workload.end), ProcessEnd::Exited(0));
    assert_eq!(text(workload.stdout), "");
}

#[test]
fn a_process_that_does_not_start_has_that_for_its_end_and_too_long_a_request_is_refused() {
    let (session, mut guest, _workload) = session();
    guest.say(WORKLOAD, FromGuest::StdinCredit(1));
    let answer = thread::spawn(move || {
        let (id, _) = guest.hear();
        guest.say(id, FromGuest::NotStarted(127, "exec x: none".to_owned()));
        guest
    });
    let (own, caller, on_end) = streams();
    let slow_on_end = |end| {
        thread::sleep(Duration::from_millis(100));
        on_end(end);
    };
    session.start_process(Task::Service(Service::Processes), own, LONG, slow_on_end).unwrap();
    // Who started it is told in time to say so.
    let told = caller.end.try_recv().unwrap();
    assert_eq!(told, ProcessEnd::NotStarted(127, "exec x: none".to_owned()));
    let _guest = answer.join().unwrap();
    let args = vec!["x".repeat(FromHost::MAX_PAYLOAD)];
    let task = Task::Process(isolab_protocol::Process { args, ..Default::default() });
    let (own, _caller, on_end) = streams();
    let refused = session.start_process(task, own, LONG, on_end);
    assert!(matches!(refused, Err(ControlError::TooLong { .. })));
}

#[test]
fn whoever_waits_hears_of_the_conversations_end() {
    let (session, mut guest, workload) = session();
    guest.say(WORKLOAD, FromGuest::StdinCredit(1));
    let closer = thread::spawn({
        let session = session.clone();
        move || {
            let (id, _) = guest.hear();
            guest.say(id, FromGuest::StdinCredit(1));
            session.close();
        }
    });
    let (own, caller, on_end) = streams();
    session.start_process(Task::Service(Service::Processes), own, LONG, on_end).unwrap();
    closer.join().unwrap();
    assert_eq!(end(&caller.end), ProcessEnd::Lost);
    // Who closes knows of the workload.
    assert!(workload.end.recv().is_err());
    let (own, _caller, on_end) = streams();
    let refused = session.start_process(Task::Service(Service::Processes), own, LONG, on_end);
    assert!(matches!(refused, Err(ControlError::Ended)));
}

/// A session whose guest has a mailbox, and the guest's view of its disk.
fn session_with_mailbox() -> (Session, Guest, Caller, File) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    let file = tempfile::tempfile().unwrap();
    let mailbox = Mailbox::new(file.try_clone().unwrap()).unwrap();
    let (streams, caller, on_end) = streams();
    let session = Session::new(ours, Some(mailbox), streams, on_end).unwrap();
    session.start(Patience::default()).unwrap();
    (session, Guest { socket: theirs, decoder: Decoder::default() }, caller, file)
}

#[test]
fn what_is_long_goes_through_the_mailbox_in_order_and_what_is_short_does_not() {
    let (session, mut guest, mut caller, disk) = session_with_mailbox();
    let mut magic = [0; mailbox::MAGIC.len()];
    disk.read_exact_at(&mut magic, 0).unwrap();
    assert_eq!(magic, mailbox::MAGIC);
    // From the guest: what is in its slot comes between what is before and behind its notice.
    guest.say(WORKLOAD, output(Stream::Stdout, b"1"));
    let frames: Vec<u8> = [b"2".repeat(100), b"3".to_vec()]
        .map(|data| Frame { process: WORKLOAD, message: output(Stream::Stdout, &data) }.encode())
        .concat();
    disk.write_all_at(&frames, mailbox::FROM_GUEST).unwrap();
    guest.say(WORKLOAD, FromGuest::InMailbox(frames.len() as u32));
    guest.say(WORKLOAD, output(Stream::Stdout, b"4"));
    assert_eq!(guest.hear(), (WORKLOAD, FromHost::MailboxTaken));
    let mut read = vec![0; 103];
    caller.stdout.read_exact(&mut read).unwrap();
    assert_eq!(read, [b"1".to_vec(), b"2".repeat(100), b"34".to_vec()].concat());
    // To the guest: one slot's worth, and the next when that is taken, a signal behind it.
    guest.say(WORKLOAD, FromGuest::StdinCredit(1 << 20));
    caller.stdin.write_all(&[5; 1000]).unwrap();
    let (_, FromHost::InMailbox(length)) = guest.hear() else { panic!("not in the mailbox") };
    session.signal(WORKLOAD, 10).unwrap();
    let mut slot = vec![0; length as usize];
    disk.read_exact_at(&mut slot, mailbox::FROM_HOST).unwrap();
    let data = FromHost::Stdin(vec![5; 1000]);
    assert_eq!(slot, Frame { process: WORKLOAD, message: data }.encode());
    guest.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(guest.socket.read(&mut [0]).is_err(), "the order is that of what was sent");
    guest.socket.set_read_timeout(Some(LONG)).unwrap();
    guest.say(WORKLOAD, FromGuest::MailboxTaken);
    assert_eq!(guest.hear(), (WORKLOAD, FromHost::Signal(10)));
}

#[test]
fn a_guest_whose_mailbox_makes_no_sense_is_given_up() {
    let nested = Frame { process: WORKLOAD, message: FromGuest::InMailbox(7) }.encode();
    let cases: [(&[u8], u32, &str); 3] = [
        (&[], mailbox::SLOT as u32 + 1, "into a mailbox of"),
        (&nested, nested.len() as u32, "speaks of the mailbox"),
        (&[0x77, 0, 0, 0, 0, 0, 0], 7, "unknown kind"),
    ];
    for (content, length, wanted) in cases {
        let (_session, mut guest, caller, disk) = session_with_mailbox();
        disk.write_all_at(content, mailbox::FROM_GUEST).unwrap();
        guest.say(WORKLOAD, FromGuest::InMailbox(length));
        let ProcessEnd::Failed(why) = end(&caller.end) else { panic!("{wanted}: it lives") };
        assert!(why.contains(wanted), "{why}");
    }
    // And one that has none.
    let (_session, mut guest, caller) = session();
    guest.say(WORKLOAD, FromGuest::InMailbox(1));
    assert!(matches!(end(&caller.end), ProcessEnd::Failed(_)));
}

#[test]
fn a_guest_that_never_speaks_and_one_that_hangs_are_told_apart() {
    let (long, patience) = (Duration::from_secs(2), Duration::from_millis(90));
    let given_up = |patience, speaks: bool| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(LONG)).unwrap();
        let (streams, caller, on_end) = streams();
        let session = Session::new(ours, None, streams, on_end).unwrap();
        session.start(patience).unwrap();
        let mut guest = Guest { socket: theirs, decoder: Decoder::default() };
        if speaks {
            guest.say(WORKLOAD, FromGuest::StdinCredit(1));
            assert_eq!(guest.hear(), (WORKLOAD, FromHost::Ping));
        }
        end(&caller.end)
    };
    let never = Patience { start: Some(patience), answer: None };
    assert_eq!(given_up(never, false), ProcessEnd::Silent(Silence::NeverUp(patience)));
    let hung = Patience { start: Some(LONG), answer: Some(patience) };
    assert_eq!(given_up(hung, true), ProcessEnd::Silent(Silence::Hung(patience)));
    // One that answers, and one that cannot since it is paused, live on.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (streams, caller, on_end) = streams();
    let session = Session::new(ours, None, streams, on_end).unwrap();
    session.start(Patience { start: None, answer: Some(long) }).unwrap();
    let mut guest = Guest { socket: theirs, decoder: Decoder::default() };
    guest.say(WORKLOAD, FromGuest::StdinCredit(1));
    for _ in 0..3 {
        assert_eq!(guest.hear(), (WORKLOAD, FromHost::Ping));
        guest.say(WORKLOAD, FromGuest::Pong);
    }
    session.set_paused(true);
    assert!(caller.end.recv_timeout(2 * long).is_err(), "a pause is no hang");
    guest.say(WORKLOAD, FromGuest::Exited(1));
    assert_eq!(end(&caller.end), ProcessEnd::Exited(1));
}
