//! Reading YAML, by saphyr-parser's events.
//!
//! A tree of our own is made of them, because what is refused is told with its line, and merging, which comes before
//! all meaning, needs what `!reset` and `!override` say. Anchors and `<<` are resolved here; what they multiply is
//! bounded.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::node::{Key, Merge, Node, Scalar, Value};
use crate::error::ComposeError;
use crate::place::{Place, Source};

/// How many values a file may have, those of aliases counted each time.
const MOST_NODES: usize = 100_000;
/// How deep they may be within each other.
const MOST_LEVELS: usize = 64;

/// The documents of a file.
///
/// # Errors
/// It is no YAML, or has what no compose file has: names that are no words, names twice.
pub fn parse(text: &str, source: &Arc<Source>) -> Result<Vec<Node>, ComposeError> {
    let parser = Parser::new_from_str(text);
    let mut loader = Loader { parser, source, anchors: HashMap::new(), nodes: 0 };
    let mut documents = Vec::new();
    loop {
        match loader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(_), _) => {
                let (event, span) = loader.next()?;
                documents.push(loader.node(event, span, 0)?);
            }
            _ => {}
        }
    }
}

struct Loader<'input> {
    parser: Parser<'input, StrInput<'input>>,
    source: &'input Arc<Source>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'input> Loader<'input> {
    fn next(&mut self) -> Result<(Event<'input>, Span), ComposeError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.not_yaml(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn not_yaml(&self, error: &ScanError) -> ComposeError {
        let place = Place { source: Arc::clone(self.source), line: error.marker().line() };
        ComposeError::invalid(&place, format!("not YAML: {}", error.info()))
    }

    fn place(&self, span: Span) -> Place {
        Place { source: Arc::clone(self.source), line: span.start.line() }
    }

    fn count(&mut self, nodes: usize, place: &Place) -> Result<(), ComposeError> {
        self.nodes += nodes;
        match self.nodes > MOST_NODES {
            true => Err(ComposeError::invalid(place, format!("more than {MOST_NODES} values"))),
            false => Ok(()),
        }
    }

    fn node(
        &mut self,
        event: Event<'input>,
        span: Span,
        depth: usize,
    ) -> Result<Node, ComposeError> {
        let place = self.place(span);
        self.count(1, &place)?;
        if depth > MOST_LEVELS {
            return Err(ComposeError::invalid(&place, format!("more than {MOST_LEVELS} levels")));
        }
        let (value, anchor, tag) = match event {
            Event::Alias(anchor) => return self.alias(anchor, &place),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let is_null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                // `!!str` makes text of anything.
                let is_text = tag.as_ref().is_some_and(|tag| tag.suffix == "str");
                let value = match is_null && !is_text {
                    true => Value::Null,
                    false => {
                        Value::Scalar(Scalar { text: text.into_owned(), plain: plain && !is_text })
                    }
                };
                (value, anchor, tag)
            }
            Event::SequenceStart(anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                (Value::Sequence(items), anchor, tag)
            }
            Event::MappingStart(anchor, tag) => (Value::Mapping(self.mapping(depth)?), anchor, tag),
            other => return Err(ComposeError::invalid(&place, format!("not YAML: {other:?}"))),
        };
        let merge = merge_of(tag.as_deref(), &place)?;
        let node = Node { value, place, merge };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, place: &Place) -> Result<Node, ComposeError> {
        // One that is within what it stands for is not there yet.
        let node = self.anchors.get(&anchor).cloned();
        let node =
            node.ok_or_else(|| ComposeError::invalid(place, "an alias within its anchor"))?;
        self.count(size(&node), place)?;
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, ComposeError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let place = key.place.clone();
            let text = match key.value {
                Value::Scalar(scalar) => scalar.text,
                _ => return Err(key.unexpected("a name", "a word")),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if text == "<<" {
                merged.push(node);
            } else if entries.iter().any(|(key, _)| key.text == text) {
                return Err(ComposeError::invalid(&place, format!("`{text}` is there twice")));
            } else {
                entries.push((Key { text, place }, node));
            }
        }
        // <https://yaml.org/type/merge.html>: what is written here wins, then what is named first.
        for node in merged {
            let sources = match node.value {
                Value::Sequence(items) => items,
                _ => vec![node],
            };
            for source in sources {
                for (key, node) in source.into_entries("<<")? {
                    if !entries.iter().any(|(own, _)| own.text == key.text) {
                        entries.push((key, node));
                    }
                }
            }
        }
        Ok(entries)
    }
}

fn merge_of(tag: Option<&Tag>, place: &Place) -> Result<Merge, ComposeError> {
    match tag {
        None => Ok(Merge::Usual),
        Some(tag) if tag.is_yaml_core_schema() => Ok(Merge::Usual),
        Some(tag) => match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "reset") => Ok(Merge::Reset),
            ("!", "override") => Ok(Merge::Override),
            (handle, suffix) => {
                Err(ComposeError::invalid(place, format!("the tag {handle}{suffix} is unknown")))
            }
        },
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar(_) => 1,
        Value::Sequence(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Mapping(entries) => 1 + entries.iter().map(|(_, node)| size(node)).sum::<usize>(),
    }
}
