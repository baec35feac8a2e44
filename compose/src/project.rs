//! A project: its files found and read, its name, and which of its services are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use isolab_isolation::Level;

use crate::error::ComposeError;
use crate::file::interpolate::Variables;
use crate::file::node::Node;
use crate::file::{self, variables};
use crate::model::{Model, ProjectNetwork, ProjectVolume, Service};

/// The names that a compose file is looked for by, and those of what goes over it.
const FILES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];
/// As Docker has it; a network's name, with the project's before it, is 63 bytes at most.
const MOST_NAME: usize = 40;

/// Where a project is.
#[derive(Clone, Debug, Default)]
pub struct ProjectOptions {
    /// Its files, later ones over earlier ones; without, COMPOSE_FILE's, or compose.yaml in this folder or above.
    pub files: Vec<PathBuf>,
    /// The folder that paths start from; without, the first file's.
    pub folder: Option<PathBuf>,
    /// Its name; without, COMPOSE_PROJECT_NAME's, the files' or the folder's.
    pub name: Option<String>,
    /// Files of variables in the place of `.env`.
    pub env_files: Vec<PathBuf>,
    /// Profiles that are chosen, beside those of COMPOSE_PROFILES; `*` is all.
    pub profiles: Vec<String>,
    /// Variables that win over those of files: the environment.
    pub variables: Variables,
}

/// A project.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name: a-z 0-9 _ -.
    pub name: String,
    /// The folder that its paths start from.
    pub folder: PathBuf,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Its services, by their names, also those of profiles that are not chosen.
    pub services: BTreeMap<String, Service>,
    /// Its networks, by their names in the files.
    pub networks: BTreeMap<String, ProjectNetwork>,
    /// Its volumes, likewise.
    pub volumes: BTreeMap<String, ProjectVolume>,
    /// The level of services that say none.
    pub isolation: Option<Level>,
    /// The profiles that are chosen.
    pub profiles: Vec<String>,
    /// What the files say, in full.
    pub tree: Node,
}

impl ProjectOptions {
    /// The name, if it is known without any file.
    pub fn name(&self) -> Option<String> {
        let variable = || self.variables.get("COMPOSE_PROJECT_NAME").cloned();
        self.name.clone().or_else(variable).filter(|name| !name.is_empty())
    }
}

impl Project {
    /// Reads a project's files.
    ///
    /// # Errors
    /// They cannot be read, are not as the specification has it, or ask for what isolab cannot do.
    pub fn load(options: &ProjectOptions) -> Result<Self, ComposeError> {
        let mut known = options.variables.clone();
        let explicit = options.folder.clone();
        // What says which files there are may itself be in the folder's .env.
        let here = std::env::current_dir().map_err(|source| ComposeError::Host {
            action: "find the working directory",
            source,
        })?;
        let beside = explicit.clone().or_else(|| options.files.first().map(|file| parent(file)));
        add_variables(&mut known, options, beside.as_deref().unwrap_or(&here))?;
        let (files, found_in) = find_files(options, &known, &here)?;
        let folder = explicit.unwrap_or(found_in);
        let folder = absolute(&folder)?;
        if beside.is_none() {
            add_variables(&mut known, options, &folder)?;
        }
        let variable = |name: &str| known.get(name).filter(|value| !value.is_empty()).cloned();
        let given = options.name.clone().or_else(|| variable("COMPOSE_PROJECT_NAME"));
        let mut profiles = options.profiles.clone();
        let more = variable("COMPOSE_PROFILES").unwrap_or_default();
        profiles
            .extend(more.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned));
        // Files may use the name, which they may say themselves.
        let usual = given.clone().unwrap_or_else(|| normal(&folder));
        known.insert("COMPOSE_PROJECT_NAME".to_owned(), usual.clone());
        let mut tree = file::load(&files, &folder, &known)?;
        let said = tree.get("name").cloned().map(|node| node.into_text("name")).transpose()?;
        let name = given.or(said).unwrap_or(usual.clone());
        if name != usual {
            known.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
            tree = file::load(&files, &folder, &known)?;
        }
        check_name(&name)?;
        let Model { services, networks, volumes, isolation, .. } =
            Model::read(tree.clone(), &known)?;
        Ok(Self { name, folder, files, services, networks, volumes, isolation, profiles, tree })
    }

    /// The services that are meant, each behind those that it waits for: those of these names, or all of the profiles
    /// that are chosen; with `dependencies` also what they wait for.
    ///
    /// # Errors
    /// One is not there.
    pub fn select(&self, names: &[String], dependencies: bool) -> Result<Vec<&str>, ComposeError> {
        let mut meant = BTreeSet::new();
        for name in names {
            let (name, _) = self
                .services
                .get_key_value(name)
                .ok_or_else(|| ComposeError::NoSuchService(name.clone()))?;
            meant.insert(name.as_str());
        }
        if names.is_empty() {
            let active = self.services.iter().filter(|(_, service)| self.is_active(service));
            meant.extend(active.map(|(name, _)| name.as_str()));
        }
        let mut ordered = Vec::new();
        for name in meant.clone() {
            self.visit(name, &mut ordered);
        }
        if !dependencies {
            ordered.retain(|name| meant.contains(name));
        }
        Ok(ordered)
    }

    fn visit<'a>(&'a self, name: &'a str, ordered: &mut Vec<&'a str>) {
        // There is no circle: the files were checked.
        if ordered.contains(&name) {
            return;
        }
        for (other, dependency) in self.services.get(name).iter().flat_map(|it| &it.depends_on) {
            let is_there = self.services.get(other).is_some_and(|service| self.is_active(service));
            if self.services.contains_key(other) && (dependency.required || is_there) {
                self.visit(other, ordered);
            }
        }
        ordered.push(name);
    }

    /// Whether a service is of no profile, or of one that is chosen.
    pub fn is_active(&self, service: &Service) -> bool {
        service.profiles.is_empty()
            || self.profiles.iter().any(|it| it == "*" || service.profiles.contains(it))
    }

    /// The name of a service's image: of one that is only built, the project's and the service's.
    pub fn image(&self, service: &str) -> String {
        let image = self.services.get(service).and_then(|service| service.image.clone());
        image.unwrap_or_else(|| format!("{}-{service}", self.name).to_lowercase())
    }

    /// A network's name on this host.
    pub fn network_name(&self, network: &str) -> String {
        let own = self.networks.get(network);
        match own.and_then(|it| it.name.clone()) {
            Some(name) => name.to_string(),
            None if own.is_some_and(|it| it.external) => network.to_owned(),
            None => format!("{}_{network}", self.name),
        }
    }

    /// A volume's name on this host.
    pub fn volume_name(&self, volume: &str) -> String {
        let own = self.volumes.get(volume);
        match own.and_then(|it| it.name.clone()) {
            Some(name) => name.to_string(),
            None if own.is_some_and(|it| it.external) => volume.to_owned(),
            None => format!("{}_{volume}", self.name),
        }
    }
}

/// Adds those of the files that are named, or of the folder's `.env`; what is known wins.
fn add_variables(
    known: &mut Variables,
    options: &ProjectOptions,
    folder: &Path,
) -> Result<(), ComposeError> {
    let named = known.get("COMPOSE_ENV_FILES").cloned().unwrap_or_default();
    let is_off = known.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|it| it == "1" || it == "true");
    let files: Vec<PathBuf> = if !options.env_files.is_empty() {
        options.env_files.clone()
    } else if !named.is_empty() {
        named.split(',').map(PathBuf::from).collect()
    } else {
        let usual = folder.join(".env");
        (usual.is_file() && !is_off).then_some(usual).into_iter().collect()
    };
    let mut read = Variables::new();
    for file in files {
        let values = variables::read(&file, known)?.into_iter();
        read.extend(values.filter_map(|(name, value)| Some((name, value?))));
    }
    for (name, value) in read {
        known.entry(name).or_insert(value);
    }
    Ok(())
}

/// The files, and the folder of the first.
fn find_files(
    options: &ProjectOptions,
    known: &Variables,
    here: &Path,
) -> Result<(Vec<PathBuf>, PathBuf), ComposeError> {
    let mut files = options.files.clone();
    if files.is_empty()
        && let Some(named) = known.get("COMPOSE_FILE").filter(|named| !named.is_empty())
    {
        let separator = known.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
        files = named.split(separator).map(PathBuf::from).collect();
    }
    if let Some(first) = files.first() {
        let folder = if first == Path::new("-") { here.to_owned() } else { parent(first) };
        return Ok((files, folder));
    }
    let start = options.folder.as_deref().unwrap_or(here);
    for folder in start.ancestors() {
        let Some(file) = FILES.iter().map(|name| folder.join(name)).find(|it| it.is_file()) else {
            continue;
        };
        let over = OVERRIDES.iter().map(|name| folder.join(name)).find(|it| it.is_file());
        let files = [file].into_iter().chain(over).collect();
        return Ok((files, folder.to_owned()));
    }
    Err(ComposeError::NoFile(start.to_owned()))
}

fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn absolute(folder: &Path) -> Result<PathBuf, ComposeError> {
    let path = std::path::absolute(folder).map_err(ComposeError::read(folder))?;
    Ok(path.components().collect())
}

/// A project's name after its folder.
fn normal(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let name = name.unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "_-".contains(*c);
    let name: String = name.chars().filter(is_plain).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

/// Whether a project may be called so.
///
/// # Errors
/// It may not.
pub fn check_name(name: &str) -> Result<(), ComposeError> {
    let is_first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_plain = |c: char| is_first(c) || "_-".contains(c);
    let is_name =
        name.starts_with(is_first) && name.chars().all(is_plain) && name.len() <= MOST_NAME;
    if is_name { Ok(()) } else { Err(ComposeError::Name(name.to_owned())) }
}
