//! What only one machine may have at a time, a disk, a tap, a socket's path, goes from one that has ended to the next.
//!
//! The kernel takes a machine apart behind its end ([`crate::teardown`]), in some 40 ms and on a busy host more. Until
//! then all of these are taken, and whoever has seen its end may start the next one at once.

use std::thread;
use std::time::{Duration, Instant};

/// How long what is taken is waited for.
const TIME: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(5);

/// What `attempt` gives, which is made again for a second as long as its error `is_taken`.
///
/// # Errors
/// Those of the last attempt.
pub fn take<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_taken: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + TIME;
    loop {
        match attempt() {
            Err(error) if is_taken(&error) && Instant::now() < deadline => thread::sleep(AGAIN),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_taken_is_waited_for() {
        let mut attempts = 0;
        let mut third = || {
            attempts += 1;
            if attempts < 3 { Err("taken") } else { Ok(attempts) }
        };
        assert_eq!(take(&mut third, |error| *error == "taken"), Ok(3));

        let mut attempts = 0;
        let refused = take::<(), _>(
            || {
                attempts += 1;
                Err("no such thing")
            },
            |error| *error == "taken",
        );
        assert_eq!((refused, attempts), (Err("no such thing"), 1));

        let begun = Instant::now();
        assert_eq!(take::<(), _>(|| Err("taken"), |_| true), Err("taken"));
        assert!(begun.elapsed() >= TIME);
    }
}
