//! Several files as one: what a later one says over what an earlier one says.
//! See <https://github.com/compose-spec/compose-spec/blob/main/13-merge.md>.

use super::node::{Key, Merge, Node, Value};
use crate::error::ComposeError;

/// Mappings of a service that may be written as lists of `NAME=VALUE`.
const ASSIGNMENTS: [&str; 6] =
    ["annotations", "args", "environment", "labels", "sysctls", "additional_contexts"];
/// Mappings of a service that may be written as lists of names.
const NAMES: [&str; 2] = ["depends_on", "networks"];
/// Lists that are one thing, and in the place of what was before.
const WHOLE: [&str; 3] = ["command", "entrypoint", "test"];

/// `later` over `earlier`, both whole files.
///
/// # Errors
/// One is a list where the other is a mapping.
pub fn merge(earlier: Node, later: Node) -> Result<Node, ComposeError> {
    Ok(without_reset(merge_at(earlier, later, &mut Vec::new())?))
}

/// `later` over `earlier`, both what is said of one service.
///
/// # Errors
/// As [`merge`].
pub fn merge_services(earlier: Node, later: Node) -> Result<Node, ComposeError> {
    let mut path = ["services", "service"].map(str::to_owned).to_vec();
    Ok(without_reset(merge_at(earlier, later, &mut path)?))
}

/// What is left of a file that is alone.
pub fn without_reset(mut node: Node) -> Node {
    match &mut node.value {
        Value::Mapping(entries) => {
            let kept = std::mem::take(entries).into_iter();
            let kept = kept.filter(|(_, node)| node.merge != Merge::Reset);
            *entries = kept.map(|(key, node)| (key, without_reset(node))).collect();
        }
        Value::Sequence(items) => {
            *items = std::mem::take(items).into_iter().map(without_reset).collect();
        }
        _ => {}
    }
    node
}

fn merge_at(earlier: Node, later: Node, path: &mut Vec<String>) -> Result<Node, ComposeError> {
    let name = path.last().map_or("", String::as_str);
    match (later.merge, &later.value) {
        // `front:` says nothing against what was said of front.
        (Merge::Usual, Value::Null) => return Ok(earlier),
        (Merge::Usual, _) if !WHOLE.contains(&name) => {}
        _ => return Ok(later),
    }
    // Below a service, a network and the like.
    let (earlier, later) = match path.len() > 2 {
        true => (as_mapping(earlier, name)?, as_mapping(later, name)?),
        false => (earlier, later),
    };
    let place = later.place.clone();
    let value = match (earlier.value, later.value) {
        (Value::Mapping(mut entries), Value::Mapping(newer)) => {
            for (key, node) in newer {
                let Some(own) = entries.iter_mut().find(|(own, _)| own.text == key.text) else {
                    entries.push((key, node));
                    continue;
                };
                let nothing = Node::new(Value::Null, &key.place);
                let before = std::mem::replace(&mut own.1, nothing);
                path.push(key.text);
                own.1 = merge_at(before, node, path)?;
                path.pop();
            }
            Value::Mapping(entries)
        }
        (Value::Sequence(items), Value::Sequence(newer)) => {
            Value::Sequence(append(items, newer, name))
        }
        (Value::Mapping(_), Value::Sequence(_)) | (Value::Sequence(_), Value::Mapping(_)) => {
            let why = format!("{name}: one file has a list here, the other a mapping");
            return Err(ComposeError::invalid(&place, why));
        }
        (_, later) => later,
    };
    Ok(Node { value, place, merge: Merge::Usual })
}

/// Those of both; of what can be there once only, the later one's.
fn append(earlier: Vec<Node>, later: Vec<Node>, name: &str) -> Vec<Node> {
    let mut all = earlier;
    for node in later {
        let same = identity(name, &node);
        match all.iter_mut().find(|own| same.is_some() && identity(name, own) == same) {
            Some(own) => *own = node,
            None => all.push(node),
        }
    }
    all
}

/// What makes two items of a list the same thing.
fn identity(list: &str, node: &Node) -> Option<String> {
    let field = |name: &str| match node.get(name).map(|it| &it.value) {
        Some(Value::Scalar(scalar)) => scalar.text.clone(),
        _ => String::new(),
    };
    let short = match &node.value {
        Value::Scalar(scalar) => Some(scalar.text.as_str()),
        _ => None,
    };
    match list {
        // By the path in the instance.
        "volumes" => Some(match short {
            Some(text) => text.split(':').nth(usize::from(text.contains(':')))?.to_owned(),
            None => field("target"),
        }),
        "secrets" | "configs" => Some(match (short, field("target")) {
            (Some(text), _) => text.to_owned(),
            (None, target) if target.is_empty() => field("source"),
            (None, target) => target,
        }),
        "ports" => match short {
            Some(text) => {
                Some(if text.contains('/') { text.to_owned() } else { format!("{text}/tcp") })
            }
            None => {
                let protocol = field("protocol");
                let protocol = if protocol.is_empty() { "tcp" } else { &protocol };
                let parts = [field("host_ip"), field("published"), field("target")];
                let parts =
                    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>();
                Some(format!("{}/{protocol}", parts.join(":")))
            }
        },
        "env_file" => Some(short.map_or_else(|| field("path"), str::to_owned)),
        _ => short.map(str::to_owned),
    }
}

/// What may be written as a list, as the mapping that it means.
pub fn as_mapping(node: Node, name: &str) -> Result<Node, ComposeError> {
    let merge = node.merge;
    let place = node.place.clone();
    let value = match (node.value, name) {
        (Value::Sequence(items), name) if ASSIGNMENTS.contains(&name) => {
            let mut entries: Vec<(Key, Node)> = Vec::new();
            for item in items {
                let place = item.place.clone();
                let text = item.into_text(name)?;
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key, Node::text(value, &place)),
                    None => (text.as_str(), Node::new(Value::Null, &place)),
                };
                entries.retain(|(other, _)| other.text != key);
                entries.push((Key { text: key.to_owned(), place }, value));
            }
            Value::Mapping(entries)
        }
        (Value::Sequence(items), "extra_hosts") => {
            let mut entries = Vec::new();
            for item in items {
                let place = item.place.clone();
                let text = item.into_text(name)?;
                // An IPv6 address has colons of its own.
                let (key, address) = text.split_once(['=', ':']).unwrap_or((&text, ""));
                let key = Key { text: key.to_owned(), place: place.clone() };
                entries.push((key, Node::text(address, &place)));
            }
            Value::Mapping(entries)
        }
        (Value::Sequence(items), name) if NAMES.contains(&name) => {
            let mut entries = Vec::new();
            for item in items {
                let place = item.place.clone();
                let key = Key { text: item.into_text(name)?, place: place.clone() };
                entries.push((key, Node::new(Value::Null, &place)));
            }
            Value::Mapping(entries)
        }
        (Value::Scalar(context), "build") => {
            let key = Key { text: "context".to_owned(), place: place.clone() };
            Value::Mapping(vec![(key, Node::new(Value::Scalar(context), &place))])
        }
        (Value::Scalar(file), "env_file") => {
            Value::Sequence(vec![Node::new(Value::Scalar(file), &place)])
        }
        (Value::Scalar(one), "tmpfs" | "dns" | "dns_search" | "dns_opt") => {
            Value::Sequence(vec![Node::new(Value::Scalar(one), &place)])
        }
        (value, _) => value,
    };
    Ok(Node { value, place, merge })
}
