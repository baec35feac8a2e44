//! Image names: short ones completed, as Docker and podman do it, and found in the index.

use oci_spec::distribution::{ParseError, Reference};
use oci_spec::image::Descriptor;

use crate::error::ImageError;

/// The annotation of an index entry that holds an image's name (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Parses a reference: `busybox` is `docker.io/library/busybox:latest`.
pub(crate) fn parse(name: &str) -> Result<Reference, ImageError> {
    name.parse().map_err(|e: ParseError| ImageError::BadReference {
        name: name.to_owned(),
        why: e.to_string(),
    })
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
