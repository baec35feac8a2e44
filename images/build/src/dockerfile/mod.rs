//! The Dockerfile's grammar, as BuildKit reads it (moby/buildkit,
//! frontend/dockerfile/parser/parser.go; Dockerfile reference, "Format").
//!
//! A parser of our own: the crate that there is, parse-dockerfile (0.1.9), knows here-documents at
//! the beginning of a RUN only and of several the first, refuses `ENTRYPOINT []`, and does not
//! parse a lone instruction, as the triggers of ONBUILD are. None of it can be told by looking at
//! the text before or after.
//!
//! `lines` makes one line of continued ones, `here` takes the documents behind an instruction,
//! `arguments` what stands in it.

pub(super) mod arguments;
pub(super) mod here;
mod lines;
#[cfg(test)]
mod tests;

use crate::words;
use here::HereDocument;
use lines::Lines;

/// A Dockerfile, parsed: nothing in it is expanded yet.
#[derive(Debug)]
pub(super) struct Dockerfile {
    /// Continues lines and quotes characters.
    pub(super) escape: char,
    /// ARGs before the first FROM.
    pub(super) global: Vec<Instruction>,
    /// The stages, in order; at least one.
    pub(super) stages: Vec<StageSource>,
}

/// FROM and what follows it.
#[derive(Debug)]
pub(super) struct StageSource {
    pub(super) from: Instruction,
    /// The image's name as written: variables are not expanded.
    pub(super) image: String,
    pub(super) name: Option<String>,
    pub(super) instructions: Vec<Instruction>,
}

/// An instruction with its continuations and here-documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Where it begins, from 1.
    pub(super) line: usize,
    pub(super) keyword: Keyword,
    pub(super) options: Vec<Flag>,
    /// What follows the options, on one line.
    pub(super) arguments: String,
    /// In the order in which the arguments name them.
    pub(super) documents: Vec<HereDocument>,
    /// All of it on one line, without the documents.
    pub(super) text: String,
}

impl Instruction {
    /// The here-documents as they stand behind the instruction's line.
    pub(super) fn documents_as_written(&self) -> String {
        self.documents.iter().map(|document| format!("\n{}", document.as_written())).collect()
    }
}

/// `--NAME` or `--NAME=VALUE`, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_str() {
            "ADD" => Self::Add,
            "ARG" => Self::Arg,
            "CMD" => Self::Cmd,
            "COPY" => Self::Copy,
            "ENTRYPOINT" => Self::Entrypoint,
            "ENV" => Self::Env,
            "EXPOSE" => Self::Expose,
            "FROM" => Self::From,
            "HEALTHCHECK" => Self::Healthcheck,
            "LABEL" => Self::Label,
            "MAINTAINER" => Self::Maintainer,
            "ONBUILD" => Self::Onbuild,
            "RUN" => Self::Run,
            "SHELL" => Self::Shell,
            "STOPSIGNAL" => Self::Stopsignal,
            "USER" => Self::User,
            "VOLUME" => Self::Volume,
            "WORKDIR" => Self::Workdir,
            _ => return None,
        })
    }

    fn takes_options(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::From | Self::Healthcheck | Self::Run)
    }

    fn takes_documents(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }
}

/// Why a Dockerfile does not parse.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub(super) struct ParseError {
    line: usize,
    why: String,
}

fn wrong(line: usize, why: impl Into<String>) -> ParseError {
    ParseError { line, why: why.into() }
}

/// Parses a Dockerfile; an error has its line.
pub(super) fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    let mut lines = Lines::new(text)?;
    let mut dockerfile =
        Dockerfile { escape: lines.escape, global: Vec::new(), stages: Vec::new() };
    while let Some(instruction) = next(&mut lines)? {
        match (instruction.keyword, dockerfile.stages.last_mut()) {
            (Keyword::From, _) => dockerfile.stages.push(stage(instruction)?),
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Keyword::Arg, None) => dockerfile.global.push(instruction),
            (_, None) => {
                return Err(wrong(instruction.line, "FROM is expected first, or ARG before it"));
            }
        }
    }
    if dockerfile.stages.is_empty() {
        return Err(wrong(lines.number.max(1), "there is no FROM"));
    }
    Ok(dockerfile)
}

/// Parses a trigger of ONBUILD, which stands in an image's configuration.
pub(super) fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    let mut lines = Lines::plain(text);
    let instruction = next(&mut lines)?.ok_or_else(|| wrong(1, "the trigger is empty"))?;
    match next(&mut lines)? {
        None => Ok(instruction),
        Some(second) => Err(wrong(second.line, "a trigger is one instruction")),
    }
}

/// The next instruction with its here-documents.
fn next(lines: &mut Lines<'_>) -> Result<Option<Instruction>, ParseError> {
    let Some((line, text)) = lines.next_logical() else { return Ok(None) };
    let mut instruction = instruction(line, &text, lines.escape)?;
    let mut keyword = instruction.keyword;
    let mut arguments = instruction.arguments.as_str();
    if keyword == Keyword::Onbuild {
        let (trigger, rest) = keyword_and_rest(arguments);
        keyword = match Keyword::parse(trigger) {
            None | Some(Keyword::Onbuild | Keyword::From | Keyword::Maintainer) => {
                return Err(wrong(line, format!("ONBUILD {trigger} is not possible")));
            }
            Some(keyword) => keyword,
        };
        arguments = rest;
    }
    if keyword.takes_documents() && arguments::json(arguments).is_none() {
        for beginning in here::beginnings(arguments) {
            let content = lines.document(&beginning).ok_or_else(|| {
                let name = &beginning.name;
                wrong(line, format!("the here-document that ends with `{name}` has no end"))
            })?;
            instruction.documents.push(HereDocument { beginning, content });
        }
    }
    Ok(Some(instruction))
}

fn instruction(line: usize, text: &str, escape: char) -> Result<Instruction, ParseError> {
    let text = text.trim();
    let (word, mut rest) = keyword_and_rest(text);
    let keyword = Keyword::parse(word)
        .ok_or_else(|| wrong(line, format!("`{word}` is no instruction of a Dockerfile")))?;
    let mut options = Vec::new();
    while keyword.takes_options() && rest.starts_with("--") {
        let (word, behind) = words::first(rest, escape);
        rest = behind.trim_start();
        let Some(option) = word.strip_prefix("--").filter(|name| !name.is_empty()) else { break };
        options.push(match option.split_once('=') {
            Some((name, value)) => Flag { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Flag { name: option.to_owned(), value: None },
        });
    }
    if rest.is_empty() && keyword != Keyword::Cmd {
        return Err(wrong(line, format!("{word} needs an argument")));
    }
    let (arguments, text) = (rest.to_owned(), text.to_owned());
    Ok(Instruction { line, keyword, options, arguments, documents: Vec::new(), text })
}

fn keyword_and_rest(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// `FROM IMAGE [AS NAME]`.
fn stage(from: Instruction) -> Result<StageSource, ParseError> {
    let words: Vec<&str> = from.arguments.split_whitespace().collect();
    let (image, name) = match words[..] {
        [image] => (image, None),
        [image, word, name] if word.eq_ignore_ascii_case("AS") => (image, Some(name.to_owned())),
        _ => return Err(wrong(from.line, "FROM is followed by `IMAGE` or `IMAGE AS NAME`")),
    };
    let image = image.to_owned();
    Ok(StageSource { from, image, name, instructions: Vec::new() })
}
