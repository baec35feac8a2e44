//! A request from beginning to end, on one clock.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::Method;
use serde::{Deserialize, Serialize};

use super::clock::Offset;
use super::cost::Counters;
use super::name::Resolved;
use super::parts::{self, Part};
use super::plans::Statement;
use super::web_log::WebLine;
use crate::http::Answer;
use crate::site::{Member, Site};

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Here, outside of all tiers.
    Client,
    /// nginx, and the way between it and its neighbours.
    Web,
    /// The application server.
    App,
    /// PostgreSQL.
    Db,
}

impl Lane {
    /// All of them, from the client on.
    pub const ALL: [Self; 4] = [Self::Client, Self::Web, Self::App, Self::Db];
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Web => "web",
            Self::App => "app",
            Self::Db => "db",
        })
    }
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Span {
    /// Where.
    pub lane: Lane,
    /// What.
    pub name: String,
    /// When it began, after the trace did.
    pub begin: Duration,
    /// How long it took.
    pub time: Duration,
    /// Bytes there and back.
    pub bytes: Option<(u64, u64)>,
    /// What else is known of it.
    pub note: String,
}

/// A request, and all that is known of it.
#[derive(Debug, Serialize)]
pub struct Story {
    /// Method and path.
    pub request: String,
    /// The answer's status.
    pub status: u16,
    /// Its name in logs.
    pub id: String,
    /// From the question for the name to the last byte.
    pub whole: Duration,
    /// The level of each instance, in the order of tiers.
    pub levels: Vec<(String, &'static str)>,
    /// What happened, in the order in which it began.
    pub spans: Vec<Span>,
    /// What the database ran.
    pub statements: Vec<Statement>,
    /// How far the application's clock is from ours, if it was in it.
    pub clock: Option<Offset>,
    /// What each instance was seen to do meanwhile.
    pub costs: Vec<(String, Counters)>,
}

/// Moments of ours, as they are told of others.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall: u64,
}

impl Clock {
    /// Starts now, which is this by the wall's clock.
    pub fn start(wall: SystemTime) -> Self {
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), wall: wall.as_nanos() as u64 }
    }

    /// Since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The start, in nanoseconds since 1970.
    pub fn wall_nanoseconds(&self) -> u64 {
        self.wall
    }

    fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.start)
    }

    /// A moment of another's clock; one before the start is the start.
    fn of_other(&self, theirs: u64, offset: Offset) -> Duration {
        let ours = i128::from(theirs) - i128::from(offset.nanoseconds) - i128::from(self.wall);
        Duration::from_nanos(u64::try_from(ours).unwrap_or(0))
    }
}

/// What was heard of a request.
#[derive(Debug)]
pub struct Heard {
    /// Of the name service.
    pub resolved: Resolved,
    /// When it had answered.
    pub named: Duration,
    /// When the connection was there.
    pub connected: Duration,
    /// The answer itself.
    pub answer: Answer,
    /// Of nginx.
    pub web_line: WebLine,
    /// Of the application's clock.
    pub offset: Option<Offset>,
    /// Of PostgreSQL.
    pub statements: Vec<Statement>,
    /// Of the kernel.
    pub costs: Vec<(String, Counters)>,
}

/// Tells it.
pub fn tell(
    site: &Site,
    method: Method,
    path: &str,
    clock: Clock,
    app: Option<&Member>,
    heard: Heard,
) -> Story {
    let (sent, first, last) =
        (clock.at(heard.answer.sent), clock.at(heard.answer.first), clock.at(heard.answer.last));
    let mut spans = vec![name_span(&heard), connect_span(&heard)];
    spans.push(web_span(&heard.web_line, app, sent, last));
    if let Some((app, offset)) = app.zip(heard.offset) {
        let arrived = heard.answer.header("shop-arrived").parse().unwrap_or(0);
        let arrived = clock.of_other(arrived, offset).clamp(sent, first);
        let parts = parts_of_app(&heard.answer);
        spans.extend(app_spans(app, arrived, first, &parts, &heard.web_line));
        spans.extend(db_spans(arrived, &parts, &heard.statements));
    }
    spans.push(Span {
        lane: Lane::Client,
        name: "read the answer".to_owned(),
        begin: first,
        time: last.saturating_sub(first),
        bytes: None,
        note: format!("{} bytes of body", heard.answer.body.len()),
    });
    spans.sort_by_key(|span| (span.begin, span.lane));
    let level = |member: &Member| (member.instance.name().to_owned(), member.level());
    Story {
        request: format!("{method} {path}"),
        status: heard.answer.status.as_u16(),
        id: heard.web_line.id,
        whole: last,
        levels: site.running().map(level).collect(),
        spans,
        statements: if app.is_some() { heard.statements } else { Vec::new() },
        clock: heard.offset,
        costs: heard.costs,
    }
}

fn name_span(heard: &Heard) -> Span {
    let Resolved { name, server, addresses, sent, received } = &heard.resolved;
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Span {
        lane: Lane::Client,
        name: format!("name {name}"),
        begin: Duration::ZERO,
        time: heard.named,
        bytes: Some((*sent as u64, *received as u64)),
        note: format!("{} by {server}", addresses.join(" ")),
    }
}

fn connect_span(heard: &Heard) -> Span {
    Span {
        lane: Lane::Client,
        name: "connect".to_owned(),
        begin: heard.named,
        time: heard.connected.saturating_sub(heard.named),
        bytes: None,
        note: "TCP".to_owned(),
    }
}

fn web_span(line: &WebLine, app: Option<&Member>, sent: Duration, last: Duration) -> Span {
    let by = match (app, line.upstream_address()) {
        (Some(app), Some(address)) => {
            let kept = if line.connect.ends_with("0.000") { "" } else { ", connected anew" };
            let tries = match line.tries() {
                0 | 1 => String::new(),
                tries => format!(", {tries} servers tried"),
            };
            format!("to {} at {address}{kept}{tries}", app.instance.name())
        }
        _ => "static, from its disk".to_owned(),
    };
    Span {
        lane: Lane::Web,
        name: "web".to_owned(),
        begin: sent,
        time: last.saturating_sub(sent),
        bytes: Some((line.received, line.sent)),
        note: format!("{by}; nginx itself {:.0} ms", line.seconds * 1e3),
    }
}

/// nginx hands on the application's header, and adds one of its own.
fn parts_of_app(answer: &Answer) -> Vec<Part> {
    let headers = answer.headers.get_all("server-timing").iter();
    headers.filter_map(|value| value.to_str().ok()).flat_map(parts::parse).collect()
}

fn app_spans(
    app: &Member,
    arrived: Duration,
    first: Duration,
    parts: &[Part],
    line: &WebLine,
) -> Vec<Span> {
    let whole = parts.iter().find(|part| part.name == "app").map_or(Duration::ZERO, |it| it.time);
    let mut spans = vec![Span {
        lane: Lane::App,
        name: "app".to_owned(),
        begin: arrived,
        // The clock's error may have it end too late.
        time: whole.min(first.saturating_sub(arrived)),
        bytes: line.upstream_bytes(),
        note: app.instance.name().to_owned(),
    }];
    for part in parts.iter().filter(|part| !["app", "web"].contains(&&part.name[..])) {
        let name = match &part.name[..] {
            "queue" => "wait for a turn",
            "cache" => "look into the cache",
            "compute" => "compute",
            "pool" => "wait for a connection",
            "db" => "ask the database",
            other => other,
        };
        spans.push(Span {
            lane: Lane::App,
            name: format!("  {name}"),
            begin: arrived + part.at,
            time: part.time,
            bytes: None,
            note: part.description.clone().unwrap_or_default(),
        });
    }
    spans
}

/// Where in the application's wait a statement ran is not told: they are drawn one after the other, in the middle.
fn db_spans(arrived: Duration, parts: &[Part], statements: &[Statement]) -> Vec<Span> {
    let Some(part) = parts.iter().find(|part| part.name == "db") else { return Vec::new() };
    let whole: Duration = statements.iter().map(|statement| statement.time).sum();
    let mut begin = arrived + part.at + part.time.saturating_sub(whole) / 2;
    let mut spans = Vec::new();
    for Statement { text, time, plan } in statements {
        let from = if plan.reads == 0 { "all in buffers" } else { "not all in buffers" };
        spans.push(Span {
            lane: Lane::Db,
            name: text.split_whitespace().next().unwrap_or_default().to_owned(),
            begin,
            time: *time,
            bytes: None,
            note: format!("{}, {} hit, {} read, {from}", plan.summary(), plan.hits, plan.reads),
        });
        begin += *time;
    }
    spans
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A story as it is told of a read through all tiers.
    pub fn story() -> Story {
        let micros = Duration::from_micros;
        let span = |lane, name: &str, begin, time| Span {
            lane,
            name: name.to_owned(),
            begin: micros(begin),
            time: micros(time),
            bytes: None,
            note: "a < b".to_owned(),
        };
        Story {
            request: "GET /api/products?q=<oak>&page=1".to_owned(),
            status: 200,
            id: "5c6a".to_owned(),
            whole: micros(2000),
            levels: vec![("shop-web-1".to_owned(), "container")],
            spans: vec![
                span(Lane::Client, "name web", 0, 200),
                span(Lane::Web, "web", 300, 1600),
                span(Lane::App, "app", 500, 1000),
                span(Lane::Db, "SELECT", 700, 400),
            ],
            statements: Vec::new(),
            clock: Some(Offset { nanoseconds: -1_500_000, error: 40_000 }),
            costs: vec![(
                "shop-web-1".to_owned(),
                Counters { waits: Some(3), ..Counters::default() },
            )],
        }
    }

    #[test]
    fn another_s_moment_is_one_of_ours() {
        let clock = Clock { start: Instant::now(), wall: 1_000_000 };
        let offset = Offset { nanoseconds: -300_000, error: 10 };
        assert_eq!(clock.of_other(750_000, offset), Duration::from_nanos(50_000));
        assert_eq!(clock.of_other(600_000, offset), Duration::ZERO);
    }

    #[test]
    fn statements_are_in_the_wait_for_them() {
        let statement = |micros| Statement {
            text: "SELECT 1".to_owned(),
            time: Duration::from_micros(micros),
            plan: serde_json::from_str(r#"{"Node Type":"Result"}"#).unwrap(),
        };
        let parts = parts::parse("db;dur=1.0;at=0.5, app;dur=2");
        let spans = db_spans(Duration::from_micros(100), &parts, &[statement(200), statement(400)]);
        let places: Vec<_> =
            spans.iter().map(|it| (it.begin.as_micros(), it.time.as_micros())).collect();
        assert_eq!(places, [(800, 200), (1000, 400)]);
        assert!(db_spans(Duration::ZERO, &parts[1..], &[statement(1)]).is_empty());
    }
}
