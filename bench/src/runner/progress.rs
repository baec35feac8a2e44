//! What a long run tells of itself, on standard error.

use std::io::{self, IsTerminal};

use super::Rounds;

/// Who hears of it, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nobody.
    Silent,
    /// A terminal: each turn, in one line, which the next one replaces.
    Terminal,
    /// A file or a pipe: each round, in a line of its own.
    Lines,
}

impl Progress {
    /// In one line if standard error is a terminal, else nothing: a program may read it.
    pub fn on_terminal() -> Self {
        if io::stderr().is_terminal() { Self::Terminal } else { Self::Silent }
    }

    pub(super) fn round(self, benchmark: &str, round: u32, rounds: Rounds) {
        if self == Self::Lines {
            eprintln!("{}", line(benchmark, round, rounds));
        }
    }

    pub(super) fn turn(self, benchmark: &str, subject: &str, round: u32, rounds: Rounds) {
        if self == Self::Terminal {
            eprint!("\r\x1b[K{}, {subject}", line(benchmark, round, rounds));
        }
    }

    pub(super) fn end(self) {
        if self == Self::Terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(benchmark: &str, round: u32, rounds: Rounds) -> String {
    let which = match (round, rounds) {
        (0, _) => "warming up".to_owned(),
        (_, Rounds::Fixed(count)) => format!("round {round} of {count}"),
        (_, Rounds::Within(budget)) => {
            format!("round {round}, as many as fit into {} s", budget.as_secs())
        }
    };
    format!("{benchmark}: {which}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_says_what_runs_and_what_is_left() {
        assert_eq!(line("cpu", 0, Rounds::Fixed(5)), "cpu: warming up");
        assert_eq!(line("cpu", 2, Rounds::Fixed(5)), "cpu: round 2 of 5");
        let within = Rounds::Within(Duration::from_secs(60));
        assert_eq!(line("cpu", 2, within), "cpu: round 2, as many as fit into 60 s");
    }
}
