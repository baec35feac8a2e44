//! Commands on an instance that a command runs in the foreground, with its own streams.

use std::path::Path;
use std::sync::Arc;

use isolab_images::Image;
use isolab_isolation::{Controller, Level, ProcessId};

use super::record::Record;
use super::server::{Served, serve};
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
    let record = Arc::new(Record::new(folder.to_owned(), State::default()));
    record.set_controller(Some(controller));
    record.change(|state| {
        state.status = Status::Running;
        state.started_at = Some(Timestamp::now());
        state.networks = networks;
        state.supervisor = ProcessId::of(std::process::id() as i32);
    });
    serve(folder, &Served::new(record, None, level, config, image))
}
