//! From the store to a registry.

use std::fs::File;
use std::io::{Read, Seek};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use isolab_images::Store;
use isolab_images::ingest::{BlobId, Parts, parse_name};
use oci_client::Reference;
use oci_client::errors::OciDistributionError;
use tokio::sync::mpsc;
use tracing::info_span;

use crate::connection::{Connection, runtime};
use crate::{Progress, RegistryError, RegistryOptions};

/// Blobs that move at once.
const PARALLEL: usize = 4;
/// How much of a file is read at once.
const CHUNK: usize = 1 << 18;

/// Sends an image to the registry that `destination`, or else its own name, names. What the registry
/// has already is not sent. Returns the digest under which it is there.
///
/// # Errors
/// No such image, it has no name, or the registry cannot be reached or refuses.
pub fn push(
    store: &Store,
    name: &str,
    destination: Option<&str>,
    options: RegistryOptions<'_>,
) -> Result<String, RegistryError> {
    let image = store.resolve(name)?;
    let destination = destination.or(image.reference()).unwrap_or(name);
    let reference = parse_name(destination)?;
    let _span = info_span!("push", image = reference.whole()).entered();
    let parts = Parts::of(store, &image, image.entry())?;
    runtime()?.block_on(async {
        let connection = Connection::open(reference, "push", options).await?;
        Push { store, connection, options }.all(&parts).await
    })?;
    Ok(parts.top.digest().to_string())
}

struct Push<'a> {
    store: &'a Store,
    connection: Connection,
    options: RegistryOptions<'a>,
}

impl Push<'_> {
    async fn all(&self, parts: &Parts) -> Result<(), RegistryError> {
        stream::iter(&parts.blobs)
            .map(|(id, size)| self.blob(id, *size))
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await?;
        // In their order: a registry refuses a document that names what it does not have.
        for (number, (id, media_type)) in parts.documents.iter().enumerate() {
            let text = self.store.blobs().read_document(id)?;
            let target = match number + 1 == parts.documents.len() {
                true => self.connection.reference.clone(),
                false => self.by_digest(id),
            };
            let client = &self.connection.client;
            let push = || async {
                let bad = |_| OciDistributionError::UnsupportedMediaTypeError(media_type.clone());
                let content_type = media_type.parse().map_err(bad)?;
                client.push_manifest_raw(&target, text.clone(), content_type).await
            };
            self.connection.ask(push).await?;
        }
        Ok(())
    }

    /// A document's own place. The digest goes in as a tag, which makes the same address: with a
    /// digest, oci-client 0.18 panics where the registry's answer has no Location.
    fn by_digest(&self, id: &BlobId) -> Reference {
        let reference = &self.connection.reference;
        let (registry, repository) = (reference.registry(), reference.repository());
        Reference::with_tag(registry.to_owned(), repository.to_owned(), id.full())
    }

    async fn blob(&self, id: &BlobId, size: u64) -> Result<(), RegistryError> {
        let (client, reference) = (&self.connection.client, &self.connection.reference);
        let digest = id.full();
        if self.connection.ask(|| client.blob_exists(reference, &digest)).await? {
            self.options.progress.end(&digest);
            return Ok(());
        }
        let file = self.store.blobs().open(id)?;
        self.connection.ask(|| self.send(&file, &digest, size)).await?;
        self.options.progress.end(&digest);
        Ok(())
    }

    /// One attempt, which sends all of it.
    async fn send(&self, file: &File, digest: &str, size: u64) -> oci_client::errors::Result<()> {
        let (client, reference) = (&self.connection.client, &self.connection.reference);
        let mut file = file.try_clone()?;
        file.rewind()?;
        self.options.progress.begin(digest, size, 0);
        let (sent, mut seen) = mpsc::unbounded_channel();
        let pushed = client.push_blob_stream(reference, chunks(file, sent), digest, Some(size));
        let told = tell(self.options.progress, digest, &mut seen);
        let (pushed, ()) = futures_util::future::join(pushed, told).await;
        pushed.map(drop)
    }
}

/// The stream must own what it uses, so that what it has sent comes over a channel.
async fn tell(progress: &dyn Progress, digest: &str, seen: &mut mpsc::UnboundedReceiver<u64>) {
    while let Some(bytes) = seen.recv().await {
        progress.advance(digest, bytes);
    }
}

/// A file's content, piece by piece.
fn chunks(
    file: File,
    sent: mpsc::UnboundedSender<u64>,
) -> impl stream::Stream<Item = oci_client::errors::Result<Bytes>> + Send + 'static {
    stream::unfold(Some((file, sent)), |state| async move {
        let (mut file, sent) = state?;
        let mut buffer = vec![0; CHUNK];
        match file.read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => {
                buffer.truncate(count);
                // Nobody listens any more when the transfer has failed.
                let _ = sent.send(count as u64);
                Some((Ok(Bytes::from(buffer)), Some((file, sent))))
            }
            Err(error) => Some((Err(error.into()), None)),
        }
    })
}
