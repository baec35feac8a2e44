//! `isolab compose up`

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{process, thread};

use anyhow::{Context, Result};
use clap::Args;
use isolab_command::failure;
use isolab_command::fetch::{Access, Policy};
use isolab_command::logging::Logging;
use isolab_command::signals::{self, Blocked};
use isolab_compose::{ComposeError, Levels, UpOptions, stop, up};
use isolab_instances::time::Timestamp;
use isolab_instances::{Catalogue, Instance};
use isolab_isolation::Level;

use crate::describe;
use crate::images::{Preparation, prepare};
use crate::logs::{Shown, follow};
use crate::news::News;
use crate::scope::Scope;

/// Make and start services, and what they wait for.
///
/// What is there and as the files say stays as it is; what has changed is made anew. In the foreground the services'
/// output is shown until all have ended; Ctrl-C stops them, and a second one kills them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  isolab compose up -d --build --wait\n  isolab compose up --isolation fullvirt --isolation web=container --scale app=3"
)]
pub struct Up {
    /// Do not wait for their end, nor show what they write.
    #[arg(long, short)]
    detach: bool,
    /// Build images first, also those that are there.
    #[arg(long)]
    build: bool,
    /// Do not build images that are not there.
    #[arg(long, conflicts_with = "build")]
    no_build: bool,
    /// The level of all services, or of one; can be repeated.
    #[arg(long, value_name = "LEVEL|SERVICE=LEVEL", value_parser = parse_level)]
    isolation: Vec<(Option<String>, Level)>,
    /// How many instances a service is to be of; can be repeated.
    #[arg(long, value_name = "SERVICE=N", value_parser = parse_scale)]
    scale: Vec<(String, u32)>,
    /// Wait until services run, and are well if they have health checks; goes with -d.
    #[arg(long)]
    wait: bool,
    /// How many seconds at most.
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    wait_timeout: Option<u64>,
    /// Leave alone what the services wait for.
    #[arg(long)]
    no_deps: bool,
    /// Make instances anew also if they are as the files say.
    #[arg(long)]
    force_recreate: bool,
    /// Leave instances as they are, whatever the files say.
    #[arg(long, conflicts_with = "force_recreate")]
    no_recreate: bool,
    /// Make instances and do not start them.
    #[arg(long, conflicts_with = "wait")]
    no_start: bool,
    /// Remove instances of services that are no more in the files.
    #[arg(long)]
    remove_orphans: bool,
    /// Stop all when one has ended.
    #[arg(long, conflicts_with = "detach")]
    abort_on_container_exit: bool,
    /// End with the code of a service's instance, and stop all when one has ended.
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    exit_code_from: Option<String>,
    /// How many seconds a workload may take to end; by default what is said of each.
    #[arg(long, short, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// When to fetch images; by default as the files say of each.
    #[arg(long, value_enum, value_name = "WHEN")]
    pull: Option<Policy>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    shown: Shown,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

fn parse_level(text: &str) -> Result<(Option<String>, Level), String> {
    let (service, level) = match text.split_once('=') {
        Some((service, level)) => (Some(service.to_owned()), level),
        None => (None, text),
    };
    let level = level.parse::<Level>().map_err(|error| error.to_string())?;
    Ok((service, level))
}

fn parse_scale(text: &str) -> Result<(String, u32), String> {
    let both = text.split_once('=');
    let both = both.and_then(|(service, count)| Some((service.to_owned(), count.parse().ok()?)));
    both.ok_or_else(|| "expected SERVICE=N".to_owned())
}

impl Up {
    fn options(&self) -> UpOptions {
        let mut levels = Levels::default();
        for (service, level) in &self.isolation {
            match service {
                None => levels.all = Some(*level),
                Some(service) => drop(levels.of.insert(service.clone(), *level)),
            }
        }
        UpOptions {
            services: self.services.clone(),
            no_dependencies: self.no_deps,
            levels,
            scale: self.scale.iter().cloned().collect::<BTreeMap<_, _>>(),
            force_recreate: self.force_recreate,
            no_recreate: self.no_recreate,
            remove_orphans: self.remove_orphans,
            no_start: self.no_start,
            wait: self.wait,
            wait_timeout: self.wait_timeout.map(Duration::from_secs),
            timeout: self.timeout,
        }
    }
}

/// Runs the command.
pub fn run(scope: &Scope, args: &Up, logging: &Logging) -> Result<ExitCode> {
    let project = scope.project()?;
    let meant = project.select(&args.services, !args.no_deps)?;
    let preparation = Preparation {
        build: args.build,
        no_build: args.no_build,
        policy: args.pull,
        access: &args.access,
    };
    prepare(&project, &meant, &preparation, logging)?;
    let options = args.options();
    if args.detach || args.wait || args.no_start {
        up(&project, &options, describe, &mut News { signals: None })?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before any thread exists, so that all of them inherit the mask.
    let signals = signals::block(&[]).context("cannot block signals")?;
    let began = Timestamp::now();
    let brought = up(&project, &options, describe, &mut News { signals: Some(&signals) });
    let instances = match brought {
        Ok(instances) => instances,
        Err(error) => {
            if matches!(error, ComposeError::Interrupted) {
                let catalogue = Catalogue::open_default()?;
                let all = isolab_compose::instances::of_project(&catalogue, &project.name)?;
                stop(&catalogue, all, args.timeout, &mut News { signals: None })?;
                return Ok(ExitCode::from(128 + libc::SIGINT as u8));
            }
            return Err(error.into());
        }
    };
    attend(args, instances, began, signals)
}

/// Shows what they write until all have ended.
fn attend(
    args: &Up,
    instances: Vec<Instance>,
    began: Timestamp,
    signals: Blocked,
) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let (told, all, timeout) = (Arc::clone(&interrupted), instances.clone(), args.timeout);
    let theirs = catalogue.clone();
    signals.on_arrival(move |_| {
        let is_second = told.swap(true, Ordering::SeqCst);
        let (catalogue, all) = (theirs.clone(), all.clone());
        if !is_second {
            eprintln!("Stopping; once more kills");
        }
        // The next signal is heard meanwhile.
        thread::spawn(move || end(&catalogue, all, if is_second { Some(0) } else { timeout }));
    })?;
    let aborts = args.abort_on_container_exit || args.exit_code_from.is_some();
    if aborts {
        let (catalogue, all) = (catalogue.clone(), instances.clone());
        for instance in instances.clone() {
            let (catalogue, all) = (catalogue.clone(), all.clone());
            thread::spawn(move || {
                // One whose end cannot be told is as one that has ended.
                let _ = catalogue.wait(&instance);
                end(&catalogue, all, timeout);
            });
        }
    }
    follow(&instances, began, &args.shown, io::stdout().is_terminal())?;
    if interrupted.load(Ordering::SeqCst) {
        end(&catalogue, instances, timeout);
        return Ok(ExitCode::from(128 + libc::SIGINT as u8));
    }
    let Some(service) = &args.exit_code_from else { return Ok(ExitCode::SUCCESS) };
    let of_service = instances.iter().find(|it| isolab_compose::instances::service(it) == service);
    let Some(instance) = of_service else {
        return Err(ComposeError::NoSuchService(service.clone()).into());
    };
    let code = catalogue.wait(instance)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Stops what still runs of these.
fn end(catalogue: &Catalogue, instances: Vec<Instance>, timeout: Option<u64>) {
    let now = instances.iter().filter_map(|it| catalogue.find(&it.entry.id).ok()).collect();
    if let Err(error) = stop(catalogue, now, timeout, &mut News { signals: None }) {
        failure::tell(&error);
        if timeout == Some(0) {
            process::exit(isolab_command::format::EXIT_OWN_FAILURE.into());
        }
    }
}
