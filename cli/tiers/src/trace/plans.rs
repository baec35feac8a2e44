//! What PostgreSQL ran, from its own log: auto_explain writes each statement with the plan that it had, the rows and
//! the buffers of each node, as EXPLAIN (ANALYZE, BUFFERS) would of another run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isolab_guest::package;
use isolab_instances::log::{self, LogQuery};
use isolab_instances::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::PATIENCE;
use crate::site::Member;

/// What ends the search in the log: a statement of ours.
const MARK: &str = "SELECT 'isolab tiers trace ends'";
const SETTING: &str = "auto_explain.log_min_duration";

/// A statement that was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statement {
    /// As the application wrote it.
    pub text: String,
    /// Its execution.
    pub time: Duration,
    /// Its plan.
    pub plan: Node,
}

/// A node of a plan, with what is below it counted in.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Node {
    /// What it does.
    #[serde(rename(deserialize = "Node Type"))]
    pub kind: String,
    /// By which index.
    #[serde(rename(deserialize = "Index Name"))]
    pub index: Option<String>,
    /// Of which table.
    #[serde(rename(deserialize = "Relation Name"))]
    pub table: Option<String>,
    /// Rows that came out.
    #[serde(rename(deserialize = "Actual Rows"), default)]
    pub rows: f64,
    /// Blocks that were in the buffers.
    #[serde(rename(deserialize = "Shared Hit Blocks"), default)]
    pub hits: u64,
    /// Blocks that were read from files.
    #[serde(rename(deserialize = "Shared Read Blocks"), default)]
    pub reads: u64,
    /// What is below it.
    #[serde(rename(deserialize = "Plans"), default)]
    pub below: Vec<Node>,
}

#[derive(Deserialize)]
struct Logged {
    #[serde(rename = "Query Text")]
    text: String,
    #[serde(rename = "Plan")]
    plan: Node,
}

/// The log of plans, turned on until this is dropped.
#[derive(Debug)]
pub struct Switch<'a> {
    db: &'a Member,
    is_on: bool,
}

impl<'a> Switch<'a> {
    /// Turns it on, for all sessions that there are and will be.
    ///
    /// # Errors
    /// The database cannot be told.
    pub fn on(db: &'a Member) -> Result<Self> {
        let switch = Self { db, is_on: true };
        psql(db, &[&format!("ALTER SYSTEM SET {SETTING} = 0"), "SELECT pg_reload_conf()"])?;
        let deadline = Instant::now() + PATIENCE;
        // A new session has it when the server has read its configuration, and signalled the sessions that there were.
        while psql(db, &[&format!("SHOW {SETTING}")])?.trim() != "0" {
            ensure!(Instant::now() < deadline, "the database does not read its configuration");
        }
        Ok(switch)
    }

    /// Turns it off, and gives what was run since then.
    ///
    /// # Errors
    /// The database cannot be told, or its log not be read.
    pub fn off(mut self, since: Timestamp) -> Result<Vec<Statement>> {
        psql(self.db, &[MARK])?;
        self.is_on = false;
        reset(self.db)?;
        let deadline = Instant::now() + PATIENCE;
        let query = LogQuery { since: Some(since), follow: true, ..LogQuery::default() };
        let mut reader = Reader::default();
        let take = |entry: &log::LogEntry| reader.take(&String::from_utf8_lossy(&entry.text));
        log::read(&self.db.instance.entry.path, &query, take, || Instant::now() > deadline)?;
        ensure!(reader.is_over, "the database's log does not tell what was run");
        Ok(reader.statements)
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        if self.is_on {
            // There is an error already, which is told.
            let _ = reset(self.db);
        }
    }
}

fn reset(db: &Member) -> Result<String> {
    psql(db, &[&format!("ALTER SYSTEM RESET {SETTING}"), "SELECT pg_reload_conf()"])
}

/// Runs statements as PostgreSQL's owner, inside.
fn psql(db: &Member, statements: &[&str]) -> Result<String> {
    let mut psql = Command::new(package::executable("isolab")?);
    psql.args(["exec", "--user", "postgres", db.instance.name()]);
    psql.args(["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "shop"]);
    for statement in statements {
        psql.args(["-c", statement]);
    }
    let output = psql.stdin(Stdio::null()).output().context("cannot run isolab exec")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "psql in `{}`: {}", db.instance.name(), errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads PostgreSQL's log: a line with the duration, and the plan behind it in lines that begin with a tab.
#[derive(Debug, Default)]
struct Reader {
    /// The duration, and what there is of its plan.
    open: Option<(Duration, String)>,
    statements: Vec<Statement>,
    is_over: bool,
}

impl Reader {
    /// Takes a line; false when no more is needed.
    fn take(&mut self, line: &str) -> bool {
        match (line.strip_prefix('\t'), &mut self.open) {
            (Some(line), Some((_, plan))) => {
                plan.push_str(line);
                plan.push('\n');
                // Its end is no line of its own: the next line may be long in coming.
                if line == "}" {
                    self.close();
                }
            }
            // Other programs of the instance write lines between those of a plan.
            _ => {
                let begun = duration(line).map(|duration| (duration, String::new()));
                self.open = begun.or(self.open.take());
            }
        }
        !self.is_over
    }

    fn close(&mut self) {
        let Some((time, plan)) = self.open.take() else { return };
        let Ok(Logged { text, plan }) = serde_json::from_str(&plan) else { return };
        self.is_over = text == MARK;
        let is_ours = self.is_over || text.contains("pg_reload_conf") || text.contains(SETTING);
        if !is_ours {
            self.statements.push(Statement { text, time, plan });
        }
    }
}

/// The duration of a line that has a plan behind it.
fn duration(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("LOG:  duration: ")?;
    let milliseconds = rest.strip_suffix(" ms  plan:")?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1e3).ok()
}

impl Node {
    /// What it does, in a line: what finds rows is at the bottom.
    pub fn summary(&self) -> String {
        match (&self.below[..], &self.index, &self.table) {
            ([one], None, None) => format!("{} < {}", self.kind, one.summary()),
            (_, Some(index), _) => format!("{} {index}", self.kind),
            (_, None, Some(table)) => format!("{} {table}", self.kind),
            _ => self.kind.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 writes it.
    const LOG: &str = "2026-11-28 07:27:09.120 GMT [31] LOG:  duration: 0.042 ms  plan:\n\
        \t{\n\
        \t  \"Query Text\": \"SELECT name FROM product WHERE id = $1\",\n\
        \t  \"Plan\": {\n\
        07:27:09 1 INFO  Monitor assigned new state \"primary\"\n\
        \t    \"Node Type\": \"Limit\",\n\
        \t    \"Actual Rows\": 1,\n\
        \t    \"Shared Hit Blocks\": 2,\n\
        \t    \"Shared Read Blocks\": 1,\n\
        \t    \"Plans\": [{ \"Node Type\": \"Index Scan\", \"Index Name\": \"product_pkey\", \"Relation Name\": \"product\" }]\n\
        \t  }\n\
        \t}\n\
        2026-11-28 07:27:09.121 GMT [31] LOG:  checkpoint starting: time\n\
        2026-11-28 07:27:09.130 GMT [32] LOG:  duration: 0.002 ms  plan:\n\
        \t{\n\
        \t  \"Query Text\": \"SELECT 'isolab tiers trace ends'\",\n\
        \t  \"Plan\": { \"Node Type\": \"Result\" }\n\
        \t}\n\
        2026-11-28 07:27:09.140 GMT [33] LOG:  never read";

    #[test]
    fn statements_before_the_mark_are_read_with_their_plans() {
        let mut reader = Reader::default();
        let taken = LOG.lines().take_while(|line| reader.take(line)).count();
        assert_eq!(taken, LOG.lines().count() - 2);
        let [statement] = &reader.statements[..] else { panic!("{:?}", reader.statements) };
        assert_eq!(statement.time, Duration::from_micros(42));
        assert_eq!(statement.text, "SELECT name FROM product WHERE id = $1");
        assert_eq!((statement.plan.hits, statement.plan.reads), (2, 1));
        assert_eq!(statement.plan.summary(), "Limit < Index Scan product_pkey");
    }
}
