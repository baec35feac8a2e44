//! What a long run tells of itself on a terminal: one line, which the next one replaces.

use std::io::{self, IsTerminal};

use super::Rounds;

/// Who hears of every turn.
pub struct Progress {
    is_shown: bool,
}

impl Progress {
    /// Nobody does.
    pub fn silent() -> Self {
        Self { is_shown: false }
    }

    /// Standard error, if it is a terminal.
    pub fn on_terminal() -> Self {
        Self { is_shown: io::stderr().is_terminal() }
    }

    pub(super) fn turn(&self, benchmark: &str, subject: &str, round: u32, rounds: Rounds) {
        if self.is_shown {
            eprint!("\r\x1b[K{}", line(benchmark, subject, round, rounds));
        }
    }

    pub(super) fn end(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(benchmark: &str, subject: &str, round: u32, rounds: Rounds) -> String {
    let which = match (round, rounds) {
        (0, _) => "warming up".to_owned(),
        (_, Rounds::Fixed(count)) => format!("round {round} of {count}"),
        (_, Rounds::Within(budget)) => {
            format!("round {round}, as many as fit into {} s", budget.as_secs())
        }
    };
    format!("{benchmark}: {which}, {subject}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_says_what_runs_and_what_is_left() {
        assert_eq!(line("cpu", "process", 0, Rounds::Fixed(5)), "cpu: warming up, process");
        assert_eq!(line("cpu", "process", 2, Rounds::Fixed(5)), "cpu: round 2 of 5, process");
        let within = Rounds::Within(Duration::from_secs(60));
        assert_eq!(line("cpu", "a", 2, within), "cpu: round 2, as many as fit into 60 s, a");
    }
}
