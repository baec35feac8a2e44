//! The image configuration while it is being made. As a document, so that what the specification
//! does not name (HEALTHCHECK, SHELL) is kept too.

use isolab_images::ImageError;
use isolab_images::ingest::{BlobId, bad_document};
use serde_json::{Map, Value, json};

/// What a stage has become so far.
#[derive(Clone, Debug)]
pub(super) struct Config {
    document: Map<String, Value>,
}

impl Config {
    /// Of nothing: `FROM scratch`.
    pub(super) fn empty() -> Self {
        let document = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [],
        });
        match document {
            Value::Object(document) => Self { document },
            _ => Self { document: Map::new() },
        }
    }

    pub(super) fn parse(id: &BlobId, text: &[u8]) -> Result<Self, ImageError> {
        let mut document: Map<String, Value> =
            serde_json::from_slice(text).map_err(|e| bad_document("config", id, e))?;
        // Of the container that Docker's old builder made the base in.
        for key in ["container", "container_config", "docker_version", "id", "parent"] {
            document.remove(key);
        }
        let config = document.entry("config").or_insert(Value::Null);
        if config.is_null() {
            *config = json!({});
        }
        if !config.is_object() {
            return Err(bad_document("config", id, "`config` is no object"));
        }
        let history = document.entry("history").or_insert(Value::Null);
        if history.is_null() {
            *history = json!([]);
        }
        Ok(Self { document })
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.document.get("config")?.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let values = self.get(key).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        if let Some(Value::Object(config)) = self.document.get_mut("config") {
            config.insert(key.to_owned(), value);
        }
    }

    pub(super) fn unset(&mut self, key: &str) {
        if let Some(Value::Object(config)) = self.document.get_mut("config") {
            config.remove(key);
        }
    }

    /// Adds to a set such as `Volumes`, or to a table such as `Labels`.
    pub(super) fn insert(&mut self, key: &str, name: &str, value: Value) {
        let mut table = match self.get(key) {
            Some(Value::Object(table)) => table.clone(),
            _ => Map::new(),
        };
        table.insert(name.to_owned(), value);
        self.set(key, Value::Object(table));
    }

    /// Sets a variable, in the place of an earlier value.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        let mut env = self.list("Env");
        let variable = format!("{name}={value}");
        let same = |other: &&mut String| other.split('=').next() == Some(name);
        match env.iter_mut().find(same) {
            Some(other) => *other = variable,
            None => env.push(variable),
        }
        self.set("Env", json!(env));
    }

    pub(super) fn env(&self, name: &str) -> Option<String> {
        let env = self.list("Env");
        let value = env.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        value.map(str::to_owned)
    }

    pub(super) fn set_author(&mut self, author: &str) {
        self.document.insert("author".to_owned(), json!(author));
    }

    /// `OS/ARCHITECTURE`, where the document says it.
    pub(super) fn platform(&self) -> Option<String> {
        let text = |key: &str| self.document.get(key).and_then(Value::as_str);
        Some(format!("{}/{}", text("os")?, text("architecture")?))
    }

    /// When it was made, where the document says it.
    pub(super) fn created(&self) -> Option<String> {
        self.document.get("created").and_then(Value::as_str).map(str::to_owned)
    }

    pub(super) fn diff_ids(&self) -> Vec<String> {
        let ids = self.document.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids"));
        let ids = ids.and_then(Value::as_array).into_iter().flatten();
        ids.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Records a step, with its layer if it made one.
    pub(super) fn record(&mut self, created: &str, created_by: &str, diff_id: Option<&str>) {
        let mut step = json!({"created": created, "created_by": created_by});
        match diff_id {
            None => step["empty_layer"] = json!(true),
            Some(diff_id) => {
                let mut ids = self.diff_ids();
                ids.push(diff_id.to_owned());
                self.document
                    .insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": ids}));
            }
        }
        if let Some(Value::Array(history)) = self.document.get_mut("history") {
            history.push(step);
        }
        self.document.insert("created".to_owned(), json!(created));
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // A map of strings and values always has a JSON form.
        serde_json::to_vec(&self.document).unwrap_or_default()
    }
}
