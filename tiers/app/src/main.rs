//! The application tier of the shop that isolab measures: it computes, answers from its cache, or asks
//! PostgreSQL through a pool of connections.

mod admission;
mod api;
mod cache;
mod config;
mod database;
mod error;
mod json;
mod metrics;
mod product;
mod server;
mod server_timing;
mod shop;

use std::io;
use std::process::ExitCode;

use tracing::error;

use api::health;
use config::Config;

fn main() -> ExitCode {
    let config = Config::read();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let result = if config.check { health::check(config.listen) } else { server::run(config) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!("{why:#}");
            ExitCode::FAILURE
        }
    }
}
