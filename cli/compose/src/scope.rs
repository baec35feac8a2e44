//! The options that say which project is meant.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use isolab_compose::instances::{number, of_project, service};
use isolab_compose::{ComposeError, Project, ProjectOptions, check_name};
use isolab_instances::{Catalogue, Instance};

/// Which project.
#[derive(Debug, Args)]
pub struct Scope {
    /// A compose file; of several each one goes over those before it. - is standard input [default: $COMPOSE_FILE, or
    /// compose.yaml here or above, with compose.override.yaml].
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The project's name [default: $COMPOSE_PROJECT_NAME, the files', or their folder's].
    #[arg(long, short, value_name = "NAME")]
    project_name: Option<String>,
    /// The folder that paths in the files start from [default: the first file's].
    #[arg(long, value_name = "DIR")]
    project_directory: Option<PathBuf>,
    /// A file of variables, in the place of the folder's .env; can be repeated.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Choose the services of a profile as well; * is all. Can be repeated.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
}

impl Scope {
    fn options(&self) -> ProjectOptions {
        ProjectOptions {
            files: self.file.clone(),
            folder: self.project_directory.clone(),
            name: self.project_name.clone(),
            env_files: self.env_file.clone(),
            profiles: self.profile.clone(),
            // One that is not UTF-8 is none that a file could name.
            variables: env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        }
    }

    /// The project, from its files.
    pub fn project(&self) -> Result<Project, ComposeError> {
        Project::load(&self.options())
    }

    /// The project's name, and its files' content if there are any: what runs is found without.
    pub fn find(&self) -> Result<(String, Option<Project>), ComposeError> {
        match (self.project(), self.options().name()) {
            (Ok(project), _) => Ok((project.name.clone(), Some(project))),
            (Err(ComposeError::NoFile(_)), Some(name)) => {
                check_name(&name)?;
                Ok((name, None))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The instances of these services, or all of the project's.
    pub fn instances(&self, services: &[String]) -> Result<(Catalogue, Vec<Instance>)> {
        let (name, project) = self.find()?;
        let catalogue = Catalogue::open_default()?;
        let mut instances = of_project(&catalogue, &name)?;
        for wanted in services {
            let is_known = project.as_ref().is_some_and(|it| it.services.contains_key(wanted));
            if !is_known && !instances.iter().any(|it| service(it) == wanted) {
                return Err(ComposeError::NoSuchService(wanted.clone()).into());
            }
        }
        instances
            .retain(|it| services.is_empty() || services.iter().any(|name| name == service(it)));
        Ok((catalogue, instances))
    }

    /// One instance of a service, by its number or the first that runs.
    pub fn instance(&self, name: &str, index: Option<u32>) -> Result<Instance> {
        let (_, instances) = self.instances(&[name.to_owned()])?;
        let is_meant = |it: &Instance| match index {
            Some(index) => number(it) == index,
            None => it.state.status.is_running(),
        };
        match (instances.into_iter().find(is_meant), index) {
            (Some(instance), _) => Ok(instance),
            (None, Some(index)) => bail!("service `{name}` has no instance {index}"),
            (None, None) => bail!("service `{name}` does not run"),
        }
    }
}
