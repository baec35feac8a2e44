//! Patterns of names: those of .dockerignore and COPY, and those of `${NAME#PATTERN}`.
//!
//! Docker's are Go's path.Match with `**` (moby/patternmatcher): braces are plain text, `!` does
//! not negate, and `**.log` crosses slashes. globset differs in all three. A set of states is
//! followed through the text, so that no pattern takes more than its length times the text's.

/// A pattern that was parsed.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// Any character, or any but a slash.
    Any {
        slash: bool,
    },
    /// Any number of them.
    Star {
        slash: bool,
    },
    /// One of these characters, or none of them: `[a-z]`, `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: nothing, or folders; `Inside` follows it.
    Folders,
    /// Within those folders.
    Inside,
}

impl Pattern {
    /// `*`, `?` and `[]`, which do not match a slash, and `**`, which does.
    pub(super) fn of_path(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no pattern");
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.next_if_eq(&'*').is_some() => match chars.next_if_eq(&'/') {
                    Some(_) => tokens.extend([Token::Folders, Token::Inside]),
                    None => tokens.push(Token::Star { slash: true }),
                },
                '*' => tokens.push(Token::Star { slash: false }),
                '?' => tokens.push(Token::Any { slash: false }),
                '\\' => tokens.push(Token::Char(chars.next().ok_or_else(wrong)?)),
                '[' => tokens.push(class(&mut chars).ok_or_else(wrong)?),
                c => tokens.push(Token::Char(c)),
            }
        }
        Ok(Self { tokens })
    }

    /// `*` and `?` of any characters; `\` quotes (POSIX shell, 2.14, without brackets, as
    /// BuildKit).
    pub(super) fn of_value(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star { slash: true },
                '?' => Token::Any { slash: true },
                '\\' => Token::Char(chars.next().unwrap_or('\\')),
                c => Token::Char(c),
            });
        }
        Self { tokens }
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.ends(&text).last() == Some(&text.len())
    }

    /// The lengths of the beginnings of `text` that match, ascending.
    pub(super) fn ends(&self, text: &[char]) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut states = vec![false; self.tokens.len() + 1];
        self.enter(0, &mut states);
        for length in 0..=text.len() {
            if states[self.tokens.len()] {
                ends.push(length);
            }
            let Some(c) = text.get(length) else { break };
            let mut next = vec![false; states.len()];
            for (state, token) in self.tokens.iter().enumerate() {
                if states[state] {
                    self.step(state, token, *c, &mut next);
                }
            }
            states = next;
        }
        ends
    }

    fn step(&self, state: usize, token: &Token, c: char, next: &mut [bool]) {
        match token {
            Token::Char(own) if *own == c => self.enter(state + 1, next),
            Token::Any { slash } if *slash || c != '/' => self.enter(state + 1, next),
            Token::Star { slash } if *slash || c != '/' => self.enter(state, next),
            Token::Class { negated, ranges } => {
                let is_in = ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
                if is_in != *negated && c != '/' {
                    self.enter(state + 1, next);
                }
            }
            Token::Inside => {
                self.enter(state, next);
                if c == '/' {
                    self.enter(state + 1, next);
                }
            }
            _ => {}
        }
    }

    /// With what is reached from `state` without a character.
    fn enter(&self, state: usize, states: &mut [bool]) {
        states[state] = true;
        match self.tokens.get(state) {
            Some(Token::Star { .. }) => self.enter(state + 1, states),
            Some(Token::Folders) => {
                states[state + 1] = true;
                self.enter(state + 2, states);
            }
            _ => {}
        }
    }
}

/// Behind a `[`, with its end.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class { negated, ranges }),
            '\\' => chars.next()?,
            c => c,
        };
        if chars.next_if_eq(&'-').is_none() {
            ranges.push((first, first));
            continue;
        }
        match chars.next()? {
            // `[a-]` has a hyphen in it.
            ']' => {
                ranges.extend([(first, first), ('-', '-')]);
                return Some(Token::Class { negated, ranges });
            }
            '\\' => ranges.push((first, chars.next()?)),
            last => ranges.push((first, last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_as_docker_s_do() {
        for (pattern, matching, others) in [
            ("*.txt", &["a.txt", ".txt"][..], &["d/a.txt", "a.txt/x", "a.tx"][..]),
            ("**/x", &["x", "a/x", "a/b/x"], &["ax", "x/a"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab"]),
            ("**.log", &["a.log", "d/a.log", ".log"], &["a.logs"]),
            ("a**b", &["ab", "a/x/b"], &["a/x"]),
            ("a/**/b", &["a/b", "a/x/y/b"], &["ab", "a/xb"]),
            ("**", &["a", "a/b"], &[]),
            ("{a,b}.c", &["{a,b}.c"], &["a.c", "b.c"]),
            ("[a-c]?", &["ax", "cy"], &["dx", "a", "a/"]),
            ("[^a]", &["b", "!"], &["a", "/"]),
            ("[!a]", &["!", "a"], &["b"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[a-]", &["-", "a"], &["b"]),
            (r"\*", &["*"], &["a"]),
            (r"[\]]", &["]"], &["\\"]),
            ("a.b+(c)|$", &["a.b+(c)|$"], &["aXb+(c)|$"]),
        ] {
            let pattern_of = Pattern::of_path(pattern).unwrap();
            for text in matching {
                assert!(pattern_of.is_match(text), "{pattern} {text}");
            }
            for text in others {
                assert!(!pattern_of.is_match(text), "{pattern} {text}");
            }
        }
        for bad in ["[", "[a", "a\\", "[a-"] {
            assert!(Pattern::of_path(bad).is_err(), "{bad}");
        }
    }

    /// What takes others' matchers, which go back and try again, longer than the universe exists.
    #[test]
    fn no_pattern_takes_long() {
        let pattern = Pattern::of_path(&"*a".repeat(40)).unwrap();
        assert!(!pattern.is_match(&"a".repeat(2000).replace("aaaaaaaa", "aaaaaaa/")));
    }
}
