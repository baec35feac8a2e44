//! How an image wants its workload to be looked after: a field of Docker's, which the image specification lists as
//! its own extension (config.md, `Healthcheck`) and its crate does not name.

use serde::Deserialize;

use crate::blob::BlobId;
use crate::document::bad_document;
use crate::error::ImageError;

/// `config.Healthcheck` of an image, as HEALTHCHECK of a Dockerfile writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHealthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`; empty as none is that of the image below.
    pub test: Option<Vec<String>>,
    /// From the end of one check to the next, in nanoseconds; 0 as none is Docker's default, here and below.
    pub interval: Option<u64>,
    /// How long a check may take, in nanoseconds.
    pub timeout: Option<u64>,
    /// How long after the start failures do not count, in nanoseconds.
    pub start_period: Option<u64>,
    /// In place of the interval for that long, in nanoseconds.
    pub start_interval: Option<u64>,
    /// How many failures in a row make the workload unhealthy.
    pub retries: Option<u32>,
}

#[derive(Deserialize)]
struct Document {
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Healthcheck")]
    healthcheck: Option<ImageHealthcheck>,
}

/// Reads it from an image's configuration, whose text this is.
///
/// # Errors
/// [`ImageError::BadDocument`]: a field has another type.
pub(crate) fn parse(id: &BlobId, text: &[u8]) -> Result<Option<ImageHealthcheck>, ImageError> {
    const NAME: &[u8] = b"\"Healthcheck\"";
    // Few have one, and nobody else pays for a second look at the text.
    if !text.windows(NAME.len()).any(|bytes| bytes == NAME) {
        return Ok(None);
    }
    let document: Document =
        serde_json::from_slice(text).map_err(|error| bad_document("config", id, error))?;
    Ok(document.config.and_then(|config| config.healthcheck))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_where_there_is_one() {
        let id = BlobId::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        let read = |text: &str| parse(&id, text.as_bytes());
        let whole = ImageHealthcheck {
            test: Some(vec!["CMD-SHELL".to_owned(), "curl -f http://localhost".to_owned()]),
            interval: Some(5_000_000_000),
            retries: Some(2),
            ..ImageHealthcheck::default()
        };
        for (text, expected) in [
            ("{}", None),
            (r#"{"config": {"Cmd": ["Healthcheck"]}}"#, None),
            (r#"{"config": null, "comment": "\"Healthcheck\""}"#, None),
            (r#"{"config": {"Healthcheck": null}}"#, None),
            (r#"{"config": {"Healthcheck": {}}}"#, Some(ImageHealthcheck::default())),
            (
                r#"{"config": {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f http://localhost"],
                    "Interval": 5000000000, "Timeout": null, "Retries": 2, "Other": 1}}}"#,
                Some(whole),
            ),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for bad in [
            r#"{"config": {"Healthcheck": "x"}}"#,
            r#"{"config": {"Healthcheck": {"Retries": -1}}}"#,
        ] {
            assert!(matches!(read(bad), Err(ImageError::BadDocument { .. })), "{bad}");
        }
    }
}
