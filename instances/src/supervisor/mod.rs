//! Who looks after an instance in the background: a process of its own, which holds the folder's lock.
//!
//! [`spawn()`] makes it; it lives through one or several runs of the workload (`life`), writes down what
//! becomes of it (`record`), takes its output to the log and to who is attached (`output`), looks
//! whether it is well (`health`), ends it on request (`ending`), and answers (`served`) on the socket in the
//! instance's folder (`server`).

mod ending;
mod foreground;
mod health;
mod life;
mod output;
mod record;
mod served;
mod server;
mod spawn;
mod terminal;

pub use foreground::{Foreground, serve_foreground};
pub use life::Describe;
pub(crate) use server::SOCKET;
pub(crate) use spawn::spawn;
