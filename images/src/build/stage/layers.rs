//! From what a step made to a layer, by way of the cache.

use std::path::Path;

use oci_spec::image::MediaType;
use sha2::{Digest as _, Sha256};

use super::{Layer, Outcome, StageBuilder};
use crate::archive::descriptor;
use crate::blob::BlobId;
use crate::build::cache::{self, CachedLayer, CachedStep};
use crate::build::copy::Plan;
use crate::build::layer;
use crate::build::merged::Merged;

impl StageBuilder<'_, '_, '_> {
    /// Everything that a step's outcome depends on, as a digest. The layers stand for the image
    /// so far, so that the same step over the same files is found whatever led there.
    pub(super) fn key(&self, kind: &str, inputs: &[u8]) -> BlobId {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(b"isolab build step, version 1");
        field(kind.as_bytes());
        for layer in &self.stage.layers {
            field(layer.diff_id.as_bytes());
        }
        field(&self.build.request.epoch.to_le_bytes());
        field(&[u8::from(self.build.request.host_network)]);
        field(inputs);
        BlobId::from_digest(&hasher.finalize())
    }

    pub(super) fn cached(&mut self, key: &BlobId) -> Option<CachedStep> {
        if self.build.request.no_cache {
            return None;
        }
        let step = cache::find(self.build.store, key)?;
        (self.build.log)("    cached");
        Some(step)
    }

    /// Makes the layer of planned files.
    pub(super) fn write(&mut self, plan: &Plan, image: &Merged, text: &str) -> Outcome {
        if plan.is_empty() {
            self.stage.config.record(&self.created, text, None);
            return Ok(());
        }
        let key = self.key("files", &plan.digest()?);
        if let Some(step) = self.cached(&key) {
            return self.take(step, text);
        }
        let upper = self.folder("upper")?;
        plan.write(&upper, image)?;
        self.finish(&key, &upper, text)
    }

    /// Packs what a step made, and remembers it.
    pub(super) fn finish(&mut self, key: &BlobId, upper: &Path, text: &str) -> Outcome {
        let partial = self.build.work.join("layer");
        let layer = layer::pack(self.build.store, upper, self.build.request.epoch, &partial)?;
        let step = CachedStep { layer };
        cache::remember(self.build.store, key, &step)?;
        self.take(step, text)
    }

    pub(super) fn take(&mut self, step: CachedStep, text: &str) -> Outcome {
        let Some(CachedLayer { digest, size, diff_id }) = step.layer else {
            self.stage.config.record(&self.created, text, None);
            return Ok(());
        };
        let id = BlobId::parse(&digest)?;
        let descriptor = descriptor(MediaType::ImageLayerGzip, &id, size)?;
        self.stage.config.record(&self.created, text, Some(&diff_id));
        self.stage.layers.push(Layer { descriptor, diff_id });
        Ok(())
    }
}
