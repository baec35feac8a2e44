//! The one runner of all benchmarks: a round that warms caches and is not counted, then those that are. In each the
//! subjects have their turns, so that a drift of the host meets all alike, and in an order of its own, so that what a turn
//! leaves to the next one does as well ([`order`]). Every sample is kept.
//!
//! A subject that fails, or hangs, takes no further part and has no figure: its failure is reported instead. Ctrl-C ends after the
//! turn that is under way, and what whole rounds found is kept.

mod interrupt;
mod journal;
pub(crate) mod limit;
mod order;
mod progress;

use std::borrow::Cow;
use std::error::Error;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::interrupt::Interrupt;
pub use self::journal::{Journal, JournalError};
pub use self::progress::Progress;
use crate::report::{Failure, Findings, Measurement, Pair};
use crate::statistics::{FEWEST, Summary};

/// What one turn found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured, unique in a workload.
    pub metric: Cow<'static, str>,
    /// The unit of all of its values.
    pub unit: Cow<'static, str>,
    /// How much of it.
    pub value: f64,
}

impl Figure {
    /// A figure whose names are known beforehand.
    pub fn new(metric: &'static str, unit: &'static str, value: f64) -> Self {
        Self { metric: metric.into(), unit: unit.into(), value }
    }
}

/// How long one turn may take where a workload does not say otherwise: far longer than any known.
pub const TURN_LIMIT: Duration = Duration::from_secs(1800);

/// Why a subject takes no further part.
#[derive(Debug, thiserror::Error)]
enum TurnError<E: Error + 'static> {
    #[error("it did not end within {} s and was killed", limit.as_secs())]
    Hung { limit: Duration, source: Option<E> },
    #[error(transparent)]
    Failed(E),
}

/// Something that is measured at several subjects.
pub trait Workload {
    /// Why a turn may fail.
    type Error: Error + 'static;

    /// As it stands in the report.
    fn name(&self) -> &'static str;

    /// The names of who takes part, in the order of each round.
    fn subjects(&self) -> Vec<String>;

    /// Whom a subject's ratios are to: by default the first.
    fn baseline(&self, _subject: &str) -> Option<String> {
        self.subjects().into_iter().next()
    }

    /// What a subject does otherwise than the others, if it does: no ratio is told of different work.
    fn other_work(&self, _subject: &str) -> Option<String> {
        None
    }

    /// The metric that must cost the same everywhere, or no other one of the subject can be compared.
    fn control(&self) -> Option<&'static str> {
        None
    }

    /// Whether each turn warms up by itself, so that there is no round for it.
    fn warms_itself(&self) -> bool {
        false
    }

    /// How long a turn may take before it hangs, and what it runs is killed; `None` where each of its steps has a limit.
    fn limit(&self) -> Option<Duration> {
        Some(TURN_LIMIT)
    }

    /// Measures the subject of this number once. Round 0 is not counted.
    ///
    /// # Errors
    /// The subject cannot be measured.
    fn turn(&mut self, subject: usize, round: u32) -> Result<Vec<Figure>, Self::Error>;
}

/// How many rounds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// So many are counted, at least one.
    Fixed(u32),
    /// As many as fit into this time, the warm-up included, but at least [`FEWEST`].
    Within(Duration),
}

/// Runs workloads.
pub struct Runner {
    /// How many rounds each of them has.
    pub rounds: Rounds,
    /// Who hears of it meanwhile.
    pub progress: Progress,
    /// Who may end it before its time.
    pub interrupt: Interrupt,
    /// Where every figure is kept as soon as it is known, and what is known from an earlier run.
    pub journal: Journal,
}

impl Runner {
    /// So many rounds, silently, all of it in memory.
    pub fn fixed(rounds: u32) -> Self {
        Self {
            rounds: Rounds::Fixed(rounds),
            progress: Progress::Silent,
            interrupt: Interrupt::never(),
            journal: Journal::none(),
        }
    }

    /// Measures `workload`.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn run<W: Workload>(&mut self, workload: &mut W) -> Result<Findings, JournalError> {
        let subjects = workload.subjects();
        let mut samples = Samples::default();
        let mut failures: Vec<Option<Failure>> = subjects.iter().map(|_| None).collect();
        let begun = Instant::now();
        let mut round = u32::from(workload.warms_itself());
        let mut interrupted = false;
        'rounds: while self.has_round(round, begun.elapsed()) {
            self.progress.round(workload.name(), round, self.rounds);
            for place in order::order(subjects.len(), round) {
                let subject = &subjects[place];
                if failures[place].is_some() {
                    continue;
                }
                if self.interrupt.came() {
                    interrupted = true;
                    break 'rounds;
                }
                let known = self.journal.find(workload.name(), subject, round);
                let figures = match known {
                    Some(figures) => figures,
                    None => {
                        self.progress.turn(workload.name(), subject, round, self.rounds);
                        match turn(workload, place, round) {
                            Ok(figures) => figures,
                            // A key press reaches everything in the foreground, who is measured as well.
                            Err(_) if self.interrupt.came() => {
                                interrupted = true;
                                break 'rounds;
                            }
                            Err(error) => {
                                let benchmark = workload.name();
                                failures[place] =
                                    Some(Failure::of(benchmark, subject, round, &error));
                                continue;
                            }
                        }
                    }
                };
                self.journal.keep(workload.name(), subject, round, &figures)?;
                if round > 0 {
                    samples.add(place, round, figures);
                }
            }
            round += 1;
        }
        self.progress.end();
        samples.cut(|place, of| failures[place].is_none() && of < round);
        let results = samples.measurements(workload, &subjects);
        let pairs = subjects.iter().filter_map(|subject| {
            let baseline = workload.baseline(subject).filter(|baseline| baseline != subject)?;
            let other_work = workload.other_work(subject);
            let control = workload.control().map(str::to_owned);
            let benchmark = workload.name().to_owned();
            Some(Pair { benchmark, subject: subject.clone(), baseline, other_work, control })
        });
        let pairs = pairs.collect();
        let failures = failures.into_iter().flatten().collect();
        Ok(Findings { results, pairs, failures, notes: Vec::new(), interrupted })
    }

    /// Whether there is a round of this number, when all before it took `elapsed`.
    fn has_round(&self, round: u32, elapsed: Duration) -> bool {
        match self.rounds {
            Rounds::Fixed(count) => round <= count,
            Rounds::Within(_) if round <= FEWEST => true,
            Rounds::Within(budget) => elapsed + elapsed / round <= budget,
        }
    }
}

fn turn<W: Workload>(
    workload: &mut W,
    place: usize,
    round: u32,
) -> Result<Vec<Figure>, TurnError<W::Error>> {
    let Some(limit) = workload.limit() else {
        return workload.turn(place, round).map_err(TurnError::Failed);
    };
    match limit::within(limit, || workload.turn(place, round)) {
        Ok(returned) => returned.map_err(TurnError::Failed),
        Err(late) => Err(TurnError::Hung { limit, source: late.returned.err() }),
    }
}

/// The figures of all counted turns, by subject and metric in the order in which they first came.
#[derive(Default)]
struct Samples(Vec<Series>);

struct Series {
    place: usize,
    metric: Cow<'static, str>,
    unit: Cow<'static, str>,
    /// Round and value.
    values: Vec<(u32, f64)>,
}

impl Samples {
    fn add(&mut self, place: usize, round: u32, figures: Vec<Figure>) {
        for Figure { metric, unit, value } in figures {
            let known = self.0.iter_mut().find(|it| it.place == place && it.metric == metric);
            match known {
                Some(series) => series.values.push((round, value)),
                None => self.0.push(Series { place, metric, unit, values: vec![(round, value)] }),
            }
        }
    }

    /// Keeps what `stays` says of a subject's place and a round.
    fn cut(&mut self, stays: impl Fn(usize, u32) -> bool) {
        for series in &mut self.0 {
            series.values.retain(|(round, _)| stays(series.place, *round));
        }
    }

    fn measurements<W: Workload>(mut self, workload: &W, subjects: &[String]) -> Vec<Measurement> {
        self.0.sort_by_key(|series| series.place);
        let measurement = |series: Series| {
            let (rounds, values) = series.values.into_iter().unzip();
            Some(Measurement {
                benchmark: workload.name().to_owned(),
                subject: subjects[series.place].clone(),
                metric: series.metric.into_owned(),
                unit: series.unit.into_owned(),
                rounds,
                summary: Summary::of(values)?,
            })
        };
        self.0.into_iter().filter_map(measurement).collect()
    }
}

#[cfg(test)]
mod tests;
