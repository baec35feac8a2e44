//! A project's tree as text again, with all that was interpolated, merged and extended.

use serde_json::{Map, Value as Json};

use crate::file::node::{Node, Scalar, Value};
use crate::project::Project;

/// As YAML.
pub fn to_yaml(project: &Project) -> String {
    let mut text = format!("name: {}\n", project.name);
    for (key, node) in top(project) {
        entry(&mut text, key, node, 0);
    }
    text
}

/// As JSON.
pub fn to_json(project: &Project) -> Json {
    let mut all = Map::from_iter([("name".to_owned(), Json::String(project.name.clone()))]);
    all.extend(top(project).map(|(key, node)| (key.to_owned(), json(node))));
    Json::Object(all)
}

fn top(project: &Project) -> impl Iterator<Item = (&str, &Node)> {
    let entries = match &project.tree.value {
        Value::Mapping(entries) => entries.as_slice(),
        _ => &[],
    };
    let entries = entries.iter().map(|(key, node)| (key.text.as_str(), node));
    entries.filter(|(key, _)| !matches!(*key, "name" | "version"))
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(Scalar { text, plain }) => {
            // What YAML takes for a number or a truth value.
            let typed = plain.then(|| serde_json::from_str(text).ok()).flatten();
            typed
                .filter(|it: &Json| it.is_number() || it.is_boolean())
                .unwrap_or_else(|| text.clone().into())
        }
        Value::Sequence(items) => items.iter().map(json).collect(),
        Value::Mapping(entries) => {
            Json::Object(entries.iter().map(|(key, node)| (key.text.clone(), json(node))).collect())
        }
    }
}

fn entry(text: &mut String, key: &str, node: &Node, depth: usize) {
    *text += &format!("{}{}:", "  ".repeat(depth), word(key, true));
    value(text, node, depth + 1);
}

fn value(text: &mut String, node: &Node, depth: usize) {
    match &node.value {
        Value::Null => *text += "\n",
        Value::Scalar(scalar) => *text += &format!(" {}\n", word(&scalar.text, scalar.plain)),
        Value::Sequence(items) if items.is_empty() => *text += " []\n",
        Value::Mapping(entries) if entries.is_empty() => *text += " {}\n",
        Value::Sequence(items) => {
            *text += "\n";
            for item in items {
                *text += &format!("{}-", "  ".repeat(depth));
                match &item.value {
                    // The first of its names stands behind the dash.
                    Value::Mapping(entries) if !entries.is_empty() => {
                        let mut inner = String::new();
                        entries
                            .iter()
                            .for_each(|(key, node)| entry(&mut inner, &key.text, node, depth + 1));
                        *text += &format!(" {}", inner.trim_start());
                    }
                    _ => value(text, item, depth + 1),
                }
            }
        }
        Value::Mapping(entries) => {
            *text += "\n";
            entries.iter().for_each(|(key, node)| entry(text, &key.text, node, depth));
        }
    }
}

/// A word, in quotes where it would be another thing without. JSON's quoted strings are YAML's.
fn word(text: &str, plain: bool) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./@+=".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || "/_.".contains(c));
    let means = matches!(
        text.to_ascii_lowercase().as_str(),
        "" | "null"
            | "true"
            | "false"
            | "yes"
            | "no"
            | "on"
            | "off"
            | "y"
            | "n"
            | "~"
            | ".inf"
            | ".nan"
    );
    let number = text.parse::<f64>().is_ok();
    let is_plain = begins && !means && text.chars().all(is_safe) && !number;
    match is_plain || plain && (number || means) && !text.is_empty() {
        true => text.to_owned(),
        false => Json::String(text.to_owned()).to_string(),
    }
}
