//! What happens while a project is brought up or down, for who tells it.

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there now.
    Created,
    /// It was another, and is there anew.
    Recreated,
    /// It is being started.
    Starting,
    /// It runs.
    Started,
    /// It ran already, as it is to be.
    Running,
    /// Others wait until it is well, or has ended.
    Waiting,
    /// It is well.
    Healthy,
    /// It has ended, with 0.
    Completed,
    /// It is being stopped.
    Stopping,
    /// It does not run any more.
    Stopped,
    /// It is gone.
    Removed,
}

/// What it happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// An instance, by its name.
    Instance(&'a str),
    /// A network, by its name on this host.
    Network(&'a str),
    /// A volume, likewise.
    Volume(&'a str),
}

/// Who is told.
pub trait Observer {
    /// Something happened.
    fn happened(&mut self, subject: Subject, event: Event);

    /// Whether to stop here: whoever waits for something waits no more.
    fn is_interrupted(&self) -> bool {
        false
    }
}
