//! What the operator can do about a failure.

use std::error::Error;

use crate::images::BuildFailure;
use crate::site::SiteError;

/// The hint for an error of this executable.
pub fn of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(BuildFailure { .. }) = error.downcast_ref() {
        let hint = "the images start from debian:bookworm; where no registry is reachable, `isolab image load \
                    \"$(scripts/make-base-image)\"` makes it from a mirror";
        return Some(hint.to_owned());
    }
    match error.downcast_ref()? {
        SiteError::NotUp { .. } => Some("`isolab tiers up` starts the shop".to_owned()),
        SiteError::Missing { .. } => Some(
            "`isolab tiers status` shows what runs, `isolab tiers up` starts the rest".to_owned(),
        ),
        SiteError::NoPrimary => Some(
            "the standby takes over within ten seconds; `isolab tiers status` shows it".to_owned(),
        ),
        SiteError::NoAddress { .. } => None,
    }
}
