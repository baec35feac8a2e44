//! `--chmod`: octal digits, or the symbolic form of chmod(1).

use std::str::FromStr;

/// What is done to a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModeChange {
    To(u32),
    By(Vec<Clause>),
}

/// `u+rx`, `g=u`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// The bits of those whom it is about.
    who: u32,
    operator: char,
    what: Permissions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Permissions {
    /// As the owner's, with set-ID and sticky bits and whether `X` was among them.
    Bits { bits: u32, executable_if_any: bool, set_id: bool, sticky: bool },
    /// Those that user, group or others have; how far to the left their bits are.
    CopyOf(u32),
}

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

impl FromStr for ModeChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("--chmod={text} is no mode such as 755 or u+x,go-w");
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::To).ok_or_else(wrong);
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        Ok(Self::By(clauses.ok_or_else(wrong)?.concat()))
    }
}

impl ModeChange {
    /// The mode that a file of this mode gets.
    pub(super) fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        match self {
            Self::To(mode) => *mode,
            Self::By(clauses) => clauses.iter().fold(mode, |mode, it| it.apply(mode, is_folder)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        let bits = match &self.what {
            Permissions::CopyOf(shift) => ((mode >> shift) & 0o7) * 0o111,
            Permissions::Bits { bits, executable_if_any, set_id, sticky } => {
                let executable = *executable_if_any && (is_folder || mode & 0o111 != 0);
                let special = if *set_id { SET_UID | SET_GID } else { 0 };
                let sticky = if *sticky { STICKY } else { 0 };
                ((bits | u32::from(executable)) * 0o111) | special | sticky
            }
        };
        match self.operator {
            '+' => mode | (bits & self.who),
            '-' => mode & !(bits & self.who),
            _ => (mode & !self.who) | (bits & self.who),
        }
    }
}

/// `ug+r-w`: whom, and then one or more of operator and permissions.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let operators = ['+', '-', '='];
    let (whom, mut rest) = text.split_at(text.find(operators)?);
    let mut who = if whom.is_empty() { 0o777 | SET_UID | SET_GID | STICKY } else { 0 };
    for letter in whom.chars() {
        who |= match letter {
            'u' => 0o700 | SET_UID,
            'g' => 0o070 | SET_GID,
            'o' => 0o007 | STICKY,
            'a' => 0o777 | SET_UID | SET_GID | STICKY,
            _ => return None,
        };
    }
    let mut clauses = Vec::new();
    while let Some(operator) = rest.chars().next() {
        let behind = &rest[1..];
        let (letters, next) = behind.split_at(behind.find(operators).unwrap_or(behind.len()));
        clauses.push(Clause { who, operator, what: permissions(letters)? });
        rest = next;
    }
    Some(clauses)
}

fn permissions(letters: &str) -> Option<Permissions> {
    match letters {
        "u" => return Some(Permissions::CopyOf(6)),
        "g" => return Some(Permissions::CopyOf(3)),
        "o" => return Some(Permissions::CopyOf(0)),
        _ => {}
    }
    let (mut bits, mut executable_if_any, mut set_id, mut sticky) = (0, false, false, false);
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 4,
            'w' => bits |= 2,
            'x' => bits |= 1,
            'X' => executable_if_any = true,
            's' => set_id = true,
            't' => sticky = true,
            _ => return None,
        }
    }
    Some(Permissions::Bits { bits, executable_if_any, set_id, sticky })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        for (text, before, after) in [
            ("755", 0o644, 0o755),
            ("0644", 0o777, 0o644),
            ("4755", 0, 0o4755),
            ("+x", 0o644, 0o755),
            ("u+x", 0o644, 0o744),
            ("a-w", 0o666, 0o444),
            ("go-w", 0o777, 0o755),
            ("u=rwX,go=rX", 0o600, 0o644),
            ("u=rwX,go=rX", 0o700, 0o755),
            ("g=u", 0o640, 0o660),
            ("o=", 0o777, 0o770),
            ("u+s", 0o755, 0o4755),
            ("g+s", 0o755, 0o2755),
            ("+t", 0o777, 0o1777),
            ("ug+r-w", 0o222, 0o442),
        ] {
            let change: ModeChange = text.parse().unwrap();
            assert_eq!(change.apply(before, false), after, "{text} of {before:o}");
        }
        assert_eq!("a+X".parse::<ModeChange>().unwrap().apply(0o600, true), 0o711);
        for bad in ["", "8", "10000", "rwx", "u", "x+r", "u+q", "u+r,", "u+rg"] {
            assert!(bad.parse::<ModeChange>().is_err(), "{bad}");
        }
    }
}
