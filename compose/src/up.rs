//! Bringing a project up: networks, volumes, then its instances, each when what it waits for is there.
//!
//! One thread does all of it, because an instance's supervisor is a copy of the process that starts it; several
//! instances start at once all the same, and what is waited for meanwhile is their word that they run.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant as Moment};

use isolab_images::Store;
use isolab_instances::{Catalogue, Describe, HealthStatus, Instance, Starting, Status};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::down::{of_instance, remove, stop};
use crate::error::ComposeError;
use crate::event::{Event, Observer, Subject};
use crate::instances::{label_of, last_lines, number, of_project, service};
use crate::model::Condition;
use crate::plan::{Levels, Plan};
use crate::project::Project;
use crate::{label, supplies};

/// How often what is waited for is looked at, in milliseconds: state files, whose writers tell nobody.
const LOOK_AGAIN: u16 = 50;

/// How a project is brought up.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// The services; without, all of the profiles that are chosen.
    pub services: Vec<String>,
    /// Whether what they wait for is left alone.
    pub no_dependencies: bool,
    /// Levels that are asked for.
    pub levels: Levels,
    /// How many instances services are to be of.
    pub scale: BTreeMap<String, u32>,
    /// Whether instances are made anew that are as they are to be.
    pub force_recreate: bool,
    /// Whether instances stay that are not as they are to be.
    pub no_recreate: bool,
    /// Whether instances of services that there are no more go.
    pub remove_orphans: bool,
    /// Whether instances are made and not started.
    pub no_start: bool,
    /// Whether to wait until those that have health checks are well.
    pub wait: bool,
    /// How long at most.
    pub wait_timeout: Option<Duration>,
    /// Seconds that a workload may take to end when it is made anew.
    pub timeout: Option<u64>,
}

/// Brings a project up: what is there and as it is to be stays. The images are in the store. Gives the instances of the
/// services that were asked for.
///
/// # Errors
/// A level cannot do what a service asks for, before anything is started; or something does not start, or not well:
/// then what was started runs on.
///
/// # Panics
/// Never; but this process must have no other threads, as for [`Catalogue::start`].
pub fn up(
    project: &Project,
    options: &UpOptions,
    describe: Describe,
    observer: &mut dyn Observer,
) -> Result<Vec<Instance>, ComposeError> {
    let order = project.select(&options.services, !options.no_dependencies)?;
    if order.is_empty() {
        return Err(ComposeError::NoService);
    }
    for name in options.levels.of.keys().chain(options.scale.keys()) {
        if !project.services.contains_key(name) {
            return Err(ComposeError::NoSuchService(name.clone()));
        }
    }
    let failed = |source| ComposeError::Image { service: order[0].to_owned(), source };
    let store = Store::open_default().map_err(failed)?;
    // All of them, before anything is made.
    let mut plans = Vec::new();
    for &name in &order {
        let (level, replicas) = (options.levels.level(project, name), options.scale.get(name));
        plans.push(Plan::new(project, name, level, replicas.copied(), &store)?);
    }
    plans.iter().try_for_each(Plan::make_folders)?;
    supplies::provide(project, &order, observer)?;
    let catalogue = Catalogue::open_default().map_err(ComposeError::Catalogue)?;
    let mut bringing = Bringing { catalogue, options, describe, observer };
    if options.remove_orphans {
        bringing.remove_orphans(project)?;
    }
    bringing.start_all(project, &plans)?;
    if options.wait {
        bringing.wait_until_well(&plans)?;
    }
    let meant = project.select(&options.services, false)?;
    let mut instances = of_project(&bringing.catalogue, &project.name)?;
    instances.retain(|instance| meant.contains(&service(instance)));
    Ok(instances)
}

/// Starts instances that there are, each group of them when the one before it runs.
///
/// # Errors
/// One does not start.
///
/// # Panics
/// As [`up`].
pub fn start(
    catalogue: &Catalogue,
    instances: Vec<Instance>,
    describe: Describe,
    observer: &mut dyn Observer,
) -> Result<(), ComposeError> {
    for group in crate::instances::in_order(instances) {
        let mut starting = Vec::new();
        for instance in group.iter().filter(|it| !it.state.status.is_active()) {
            observer.happened(Subject::Instance(instance.name()), Event::Starting);
            let begun = catalogue.begin_start(instance, describe);
            starting.push((instance, begun.map_err(|it| of_instance(instance, "start", it))?));
        }
        for (instance, begun) in starting {
            begun.finish().map_err(|it| of_instance(instance, "start", it))?;
            observer.happened(Subject::Instance(instance.name()), Event::Started);
        }
    }
    Ok(())
}

struct Bringing<'a> {
    catalogue: Catalogue,
    options: &'a UpOptions,
    describe: Describe,
    observer: &'a mut dyn Observer,
}

/// Where a service is.
enum Stage {
    Waiting,
    Starting(Vec<(Instance, Starting)>),
    Started,
}

impl Bringing<'_> {
    fn remove_orphans(&mut self, project: &Project) -> Result<(), ComposeError> {
        let mut orphans = of_project(&self.catalogue, &project.name)?;
        orphans.retain(|instance| !project.services.contains_key(service(instance)));
        self.discard(orphans)
    }

    fn discard(&mut self, instances: Vec<Instance>) -> Result<(), ComposeError> {
        stop(&self.catalogue, instances.clone(), self.options.timeout, self.observer)?;
        for instance in &instances {
            remove(&self.catalogue, instance, true, self.observer)?;
        }
        Ok(())
    }

    fn start_all(&mut self, project: &Project, plans: &[Plan]) -> Result<(), ComposeError> {
        let mut stages: Vec<Stage> = plans.iter().map(|_| Stage::Waiting).collect();
        let mut told = BTreeSet::new();
        loop {
            for (at, plan) in plans.iter().enumerate() {
                if matches!(stages[at], Stage::Waiting)
                    && self.is_ready(plan, plans, &stages, &mut told)?
                {
                    stages[at] = Stage::Starting(self.begin(project, plan)?);
                }
            }
            if self.observer.is_interrupted() {
                return Err(ComposeError::Interrupted);
            }
            wait_for_word(&stages)?;
            for stage in &mut stages {
                self.hear(stage)?;
            }
            if stages.iter().all(|stage| matches!(stage, Stage::Started)) {
                return Ok(());
            }
        }
    }

    /// Whether all that a service waits for is there. `told` are those of which it was said that they are waited for.
    fn is_ready(
        &mut self,
        plan: &Plan,
        plans: &[Plan],
        stages: &[Stage],
        told: &mut BTreeSet<String>,
    ) -> Result<bool, ComposeError> {
        for (name, dependency) in &plan.said.depends_on {
            // One that is not brought up is not waited for either.
            let Some(at) = plans.iter().position(|other| other.service == name) else { continue };
            // Before that, its state is of a run before this one.
            if !matches!(stages[at], Stage::Started) {
                return Ok(false);
            }
            if self.options.no_start {
                continue;
            }
            let mut instances = of_project(&self.catalogue, plan.project_name())?;
            instances.retain(|instance| service(instance) == name);
            for instance in &instances {
                match judge(instance, dependency.condition) {
                    Judged::There(event) => {
                        if let Some(event) = event
                            && told.insert(format!("{event:?} {}", instance.name()))
                        {
                            self.observer.happened(Subject::Instance(instance.name()), event);
                        }
                    }
                    Judged::NotYet => {
                        if told.insert(format!("wait {}", instance.name())) {
                            self.observer
                                .happened(Subject::Instance(instance.name()), Event::Waiting);
                        }
                        return Ok(false);
                    }
                    // It goes without.
                    Judged::Never(_) if !dependency.required => {}
                    Judged::Never(why) => {
                        return Err(ComposeError::Dependency {
                            service: plan.service.to_owned(),
                            dependency: name.clone(),
                            why,
                            log: last_lines(instance),
                        });
                    }
                }
            }
        }
        Ok(true)
    }

    /// Makes what a service lacks and begins to start it; what is too much or another goes.
    fn begin(
        &mut self,
        project: &Project,
        plan: &Plan,
    ) -> Result<Vec<(Instance, Starting)>, ComposeError> {
        let mut there = of_project(&self.catalogue, &project.name)?;
        there.retain(|instance| service(instance) == plan.service);
        let (kept, surplus): (Vec<_>, Vec<_>) =
            there.into_iter().partition(|it| (1..=plan.replicas).contains(&number(it)));
        self.discard(surplus)?;
        let is_another = |instance: &Instance| {
            let same = label_of(instance, label::HASH) == Some(plan.hash.as_str())
                && instance.entry.level == plan.level;
            self.options.force_recreate || !same && !self.options.no_recreate
        };
        let (another, same): (Vec<_>, Vec<_>) = kept.into_iter().partition(is_another);
        let recreated: BTreeSet<u32> = another.iter().map(number).collect();
        stop(&self.catalogue, another.clone(), self.options.timeout, self.observer)?;
        for instance in &another {
            self.catalogue
                .remove(instance, true)
                .map_err(|it| of_instance(instance, "remove", it))?;
            if let Some(config) = &instance.config {
                let removed = config.request.filesystem.remove_anonymous();
                removed.map_err(|it| of_instance(instance, "remove the volumes of", it.into()))?;
            }
        }
        let mut starting = Vec::new();
        for at in 1..=plan.replicas {
            let instance = match same.iter().find(|instance| number(instance) == at) {
                Some(instance) if instance.state.status.is_active() => {
                    self.observer.happened(Subject::Instance(instance.name()), Event::Running);
                    continue;
                }
                // Also one that has ended well: it does again what it is for, as Docker has it.
                Some(instance) => instance.clone(),
                None => {
                    let instance = self.create(plan, at)?;
                    let is_new = !recreated.contains(&at);
                    let event = if is_new { Event::Created } else { Event::Recreated };
                    self.observer.happened(Subject::Instance(instance.name()), event);
                    instance
                }
            };
            if self.options.no_start {
                continue;
            }
            self.observer.happened(Subject::Instance(instance.name()), Event::Starting);
            let begun = self.catalogue.begin_start(&instance, self.describe);
            let begun = begun.map_err(|it| of_instance(&instance, "start", it))?;
            starting.push((instance, begun));
        }
        Ok(starting)
    }

    fn create(&self, plan: &Plan, at: u32) -> Result<Instance, ComposeError> {
        let name = plan.instance_name(at)?;
        let config = |source| ComposeError::Instance {
            service: plan.service.to_owned(),
            action: "create",
            instance: name.to_string(),
            source: Box::new(source),
        };
        let created =
            self.catalogue.create(Some(name.clone()), plan.level, |_| plan.config(&name, at));
        created.map_err(config)
    }

    /// Hears what has become of a service that is being started.
    fn hear(&mut self, stage: &mut Stage) -> Result<(), ComposeError> {
        let Stage::Starting(starting) = stage else { return Ok(()) };
        let mut left = Vec::new();
        for (instance, begun) in std::mem::take(starting) {
            let mut ready = [PollFd::new(begun.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1..)) {
                left.push((instance, begun));
                continue;
            }
            begun.finish().map_err(|it| of_instance(&instance, "start", it))?;
            self.observer.happened(Subject::Instance(instance.name()), Event::Started);
        }
        *stage = if left.is_empty() { Stage::Started } else { Stage::Starting(left) };
        Ok(())
    }

    /// Waits until what has health checks is well, and nothing else has ended.
    fn wait_until_well(&mut self, plans: &[Plan]) -> Result<(), ComposeError> {
        let deadline = self.options.wait_timeout.map(|timeout| Moment::now() + timeout);
        let mut well = BTreeSet::new();
        loop {
            let mut waits = None;
            for plan in plans {
                let mut instances = of_project(&self.catalogue, plan.project_name())?;
                instances.retain(|instance| service(instance) == plan.service);
                // What others wait for to end has ended.
                let is_meant_to_end = plans.iter().any(|other| {
                    let on = other.said.depends_on.get(plan.service);
                    on.is_some_and(|it| it.condition == Condition::Completed)
                });
                for instance in instances.iter().filter(|_| !is_meant_to_end) {
                    let has_checks = instance.config.as_ref().is_some_and(|it| it.health.is_some());
                    let condition =
                        if has_checks { Condition::Healthy } else { Condition::Started };
                    match judge(instance, condition) {
                        Judged::There(_) if instance.state.status == Status::Exited => {
                            let why = format!("has ended with {}", instance.state.exit_code);
                            return Err(self.failed(plan, instance, why));
                        }
                        Judged::There(event) => {
                            if let Some(event) = event
                                && well.insert(instance.name().to_owned())
                            {
                                self.observer.happened(Subject::Instance(instance.name()), event);
                            }
                        }
                        Judged::NotYet => waits = Some((plan, instance.clone())),
                        Judged::Never(why) => return Err(self.failed(plan, instance, why)),
                    }
                }
            }
            let Some((plan, instance)) = waits else { return Ok(()) };
            if self.observer.is_interrupted() {
                return Err(ComposeError::Interrupted);
            }
            if deadline.is_some_and(|deadline| Moment::now() > deadline) {
                return Err(self.failed(plan, &instance, "is not well in time".to_owned()));
            }
            wait_for_word(&[])?;
        }
    }

    fn failed(&self, plan: &Plan, instance: &Instance, why: String) -> ComposeError {
        ComposeError::Failed { service: plan.service.to_owned(), why, log: last_lines(instance) }
    }
}

/// Whether something that is waited for is there.
enum Judged {
    /// It is, and what there is to tell of that.
    There(Option<Event>),
    NotYet,
    /// It will not be, and why.
    Never(String),
}

fn judge(instance: &Instance, condition: Condition) -> Judged {
    let state = &instance.state;
    let ended = || format!("has ended with {}", state.exit_code);
    let has_ended = state.status == Status::Exited;
    match condition {
        Condition::Started => Judged::There(None),
        Condition::Completed if has_ended && state.exit_code == 0 => {
            Judged::There(Some(Event::Completed))
        }
        Condition::Completed if has_ended => Judged::Never(ended()),
        Condition::Completed => Judged::NotYet,
        Condition::Healthy if has_ended => Judged::Never(ended()),
        Condition::Healthy => {
            if instance.config.as_ref().is_some_and(|config| config.health.is_none()) {
                return Judged::Never("has no health check".to_owned());
            }
            match state.health.as_ref().map(|health| health.status) {
                Some(HealthStatus::Healthy) => Judged::There(Some(Event::Healthy)),
                Some(HealthStatus::Unhealthy) => {
                    let checks = state.health.iter().flat_map(|health| &health.log);
                    let last = checks.last().map_or("", |check| check.output.trim());
                    let last: String =
                        last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                    let said = if last.is_empty() { last } else { format!(": {last}") };
                    Judged::Never(format!("is unhealthy{said}"))
                }
                Some(HealthStatus::Starting) | None => Judged::NotYet,
            }
        }
    }
}

/// Returns when one of those that are being started has something to say, and after a while in any case.
fn wait_for_word(stages: &[Stage]) -> Result<(), ComposeError> {
    let starting = stages.iter().filter_map(|stage| match stage {
        Stage::Starting(starting) => Some(starting),
        _ => None,
    });
    let words = starting.flatten().map(|(_, begun)| PollFd::new(begun.as_fd(), PollFlags::POLLIN));
    let mut words: Vec<PollFd> = words.collect();
    let is_waited_for = stages.is_empty() || stages.iter().any(|it| matches!(it, Stage::Waiting));
    let timeout = if words.is_empty() && !is_waited_for { 0 } else { LOOK_AGAIN };
    match poll(&mut words, PollTimeout::from(timeout)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => {
            Err(ComposeError::Host { action: "wait for instances", source: errno.into() })
        }
    }
}
