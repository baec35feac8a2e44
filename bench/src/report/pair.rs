//! Who is compared with whom.

/// Behind the name of a subject that is measured once more.
const AGAIN: &str = " (again)";

/// Whose figures are compared with whose.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The workload.
    pub benchmark: String,
    /// Whose ratio it is.
    pub subject: String,
    /// To whom.
    pub baseline: String,
    /// What the subject does otherwise, if it does.
    pub other_work: Option<String>,
    /// The metric that must be the same of both.
    pub control: Option<String>,
}

/// The name under which a subject is measured once more.
pub fn again(subject: &str) -> String {
    format!("{subject}{AGAIN}")
}

/// Whether it is a subject once more.
pub fn is_again(subject: &str) -> bool {
    subject.ends_with(AGAIN)
}
