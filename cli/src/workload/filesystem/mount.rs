//! `--mount`

use anyhow::{Context, Error, Result, bail};
use isolab_isolation::{MemoryOptions, VolumeMount};

use super::volume::{Options, anonymous, named};
use super::{host_path, target, tmpfs};

/// `type=bind|volume|tmpfs,…`, as podman and Docker have it.
pub fn parse(text: &str) -> Result<VolumeMount> {
    let mut kind = "volume";
    let (mut source, mut path, mut rest) = (None, None, Vec::new());
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("type", value)) => kind = value,
            Some(("source" | "src", value)) => source = Some(value),
            Some(("target" | "destination" | "dst", value)) => path = Some(value),
            _ => rest.push(field),
        }
    }
    let target = target(path.context("target=PATH is missing")?)?;
    if kind == "tmpfs" {
        if source.is_some() {
            bail!("a tmpfs has no source");
        }
        let mut options = MemoryOptions::default();
        for field in rest {
            match switch(field, &["ro", "readonly"])? {
                Some(read_only) => options.read_only = read_only,
                None => {
                    let word = field.strip_prefix("tmpfs-").unwrap_or(field);
                    options.take(word).map_err(Error::msg)?;
                }
            }
        }
        return Ok(tmpfs::mount(target, options));
    }
    let mut options = Options::default();
    for field in rest {
        if let Some(read_only) = switch(field, &["ro", "readonly"])? {
            options.read_only = read_only;
        } else if let Some(without) = switch(field, &["volume-nocopy"])? {
            options.copy_up = !without;
        } else if let Some(plain) = switch(field, &["bind-nonrecursive"])? {
            options.take(if plain { "bind" } else { "rbind" })?;
        } else if let Some(how) = field.strip_prefix("bind-propagation=") {
            options.take(how)?;
        } else if field.contains('=') {
            bail!("`{}` is no option of a mount", field.escape_debug());
        } else {
            options.take(field)?;
        }
    }
    let source = match (kind, source) {
        ("bind", Some(path)) => host_path(path)?,
        ("bind", None) => bail!("source=PATH is missing"),
        ("volume", Some(name)) => named(name, options.copy_up)?,
        ("volume", None) => anonymous(options.copy_up)?,
        (other, _) => {
            bail!("type={} is not supported: bind, volume and tmpfs are", other.escape_debug())
        }
    };
    let (read_only, words) = (options.read_only, VolumeMount::options(options.words));
    Ok(VolumeMount { target, source, read_only, options: words })
}

/// A word that may say true or false; None where it is another.
fn switch(field: &str, names: &[&str]) -> Result<Option<bool>> {
    let (name, value) = field.split_once('=').unwrap_or((field, "true"));
    match value {
        _ if !names.contains(&name) => Ok(None),
        "true" | "1" => Ok(Some(true)),
        "false" | "0" => Ok(Some(false)),
        other => bail!("{name}={}: expected true or false", other.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_isolation::MountSource;

    #[test]
    fn mounts_in_words_are_those_in_short() {
        for (long, short) in [
            ("type=volume,source=data,target=/x,ro", "data:/x:ro"),
            ("src=data,dst=/x,volume-nocopy", "data:/x:nocopy"),
            (
                "type=bind,src=/,destination=/x,readonly=true,bind-propagation=rslave",
                "/:/x:ro,rslave",
            ),
            ("type=bind,src=/,target=/x,bind-nonrecursive,ro=false,noexec", "/:/x:bind,noexec"),
        ] {
            assert_eq!(parse(long).unwrap(), super::super::volume::parse(short).unwrap(), "{long}");
        }
        assert_eq!(
            parse("type=tmpfs,target=/x,tmpfs-size=1M,tmpfs-mode=0700,ro").unwrap(),
            tmpfs::parse("/x:size=1M,mode=0700,ro").unwrap()
        );
        let unnamed = parse("type=volume,target=/x").unwrap();
        assert!(matches!(unnamed.source, MountSource::Volume { anonymous: true, .. }));
        for (bad, words) in [
            ("type=volume,source=data", "target"),
            ("type=bind,target=/x", "source"),
            ("type=tmpfs,source=a,target=/x", "no source"),
            ("type=image,source=a,target=/x", "type=image is not supported"),
            ("type=volume,source=a,target=/x,ro=maybe", "true or false"),
            ("type=volume,source=a,target=/x,relabel=shared", "relabel=shared"),
            ("type=volume,source=a,target=/x,U", "U is not supported"),
            ("type=bind,source=/,target=/x,bind-propagation=none", "`none` is no option"),
        ] {
            let error = format!("{:#}", parse(bad).unwrap_err());
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
