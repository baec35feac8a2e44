//! A shop in three tiers at each level, by `isolab tiers`: how long until it is ready, what it answers, by endpoint, by the number of
//! its application servers and by how much is asked, and where the time of one request goes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use isolab_isolation::{KERNEL_VARIABLE, timeline};
use serde_json::Value;

use super::jobs::instances::{InstancesError, succeed, what_is_counted};
use crate::leftovers;
use crate::meter::{CPU, Counted, FAULTS, Meter, SWITCHES, Whose};
use crate::metrics::{PERCENTILES, RATE, THROUGHPUT};
use crate::runner::{Figure, TURN_LIMIT, Workload};
use crate::subjects::Level;

/// From spawn of `isolab tiers up` to its end: all three are ready, and web answers.
pub const TO_READY: &str = "to_ready";
/// Endpoints, by the names of `isolab tiers load`: a file, hashes, a product of the cache, a search, a search through all,
/// an order.
pub const KINDS: [&str; 6] = ["static", "compute", "cached", "read", "scan", "write"];
/// Requests for each server before it is measured. The load asks for a hundred products of the cache, and for searches, which each
/// connection to the database prepares when it makes its first.
const WARMING: u32 = 400;
/// What these ask for, and how often.
const WARMING_MIX: &str = "cached=1,read=1";
/// Whose parts are told.
const TRACED: &str = "/api/products?q=oak+lamp";

/// What is asked for, and at which levels.
pub struct TiersPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// In the order of each round; what does other work takes no part.
    pub subjects: Vec<Level>,
    /// Numbers of application servers, of which the first is measured in all ways.
    pub apps: Vec<u32>,
    /// Requests a second that are due in the open loop.
    pub rates: Vec<u32>,
    /// How long each load of one kind, or at one rate, lasts.
    pub time: Duration,
    /// How many requests of the mix the application servers share: a time would be over with more or fewer of those that take a hundred
    /// times as long as others.
    pub requests: u32,
    /// The host's port that the shop is at.
    pub port: u16,
}

/// A shop, once a turn.
pub struct Tiers {
    plan: TiersPlan,
    /// Whether this host's kernel counts what work costs.
    is_counted: bool,
}

impl Tiers {
    /// Of this plan, and a note for what is left out.
    pub fn new(mut plan: TiersPlan) -> (Self, Vec<String>) {
        leftovers::adopt();
        plan.subjects.retain(|subject| subject.other_work.is_none());
        let (counted, notes) = what_is_counted();
        // Load is never counted twice, so that the second of them says nothing here.
        let is_counted = counted.contains(&Counted::Time);
        (Self { plan, is_counted }, if is_counted { Vec::new() } else { notes })
    }

    fn tiers(&self, words: &[&str], subject: &Level) -> Command {
        let mut command = Command::new(&self.plan.program);
        // A shop's compose file names no kernel, and levels have others by default.
        command.envs(subject.kernel.iter().map(|kernel| (KERNEL_VARIABLE, kernel)));
        command.args(["tiers", "--project", &format!("bench-{}", std::process::id())]).args(words);
        command
    }

    fn json(&self, subject: &Level, words: &[&str]) -> Result<Value, InstancesError> {
        let mut command = self.tiers(words, subject);
        command.args(["--format", "json"]);
        let what = format!("isolab tiers {}", words.join(" "));
        let output = succeed(&mut command, &what, &subject.name)?;
        serde_json::from_slice(&output.stdout).map_err(|error| InstancesError::Garbled {
            command: what,
            subject: subject.name.clone(),
            fault: format!("it printed no JSON: {error}"),
        })
    }

    /// Puts load on the shop: the answers a second and times, by names that begin with `name`.
    fn load(
        &self,
        subject: &Level,
        name: &str,
        options: &[&str],
    ) -> Result<Vec<Figure>, InstancesError> {
        let words = [&["load"], options].concat();
        // The visitors are not the shop.
        let shop = Whose { roots: vec![std::process::id()], ..Whose::default() };
        let metered = |source| InstancesError::Meter { subject: subject.name.clone(), source };
        let meter = match self.is_counted {
            true => Some(Meter::start(Counted::Time, &shop).map_err(metered)?),
            false => None,
        };
        let told = self.json(subject, &words)?;
        let costs = meter.map(Meter::stop).transpose().map_err(metered)?.unwrap_or_default();
        figures(name, &told, &costs).ok_or_else(|| InstancesError::Garbled {
            command: format!("isolab tiers {}", words.join(" ")),
            subject: subject.name.clone(),
            fault: format!("there are figures missing in {told}"),
        })
    }

    /// What a shop with the first number of application servers is asked.
    fn measure(&self, subject: &Level) -> Result<Vec<Figure>, InstancesError> {
        let mut found = Vec::new();
        let time = format!("{}ms", self.plan.time.as_millis());
        for kind in KINDS {
            let options = ["--connections", "4", "--duration", &time, "--mix", kind];
            found.extend(self.load(subject, kind, &options)?);
        }
        for rate in self.plan.rates.iter().map(u32::to_string) {
            let options = ["--rate", &rate, "--duration", &time];
            found.extend(self.load(subject, &format!("{RATE}{rate}"), &options)?);
        }
        found.extend(parts(&self.json(subject, &["trace", TRACED])?));
        Ok(found)
    }

    /// Has each of `apps` servers open its connections to the database, seconds of work where processors are slow, and fill its
    /// cache. What is answered 503 meanwhile, as it would wait for too long, is not counted.
    fn warm(&self, subject: &Level, apps: u32) -> Result<(), InstancesError> {
        let requests = (WARMING * apps).to_string();
        let words = ["load", "--connections", "16", "--requests", &requests, "--mix", WARMING_MIX];
        match succeed(&mut self.tiers(&words, subject), "isolab tiers load", &subject.name) {
            Err(InstancesError::Command { status, .. }) if status.code() == Some(1) => Ok(()),
            result => result.map(drop),
        }
    }

    fn shops(&self, subject: &Level) -> Result<Vec<Figure>, InstancesError> {
        let mut found = Vec::new();
        let (level, port) = (subject.level.name(), self.plan.port.to_string());
        let requests = self.plan.requests.to_string();
        for (place, &servers) in self.plan.apps.iter().enumerate() {
            let apps = servers.to_string();
            let words =
                ["up", "--no-build", "--isolation", level, "--port", &port, "--apps", &apps];
            let spawned = timeline::now();
            succeed(&mut self.tiers(&words, subject), "isolab tiers up", &subject.name)?;
            if place == 0 {
                let milliseconds = (timeline::now() - spawned) as f64 / 1e6;
                found.push(Figure::new(TO_READY, "ms", milliseconds));
                found.extend(self.measure(subject)?);
            }
            self.warm(subject, servers)?;
            let options = ["--connections", "16", "--requests", &requests];
            found.extend(self.load(subject, &format!("apps_{apps}"), &options)?);
        }
        Ok(found)
    }
}

impl Workload for Tiers {
    type Error = InstancesError;

    fn name(&self) -> &'static str {
        "tiers"
    }

    fn subjects(&self) -> Vec<String> {
        self.plan.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn warms_itself(&self) -> bool {
        true
    }

    fn limit(&self) -> Option<Duration> {
        let TiersPlan { apps, rates, time, .. } = &self.plan;
        Some(TURN_LIMIT + *time * (KINDS.len() + rates.len() + apps.len()) as u32)
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, InstancesError> {
        let subject = &self.plan.subjects[subject];
        let found = self.shops(subject);
        let mut down = self.tiers(&["down", "--volumes"], subject);
        let ended = succeed(&mut down, "isolab tiers down", &subject.name);
        leftovers::wait();
        let found = found?;
        ended.map(|_| found)
    }
}

/// The figures of a load, and what each answer cost; none if one of them is missing.
fn figures(name: &str, told: &Value, costs: &[(&'static str, f64)]) -> Option<Vec<Figure>> {
    let figure = |end: &str, unit: &str, value: f64| Figure {
        metric: format!("{name}{end}").into(),
        unit: unit.to_owned().into(),
        value,
    };
    let time = |percentile| Some(told["all"]["nanoseconds"].get(percentile)?.as_f64()? / 1e6);
    let answered = told["all"]["answered"].as_f64().filter(|answered| *answered > 0.0)?;
    let mut found = vec![
        figure(THROUGHPUT, "per s", told["throughput"].as_f64()?),
        figure(PERCENTILES[0], "ms", time("p50")?),
        figure(PERCENTILES[1], "ms", time("p99")?),
    ];
    for (quantity, value) in costs {
        let unit = match *quantity {
            CPU => "us per request",
            SWITCHES | FAULTS => "per request",
            _ => continue,
        };
        found.push(figure(&format!("_{quantity}"), unit, value / answered));
    }
    Some(found)
}

/// Where the time of one request went: each part by who did it. The same part may come more than once.
fn parts(story: &Value) -> Vec<Figure> {
    let mut found: Vec<Figure> = Vec::new();
    for span in story["spans"].as_array().into_iter().flatten() {
        let (Some(lane), Some(name)) = (span["lane"].as_str(), span["name"].as_str()) else {
            continue;
        };
        let time = &span["time"];
        let Some(seconds) = time["secs"].as_f64().zip(time["nanos"].as_f64()) else { continue };
        let milliseconds = seconds.0 * 1e3 + seconds.1 / 1e6;
        let metric = format!("trace_{lane}_{}", name.trim().replace(char::is_whitespace, "_"));
        match found.iter_mut().find(|it| it.metric == metric) {
            Some(known) => known.value += milliseconds,
            None => {
                found.push(Figure { metric: metric.into(), unit: "ms".into(), value: milliseconds })
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use isolab_isolation::Level as Isolation;

    fn plan(program: PathBuf) -> TiersPlan {
        TiersPlan {
            program,
            subjects: Vec::new(),
            apps: vec![1],
            rates: Vec::new(),
            time: Duration::ZERO,
            requests: 1,
            port: 8080,
        }
    }

    fn told(figures: &[Figure]) -> Vec<(&str, &str, f64)> {
        figures.iter().map(|it| (&*it.metric, &*it.unit, it.value)).collect()
    }

    #[test]
    fn guests_boot_the_kernel_that_is_compared() {
        let (tiers, _) = Tiers::new(plan("isolab".into()));
        for kernel in [Some("slim"), None] {
            let subject = Level {
                name: "fullvirt".to_owned(),
                level: Isolation::Fullvirt,
                kernel: kernel.map(str::to_owned),
                other_work: None,
            };
            let command = tiers.tiers(&["up"], &subject);
            let variables: Vec<_> = command.get_envs().collect();
            let expected = kernel.map(|it| (KERNEL_VARIABLE.as_ref(), Some(it.as_ref())));
            assert_eq!(variables, Vec::from_iter(expected));
        }
    }

    #[test]
    fn each_server_is_warmed_and_what_is_not_answered_meanwhile_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("isolab");
        let subject = Level {
            name: "process".to_owned(),
            level: Isolation::Process,
            kernel: None,
            other_work: None,
        };
        for (status, is_failure) in [(0, false), (1, false), (125, true)] {
            // By another process: what another test's thread starts meanwhile would hold our file open, and it could not be executed.
            let script = format!("#!/bin/sh\necho \"$@\" >\"$0.words\"\nexit {status}\n");
            let write = r#"printf %s "$1" >"$2" && chmod 755 "$2""#;
            let mut writer = Command::new("sh");
            writer.args(["-c", write, "sh", &script]).arg(&program);
            assert!(writer.status().unwrap().success());
            let tiers = Tiers { plan: plan(program.clone()), is_counted: false };
            assert_eq!(tiers.warm(&subject, 4).is_err(), is_failure, "exit status {status}");
            let words = std::fs::read_to_string(folder.path().join("isolab.words")).unwrap();
            assert!(words.contains(" --requests 1600 --mix cached=1,read=1"), "{words}");
        }
    }

    #[test]
    fn a_load_s_figures_are_for_each_answer() {
        let mut load = json!({
            "throughput": 250.0,
            "all": { "answered": 500, "nanoseconds": { "p50": 2_000_000, "p99": 9_500_000 } },
        });
        let costs = [(CPU, 40_000.0), (SWITCHES, 1500.0)];
        let expected = [
            ("read_throughput", "per s", 250.0),
            ("read_p50", "ms", 2.0),
            ("read_p99", "ms", 9.5),
            ("read_cpu", "us per request", 80.0),
            ("read_context_switches", "per request", 3.0),
        ];
        assert_eq!(told(&figures("read", &load, &costs).unwrap()), expected);
        load["all"]["answered"] = 0.into();
        assert!(figures("read", &load, &costs).is_none());
    }

    #[test]
    fn parts_of_one_name_are_added() {
        let span = |lane: &str, name: &str, nanos: u64| json!({ "lane": lane, "name": name, "time": { "secs": 0, "nanos": nanos } });
        let story = json!({ "spans": [
            span("db", "query", 1_000_000), span("web", "  way to app", 500_000),
            span("db", "query", 250_000),
        ] });
        let expected = [("trace_db_query", "ms", 1.25), ("trace_web_way_to_app", "ms", 0.5)];
        assert_eq!(told(&parts(&story)), expected);
    }
}
