//! `RUN --mount=type=…,…` as it is written (Dockerfile reference, "RUN --mount").

use std::path::Path;

use crate::context::normal;

/// What an option asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MountOption {
    Bind(Bind),
    Cache(Cache),
    Secret(Secret),
    Tmpfs { target: String, size: Option<u64> },
}

/// Files of the context, or of a stage or image. What is written to them is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) target: String,
    pub(super) from: Option<String>,
    pub(super) source: String,
    pub(super) read_only: bool,
}

/// A folder that stays from build to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    pub(super) target: String,
    pub(super) id: String,
    pub(super) sharing: Sharing,
    /// What it holds in the beginning.
    pub(super) from: Option<String>,
    pub(super) source: String,
    pub(super) read_only: bool,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
}

/// What becomes of several builds with one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// They have it together.
    Shared,
    /// Each has one of its own.
    Private,
    /// One waits for the other.
    Locked,
}

/// A file or variable that must not stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) id: String,
    /// None where it is a variable only.
    pub(super) target: Option<String>,
    pub(super) variable: Option<String>,
    pub(super) required: bool,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
}

/// The fields of an option, which are taken one by one.
struct Fields {
    fields: Vec<(String, Option<String>)>,
    cwd: String,
}

impl MountOption {
    /// Parses the option's value; `expand` puts variables in, and `cwd` is where relative targets
    /// begin.
    pub(super) fn parse<E: From<String>>(
        text: &str,
        cwd: &str,
        expand: impl Fn(&str) -> Result<String, E>,
    ) -> Result<Self, E> {
        let mut fields = Vec::new();
        for field in split(text) {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(expand(value)?)),
                None => (field.as_str(), None),
            };
            fields.push((name.trim().to_ascii_lowercase(), value));
        }
        let mut fields = Fields { fields, cwd: cwd.to_owned() };
        let option = fields.option().map_err(|why| format!("--mount={text}: {why}"))?;
        match fields.fields.first() {
            None => Ok(option),
            Some((name, _)) => Err(format!("--mount={text}: `{name}` is not known there").into()),
        }
    }
}

impl Fields {
    fn option(&mut self) -> Result<MountOption, String> {
        match self.take(&["type"]).unwrap_or("bind".to_owned()).as_str() {
            "bind" => Ok(MountOption::Bind(Bind {
                target: self.target()?,
                from: self.take(&["from"]),
                source: self.take(&["source", "src"]).unwrap_or_default(),
                read_only: self.read_only(true)?,
            })),
            "cache" => {
                let target = self.target()?;
                Ok(MountOption::Cache(Cache {
                    id: self.take(&["id"]).unwrap_or(target.clone()),
                    target,
                    sharing: self.sharing()?,
                    from: self.take(&["from"]),
                    source: self.take(&["source", "src"]).unwrap_or_default(),
                    read_only: self.read_only(false)?,
                    mode: self.mode(0o755)?,
                    owner: self.owner()?,
                }))
            }
            "secret" => self.secret().map(MountOption::Secret),
            "tmpfs" => {
                let size = self.take(&["size"]).map(|size| bytes(&size)).transpose()?;
                Ok(MountOption::Tmpfs { target: self.target()?, size })
            }
            "ssh" => Err("agents of ssh are not forwarded; use type=secret for a key".to_owned()),
            other => Err(format!("there is no type `{other}`; bind, cache, secret and tmpfs are")),
        }
    }

    fn secret(&mut self) -> Result<Secret, String> {
        let target = self.take(&["target", "dst", "destination"]);
        let id = match (self.take(&["id"]), &target) {
            (Some(id), _) => id,
            (None, Some(target)) => {
                let name = Path::new(target).file_name().and_then(|name| name.to_str());
                name.ok_or("id= is missing")?.to_owned()
            }
            (None, None) => return Err("id= is missing".to_owned()),
        };
        let variable = self.take(&["env"]).filter(|name| !name.is_empty());
        let target = match target {
            Some(target) => Some(self.absolute(&target)?),
            None if variable.is_some() => None,
            None => Some(self.absolute(&format!("/run/secrets/{id}"))?),
        };
        let required = self.flag("required")?.unwrap_or(false);
        let (mode, owner) = (self.mode(0o400)?, self.owner()?);
        Ok(Secret { id, target, variable, required, mode, owner })
    }

    fn take(&mut self, names: &[&str]) -> Option<String> {
        let at = self.fields.iter().position(|(name, _)| names.contains(&name.as_str()))?;
        Some(self.fields.remove(at).1.unwrap_or_default())
    }

    fn target(&mut self) -> Result<String, String> {
        let target = self.take(&["target", "dst", "destination"]).unwrap_or_default();
        if target.is_empty() {
            return Err("target= is missing".to_owned());
        }
        self.absolute(&target)
    }

    fn absolute(&self, path: &str) -> Result<String, String> {
        let path = Path::new("/").join(&self.cwd).join(path);
        match normal(&path).to_str() {
            Some("") => Err("nothing can be mounted over the root".to_owned()),
            Some(path) => Ok(format!("/{path}")),
            None => Err("the target is no UTF-8".to_owned()),
        }
    }

    /// Without a value it is on.
    fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(&[name]).as_deref() {
            None => Ok(None),
            Some("" | "true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("{name}={other} is neither true nor false")),
        }
    }

    fn read_only(&mut self, usually: bool) -> Result<bool, String> {
        let read_only = self.flag("readonly")?.or(self.flag("ro")?);
        let writable = self.flag("readwrite")?.or(self.flag("rw")?);
        Ok(read_only.or(writable.map(|writable| !writable)).unwrap_or(usually))
    }

    fn sharing(&mut self) -> Result<Sharing, String> {
        match self.take(&["sharing"]).as_deref() {
            None | Some("shared") => Ok(Sharing::Shared),
            Some("private") => Ok(Sharing::Private),
            Some("locked") => Ok(Sharing::Locked),
            Some(other) => Err(format!("sharing={other} is not shared, private or locked")),
        }
    }

    fn mode(&mut self, usually: u32) -> Result<u32, String> {
        let Some(text) = self.take(&["mode"]) else { return Ok(usually) };
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.ok_or_else(|| format!("mode={text} is no mode such as 0600"))
    }

    fn owner(&mut self) -> Result<(u32, u32), String> {
        let mut id = |name: &str| match self.take(&[name]) {
            None => Ok(0),
            // chown(2) takes -1 for "as it is".
            Some(text) => text
                .parse()
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| format!("{name}={text} is no number of an owner")),
        };
        Ok((id("uid")?, id("gid")?))
    }
}

/// Comma-separated values: a field in double quotes may have commas in it (RFC 4180).
fn split(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields.retain(|field| !field.is_empty());
    fields
}

/// `64m`, in powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text);
    size.map_err(|_| format!("size={text} is no size such as 64m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountOption, String> {
        MountOption::parse(text, "/work", |word| Ok(word.replace("$V", "value")))
    }

    #[test]
    fn options_are_what_the_reference_says() {
        let bind = |target: &str, from: Option<&str>, source: &str, read_only| {
            MountOption::Bind(Bind {
                target: target.to_owned(),
                from: from.map(str::to_owned),
                source: source.to_owned(),
                read_only,
            })
        };
        for (text, expected) in [
            ("target=.", bind("/work", None, "", true)),
            ("type=bind,source=a,target=b,rw", bind("/work/b", None, "a", false)),
            ("from=x,src=/a/$V,dst=/b", bind("/b", Some("x"), "/a/value", true)),
            ("from=x,\"source=/a,b\",target=/b,ro=false", bind("/b", Some("x"), "/a,b", false)),
            ("target=/../../etc/x", bind("/etc/x", None, "", true)),
            (
                "type=tmpfs,target=/t,size=64m",
                MountOption::Tmpfs { target: "/t".to_owned(), size: Some(64 << 20) },
            ),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&expected), "{text}");
        }
        let Ok(MountOption::Cache(cache)) = parse("type=cache,target=/c/,sharing=locked,mode=0700")
        else {
            panic!("no cache")
        };
        assert_eq!((cache.id.as_str(), cache.target.as_str()), ("/c", "/c"));
        assert_eq!((cache.sharing, cache.mode, cache.read_only), (Sharing::Locked, 0o700, false));
        let secret = |text: &str| match parse(text) {
            Ok(MountOption::Secret(secret)) => secret,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(secret("type=secret,id=k").target.as_deref(), Some("/run/secrets/k"));
        assert_eq!(secret("type=secret,target=/x/k").id, "k");
        let variable = secret("type=secret,id=k,env=KEY,required,uid=7");
        assert_eq!((variable.target, variable.variable.as_deref()), (None, Some("KEY")));
        assert!(variable.required && variable.owner == (7, 0) && variable.mode == 0o400);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("", "target="),
            ("type=cache", "target="),
            ("type=ssh", "ssh"),
            ("type=other,target=/x", "other"),
            ("target=/x,colour=red", "colour"),
            ("target=/", "root"),
            ("target=/a/..", "root"),
            ("type=secret", "id="),
            ("type=cache,target=/x,sharing=maybe", "maybe"),
            ("type=cache,target=/x,uid=4294967295", "uid="),
            ("type=cache,target=/x,mode=9", "mode="),
            ("type=tmpfs,target=/x,size=big", "size="),
            ("type=tmpfs,target=/x,size=99999999999t", "size="),
            ("target=/x,ro=perhaps", "perhaps"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
