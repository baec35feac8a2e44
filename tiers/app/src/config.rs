//! What the server is told, by options or by its environment.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Command, CommandFactory, FromArgMatches};

/// The application server of isolab's shop.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    version,
    after_help = "Each option with a value may be in the environment instead: --cache-ttl is SHOP_CACHE_TTL.\n\n\
    Example:\n  \
    isolab-shop --database 'host=db user=shop password=shop dbname=shop' --listen 0.0.0.0:8000"
)]
pub struct Config {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,
    /// Ask the server that listens there whether it is ready, and exit with 0 if it is.
    #[arg(long)]
    pub check: bool,
    /// How PostgreSQL is reached, as libpq has it. With several hosts and target_session_attrs=read-write the one
    /// that takes writes is found again after a fail-over.
    #[arg(long, value_name = "PARAMETERS")]
    #[arg(default_value = "host=localhost user=shop dbname=shop")]
    pub database: String,
    /// Connections to PostgreSQL at most.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub connections: usize,
    /// How long a request waits for one of them, in milliseconds; then it is answered 503.
    #[arg(long, value_name = "MS", default_value = "2000")]
    #[arg(value_parser = milliseconds)]
    pub connection_timeout: Duration,
    /// How long a statement may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "5000")]
    #[arg(value_parser = milliseconds)]
    pub statement_timeout: Duration,
    /// How many requests are worked on at a time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// How many more wait for their turn; the next is answered 503 at once.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub queue: u32,
    /// How long a request may take from its turn to its answer, in milliseconds; then it is answered 504.
    #[arg(long, value_name = "MS", default_value = "10000")]
    #[arg(value_parser = milliseconds)]
    pub request_timeout: Duration,
    /// How many products the cache holds. 0 is no cache.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub cache_size: u64,
    /// How long a product stays in the cache, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "30000")]
    #[arg(value_parser = milliseconds)]
    pub cache_ttl: Duration,
    /// How long requests that are under way may take when the server is told to end, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "8000")]
    #[arg(value_parser = milliseconds)]
    pub stop_timeout: Duration,
}

impl Config {
    /// From the command line and the environment, of which the former has the last word. A mistake in either ends the
    /// process with a message.
    pub fn read() -> Self {
        let command = Self::command().args_override_self(true);
        let mut arguments = std::env::args_os();
        let words: Vec<OsString> = arguments.next().into_iter().collect();
        let words = words.into_iter().chain(options(&command, std::env::var_os));
        let matches = command.clone().get_matches_from(words.chain(arguments));
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// `--cache-ttl=VALUE` for SHOP_CACHE_TTL, and so on.
fn options(command: &Command, variable: impl Fn(String) -> Option<OsString>) -> Vec<OsString> {
    let with_values = command.get_arguments().filter(|it| it.get_action().takes_values());
    let option = |long: &str| {
        let name = format!("SHOP_{}", long.to_uppercase().replace('-', "_"));
        let mut option = OsString::from(format!("--{long}="));
        option.push(variable(name)?);
        Some(option)
    };
    with_values.filter_map(|it| option(it.get_long()?)).collect()
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected milliseconds, 1 or more".to_owned()),
        Ok(count) => Ok(Duration::from_millis(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_what_the_command_line_does_not() {
        let variables = |name: String| {
            let value = match name.as_str() {
                "SHOP_CACHE_TTL" => "50",
                "SHOP_QUEUE" => "1",
                "SHOP_CHECK" => "1",
                _ => return None,
            };
            Some(value.into())
        };
        let command = Config::command().args_override_self(true);
        let words = ["isolab-shop".into()].into_iter().chain(options(&command, variables));
        let words = words.chain(["--queue".into(), "7".into()]);
        let config = Config::from_arg_matches(&command.get_matches_from(words)).unwrap();
        assert_eq!((config.cache_ttl, config.queue), (Duration::from_millis(50), 7));
        assert_eq!((config.check, config.concurrency), (false, 64));
    }
}
