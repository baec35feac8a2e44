//! The thread of a virtio-fs device: takes requests from its queues and answers them.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use nix::errno::Errno;
use vmm_sys_util::epoll::EventSet;

use super::protocol::{Arguments, Reply};
use super::session::{Answer, Request, Session};
use super::{dispatch, request};
use crate::backend::share::credentials::prepare_thread;
use crate::backend::vectors::VectorBuffer;
use crate::segments;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step, serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

/// One queue, with the allocations for its requests.
struct FsQueue {
    queue: DeviceQueue,
    session: Arc<Session>,
    arguments: Vec<u8>,
    reply: Vec<u8>,
    vectors: VectorBuffer,
}

impl FsQueue {
    /// Serves a chain's request and writes the answer; the number of bytes written.
    fn answer(&mut self, chain: &Chain) -> u32 {
        let memory = self.queue.memory();
        let counters = self.queue.counters();
        let Some((header, read)) = request::read(memory, chain, &mut self.arguments) else {
            counters.error();
            return 0;
        };
        let mut reply = Reply::new(&mut self.reply);
        let served = read.and_then(|()| {
            let request = Request {
                header,
                arguments: Arguments::new(&self.arguments),
                chain,
                memory,
                vectors: &mut self.vectors,
            };
            dispatch::serve(&self.session, request, &mut reply)
        });
        let (mut error, in_place) = match served {
            Ok(Answer::Reply) => (0, 0),
            Ok(Answer::InPlace(length)) => (0, length),
            Ok(Answer::Nothing) => {
                counters.request(0);
                return 0;
            }
            Err(error) => {
                reply.truncate(0);
                (error as i32, 0)
            }
        };
        let room = chain.writable_length();
        if room < reply.total() as u64 {
            // What the guest asked for has been done, and it cannot be told of it.
            reply.truncate(0);
            error = Errno::EINVAL as i32;
        }
        let length = reply.finish(header.unique, error, in_place);
        let written = segments::write(memory, &chain.writable, 0, &self.reply);
        let Some(written) = written.filter(|written| *written == self.reply.len()) else {
            counters.error();
            return 0;
        };
        counters.request(u64::from(header.length) + u64::from(length));
        if error != 0 && error != Errno::ENOENT as i32 {
            counters.error();
        }
        // At most the reply's length, which is far below 2^32.
        written as u32 + in_place
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
        let written = self.answer(&chain);
        self.queue.push(chain, written)?;
        Ok(Step::Done)
    }
}

/// The state of the thread: its queues, by what wakes it for them.
pub struct FsWorker(Vec<FsQueue>);

impl FsWorker {
    /// The thread that works on `queues`.
    pub fn new(queues: Vec<DeviceQueue>, session: &Arc<Session>) -> Self {
        let queue = |queue| FsQueue {
            queue,
            session: Arc::clone(session),
            arguments: Vec::new(),
            reply: Vec::new(),
            vectors: VectorBuffer::default(),
        };
        Self(queues.into_iter().map(queue).collect())
    }
}

impl EventHandler for FsWorker {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        for (token, queue) in (0..).zip(&self.0) {
            sources.watch_event(queue.queue.notify_fd(), token)?;
        }
        Ok(())
    }

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        if let (Err(error), Some(queue)) = (prepare_thread(), self.0.first()) {
            let cause = io::Error::from(error);
            queue.queue.log().failed("new files are subject to this process's umask", &cause);
        }
        self.0.iter_mut().try_for_each(|queue| unless_broken(serve(queue, sources)))
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        let Some(queue) = self.0.get_mut(token as usize) else {
            return ControlFlow::Continue(());
        };
        queue.queue.notified();
        unless_broken(serve(queue, sources))
    }
}
