//! ARG, and what variables stand for.

use std::collections::BTreeMap;

use super::{Fault, Outcome, Stage, StageBuilder};
use crate::config::Config;
use crate::{Build, BuildError, words};

/// In every stage, as Docker has them.
const PLATFORM_ARGS: [(&str, &str); 8] = [
    ("TARGETPLATFORM", "linux/amd64"),
    ("TARGETOS", "linux"),
    ("TARGETARCH", "amd64"),
    ("TARGETVARIANT", ""),
    ("BUILDPLATFORM", "linux/amd64"),
    ("BUILDOS", "linux"),
    ("BUILDARCH", "amd64"),
    ("BUILDVARIANT", ""),
];

/// May be given and used without an ARG, and are not kept in the image (Dockerfile reference,
/// "Predefined ARGs").
pub(crate) const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Takes in the ARGs before the first FROM, which are for FROMs, and for ARGs of their name.
pub(crate) fn declare_globals(build: &mut Build<'_>) -> Result<(), BuildError> {
    let dockerfile = build.dockerfile;
    let known = |(name, value): (&str, &str)| (name.to_owned(), Some(value.to_owned()));
    let args: BTreeMap<_, _> = PLATFORM_ARGS.map(known).into();
    let stage = Stage { config: Config::empty(), layers: Vec::new(), args };
    let escape = dockerfile.escape;
    let mut builder = StageBuilder { build, number: 0, stage, escape, has_cmd: false };
    for arg in &dockerfile.global {
        builder.guard(arg, |builder| builder.declare(&arg.arguments))?;
    }
    builder.build.globals = builder.stage.args;
    Ok(())
}

impl StageBuilder<'_, '_> {
    /// A variable's value: ENV counts before ARG.
    pub(super) fn lookup(&self, name: &str) -> Option<String> {
        let given = |name: &str| self.build.request.args.get(name).cloned();
        self.stage.config.env(name).or_else(|| match self.stage.args.get(name) {
            Some(value) => value.clone(),
            None if PROXY_ARGS.contains(&name) => given(name),
            None => None,
        })
    }

    pub(super) fn expand(&self, word: &str) -> Outcome<String> {
        words::expand(word, self.escape, &|name| self.lookup(name)).map_err(Fault::Why)
    }

    /// `ARG NAME[=DEFAULT]...`: what the operator gives counts before the default, and that before
    /// what the name has before the first FROM.
    pub(super) fn declare(&mut self, arguments: &str) -> Outcome {
        for word in words::split(arguments, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(self.expand(default)?)),
                None => (word.as_str(), None),
            };
            let name = self.expand(name)?;
            let given = self.build.request.args.get(&name).cloned();
            let global = || self.build.globals.get(&name).cloned().flatten();
            let platform = || PLATFORM_ARGS.iter().find(|(known, _)| *known == name);
            let value = given
                .or(default)
                .or_else(global)
                .or_else(|| platform().map(|(_, value)| (*value).to_owned()));
            self.build.used_args.insert(name.clone());
            self.stage.args.insert(name, value);
        }
        Ok(())
    }
}
