//! Taking in an OCI image layout, a folder or an archive of one.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use crate::blob::{BlobId, Blobs};
use crate::error::{ImageError, io_error};
use crate::image::{Image, bad_document, choose_platform, is_index};
use crate::lock::StoreLock;
use crate::store::{REF_NAME, Store, full_name};

/// An archive's uncompressed size is bounded by this, so that a bomb ends in an error.
const MAX_ARCHIVE: u64 = 64 << 30;

impl Store {
    /// Takes in every image of the OCI image layout at `path`, a folder or a tar archive, plain
    /// or gzip. `name` names the image where the layout holds just one; otherwise the layout's
    /// own names count.
    ///
    /// # Errors
    /// What is at `path` is no layout, or a blob of it is missing or not what its digest says.
    /// Nothing is then changed.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let metadata = fs::metadata(path).map_err(io_error("open", path))?;
        if metadata.is_dir() {
            return self.load_layout(path, path, name);
        }
        // Beside the store, so that it is the store's disk that may fill up.
        let work = tempfile::tempdir_in(self.root()).map_err(io_error("write to", self.root()))?;
        extract_layout(path, work.path())?;
        self.load_layout(work.path(), path, name)
    }

    /// `origin` is what the operator named.
    fn load_layout(
        &self,
        layout: &Path,
        origin: &Path,
        name: Option<&str>,
    ) -> Result<Vec<Image>, ImageError> {
        let not_a_layout = |why: String| ImageError::NotALayout { path: origin.to_owned(), why };
        let index = layout.join("index.json");
        let index = fs::read(&index).map_err(|e| not_a_layout(format!("index.json: {e}")))?;
        let index = ImageIndex::from_reader(&index[..]).map_err(|e| not_a_layout(e.to_string()))?;
        if name.is_some() && index.manifests().len() != 1 {
            let why =
                format!("it holds {} images, so one name is not enough", index.manifests().len());
            return Err(not_a_layout(why));
        }
        let source = Blobs::of_layout(layout);
        let mut named = Vec::new();
        for descriptor in index.manifests() {
            self.take_in_tree(&source, descriptor)?;
            named.push(rename(descriptor, origin, name)?);
        }
        let images = named
            .iter()
            .map(|(descriptor, name)| Image::read(self.clone(), descriptor, name.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let descriptors: Vec<Descriptor> = named.into_iter().map(|(d, _)| d).collect();
        let lock = StoreLock::take(self.root())?;
        self.add_to_index(&descriptors, &lock)?;
        Ok(images)
    }

    /// Takes in a manifest and everything it refers to; of an index, what is for this machine.
    fn take_in_tree(&self, source: &Blobs, descriptor: &Descriptor) -> Result<(), ImageError> {
        let id = BlobId::parse(descriptor.digest().as_ref())?;
        let document = source.read_document(&id)?;
        if is_index(descriptor) {
            let index = ImageIndex::from_reader(&document[..])
                .map_err(|e| bad_document("index", &id, e))?;
            let chosen = choose_platform(&index);
            let chosen = chosen.ok_or_else(|| ImageError::NoPlatform(id.full()))?;
            if is_index(chosen) {
                return Err(bad_document("index", &id, "an index of indexes"));
            }
            self.take_in_tree(source, chosen)?;
        } else {
            let manifest = ImageManifest::from_reader(&document[..])
                .map_err(|e| bad_document("manifest", &id, e))?;
            for part in manifest.layers().iter().chain([manifest.config()]) {
                self.take_in(source, part)?;
            }
        }
        self.take_in(source, descriptor)
    }

    fn take_in(&self, source: &Blobs, descriptor: &Descriptor) -> Result<(), ImageError> {
        let id = BlobId::parse(descriptor.digest().as_ref())?;
        if self.blobs().path(&id).exists() {
            return Ok(());
        }
        self.blobs().take_in(&id, descriptor.size(), source.open(&id)?)
    }
}

/// Gives a descriptor the full name that its image gets in the store.
fn rename(
    descriptor: &Descriptor,
    origin: &Path,
    name: Option<&str>,
) -> Result<(Descriptor, Option<String>), ImageError> {
    let mut annotations = descriptor.annotations().clone().unwrap_or_default();
    let given = annotations.remove(REF_NAME);
    let name = match (name, given) {
        (Some(name), _) => Some(full_name(name)?),
        (None, Some(given)) => Some(full_name(&complete(&given, origin))?),
        (None, None) => None,
    };
    annotations.extend(name.clone().map(|name| (REF_NAME.to_owned(), name)));
    let mut descriptor = descriptor.clone();
    descriptor.set_annotations(Some(annotations));
    Ok((descriptor, name))
}

/// Tools such as skopeo write just the tag into the annotation; the layout's own file name is
/// then the repository.
fn complete(given: &str, origin: &Path) -> String {
    let is_tag_only = !given.contains(['/', ':']);
    match origin.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if is_tag_only && !stem.is_empty() => {
            format!("{}:{given}", stem.to_lowercase())
        }
        _ => given.to_owned(),
    }
}

/// Extracts the files of a layout from an archive, and nothing else that may be in it.
fn extract_layout(path: &Path, target: &Path) -> Result<(), ImageError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let not_a_layout = |why: String| ImageError::NotALayout { path: path.to_owned(), why };
    let stream = crate::unpack::decompress(file).map_err(io_error("read", path))?;
    let mut archive = tar::Archive::new(stream.take(MAX_ARCHIVE));
    fs::create_dir_all(target.join("blobs/sha256")).map_err(io_error("create", target))?;
    for entry in archive.entries().map_err(|e| not_a_layout(e.to_string()))? {
        let mut entry = entry.map_err(|e| not_a_layout(e.to_string()))?;
        let name = entry.path().map_err(|e| not_a_layout(e.to_string()))?.into_owned();
        let parts: Vec<&str> = name
            .components()
            .filter(|component| *component != Component::CurDir)
            .map(|component| component.as_os_str().to_str().unwrap_or(""))
            .collect();
        let wanted = match parts[..] {
            ["index.json" | "oci-layout"] => target.join(parts[0]),
            ["blobs", "sha256", hex] => match BlobId::parse(&format!("sha256:{hex}")) {
                Ok(id) => Blobs::of_layout(target).path(&id),
                Err(_) => continue,
            },
            _ => continue,
        };
        if entry.header().entry_type().is_file() {
            let mut file = File::create(&wanted).map_err(io_error("create", &wanted))?;
            std::io::copy(&mut entry, &mut file).map_err(io_error("extract", &wanted))?;
        }
    }
    Ok(())
}
