//! Image names: short ones completed, as Docker and podman do it, and found in the index.

use oci_spec::distribution::{ParseError, Reference};
use oci_spec::image::Descriptor;

use crate::error::ImageError;

/// The annotation of an index entry that holds an image's name (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The longest repository that is taken, in bytes; and the longest tag.
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// Parses a reference, `[HOST[:PORT]/]FOLDER/NAME[:TAG][@DIGEST]`: `busybox` is
/// `docker.io/library/busybox:latest`.
///
/// The grammar is github.com/distribution/reference's. oci-spec's own parser compiles it as one regular
/// expression, which takes 40 ms, and would be a seventh of `isolab`.
pub fn parse(name: &str) -> Result<Reference, ImageError> {
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    let (registry, repository) = match path.split_once('/') {
        Some(("index.docker.io", rest)) => ("docker.io", rest),
        Some((host, rest)) if names_a_host(path) => (host, rest),
        _ => ("docker.io", path),
    };
    let is_in_library = registry == "docker.io" && !repository.contains('/');
    let repository =
        if is_in_library { format!("library/{repository}") } else { repository.into() };
    let wrong = if name.is_empty() {
        Some(ParseError::NameEmpty)
    } else if !is_host(registry)
        || !repository.split('/').all(is_component)
        || !tag.is_none_or(is_tag)
    {
        Some(ParseError::ReferenceInvalidFormat)
    } else if repository.len() > MAX_REPOSITORY {
        Some(ParseError::NameTooLong)
    } else {
        digest.and_then(wrong_digest)
    };
    if let Some(why) = wrong {
        return Err(ImageError::BadReference { name: name.to_owned(), why: why.to_string() });
    }
    let (registry, own) = (registry.to_owned(), str::to_owned);
    Ok(match (tag.map(own), digest.map(own)) {
        (Some(tag), Some(it)) => Reference::with_tag_and_digest(registry, repository, tag, it),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (tag, None) => {
            Reference::with_tag(registry, repository, tag.unwrap_or_else(|| own("latest")))
        }
    })
}

/// Labels between dots, which may have hyphens inside, and a port.
fn is_host(host: &str) -> bool {
    let (domain, port) = host.split_once(':').map_or((host, "0"), |(domain, port)| (domain, port));
    let is_label = |label: &str| {
        label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    domain.split('.').all(is_label) && is_some_of(port, |c| c.is_ascii_digit())
}

/// Words of small letters and digits with `.`, `_`, `__` or any number of hyphens between them.
fn is_component(component: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |between: &str| {
        matches!(between, "" | "." | "_" | "__") || between.bytes().all(|c| c == b'-')
    };
    component.starts_with(is_letter)
        && component.ends_with(is_letter)
        && component.split(is_letter).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= MAX_TAG
        && !tag.starts_with(['.', '-'])
        && is_some_of(tag, |c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
}

fn wrong_digest(digest: &str) -> Option<ParseError> {
    let Some((algorithm, digits)) = digest.split_once(':') else {
        return Some(ParseError::DigestInvalidFormat);
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Some(ParseError::DigestUnsupported),
    };
    if !is_some_of(digits, |c| c.is_ascii_hexdigit()) {
        return Some(ParseError::DigestInvalidFormat);
    }
    (digits.len() != length).then_some(ParseError::DigestInvalidLength)
}

fn is_some_of(text: &str, is_one: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(is_one)
}

/// The full form of a name.
pub fn full_name(name: &str) -> Result<String, ImageError> {
    Ok(parse(name)?.whole())
}

/// The name of an index entry.
pub(crate) fn name_of(descriptor: &Descriptor) -> Option<String> {
    descriptor.annotations().as_ref()?.get(REF_NAME).cloned()
}

/// The name of an index entry, or the digest of one that has none.
pub(crate) fn name_or_digest(descriptor: &Descriptor) -> String {
    name_of(descriptor).unwrap_or_else(|| descriptor.digest().to_string())
}

/// The same index entry under another name, or none.
pub fn with_name(descriptor: &Descriptor, name: Option<String>) -> Descriptor {
    let mut annotations = descriptor.annotations().clone().unwrap_or_default();
    annotations.remove(REF_NAME);
    annotations.extend(name.map(|name| (REF_NAME.to_owned(), name)));
    let mut descriptor = descriptor.clone();
    descriptor.set_annotations((!annotations.is_empty()).then_some(annotations));
    descriptor
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

    /// The other parser is oci-spec's.
    #[test]
    fn both_parsers_take_the_same_for_a_reference() {
        let digests = ["", "@sha256:", "@sha512:", "@md5:00", "@", "@sha256:zz"];
        let digests = digests.map(|digest| match digest {
            "@sha256:" => format!("{digest}{}", "0f".repeat(32)),
            "@sha512:" => format!("{digest}{}", "0F".repeat(64)),
            other => other.to_owned(),
        });
        let hosts = [
            "",
            "a.b/",
            "localhost/",
            "docker.io/",
            "index.docker.io/",
            "127.0.0.1:5000/",
            "h:1/",
            "h:p/",
            "h:/",
            "A.b/",
            "-a.b/",
            "a-.b/",
            "a..b/",
            "[::1]:5000/",
            "/",
            "h/",
        ];
        let repositories = [
            "a", "a/b", "a.b", "a_b", "a__b", "a___b", "a--b", "a-_b", "a/b/c-d", "A", "", "a//b",
            "a/", "-a", "a-", "..", "a b", "\u{e9}", "0",
        ];
        let tags = ["", ":t", ":T.t-t_t", ":", ":-t", ":.t", ":_t", ":t:t"];
        let long = ["a".repeat(255), "a".repeat(256), format!("a:{}", "t".repeat(128))];
        let longer = [format!("a/b:{}", "t".repeat(129)), format!("a@sha256:{}", "0".repeat(63))];
        let mut names: Vec<String> = long.into_iter().chain(longer).collect();
        for host in hosts {
            names.extend(repositories.map(|repository| format!("{host}{repository}")));
        }
        for tag in tags {
            names.extend(digests.iter().map(|digest| format!("a.b/c{tag}{digest}")));
        }
        for name in names {
            assert_eq!(parse(&name).ok(), name.parse().ok(), "{name}");
        }
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
