//! Commands on an instance that a command runs in the foreground, with its own streams.

use std::path::Path;
use std::sync::Arc;

use isolab_images::Image;
use isolab_isolation::{Controller, Level};

use super::record::Record;
use super::served::Served;
use super::server::serve;
use crate::config::Config;
use crate::document::Durability;
use crate::error::InstanceError;
use crate::networking::Attachment;
use crate::state::{State, Status};
use crate::time::Timestamp;

/// Lets other commands see the instance whose folder is `folder` and that this process waits for, and
/// act on it: all but attach to it. `networks` are its places on them. It ends with the process.
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
) -> Result<(), InstanceError> {
    config.write(folder, Durability::UntilCrash)?;
    let started_at = Some(Timestamp::now());
    let state = State { status: Status::Running, started_at, ..State::default() };
    let record = Arc::new(Record::new(folder.to_owned(), state));
    record.set_controller(Some(controller));
    // The catalogue takes what has a configuration and an owner, and no state, for one that runs: a start
    // has one file less to write, and its end to remove. A change writes it.
    if !networks.is_empty() {
        record.change(|state| state.networks = networks);
    }
    serve(folder, &Served::new(record, None, level, config, image))
}
