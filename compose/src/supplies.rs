//! Networks and volumes of a project: made before its instances, and removed after them.

use std::collections::{BTreeMap, BTreeSet};

use isolab_instances::Catalogue;
use isolab_isolation::package;
use isolab_network::{Folders, NetworkError, NetworkName, Networks, NewNetwork};
use isolab_volumes::{NewVolume, VolumeError, VolumeName, Volumes};

use crate::error::ComposeError;
use crate::event::{Event, Observer, Subject};
use crate::label;
use crate::model::{Attached, MountKind};
use crate::project::Project;

fn networks() -> Result<Networks, ComposeError> {
    let failed = |source| ComposeError::Host { action: "find the name service", source };
    let responder =
        package::executable("isolab-dns").map_err(|error| failed(std::io::Error::other(error)))?;
    let folders = Folders::of(&isolab_images::data_dir());
    Networks::open(folders, responder).map_err(of_network("open", "the project's"))
}

fn of_network(action: &'static str, name: &str) -> impl FnOnce(NetworkError) -> ComposeError {
    let network = name.to_owned();
    move |source| ComposeError::Network { action, network, source: Box::new(source) }
}

fn of_volume(action: &'static str, name: &str) -> impl FnOnce(VolumeError) -> ComposeError {
    let volume = name.to_owned();
    move |source| ComposeError::Volume { action, volume, source }
}

/// Makes the networks and volumes that these services use and that are not there.
///
/// # Errors
/// One cannot be made, or is to be there without the project and is not.
pub fn provide(
    project: &Project,
    services: &[&str],
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    let mut used = BTreeSet::new();
    let mut mounted = BTreeSet::new();
    for service in services.iter().filter_map(|name| project.services.get(*name)) {
        if let Attached::Networks(all) = &service.attached {
            used.extend(all.iter().map(|it| it.network.as_str()));
        }
        mounted.extend(service.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Volume { name, .. } => Some(name.as_str()),
            _ => None,
        }));
    }
    if !used.is_empty() {
        let networks = networks()?;
        for network in used {
            provide_network(project, network, &networks, observer)?;
        }
    }
    for volume in mounted {
        provide_volume(project, volume, observer)?;
    }
    Ok(())
}

fn provide_network(
    project: &Project,
    network: &str,
    networks: &Networks,
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    let own = project.networks.get(network);
    let shown = project.network_name(network);
    let name: NetworkName = shown.parse().map_err(|error| match own {
        Some(own) => ComposeError::invalid(&own.place, format!("networks.{network}: {error}")),
        None => ComposeError::Name(project.name.clone()),
    })?;
    match networks.get(&name) {
        Ok(_) => return Ok(()),
        Err(NetworkError::Unknown { .. }) if !own.is_some_and(|it| it.external) => {}
        Err(error) => return Err(of_network("find", &shown)(error)),
    }
    let mut labels = own.map(|it| it.labels.clone()).unwrap_or_default();
    labels.extend(owner(project, label::NETWORK, network));
    let new = NewNetwork {
        name,
        subnet: own.and_then(|it| it.subnet),
        gateway: own.and_then(|it| it.gateway),
        ipv6: own.is_some_and(|it| it.ipv6),
        internal: own.is_some_and(|it| it.internal),
        labels,
    };
    networks.create(new).map_err(of_network("create", &shown))?;
    observer.happened(Subject::Network(&shown), Event::Created);
    Ok(())
}

fn provide_volume(
    project: &Project,
    volume: &str,
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    let shown = project.volume_name(volume);
    let Some(own) = project.volumes.get(volume) else { return Ok(()) };
    let name: VolumeName = shown.parse().map_err(|error: isolab_volumes::BadName| {
        ComposeError::invalid(&own.place, format!("volumes.{volume}: {error}"))
    })?;
    let volumes = Volumes::open_default().map_err(of_volume("open", &shown))?;
    match volumes.get(&name) {
        Ok(_) => return Ok(()),
        Err(VolumeError::Unknown(_)) if !own.external => {}
        Err(error) => return Err(of_volume("find", &shown)(error)),
    }
    let mut labels = own.labels.clone();
    labels.extend(owner(project, label::VOLUME, volume));
    let new = NewVolume { name: Some(name), labels, kind: own.kind, size: own.size };
    volumes.create(new).map_err(of_volume("create", &shown))?;
    observer.happened(Subject::Volume(&shown), Event::Created);
    Ok(())
}

fn owner(project: &Project, kind: &str, name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (label::PROJECT.to_owned(), project.name.clone()),
        (kind.to_owned(), name.to_owned()),
    ])
}

/// Removes the networks that were made for a project.
///
/// # Errors
/// One cannot be removed: somebody else's instance is on it.
pub fn remove_networks(project: &str, observer: &mut dyn Observer) -> Result<(), ComposeError> {
    let networks = networks()?;
    let records = networks.list().map_err(of_network("list", "the project's"))?;
    for record in
        records.iter().filter(|it| it.labels.get(label::PROJECT).is_some_and(|it| it == project))
    {
        let name = record.name.as_str();
        networks.remove(&record.name).map_err(of_network("remove", name))?;
        observer.happened(Subject::Network(name), Event::Removed);
    }
    Ok(())
}

/// Removes the volumes that were made for a project.
///
/// # Errors
/// One cannot be removed: somebody else's instance has it.
pub fn remove_volumes(
    project: &str,
    catalogue: &Catalogue,
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    let users = catalogue.volume_users().map_err(ComposeError::Catalogue)?;
    let volumes = Volumes::open_default().map_err(of_volume("open", "the project's"))?;
    let records = volumes.list().map_err(of_volume("list", "the project's"))?;
    for record in
        records.iter().filter(|it| it.labels.get(label::PROJECT).is_some_and(|it| it == project))
    {
        let name = record.name.as_str();
        // One that does not run would miss it as well.
        let removed = match users.contains_key(&record.name) {
            true => Err(VolumeError::InUse(record.name.clone())),
            false => volumes.remove(&record.name),
        };
        removed.map_err(of_volume("remove", name))?;
        observer.happened(Subject::Volume(name), Event::Removed);
    }
    Ok(())
}
