//! Commands on an instance that a command runs in the foreground, with its own streams.

use std::path::Path;
use std::sync::Arc;

use isolab_images::Image;
use isolab_isolation::{Controller, Level};

use super::health;
use super::record::Record;
use super::served::Served;
use super::server::serve;
use crate::config::Config;
use crate::document::Durability;
use crate::error::InstanceError;
use crate::networking::Attachment;
use crate::state::{Health, State, Status};
use crate::time::Timestamp;

/// An instance of the foreground as other commands see it: until this is dropped, which has to be before its folder
/// goes.
pub struct Foreground(Arc<Record>);

impl Drop for Foreground {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Lets other commands see the instance whose folder is `folder` and that this process waits for, and
/// act on it: all but attach to it. `networks` are its places on them. Its health checks are made as well.
///
/// # Errors
/// The folder cannot be written, or the host is out of threads.
pub fn serve_foreground(
    folder: &Path,
    level: Level,
    config: Config,
    image: &Image,
    controller: Arc<dyn Controller>,
    networks: Vec<Attachment>,
) -> Result<Foreground, InstanceError> {
    config.write(folder, Durability::UntilCrash)?;
    let started_at = Some(Timestamp::now());
    let state = State { status: Status::Running, started_at, ..State::default() };
    let record = Arc::new(Record::new(folder.to_owned(), state));
    let foreground = Foreground(Arc::clone(&record));
    record.set_controller(Some(Arc::clone(&controller)));
    let check = config.health.clone();
    // The catalogue takes what has a configuration and an owner, and no state, for one that runs: a start
    // has one file less to write, and its end to remove. A change writes it.
    if !networks.is_empty() || check.is_some() {
        record.change(|state| {
            state.networks = networks;
            state.health = check.as_ref().map(|_| Health::default());
        });
    }
    let served = Served::new(Arc::clone(&record), None, level, config, image);
    serve(folder, &served)?;
    if let Some((check, process)) = check.zip(served.first_process()) {
        health::watch(check, &record, controller, &process, image)?;
    }
    Ok(foreground)
}
