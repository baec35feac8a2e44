//! Image names: short ones completed, as Docker and podman do it, and found in the index.

use oci_spec::distribution::{ParseError, Reference};
use oci_spec::image::Descriptor;

use crate::error::ImageError;

/// The annotation of an index entry that holds an image's name (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Parses a reference: `busybox` is `docker.io/library/busybox:latest`.
pub(crate) fn parse(name: &str) -> Result<Reference, ImageError> {
    if let Some(reference) = parse_plain(name) {
        return Ok(reference);
    }
    name.parse().map_err(|e: ParseError| ImageError::BadReference {
        name: name.to_owned(),
        why: e.to_string(),
    })
}

/// What the parser makes of a name of the plainest form, `[HOST[:PORT]/]FOLDER/NAME[:TAG]`, without
/// the parser, which takes 40 ms: it compiles its whole grammar first. None where it is to say.
fn parse_plain(name: &str) -> Option<Reference> {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };
    let (host, repository) = match path.split_once('/') {
        Some((host, rest)) if names_a_host(path) => (host, rest.to_owned()),
        Some(_) => ("docker.io", path.to_owned()),
        None => ("docker.io", format!("library/{path}")),
    };
    let is_docker_s =
        host == "index.docker.io" || (host == "docker.io" && !repository.contains('/'));
    if is_docker_s || repository.len() > 200 {
        return None;
    }
    let (domain, port) = host.split_once(':').map_or((host, None), |(d, port)| (d, Some(port)));
    let is_lower = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_plain = repository.split('/').all(|part| is_words(part, b"._-", is_lower))
        && is_words(domain, b".-", |c| c.is_ascii_alphanumeric())
        && port.is_none_or(|port| is_words(port, b"", |c| c.is_ascii_digit()))
        && tag.len() <= 128
        && is_words(tag, b"._-", |c| c.is_ascii_alphanumeric());
    is_plain.then(|| Reference::with_tag(host.to_owned(), repository, tag.to_owned()))
}

/// Words of such letters, with one of `separators` between each.
fn is_words(text: &str, separators: &[u8], is_letter: impl Fn(u8) -> bool) -> bool {
    let is_separator = |byte: &u8| separators.contains(byte);
    text.as_bytes()
        .split(is_separator)
        .all(|word| !word.is_empty() && word.iter().all(|byte| is_letter(*byte)))
}

/// The full form of a name.
pub(crate) fn full_name(name: &str) -> Result<String, ImageError> {
    Ok(parse(name)?.whole())
}

/// The name of an index entry.
pub(crate) fn name_of(descriptor: &Descriptor) -> Option<String> {
    descriptor.annotations().as_ref()?.get(REF_NAME).cloned()
}

/// The same index entry under another name, or none.
pub(crate) fn with_name(descriptor: &Descriptor, name: Option<String>) -> Descriptor {
    let mut annotations = descriptor.annotations().clone().unwrap_or_default();
    annotations.remove(REF_NAME);
    annotations.extend(name.map(|name| (REF_NAME.to_owned(), name)));
    let mut descriptor = descriptor.clone();
    descriptor.set_annotations((!annotations.is_empty()).then_some(annotations));
    descriptor
}

/// How the full name is written that `name` most likely is or is short for. One that equals a name
/// in the store is right without being parsed, which takes 40 ms: the parser compiles its whole
/// grammar first.
pub(crate) fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![name.to_owned()];
    if !names_a_host(name) {
        let folder = if name.contains('/') { "" } else { "library/" };
        spellings.push(format!("docker.io/{folder}{name}"));
    }
    let tagged: Vec<String> = spellings.iter().map(|full| format!("{full}:latest")).collect();
    spellings.extend(tagged);
    spellings
}

fn names_a_host(name: &str) -> bool {
    let host = name.split_once('/').map(|(first, _)| first);
    host.is_some_and(|first| first.contains(['.', ':']) || first == "localhost")
}

/// The full names that a name may stand for in the store, the likeliest first: podman calls what
/// is made locally `localhost/NAME`.
pub(crate) fn candidates(name: &str) -> Result<Vec<String>, ImageError> {
    let mut names = vec![full_name(name)?];
    if !names_a_host(name) {
        names.extend(full_name(&format!("localhost/{name}")));
    }
    Ok(names)
}

/// The digits of `sha256:DIGITS`, of a whole digest or its beginning.
pub(crate) fn digest_digits(name: &str) -> Option<&str> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hex = digits.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    (digits.len() >= 4 && is_hex).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("team/app", "docker.io/team/app:latest"),
            ("quay.io/team/app:v1", "quay.io/team/app:v1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
        ] {
            assert_eq!(full_name(short).unwrap(), full);
        }
        for bad in ["", "UPPER", "a b", "../etc", "name:tag:tag", "name@sha256:12"] {
            assert!(matches!(full_name(bad), Err(ImageError::BadReference { .. })), "{bad}");
        }
    }

    #[test]
    fn plain_names_are_what_the_parser_makes_of_them() {
        for name in [
            "busybox",
            "busybox:1.36",
            "team/app",
            "quay.io/team/app:v1",
            "localhost:5000/app",
            "127.0.0.1:5000/a/b/c:v1.2-3",
            "localhost/app",
            "docker.io/library/busybox:latest",
            "team/a.b-c_d",
            "my-registry.example/x_y",
        ] {
            let parsed: Reference = name.parse().unwrap();
            assert_eq!(parse_plain(name), Some(parsed), "{name}");
        }
        // These only the parser may judge, or complete.
        for name in [
            "",
            "UPPER",
            "a b",
            "../etc",
            "a:b:c",
            "a//b",
            "a/",
            "/a",
            "a:",
            ":a",
            "-a",
            "a__b",
            "docker.io/busybox",
            "index.docker.io/a/b",
            "a@sha256:00",
            "[::1]:5000/a",
            "a:-b",
            "host.example:port/a",
            ".example/a",
            "a.example:/b",
            "\u{e9}t\u{e9}",
        ] {
            assert_eq!(parse_plain(name), None, "{name}");
        }
    }

    #[test]
    fn the_usual_spellings_need_no_parser() {
        for name in ["busybox", "busybox:1.36", "team/app", "quay.io/team/app", "localhost:5000/a"]
        {
            assert!(spellings(name).contains(&full_name(name).unwrap()), "{name}");
        }
        // A registry's name is never taken for a folder of Docker Hub.
        assert!(!spellings("quay.io/app").iter().any(|full| full.starts_with("docker.io")));
    }

    #[test]
    fn local_names_are_tried_where_no_host_is_named() {
        assert_eq!(
            candidates("app").unwrap(),
            ["docker.io/library/app:latest", "localhost/app:latest"]
        );
        assert_eq!(candidates("quay.io/app").unwrap(), ["quay.io/app:latest"]);
    }

    #[test]
    fn digests_may_be_shortened_to_four_digits() {
        assert_eq!(digest_digits("sha256:0123ab"), Some("0123ab"));
        assert_eq!(digest_digits("beef"), Some("beef"));
        assert_eq!(digest_digits("bee"), None);
        assert_eq!(digest_digits("busybox"), None);
    }
}
