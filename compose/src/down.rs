//! Bringing a project down: its instances stop, each before those that it waits for, and are removed.

use std::collections::BTreeSet;
use std::thread;

use isolab_instances::{Catalogue, Instance, InstanceError};

use crate::error::ComposeError;
use crate::event::{Event, Observer, Subject};
use crate::instances::{in_order, of_project, service};
use crate::supplies;

/// What goes.
#[derive(Clone, Debug, Default)]
pub struct DownOptions {
    /// Only the instances of these services, and nothing else; without, everything.
    pub services: Vec<String>,
    /// Its volumes, too.
    pub volumes: bool,
    /// Seconds that a workload may take to end; without, what was said of each.
    pub timeout: Option<u64>,
    /// Services that there are: of instances of others nothing goes. None is all.
    pub known: Option<BTreeSet<String>>,
}

/// Brings down the project of this name, as its instances, networks and volumes remember it.
///
/// # Errors
/// Something cannot be stopped or removed. What can is.
pub fn down(
    project: &str,
    options: &DownOptions,
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    let catalogue = Catalogue::open_default().map_err(ComposeError::Catalogue)?;
    let mut instances = of_project(&catalogue, project)?;
    instances.retain(|instance| {
        let name = service(instance);
        let is_named = options.services.is_empty() || options.services.iter().any(|it| it == name);
        is_named && options.known.as_ref().is_none_or(|known| known.contains(name))
    });
    stop(&catalogue, instances.clone(), options.timeout, observer)?;
    for instance in &instances {
        remove(&catalogue, instance, options.volumes, observer)?;
    }
    if !options.services.is_empty() {
        return Ok(());
    }
    // What is left of others keeps its networks.
    if of_project(&catalogue, project)?.is_empty() {
        supplies::remove_networks(project, observer)?;
    }
    match options.volumes {
        true => supplies::remove_volumes(project, &catalogue, observer),
        false => Ok(()),
    }
}

/// Stops instances, each before those that it waits for.
///
/// # Errors
/// One does not end. The others are stopped.
pub fn stop(
    catalogue: &Catalogue,
    instances: Vec<Instance>,
    timeout: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    let mut failure = None;
    for group in in_order(instances).into_iter().rev() {
        let group: Vec<_> = group.iter().filter(|it| it.state.status.is_active()).collect();
        for instance in &group {
            observer.happened(Subject::Instance(instance.name()), Event::Stopping);
        }
        let stopped: Vec<Result<(), InstanceError>> = thread::scope(|scope| {
            let stop = |instance| scope.spawn(move || catalogue.stop(instance, timeout));
            let threads: Vec<_> = group.iter().map(|instance| stop(*instance)).collect();
            // One that panics has ended the process.
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        for (instance, stopped) in group.iter().zip(stopped) {
            match stopped {
                Ok(()) => observer.happened(Subject::Instance(instance.name()), Event::Stopped),
                Err(error) => failure = failure.or(Some(of_instance(instance, "stop", error))),
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Removes an instance that does not run, and with `volumes` its anonymous volumes.
///
/// # Errors
/// It cannot be removed.
pub fn remove(
    catalogue: &Catalogue,
    instance: &Instance,
    volumes: bool,
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    catalogue.remove(instance, true).map_err(|it| of_instance(instance, "remove", it))?;
    if let Some(config) = instance.config.as_ref().filter(|_| volumes) {
        let removed = config.request.filesystem.remove_anonymous();
        removed.map_err(|it| of_instance(instance, "remove the volumes of", it.into()))?;
    }
    observer.happened(Subject::Instance(instance.name()), Event::Removed);
    Ok(())
}

pub(crate) fn of_instance(
    instance: &Instance,
    action: &'static str,
    source: InstanceError,
) -> ComposeError {
    ComposeError::Instance {
        service: service(instance).to_owned(),
        action,
        instance: instance.name().to_owned(),
        source: Box::new(source),
    }
}
