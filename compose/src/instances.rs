//! A project's instances, found by their labels: there is nothing else that remembers them.

use std::collections::{BTreeMap, BTreeSet};

use isolab_instances::log::{LogQuery, read};
use isolab_instances::{Catalogue, Instance};

use crate::error::ComposeError;
use crate::label;

/// How many lines of a log are told with a failure.
const LAST_LINES: usize = 10;

/// All of them, by their services and numbers.
///
/// # Errors
/// The host's instances cannot be read.
pub fn of_project(catalogue: &Catalogue, project: &str) -> Result<Vec<Instance>, ComposeError> {
    let mut all = catalogue.all().map_err(ComposeError::Catalogue)?;
    all.retain(|instance| label_of(instance, label::PROJECT) == Some(project));
    all.sort_by_key(|instance| (service(instance).to_owned(), number(instance)));
    Ok(all)
}

/// The value of a label.
pub fn label_of<'a>(instance: &'a Instance, label: &str) -> Option<&'a str> {
    instance.config.as_ref()?.labels.get(label).map(String::as_str)
}

/// The service that it is of.
pub fn service(instance: &Instance) -> &str {
    label_of(instance, label::SERVICE).unwrap_or_default()
}

/// Which of the service's it is.
pub fn number(instance: &Instance) -> u32 {
    label_of(instance, label::NUMBER).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What services wait for, as the labels say, and whether they start with it again.
fn dependencies(instance: &Instance) -> impl Iterator<Item = (&str, bool)> {
    let all = label_of(instance, label::DEPENDS_ON).unwrap_or_default().split(',');
    all.filter(|it| !it.is_empty()).map(|it| {
        let mut parts = it.split(':');
        (parts.next().unwrap_or_default(), parts.nth(1) == Some("true"))
    })
}

/// Instances in groups, each behind all those that it waits for: what is in one group can be started at once.
pub fn in_order(instances: Vec<Instance>) -> Vec<Vec<Instance>> {
    let mut left: BTreeMap<String, Vec<Instance>> = BTreeMap::new();
    for instance in instances {
        left.entry(service(&instance).to_owned()).or_default().push(instance);
    }
    let mut groups = Vec::new();
    while !left.is_empty() {
        let waits = |of: &[Instance]| {
            of.iter().flat_map(dependencies).any(|(name, _)| left.contains_key(name))
        };
        let mut ready: BTreeSet<String> =
            left.iter().filter(|(_, of)| !waits(of)).map(|(name, _)| name.clone()).collect();
        if ready.is_empty() {
            // Labels of different files may contradict each other.
            ready.extend(left.keys().cloned());
        }
        groups.push(ready.iter().filter_map(|name| left.remove(name)).flatten().collect());
    }
    groups
}

/// The services that start again when those do.
pub fn restarted_with(instances: &[Instance], services: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all = services.clone();
    loop {
        let before = all.len();
        for instance in instances {
            if dependencies(instance).any(|(name, restart)| restart && all.contains(name)) {
                all.insert(service(instance).to_owned());
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

/// The last lines that it wrote, for a failure's sake.
pub fn last_lines(instance: &Instance) -> Vec<String> {
    let mut lines = vec![String::new()];
    let query = LogQuery { tail: Some(LAST_LINES), ..LogQuery::default() };
    // What cannot be read is not what has failed.
    let _ = read(
        &instance.entry.path,
        &query,
        |entry| {
            let text = String::from_utf8_lossy(&entry.text);
            let shown: String =
                text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if let Some(line) = lines.last_mut() {
                line.push_str(&shown);
            }
            if entry.is_whole {
                lines.push(String::new());
            }
            true
        },
        || true,
    );
    lines.retain(|line| !line.is_empty());
    lines
}
