use std::io;

use super::*;
use crate::statistics::p_value;

/// A workload whose turns are told beforehand.
struct Told {
    turns: Vec<(usize, u32)>,
    fails: Option<(usize, u32)>,
}

impl Told {
    fn new() -> Self {
        Self { turns: Vec::new(), fails: None }
    }
}

impl Workload for Told {
    type Error = io::Error;

    fn name(&self) -> &'static str {
        "told"
    }

    fn subjects(&self) -> Vec<String> {
        vec!["b".to_owned(), "a".to_owned()]
    }

    fn turn(&mut self, subject: usize, round: u32) -> Result<Vec<Figure>, io::Error> {
        self.turns.push((subject, round));
        if self.fails == Some((subject, round)) {
            return Err(io::Error::other("broken"));
        }
        let rare = (round == 2).then(|| Figure::new("rare", "KiB", 7.0));
        Ok([Figure::new("time", "ms", f64::from(round))].into_iter().chain(rare).collect())
    }
}

fn found(findings: &Findings) -> Vec<(&str, &str, &str, &[f64])> {
    findings
        .results
        .iter()
        .map(|it| {
            (it.subject.as_str(), it.metric.as_str(), it.unit.as_str(), &it.summary.samples[..])
        })
        .collect()
}

#[test]
fn subjects_take_turns_and_the_first_round_does_not_count() {
    let mut told = Told::new();
    let findings = Runner::fixed(2).run(&mut told).unwrap();
    assert_eq!(told.turns, [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]);
    let of =
        |subject| [(subject, "time", "ms", &[1.0, 2.0][..]), (subject, "rare", "KiB", &[7.0][..])];
    assert_eq!(found(&findings), [of("b"), of("a")].concat());
    assert_eq!(findings.results[0].rounds, [1, 2]);
    assert_eq!((findings.pairs.len(), findings.pairs[0].subject.as_str()), (1, "a"));
    assert_eq!(findings.pairs[0].baseline, "b");
}

#[test]
fn who_fails_has_no_figure_and_the_others_go_on() {
    let mut told = Told { fails: Some((1, 2)), ..Told::new() };
    let findings = Runner::fixed(3).run(&mut told).unwrap();
    assert_eq!(told.turns[4..], [(0, 2), (1, 2), (0, 3)]);
    assert!(findings.results.iter().all(|it| it.subject == "b"), "{:?}", findings.results);
    let failure = &findings.failures[0];
    assert_eq!((failure.subject.as_str(), failure.round), ("a", 2));
    assert_eq!(failure.error, "broken");
}

#[test]
fn an_interrupt_keeps_whole_rounds() {
    let mut told = Told::new();
    let mut left = 5;
    let mut runner = Runner::fixed(9);
    runner.interrupt = Interrupt::when(move || {
        left -= 1;
        left < 0
    });
    let findings = runner.run(&mut told).unwrap();
    assert!(findings.interrupted);
    assert_eq!(told.turns, [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2)]);
    assert_eq!(found(&findings), [("b", "time", "ms", &[1.0][..]), ("a", "time", "ms", &[1.0])]);
}

#[test]
fn a_turn_that_an_interrupt_ends_is_no_failure() {
    let mut told = Told { fails: Some((1, 1)), ..Told::new() };
    let mut left = 3;
    let mut runner = Runner::fixed(9);
    runner.interrupt = Interrupt::when(move || {
        left -= 1;
        left < 0
    });
    let findings = runner.run(&mut told).unwrap();
    assert!(findings.interrupted && findings.failures.is_empty(), "{:?}", findings.failures);
}

#[test]
fn a_time_budget_chooses_the_rounds() {
    let mut runner = Runner::fixed(1);
    runner.rounds = Rounds::Within(Duration::from_secs(60));
    let seconds = Duration::from_secs;
    assert!(runner.has_round(FEWEST, seconds(1000)), "no verdict from fewer");
    // Ten rounds took 50 s: one more fits, and then none.
    assert!(runner.has_round(10, seconds(50)));
    assert!(!runner.has_round(11, seconds(56)));
}

#[test]
fn what_a_journal_knows_is_not_measured_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut runner = Runner::fixed(1);
    runner.journal = Journal::open(&path, "a plan", false).unwrap();
    drop(runner.run(&mut Told::new()).unwrap());
    let mut told = Told::new();
    runner.rounds = Rounds::Fixed(2);
    runner.journal = Journal::open(&path, "a plan", true).unwrap();
    let findings = runner.run(&mut told).unwrap();
    // The warm-up is not of the past.
    assert_eq!(told.turns, [(0, 0), (1, 0), (0, 2), (1, 2)]);
    assert_eq!(found(&findings)[0], ("b", "time", "ms", &[1.0, 2.0][..]));
}

/// A clock that counts instructions: nothing is left to chance. Each turn takes what its subject takes, and what the turn
/// before left it to do.
struct Deterministic {
    subjects: [(&'static str, f64, f64); 6],
    left: f64,
}

impl Workload for Deterministic {
    type Error = io::Error;

    fn name(&self) -> &'static str {
        "deterministic"
    }

    fn subjects(&self) -> Vec<String> {
        self.subjects.iter().map(|(name, ..)| (*name).to_owned()).collect()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, io::Error> {
        let (_, takes, leaves) = self.subjects[subject];
        let took = takes + std::mem::replace(&mut self.left, leaves);
        Ok(vec![Figure::new("time", "ms", took)])
    }
}

#[test]
fn what_a_turn_leaves_to_the_next_makes_no_difference_and_hides_none() {
    for rounds in [5, 6, 10, 12] {
        let subjects = [
            ("process", 100.0, 0.5),
            ("container", 104.0, 1.0),
            ("paravirt", 110.0, 2.0),
            ("fullvirt", 110.0, 2.0),
            ("stock", 200.0, 3.0),
            ("process (again)", 100.0, 0.5),
        ];
        let findings =
            Runner::fixed(rounds).run(&mut Deterministic { subjects, left: 0.0 }).unwrap();
        let samples = |subject: &str| {
            &findings.results.iter().find(|it| it.subject == subject).unwrap().summary.samples
        };
        let beside = |a, b| p_value(samples(a), samples(b));
        assert!(beside("process (again)", "process") > 0.1, "{rounds}: {:?}", findings.results);
        assert!(beside("paravirt", "fullvirt") > 0.1, "{rounds}: {:?}", findings.results);
        assert!(beside("container", "process") < 0.01, "{rounds}: {:?}", findings.results);
    }
}

/// The second of its subjects waits for a process that does not end.
struct Hangs;

impl Workload for Hangs {
    type Error = io::Error;

    fn name(&self) -> &'static str {
        "hangs"
    }

    fn subjects(&self) -> Vec<String> {
        vec!["ends".to_owned(), "hangs".to_owned()]
    }

    fn limit(&self) -> Option<Duration> {
        Some(Duration::from_millis(50))
    }

    fn turn(&mut self, subject: usize, round: u32) -> Result<Vec<Figure>, io::Error> {
        if (subject, round) == (1, 1) {
            let status = std::process::Command::new("sleep").arg("1000").status()?;
            return Err(io::Error::other(status.to_string()));
        }
        Ok(vec![Figure::new("time", "ms", 1.0)])
    }
}

#[test]
fn who_hangs_has_failed() {
    let findings = Runner::fixed(1).run(&mut Hangs).unwrap();
    assert_eq!(found(&findings), [("ends", "time", "ms", &[1.0][..])]);
    let failure = &findings.failures[0];
    assert_eq!((failure.subject.as_str(), failure.round), ("hangs", 1));
    assert_eq!(failure.error, "it did not end within 0 s and was killed: signal: 9 (SIGKILL)");
}
