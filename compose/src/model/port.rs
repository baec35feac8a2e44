//! `ports` of a service.

use isolab_network::PublishedPort;

use super::fields::Fields;
use crate::error::ComposeError;
use crate::file::node::{Node, Value};

pub(super) fn read_all(fields: &mut Fields) -> Result<Vec<PublishedPort>, ComposeError> {
    let what = fields.name("ports");
    let Some(list) = fields.take("ports") else { return Ok(Vec::new()) };
    let mut ports = Vec::new();
    for item in list.into_items(&what)? {
        let place = item.place.clone();
        let texts = match item.value {
            Value::Scalar(text) => short(&text.text),
            _ => vec![long(item, &what)?],
        };
        for text in texts {
            if is_choice(&text) {
                let what = format!("{what}: `{}`", text.escape_debug());
                let why = "a port is given one of the host's: name it, or leave it out for one that is free";
                return Err(ComposeError::unsupported(&place, what, why));
            }
            let port = text.parse::<PublishedPort>();
            let port =
                port.map_err(|why| ComposeError::invalid(&place, format!("{what}: {why}")))?;
            // The same twice is the same.
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    Ok(ports)
}

/// `3000-3005` alone are ports that are free on the host, each for itself.
fn short(text: &str) -> Vec<String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let range = ports.split_once('-').filter(|_| !ports.contains(':'));
    let range = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match range {
        Some((first, last)) if first <= last && last < u16::MAX => {
            (first..=last).map(|port: u16| format!("{port}/{protocol}")).collect()
        }
        _ => vec![text.to_owned()],
    }
}

/// Whether it is a range of the host's for one port: which of them is the engine's to choose.
fn is_choice(text: &str) -> bool {
    let ports = text.split_once('/').map_or(text, |(ports, _)| ports);
    let Some((host, guest)) = ports.rsplit_once(':') else { return false };
    let host = host.rsplit_once(':').map_or(host, |(_, host)| host);
    host.contains('-') && guest.parse::<u16>().is_ok()
}

fn long(item: Node, what: &str) -> Result<String, ComposeError> {
    let mut fields = Fields::of(item, what)?;
    let place = fields.place.clone();
    let target = fields.text("target")?;
    let published = fields.text("published")?.unwrap_or_default();
    let address = fields.text("host_ip")?;
    let protocol = fields.text("protocol")?.unwrap_or_else(|| "tcp".to_owned());
    // For people.
    fields.take("name");
    fields.take("app_protocol");
    // Of a swarm's nodes; here there is one.
    fields.take("mode");
    fields.finish(&[])?;
    let Some(target) = target else {
        return Err(ComposeError::invalid(&place, format!("{what}: the target is missing")));
    };
    let address = match address {
        Some(address) if address.contains(':') => format!("[{address}]:"),
        Some(address) => format!("{address}:"),
        None => String::new(),
    };
    Ok(format!("{address}{published}:{target}/{protocol}"))
}
