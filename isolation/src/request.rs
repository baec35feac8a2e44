//! From an image and what the operator asks for to an OCI runtime specification.

use isolab_container::{DEFAULT_PATH, Limits, default_process, default_spec};
use isolab_images::Image;
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::error::IsolationError;
use crate::filesystem::Filesystem;
use crate::level::Level;
use crate::security::Security;
use crate::users;

/// What the operator may say about a run; what is left out comes from the image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Replaces the image's Entrypoint, and its Cmd.
    pub entrypoint: Option<Vec<String>>,
    /// The command and its arguments; replaces the image's Cmd, not its Entrypoint.
    pub command: Vec<String>,
    /// `NAME=value`, or `NAME` for the value in our own environment.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// The host name; at level `process` there is no way to set one, but for `HOSTNAME`.
    pub hostname: String,
    /// Limits that mean the same at every level.
    #[serde(with = "WrittenLimits")]
    pub limits: Limits,
    /// What its file system is made of beside the image.
    pub filesystem: Filesystem,
    /// What it may do beyond running.
    pub security: Security,
}

/// [`Limits`] as they are written down.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Limits", rename_all = "camelCase")]
struct WrittenLimits {
    memory_bytes: Option<u64>,
    cpus: Option<f64>,
    pids: Option<u32>,
}

impl Request {
    /// Completes the request with the image's configuration, for `level`.
    ///
    /// # Errors
    /// There is no command, the user is unknown, a limit is absurd, the level cannot do what is asked for, or the
    /// image is damaged.
    pub fn to_spec(&self, level: Level, image: &Image) -> Result<Spec, IsolationError> {
        self.security.check(level)?;
        if level.is_virtual_machine() && self.limits.pids.is_some() {
            let what = "limit the number of processes: the guest's kernel makes them";
            return Err(IsolationError::Unsupported { level, what });
        }
        let process = self.to_process(level, image)?;
        let mut spec = default_spec(&self.hostname, Vec::new(), Vec::new(), self.limits)?;
        spec.set_process(Some(process));
        self.security.apply(level, &mut spec)?;
        Ok(spec)
    }

    /// The first process of [`Request::to_spec`].
    ///
    /// # Errors
    /// As there.
    pub fn to_process(&self, level: Level, image: &Image) -> Result<Process, IsolationError> {
        let config = image.config().config().clone().unwrap_or_default();
        let command = match &self.command[..] {
            [] if self.entrypoint.is_none() => config.cmd().clone().unwrap_or_default(),
            command => command.to_vec(),
        };
        let entrypoint = self.entrypoint.clone().or(config.entrypoint().clone());
        let args = [entrypoint.unwrap_or_default(), command].concat();
        if args.is_empty() {
            return Err(IsolationError::Setting {
                field: "command",
                why: "the image names none; give one after the image".to_owned(),
            });
        }
        let user = self.user.clone().filter(|user| !user.is_empty());
        let user = user.or_else(|| self.security.user_kept(level)).or(config.user().clone());
        let layers = image.layers()?;
        let mut identity = users::resolve(&user.unwrap_or_default(), &layers)?;
        identity.join(&users::resolve_groups(&self.security.groups, &layers)?);

        let mut env = Vec::new();
        set(&mut env, &format!("PATH={DEFAULT_PATH}"));
        set(&mut env, &format!("HOME={}", identity.home));
        set(&mut env, &format!("HOSTNAME={}", self.hostname));
        for variable in config.env().iter().flatten() {
            set(&mut env, variable);
        }
        for variable in &self.env {
            match (variable.contains('='), std::env::var(variable)) {
                (true, _) => set(&mut env, variable),
                (false, Ok(value)) => set(&mut env, &format!("{variable}={value}")),
                // As podman: a variable that we do not have is not passed on.
                (false, Err(_)) => {}
            }
        }

        let workdir = self.workdir.clone().or(config.working_dir().clone());
        let workdir = workdir.filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".to_owned());
        if !workdir.starts_with('/') {
            return Err(IsolationError::Setting {
                field: "workdir",
                why: format!("{workdir} is not absolute"),
            });
        }
        let mut process = default_process(args, env);
        process.set_cwd(workdir.into()).set_user(identity.to_user()?);
        self.security.apply_to_process(level, &identity.groups, &mut process)?;
        Ok(process)
    }
}

/// What the operator may say about a further process of an instance; what is left out is as the first one's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FurtherProcess {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
}

impl FurtherProcess {
    /// Completes it with what is said of the instance's `first` process.
    ///
    /// # Errors
    /// The user is unknown, or the image damaged.
    pub fn to_process(&self, first: &Process, image: &Image) -> Result<Process, IsolationError> {
        let mut process = first.clone();
        let mut env = first.env().clone().unwrap_or_default();
        if let Some(user) = &self.user {
            let identity = users::resolve(user, &image.layers()?)?;
            set(&mut env, &format!("HOME={}", identity.home));
            process.set_user(identity.to_user()?);
        }
        self.env.iter().for_each(|variable| set(&mut env, variable));
        process.set_env(Some(env)).set_args(Some(self.args.clone()));
        if let Some(workdir) = &self.workdir {
            process.set_cwd(workdir.into());
        }
        Ok(process)
    }
}

/// Sets `NAME=value`, in the place of an earlier value of that name.
fn set(env: &mut Vec<String>, variable: &str) {
    let name = variable.split('=').next().unwrap_or(variable);
    let has_name = |other: &String| other.split('=').next() == Some(name);
    match env.iter_mut().find(|other| has_name(other)) {
        Some(other) => variable.clone_into(other),
        None => env.push(variable.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_value_takes_the_place_of_an_earlier_one() {
        let mut env = vec!["A=1".to_owned(), "AB=2".to_owned()];
        set(&mut env, "A=3=4");
        set(&mut env, "C=");
        assert_eq!(env, ["A=3=4", "AB=2", "C="]);
    }
}
