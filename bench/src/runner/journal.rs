//! What was measured, on the disk as soon as it is known: a run that ends before its time can be resumed.
//!
//! A file of lines of JSON. The first is the plan; each further one is a turn. A last line without its end is one that
//! was being written when power or patience ended, and does not count.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Figure;

/// One turn.
#[derive(Debug, Serialize, Deserialize)]
struct Turn {
    benchmark: String,
    subject: String,
    round: u32,
    figures: Vec<Figure>,
}

/// Figures that are kept, and those from before.
pub struct Journal {
    file: Option<(PathBuf, File)>,
    known: Vec<Turn>,
}

/// Why nothing can be kept or resumed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file.
    #[error("cannot {action} the journal {}", path.display())]
    File {
        /// What was attempted: a verb.
        action: &'static str,
        /// The journal.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A line is none of a journal's.
    #[error("line {line} of {} is none of a journal's", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The journal is of another run.
    #[error("{} is of another run: of `{theirs}`, not of `{ours}`", path.display())]
    OtherPlan {
        /// The journal.
        path: PathBuf,
        /// What it was begun with.
        theirs: String,
        /// What is to be resumed.
        ours: String,
    },
}

impl Journal {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self { file: None, known: Vec::new() }
    }

    /// Keeps figures in `path`. With `resume`, what is there already is known, if it was measured by the same `plan`;
    /// without, it is lost.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path, plan: &str, resume: bool) -> Result<Self, JournalError> {
        let failed =
            |action| move |source| JournalError::File { action, path: path.to_owned(), source };
        let text = match resume {
            true => std::fs::read_to_string(path).map_err(failed("read"))?,
            false => serde_json::to_string(plan).map_err(|it| failed("begin")(it.into()))? + "\n",
        };
        let known = parse(path, &text, plan)?;
        // Without what has no end, behind which the next line would be none.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(failed("open"))?;
        file.write_all(&text.as_bytes()[..whole]).map_err(failed("write"))?;
        Ok(Self { file: Some((path.to_owned(), file)), known })
    }

    /// What a counted turn found, if it is known.
    pub(super) fn find(&self, benchmark: &str, subject: &str, round: u32) -> Option<Vec<Figure>> {
        let is = |turn: &&Turn| {
            (turn.benchmark.as_str(), turn.subject.as_str(), turn.round)
                == (benchmark, subject, round)
        };
        // The warm-up is of this run, or it warms nothing.
        let found = self.known.iter().find(is).filter(|_| round > 0)?;
        Some(found.figures.clone())
    }

    /// Keeps what a counted turn found.
    pub(super) fn keep(
        &mut self,
        benchmark: &str,
        subject: &str,
        round: u32,
        figures: &[Figure],
    ) -> Result<(), JournalError> {
        if round == 0 || self.find(benchmark, subject, round).is_some() {
            return Ok(());
        }
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let turn = Turn {
            benchmark: benchmark.to_owned(),
            subject: subject.to_owned(),
            round,
            figures: figures.to_vec(),
        };
        let line = serde_json::to_string(&turn).map_err(io::Error::from);
        let written = line.and_then(|line| file.write_all((line + "\n").as_bytes()));
        written.map_err(|source| JournalError::File { action: "write", path: path.clone(), source })
    }
}

fn parse(path: &Path, text: &str, plan: &str) -> Result<Vec<Turn>, JournalError> {
    let damaged = |line| JournalError::Damaged { path: path.to_owned(), line };
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let first = lines.next().ok_or_else(|| damaged(1))?;
    let theirs: String = serde_json::from_str(first).map_err(|_| damaged(1))?;
    if theirs != plan {
        let (path, ours) = (path.to_owned(), plan.to_owned());
        return Err(JournalError::OtherPlan { path, theirs, ours });
    }
    let turn = |(number, line)| serde_json::from_str(line).map_err(|_| damaged(number + 2));
    lines.enumerate().map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f64) -> Vec<Figure> {
        vec![Figure::new("time", "ms", value)]
    }

    #[test]
    fn turns_are_found_again_but_for_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, "plan", false).unwrap();
        journal.keep("startup", "process", 1, &figures(0.1)).unwrap();
        journal.keep("startup", "process", 0, &figures(9.0)).unwrap();
        drop(journal);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.clone() + "{\"benchmark\": \"sta").unwrap();
        let mut journal = Journal::open(&path, "plan", true).unwrap();
        assert_eq!(journal.find("startup", "process", 1), Some(figures(0.1)));
        assert_eq!(journal.find("startup", "process", 0), None);
        assert_eq!(journal.find("startup", "container", 1), None);
        // And goes on behind the last whole line.
        journal.keep("startup", "process", 1, &figures(5.0)).unwrap();
        journal.keep("startup", "process", 2, &figures(0.2)).unwrap();
        let again = Journal::open(&path, "plan", true).unwrap();
        assert_eq!(again.find("startup", "process", 1), Some(figures(0.1)));
        assert_eq!(again.find("startup", "process", 2), Some(figures(0.2)));
    }

    #[test]
    fn what_is_no_journal_of_this_plan_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let open = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Journal::open(&path, "plan", true).map(|_| ()).unwrap_err().to_string()
        };
        assert!(open("\"other\"\n").contains("of another run: of `other`"));
        assert!(open("\"plan\"\n{}\n").contains("line 2"));
        assert!(open("").contains("line 1"));
        std::fs::remove_file(&path).unwrap();
        assert!(Journal::open(&path, "plan", true).is_err(), "there is nothing to resume");
    }
}
