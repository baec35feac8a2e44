//! From a registry into the store.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, TryStreamExt};
use isolab_images::ingest::{
    Arrival, BlobId, Document, Incoming, MAX_DOCUMENT, bad_document, choose_platform, descriptor,
    parse_name, with_name,
};
use isolab_images::{Image, ImageError, Store};
use oci_client::Reference;
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use tracing::info_span;

use crate::connection::{Connection, runtime};
use crate::retry::{self, ATTEMPTS, is_passing};
use crate::{RegistryError, RegistryOptions};

/// Blobs that move at once, as Docker and podman have it (3 and 6).
const PARALLEL: usize = 4;
/// How often to look whether another process has finished a blob.
const POLL: Duration = Duration::from_millis(50);

const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Fetches an image into the store, of an index the one for this machine, and gives it the name it
/// was asked for by. Blobs that are there already, or that another process is fetching, are not
/// fetched.
///
/// # Errors
/// The name is no reference, the registry cannot be reached or refuses, or what it sends is not what
/// its digest says.
pub fn pull(
    store: &Store,
    name: &str,
    options: RegistryOptions<'_>,
) -> Result<Image, RegistryError> {
    let reference = parse_name(name)?;
    let full = reference.whole();
    let _span = info_span!("pull", image = full).entered();
    let _writing = store.writing()?;
    let top = runtime()?.block_on(async {
        let connection = Connection::open(reference, "pull", options).await?;
        Pull { store, connection, options }.image().await
    })?;
    store.add_to_index(&[with_name(&top, Some(full.clone()))])?;
    Ok(store.resolve(&full)?)
}

struct Pull<'a> {
    store: &'a Store,
    connection: Connection,
    options: RegistryOptions<'a>,
}

/// A manifest or index as it came.
struct Fetched {
    id: BlobId,
    text: Vec<u8>,
    document: Document,
}

impl Pull<'_> {
    async fn image(&self) -> Result<Descriptor, RegistryError> {
        let top = self.document(&self.connection.reference).await?;
        let media_type = media_type_of(&top);
        let (manifest, child) = match &top.document {
            Document::Manifest(manifest) => (manifest.clone(), None),
            Document::Index(index) => {
                let chosen = choose_platform(index);
                let chosen = chosen.ok_or_else(|| ImageError::NoPlatform(top.id.full()))?;
                let id = BlobId::parse(chosen.digest().as_ref())?;
                let child =
                    self.document(&self.connection.reference.clone_with_digest(id.full())).await?;
                let Document::Manifest(manifest) = &child.document else {
                    return Err(bad_document("index", &top.id, "an index of indexes").into());
                };
                (manifest.clone(), Some(child))
            }
        };
        self.blobs(&manifest).await?;
        // Documents after what they name.
        for fetched in child.iter().chain([&top]) {
            self.store.take_in(&fetched.id, fetched.text.len() as u64, &fetched.text[..])?;
        }
        Ok(descriptor(media_type, &top.id, top.text.len() as u64)?)
    }

    async fn document(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let (client, auth) = (&self.connection.client, &self.connection.auth);
        let fetch = || client.pull_manifest_raw(reference, auth, &MANIFEST_TYPES);
        let (text, _) = self.connection.ask(fetch).await?;
        // The registry's word for the digest does not count.
        let id = BlobId::of(&text);
        if let Some(wanted) = reference.digest() {
            let wanted = BlobId::parse(wanted)?;
            if wanted != id {
                let (expected, found) = (wanted.full(), id.hex().to_owned());
                return Err(ImageError::DigestMismatch { expected, found }.into());
            }
        }
        if text.len() as u64 > MAX_DOCUMENT {
            let why = format!("more than {MAX_DOCUMENT} bytes");
            return Err(bad_document("manifest", &id, why).into());
        }
        let document = Document::parse(&id, &text)?;
        Ok(Fetched { id, text: text.to_vec(), document })
    }

    /// Configuration and layers, several at once.
    async fn blobs(&self, manifest: &ImageManifest) -> Result<(), RegistryError> {
        let mut wanted: Vec<(BlobId, u64)> = Vec::new();
        for part in [manifest.config()].into_iter().chain(manifest.layers()) {
            let id = BlobId::parse(part.digest().as_ref())?;
            if !wanted.iter().any(|(known, _)| *known == id) {
                wanted.push((id, part.size()));
            }
        }
        stream::iter(wanted)
            .map(|(id, size)| self.blob(id, size))
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    async fn blob(&self, id: BlobId, size: u64) -> Result<(), RegistryError> {
        let progress = self.options.progress;
        let mut attempt = 1;
        loop {
            let mut incoming = match self.store.receive(&id, size)? {
                Arrival::Present => break,
                Arrival::Busy => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Arrival::Wanted(incoming) => incoming,
            };
            progress.begin(&id.full(), size, incoming.received());
            match self.fetch(&id, &mut incoming).await {
                Ok(()) => incoming.finish()?,
                // What came so far stays, and the next attempt resumes it.
                Err(Broken::Transfer(error)) if attempt < ATTEMPTS && is_passing(&error) => {
                    drop(incoming);
                    retry::wait(attempt).await;
                    attempt += 1;
                    continue;
                }
                Err(Broken::Transfer(error)) => return Err(self.connection.failed(error)),
                Err(Broken::Store(error)) => return Err(error.into()),
            }
        }
        progress.end(&id.full());
        Ok(())
    }

    async fn fetch(&self, id: &BlobId, incoming: &mut Incoming) -> Result<(), Broken> {
        let blob = OciDescriptor { digest: id.full(), ..OciDescriptor::default() };
        let (client, reference) = (&self.connection.client, &self.connection.reference);
        let offset = incoming.received();
        let mut stream = if offset == 0 {
            client.pull_blob_stream(reference, &blob).await?.stream
        } else if incoming.is_complete() {
            return Ok(());
        } else {
            match client.pull_blob_stream_partial(reference, &blob, offset, None).await? {
                BlobResponse::Partial(rest) => rest.stream,
                // It knows no ranges, and sends all of it.
                BlobResponse::Full(all) => {
                    incoming.restart()?;
                    all.stream
                }
            }
        };
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(OciDistributionError::from)?;
            incoming.write(&bytes)?;
            self.options.progress.advance(&id.full(), bytes.len() as u64);
        }
        Ok(())
    }
}

/// Why a blob did not come to its end.
enum Broken {
    Transfer(OciDistributionError),
    Store(ImageError),
}

impl From<OciDistributionError> for Broken {
    fn from(error: OciDistributionError) -> Self {
        Self::Transfer(error)
    }
}

impl From<ImageError> for Broken {
    fn from(error: ImageError) -> Self {
        Self::Store(error)
    }
}

/// As the document itself says; older ones do not say it.
fn media_type_of(fetched: &Fetched) -> MediaType {
    match &fetched.document {
        Document::Manifest(manifest) => {
            manifest.media_type().clone().unwrap_or(MediaType::ImageManifest)
        }
        Document::Index(index) => index.media_type().clone().unwrap_or(MediaType::ImageIndex),
    }
}
