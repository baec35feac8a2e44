//! In the place of `regex` (`[patch.crates-io]` of the workspace), `regex-lite`: the same interface by the same authors,
//! where size counts for more than speed.
//!
//! What is shipped uses it in `oci-spec` and `oci-client`, which look at one field of a container's configuration and
//! at image names by one pattern each, of ASCII; beside it criterion does, whose names of benchmarks are ASCII too.
//! `regex`, with its automata for gigabytes of text and Unicode's tables, would be an eighth of `isolab-oci`.

pub use regex_lite::*;
