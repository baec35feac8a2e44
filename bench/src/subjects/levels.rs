//! The levels as subjects.

use std::ffi::OsString;

use isolab_isolation::{IsolationError, Level as Isolation, guest_kernel, kernel_of_both_levels};

use crate::report::again;

/// A level, perhaps with options of its own.
#[derive(Clone, Debug)]
pub struct Level {
    /// As it stands in the tables; unique in a plan.
    pub name: String,
    /// The level that `isolab run` is given.
    pub level: Isolation,
    /// The kernel of its guests, by the name that `isolab run --kernel` takes.
    pub kernel: Option<String>,
    /// What it does otherwise than the others, if it does.
    pub other_work: Option<String>,
}

impl Level {
    /// Options of `isolab run`.
    pub fn options(&self) -> Vec<OsString> {
        let kernel = self.kernel.iter();
        kernel.flat_map(|kernel| ["--kernel".into(), kernel.into()]).collect()
    }
}

/// `levels` as subjects, and the guest kernels' names for the report: `kernel`, or the quickest there is, at both VM
/// levels, or the kernels would be compared, too. Where that is not the stock one and none was named, `fullvirt-KERNEL`
/// is one more subject: an unmodified OS on emulated hardware. With `self_test`, the first level is one once more.
///
/// # Errors
/// There is no such kernel.
pub fn levels(
    levels: &[Isolation],
    kernel: Option<&str>,
    self_test: bool,
) -> Result<(Vec<Level>, Option<String>), IsolationError> {
    let mut used = None;
    let mut subjects: Vec<Level> = levels.iter().map(|level| subject(*level)).collect();
    if levels.iter().any(|level| level.is_virtual_machine()) {
        let shared = match kernel {
            None if levels.contains(&Isolation::Fullvirt) => kernel_of_both_levels()?,
            _ => guest_kernel(Isolation::Paravirt, kernel)?,
        };
        let mut names = shared.to_string();
        for subject in subjects.iter_mut().filter(|subject| subject.level.is_virtual_machine()) {
            subject.kernel = Some(shared.name.clone());
        }
        let ordinary = guest_kernel(Isolation::Fullvirt, None)?;
        let is_another = kernel.is_none() && ordinary.name != shared.name;
        if is_another && levels.contains(&Isolation::Fullvirt) {
            names = format!("{names}; {ordinary} where the subject says so");
            subjects.push(Level {
                name: format!("{}-{}", Isolation::Fullvirt, ordinary.name),
                other_work: Some(format!("it boots another kernel, {}", ordinary.name)),
                kernel: Some(ordinary.name),
                ..subject(Isolation::Fullvirt)
            });
        }
        used = Some(names);
    }
    if let Some(first) = subjects.first().filter(|_| self_test) {
        let twin = Level { name: again(&first.name), ..first.clone() };
        subjects.push(twin);
    }
    Ok((subjects, used))
}

fn subject(level: Isolation) -> Level {
    Level { name: level.name().to_owned(), level, kernel: None, other_work: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_level_takes_part_twice_for_the_self_test() {
        let (subjects, kernel) =
            levels(&[Isolation::Container, Isolation::Process], None, true).unwrap();
        let names: Vec<&str> = subjects.iter().map(|it| it.name.as_str()).collect();
        assert_eq!((names, kernel), (vec!["container", "process", "container (again)"], None));
        assert_eq!(subjects[2].level, Isolation::Container);
    }
}
