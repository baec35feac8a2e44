//! What `${NAME#PATTERN}` and its like do to a value (POSIX shell, 2.6.2; bash(1) for `/`).

use crate::pattern::Pattern;

/// Where a value is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Beginning,
    End,
}

/// The value less what matches at one side of it: the least, or the most where `greedy`.
pub(super) fn without(value: &str, pattern: &str, side: Side, greedy: bool) -> String {
    let pattern = Pattern::of_value(pattern);
    let text: Vec<char> = value.chars().collect();
    let kept = match side {
        Side::Beginning => {
            let ends = pattern.ends(&text);
            let cut = if greedy { ends.last() } else { ends.first() };
            &text[cut.copied().unwrap_or(0)..]
        }
        Side::End => {
            let matches =
                |start: &usize| pattern.ends(&text[*start..]).last() == Some(&(text.len() - start));
            let mut starts = 0..=text.len();
            let cut = if greedy { starts.find(matches) } else { starts.rev().find(matches) };
            &text[..cut.unwrap_or(text.len())]
        }
    };
    kept.iter().collect()
}

/// The value with the first match replaced, or all of them. The longest is taken.
pub(super) fn replaced(value: &str, pattern: &str, by: &str, all: bool) -> String {
    let pattern = Pattern::of_value(pattern);
    let text: Vec<char> = value.chars().collect();
    let mut result = String::new();
    let mut at = 0;
    while at < text.len() {
        match pattern.ends(&text[at..]).last().copied() {
            Some(length) if length > 0 => {
                result += by;
                at += length;
                if !all {
                    break;
                }
            }
            _ => {
                result.push(text[at]);
                at += 1;
            }
        }
    }
    result.extend(&text[at..]);
    result
}
