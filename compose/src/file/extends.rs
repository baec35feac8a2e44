//! `extends`: a service that is another one, and what it says itself.
//! See <https://github.com/compose-spec/compose-spec/blob/main/05-services.md#extends>.

use std::path::PathBuf;

use super::documents;
use super::interpolate::Variables;
use super::merge::{merge_services, without_reset};
use super::node::{Key, Node, Value};
use crate::error::ComposeError;

/// The document with all its services complete.
///
/// # Errors
/// What is extended is not there, or extends in the end itself.
pub fn resolve(document: Node, variables: &Variables) -> Result<Node, ComposeError> {
    let Value::Mapping(mut top) = document.value else { return Ok(document) };
    if let Some(at) = top.iter().position(|(key, _)| key.text == "services") {
        let services = top[at].1.clone();
        let place = services.place.clone();
        let mut complete = Vec::new();
        for (key, service) in services.clone().into_entries("services")? {
            let name = key.text.clone();
            let mut seen = vec![(key.place.source.file.clone(), name.clone())];
            complete.push((key, of_service(service, &services, variables, &mut seen)?));
        }
        top[at].1 = Node { value: Value::Mapping(complete), ..Node::new(Value::Null, &place) };
    }
    Ok(Node { value: Value::Mapping(top), ..document })
}

/// `seen` are the services, and their files, that lead here.
fn of_service(
    service: Node,
    siblings: &Node,
    variables: &Variables,
    seen: &mut Vec<(PathBuf, String)>,
) -> Result<Node, ComposeError> {
    let merge = service.merge;
    let place = service.place.clone();
    let Value::Mapping(mut entries) = service.value else { return Ok(service) };
    let Some(at) = entries.iter().position(|(key, _)| key.text == "extends") else {
        return Ok(Node { value: Value::Mapping(entries), place, merge });
    };
    let (_, extends) = entries.remove(at);
    let own = Node { value: Value::Mapping(entries), place, merge };
    let (name, file) = what(extends.clone())?;
    let (base, siblings) = match file {
        None => (siblings.get(&name).cloned(), siblings.clone()),
        Some(file) => {
            // Its paths start from its own folder.
            let path = extends.place.path(&file);
            let folder = path.parent().map(PathBuf::from).unwrap_or_default();
            let mut found = None;
            for document in documents(&path, &folder, variables)? {
                found = document.get("services").cloned().or(found);
            }
            let Some(services) = found else {
                let why = format!("extends: {} has no services", path.display());
                return Err(ComposeError::invalid(&extends.place, why));
            };
            (services.get(&name).cloned(), services)
        }
    };
    let Some(base) = base else {
        let why = format!("extends: there is no service `{name}`");
        return Err(ComposeError::invalid(&extends.place, why));
    };
    let step = (base.place.source.file.clone(), name);
    if seen.contains(&step) {
        return Err(ComposeError::invalid(&extends.place, "extends: in the end itself"));
    }
    seen.push(step);
    let base = of_service(base, &siblings, variables, seen)?;
    Ok(Node { merge, ..merge_services(without_reset(base), own)? })
}

/// The service's name, and its file if that is another.
fn what(extends: Node) -> Result<(String, Option<String>), ComposeError> {
    let place = extends.place.clone();
    if let Value::Scalar(name) = extends.value {
        return Ok((name.text, None));
    }
    let (mut service, mut file) = (None, None);
    for (Key { text, place }, value) in extends.into_entries("extends")? {
        match text.as_str() {
            "service" => service = Some(value.into_text("extends.service")?),
            "file" => file = Some(value.into_text("extends.file")?),
            other => {
                let why = format!("extends: `{other}` is unknown");
                return Err(ComposeError::invalid(&place, why));
            }
        }
    }
    let service =
        service.ok_or_else(|| ComposeError::invalid(&place, "extends: the service is missing"))?;
    Ok((service, file))
}
