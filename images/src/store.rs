//! The store: an OCI image layout on disk, with what is derived from its layers beside it.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/DIGEST    the OCI image layout
//! layers/DIFF_ID/                                unpacked layers, in overlayfs's form
//! initramfs/DIGEST.cpio                          root file systems as initramfs, by manifest
//! ```

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, OciLayoutBuilder};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::blob::{Blobs, persist};
use crate::error::{ImageError, io_error};
use crate::image::Image;
use crate::lock::StoreLock;

/// The annotation of an index entry that holds an image's name (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Images by digest, and names for them.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// One name in the store.
#[derive(Clone, Debug, Serialize)]
pub struct ImageRecord {
    /// The full name, `docker.io/library/busybox:latest`; absent where there is none.
    pub reference: Option<String>,
    /// The manifest's digest.
    pub digest: String,
    /// Compressed bytes of all layers.
    pub size: u64,
    /// When it was made, as its configuration says (RFC 3339).
    pub created: Option<String>,
}

impl Store {
    /// Opens the store in `root`, and makes one where there is none.
    ///
    /// # Errors
    /// The folder cannot be written, or holds a layout of a version that is unknown.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let store = Self { root: root.to_owned() };
        fs::create_dir_all(root).map_err(io_error("create", root))?;
        if !root.join("oci-layout").exists() {
            let _lock = StoreLock::take(root)?;
            let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build();
            let layout = layout.map_err(|e| store.not_a_layout(e))?;
            store.write_json("oci-layout", &layout)?;
        }
        Ok(store)
    }

    /// Opens the store `images` in [`data_dir`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_default() -> Result<Self, ImageError> {
        Self::open(&data_dir().join("images"))
    }

    /// Everything in the store that has a manifest, by name.
    ///
    /// # Errors
    /// The index or a manifest is damaged.
    pub fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        let mut records = Vec::new();
        for descriptor in self.index()?.manifests() {
            let image = self.image(descriptor)?;
            records.push(ImageRecord {
                reference: name_of(descriptor),
                digest: image.digest().to_owned(),
                size: image.compressed_size(),
                created: image.config().created().as_ref().map(ToString::to_string),
            });
        }
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(records)
    }

    /// Finds an image by its name (`busybox` stands for `docker.io/library/busybox:latest`), its
    /// digest, or at least four digits of its digest.
    ///
    /// # Errors
    /// No such image, or several.
    pub fn resolve(&self, name: &str) -> Result<Image, ImageError> {
        let index = self.index()?;
        if let Some(descriptor) = find_by_name(&index, &full_spellings(name)) {
            return self.image(descriptor);
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        if digits.len() < 4 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            let found = find_by_name(&index, &[full_name(name)?]);
            let descriptor = found.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
            return self.image(descriptor);
        }
        let mut found: Vec<&Descriptor> = Vec::new();
        for descriptor in index.manifests() {
            let is_new = !found.iter().any(|other| other.digest() == descriptor.digest());
            if descriptor.digest().digest().starts_with(digits) && is_new {
                found.push(descriptor);
            }
        }
        match found[..] {
            [descriptor] => self.image(descriptor),
            [] => Err(ImageError::NotFound(name.to_owned())),
            _ => Err(ImageError::Ambiguous(name.to_owned())),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> Blobs {
        Blobs::of_layout(&self.root)
    }

    fn image(&self, descriptor: &Descriptor) -> Result<Image, ImageError> {
        Image::read(self.clone(), descriptor, name_of(descriptor))
    }

    fn index(&self) -> Result<ImageIndex, ImageError> {
        let path = self.root.join("index.json");
        if !path.exists() {
            return self.new_index(Vec::new());
        }
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        ImageIndex::from_reader(&text[..]).map_err(|e| self.not_a_layout(e))
    }

    fn new_index(&self, manifests: Vec<Descriptor>) -> Result<ImageIndex, ImageError> {
        ImageIndexBuilder::default()
            .schema_version(2u32)
            .manifests(manifests)
            .build()
            .map_err(|e| self.not_a_layout(e))
    }

    /// Gives each descriptor's name to it alone. The caller holds the lock.
    pub(crate) fn add_to_index(
        &self,
        new: &[Descriptor],
        _lock: &StoreLock,
    ) -> Result<(), ImageError> {
        let mut manifests = self.index()?.manifests().clone();
        for descriptor in new {
            manifests.retain(|old| match name_of(descriptor) {
                Some(name) => name_of(old).as_ref() != Some(&name),
                None => old.digest() != descriptor.digest(),
            });
            manifests.push(descriptor.clone());
        }
        self.write_json("index.json", &self.new_index(manifests)?)
    }

    fn write_json(&self, name: &str, document: &impl Serialize) -> Result<(), ImageError> {
        let path = self.root.join(name);
        let mut file =
            NamedTempFile::new_in(&self.root).map_err(io_error("write to", &self.root))?;
        serde_json::to_writer(&mut file, document)
            .map_err(|e| io_error("write", &path)(e.into()))?;
        file.flush().map_err(io_error("write", &path))?;
        persist(file, &path)
    }

    fn not_a_layout(&self, why: impl ToString) -> ImageError {
        ImageError::NotALayout { path: self.root.clone(), why: why.to_string() }
    }
}

fn find_by_name<'a>(index: &'a ImageIndex, names: &[String]) -> Option<&'a Descriptor> {
    let named = |d: &&Descriptor| name_of(d).is_some_and(|full| names.contains(&full));
    index.manifests().iter().find(named)
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    descriptor.annotations().as_ref()?.get(REF_NAME).cloned()
}

/// What `name` may be short for. One that equals a name in the store is right without being
/// parsed, which takes 40 ms: the parser compiles its whole grammar first.
fn full_spellings(name: &str) -> Vec<String> {
    let has_registry = name
        .split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
    let mut spellings = vec![name.to_owned()];
    if !has_registry {
        let folder = if name.contains('/') { "" } else { "library/" };
        spellings.push(format!("docker.io/{folder}{name}"));
    }
    let tagged: Vec<String> = spellings.iter().map(|full| format!("{full}:latest")).collect();
    spellings.extend(tagged);
    spellings
}

/// `docker.io/library/busybox:latest` for `busybox`, as Docker and podman complete short names.
pub(crate) fn full_name(name: &str) -> Result<String, ImageError> {
    let reference: Reference = name.parse().map_err(|e: oci_spec::distribution::ParseError| {
        ImageError::BadReference { name: name.to_owned(), why: e.to_string() }
    })?;
    Ok(reference.whole())
}

/// Where isolab keeps its data: `$XDG_DATA_HOME/isolab`; without that variable `/var/lib/isolab`
/// for root and `~/.local/share/isolab` for others.
pub fn data_dir() -> PathBuf {
    if let Some(dir) = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        return dir.join("isolab");
    }
    match env::home_dir() {
        Some(home) if !nix::unistd::geteuid().is_root() => home.join(".local/share/isolab"),
        _ => PathBuf::from("/var/lib/isolab"),
    }
}
