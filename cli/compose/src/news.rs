//! Telling what happens, a line for each event.

use isolab_command::signals::Blocked;
use isolab_compose::{Event, Observer, Subject};

/// Tells it on standard error, and hears signals if they are blocked for it.
pub struct News<'a> {
    pub signals: Option<&'a Blocked>,
}

impl Observer for News<'_> {
    fn happened(&mut self, subject: Subject, event: Event) {
        let (kind, name) = match subject {
            Subject::Instance(name) => ("Instance", name),
            Subject::Network(name) => ("Network", name),
            Subject::Volume(name) => ("Volume", name),
        };
        eprintln!("{kind} {name}  {event:?}");
    }

    fn is_interrupted(&self) -> bool {
        self.signals.is_some_and(|signals| signals.arrived().is_some())
    }
}
