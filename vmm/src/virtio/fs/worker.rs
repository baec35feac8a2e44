//! The thread of a virtio-fs device: takes requests from its queues and answers them.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::protocol::{Arguments, Header, Reply};
use super::session::{Answer, Request, Session, WaitingLock};
use super::{dispatch, request};
use crate::backend::share::credentials::prepare_thread;
use crate::backend::vectors::VectorBuffer;
use crate::segments;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step, serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

/// How long a lock of the host's, of which nothing tells that it goes, is waited for before it is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// What the timer wakes the thread with; queues have the numbers from 0 on.
const RETRY_TOKEN: u32 = u32::MAX;

/// One queue, with the allocations for its requests.
struct FsQueue {
    queue: DeviceQueue,
    session: Arc<Session>,
    arguments: Vec<u8>,
    reply: Vec<u8>,
    vectors: VectorBuffer,
    /// Requests for locks that others have, the oldest first.
    waiting: Vec<(Chain, Header, WaitingLock)>,
    /// What the share counted of releases when they were last tried.
    releases: u64,
    /// Whether it is time to try them.
    is_due: bool,
}

impl FsQueue {
    /// Serves a chain's request and gives it back with the answer, unless that comes later.
    fn take(&mut self, chain: Chain) -> Result<(), BrokenQueue> {
        let memory = self.queue.memory();
        let Some((header, read)) = request::read(memory, &chain, &mut self.arguments) else {
            self.queue.counters().error();
            return self.queue.push(chain, 0);
        };
        let mut reply = Reply::new(&mut self.reply);
        let served = read.and_then(|()| {
            let request = Request {
                header,
                arguments: Arguments::new(&self.arguments),
                chain: &chain,
                memory,
                vectors: &mut self.vectors,
            };
            dispatch::serve(&self.session, request, &mut reply)
        });
        match served {
            Ok(Answer::Waits(lock)) => {
                self.waiting.push((chain, header, lock));
                Ok(())
            }
            Ok(Answer::Nothing) => {
                self.queue.counters().request(0);
                self.queue.push(chain, 0)
            }
            Ok(Answer::Reply) => self.answer(chain, &header, Ok(0)),
            Ok(Answer::InPlace(length)) => self.answer(chain, &header, Ok(length)),
            Err(error) => self.answer(chain, &header, Err(error)),
        }
    }

    /// Gives a chain back with what is in the reply, and so many bytes that are in place behind it; or with an error.
    fn answer(
        &mut self,
        chain: Chain,
        header: &Header,
        result: Result<u32, Errno>,
    ) -> Result<(), BrokenQueue> {
        let (memory, counters) = (self.queue.memory(), self.queue.counters());
        let mut reply = Reply::begun(&mut self.reply);
        let (mut error, in_place) = match result {
            Ok(in_place) => (0, in_place),
            Err(error) => {
                reply.truncate(0);
                (error as i32, 0)
            }
        };
        if chain.writable_length() < reply.total() as u64 {
            // What the guest asked for has been done, and it cannot be told of it.
            reply.truncate(0);
            error = Errno::EINVAL as i32;
        }
        let length = reply.finish(header.unique, error, in_place);
        let written = segments::write(memory, &chain.writable, 0, &self.reply);
        let Some(written) = written.filter(|written| *written == self.reply.len()) else {
            counters.error();
            return self.queue.push(chain, 0);
        };
        counters.request(u64::from(header.length) + u64::from(length));
        if error != 0 && error != Errno::ENOENT as i32 {
            counters.error();
        }
        // At most the reply's length, which is far below 2^32.
        self.queue.push(chain, written as u32 + in_place)
    }

    /// Tries the locks that are waited for, where one may be had now.
    fn retry(&mut self) -> Result<(), BrokenQueue> {
        let releases = self.session.share().locks().releases();
        if !std::mem::take(&mut self.is_due) && releases == self.releases {
            return Ok(());
        }
        self.releases = releases;
        for (chain, header, lock) in std::mem::take(&mut self.waiting) {
            match self.session.share().lock(&lock.request) {
                Err(Errno::EAGAIN) => self.waiting.push((chain, header, lock)),
                locked => {
                    // Nothing that was there before.
                    Reply::new(&mut self.reply);
                    self.answer(chain, &header, locked.map(|()| 0))?;
                }
            }
        }
        Ok(())
    }
}

impl Service for FsQueue {
    const BUDGET: usize = 64;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let Some(chain) = self.queue.pop_finite()? else {
            return Ok(Step::Empty);
        };
        self.take(chain)?;
        Ok(Step::Done)
    }

    fn settle(&mut self) -> Result<bool, BrokenQueue> {
        if !self.waiting.is_empty() {
            self.retry()?;
        }
        Ok(false)
    }
}

/// The state of the thread: its queues, by what wakes it for them.
pub struct FsWorker {
    queues: Vec<FsQueue>,
    timer: TimerFd,
}

impl FsWorker {
    /// The thread that works on `queues`.
    ///
    /// # Errors
    /// The host gives no timerfd.
    pub fn new(queues: Vec<DeviceQueue>, session: &Arc<Session>) -> io::Result<Self> {
        let queue = |queue| FsQueue {
            queue,
            session: Arc::clone(session),
            arguments: Vec::new(),
            reply: Vec::new(),
            vectors: VectorBuffer::default(),
            waiting: Vec::new(),
            releases: 0,
            is_due: false,
        };
        Ok(Self { queues: queues.into_iter().map(queue).collect(), timer: TimerFd::new()? })
    }

    fn serve(&mut self, number: usize, sources: &EventSources) -> ControlFlow<()> {
        let Some(queue) = self.queues.get_mut(number) else { return ControlFlow::Continue(()) };
        let served = unless_broken(serve(queue, sources));
        if !queue.waiting.is_empty()
            && let Err(error) = self.timer.reset(RETRY, None)
        {
            let cause = io::Error::from(error);
            queue.queue.log().failed("locks of the host are waited for in vain", &cause);
        }
        served
    }
}

impl EventHandler for FsWorker {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        for (token, queue) in (0..).zip(&self.queues) {
            sources.watch_event(queue.queue.notify_fd(), token)?;
        }
        sources.watch_event(self.timer.as_raw_fd(), RETRY_TOKEN)
    }

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        if let (Err(error), Some(queue)) = (prepare_thread(), self.queues.first()) {
            let cause = io::Error::from(error);
            queue.queue.log().failed("new files are subject to this process's umask", &cause);
        }
        (0..self.queues.len()).try_for_each(|number| self.serve(number, sources))
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        if token == RETRY_TOKEN {
            return (0..self.queues.len()).try_for_each(|number| {
                self.queues[number].is_due = true;
                self.serve(number, sources)
            });
        }
        if let Some(queue) = self.queues.get_mut(token as usize) {
            queue.queue.notified();
        }
        self.serve(token as usize, sources)
    }
}
