//! How long a guest may be silent.

use std::time::Duration;

use isolab_isolation::{IsolationError, Level, Patience};

/// The options.
#[derive(Debug, Default, clap::Args)]
pub struct PatienceOptions {
    /// How many seconds a guest may take to come up before it is given up (300); 0 is no limit. VM levels only.
    #[arg(long, value_name = "SECONDS")]
    start_timeout: Option<u64>,
    /// How many seconds a guest that is up may leave unanswered that we ask whether it is still there (90); 0 is
    /// no limit. VM levels only.
    #[arg(long, value_name = "SECONDS")]
    hang_timeout: Option<u64>,
}

impl PatienceOptions {
    /// # Errors
    /// The level has no guest.
    pub fn patience(&self, level: Level) -> Result<Patience, IsolationError> {
        let asked = self.start_timeout.or(self.hang_timeout);
        if asked.is_some() && !level.is_virtual_machine() {
            return Err(IsolationError::Unsupported {
                level,
                what: "wait for a guest: it has none",
            });
        }
        let Patience { start, answer } = Patience::default();
        let limit = |asked: Option<u64>, default| match asked {
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => default,
        };
        Ok(Patience {
            start: limit(self.start_timeout, start),
            answer: limit(self.hang_timeout, answer),
        })
    }
}
