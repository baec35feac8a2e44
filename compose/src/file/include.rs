//! `include`: other projects as parts of this one, with folders and variables of their own.
//! See <https://github.com/compose-spec/compose-spec/blob/main/14-include.md>.

use std::path::PathBuf;

use super::interpolate::Variables;
use super::node::{Key, Node, Value};
use super::{load_within, variables};
use crate::error::ComposeError;

/// How deep projects may be within each other.
const MOST_LEVELS: usize = 16;

/// The tree with what it includes.
///
/// # Errors
/// What is included cannot be read, or has what this has as well.
pub fn resolve(
    tree: Node,
    known: &Variables,
    outer: &mut Vec<PathBuf>,
) -> Result<Node, ComposeError> {
    let Value::Mapping(mut top) = tree.value else { return Ok(tree) };
    let Some(at) = top.iter().position(|(key, _)| key.text == "include") else {
        return Ok(Node { value: Value::Mapping(top), ..tree });
    };
    let (_, list) = top.remove(at);
    for item in list.into_items("include")? {
        let place = item.place.clone();
        let Included { files, folder, variables } = Included::read(item, known)?;
        if outer.len() >= MOST_LEVELS || files.iter().any(|file| outer.contains(file)) {
            return Err(ComposeError::invalid(&place, "include: in the end itself"));
        }
        let before = outer.len();
        outer.extend(files.iter().cloned());
        let part = load_within(&files, &folder, &variables, outer)?;
        outer.truncate(before);
        for (key, node) in part.into_entries("an included file")? {
            add(&mut top, key, node)?;
        }
    }
    Ok(Node { value: Value::Mapping(top), ..tree })
}

/// What is included has to be new here.
fn add(top: &mut Vec<(Key, Node)>, key: Key, node: Node) -> Result<(), ComposeError> {
    if matches!(key.text.as_str(), "name" | "version") || key.text.starts_with("x-") {
        return Ok(());
    }
    let Some((_, own)) = top.iter_mut().find(|(own, _)| own.text == key.text) else {
        top.push((key, node));
        return Ok(());
    };
    let place = own.place.clone();
    let mut entries = own.clone().into_entries(&key.text)?;
    for (name, value) in node.into_entries(&key.text)? {
        match entries.iter().find(|(own, _)| own.text == name.text) {
            None => entries.push((name, value)),
            Some((_, same)) if same.value == value.value => {}
            Some(_) => {
                let why = format!("include: `{}` is in {} as well", name.text, place);
                return Err(ComposeError::invalid(&name.place, why));
            }
        }
    }
    own.value = Value::Mapping(entries);
    Ok(())
}

struct Included {
    files: Vec<PathBuf>,
    folder: PathBuf,
    variables: Variables,
}

impl Included {
    fn read(item: Node, known: &Variables) -> Result<Self, ComposeError> {
        let place = item.place.clone();
        let (mut paths, mut folder, mut env_files) = (Vec::new(), None, None);
        if let Value::Scalar(path) = item.value {
            paths.push(path.text);
        } else {
            for (key, value) in item.into_entries("include")? {
                match key.text.as_str() {
                    "path" => paths = words(value, "include.path")?,
                    "env_file" => env_files = Some(words(value, "include.env_file")?),
                    "project_directory" => {
                        folder = Some(value.into_text("include.project_directory")?);
                    }
                    other => {
                        let why = format!("include: `{other}` is unknown");
                        return Err(ComposeError::invalid(&key.place, why));
                    }
                }
            }
        }
        let files: Vec<PathBuf> = paths.iter().map(|path| place.path(path)).collect();
        let Some(first) = files.first() else {
            return Err(ComposeError::invalid(&place, "include: the path is missing"));
        };
        let own = first.parent().map(PathBuf::from).unwrap_or_default();
        let folder = folder.map_or(own, |folder| place.path(&folder));
        let env_files: Vec<PathBuf> = match env_files {
            Some(files) => files.iter().map(|file| place.path(file)).collect(),
            None => Some(folder.join(".env")).filter(|file| file.exists()).into_iter().collect(),
        };
        let mut variables = known.clone();
        for file in env_files {
            for (name, value) in variables::read(&file, known)? {
                // What the outer project knows wins.
                if let Some(value) = value {
                    variables.entry(name).or_insert(value);
                }
            }
        }
        Ok(Self { files, folder, variables })
    }
}

/// A word, or a list of them.
fn words(node: Node, what: &str) -> Result<Vec<String>, ComposeError> {
    match node.value {
        Value::Scalar(word) => Ok(vec![word.text]),
        _ => node.into_items(what)?.into_iter().map(|item| item.into_text(what)).collect(),
    }
}
