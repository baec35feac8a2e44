//! From what a step made to a layer, by way of the cache.

use std::path::Path;

use isolab_images::ingest::{
    BlobId,
    build_cache::{self, CachedLayer, CachedStep},
    descriptor, io_error,
};
use isolab_images::{Merged, remove_tree};
use oci_spec::image::MediaType;
use sha2::{Digest as _, Sha256};

use super::{Layer, Outcome, StageBuilder, now};
use crate::copy::CopyPlan;
use crate::{check_of, layer};

impl StageBuilder<'_, '_> {
    /// Everything that a step's outcome depends on, as a digest. The layers stand for the image
    /// so far, so that the same step over the same files is found whatever led there.
    pub(super) fn key(&self, kind: &str, inputs: &[u8]) -> BlobId {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(b"isolab build step, version 2");
        field(kind.as_bytes());
        for layer in &self.stage.layers {
            field(layer.diff_id.as_bytes());
        }
        field(format!("{:?}", self.build.request.epoch).as_bytes());
        field(inputs);
        BlobId::from_digest(&hasher.finalize())
    }

    pub(super) fn cached(&mut self, key: &BlobId) -> Option<CachedStep> {
        if self.build.request.no_cache {
            return None;
        }
        let step = build_cache::find(self.build.store, key)?;
        self.build.tell("    cached");
        Some(step)
    }

    /// Makes the layer of planned files.
    pub(super) fn write(&mut self, plan: &CopyPlan, image: &Merged, text: &str) -> Outcome {
        if plan.is_empty() {
            self.record(text, None);
            return Ok(());
        }
        let check = check_of(self.build.runner);
        let key = self.key("files", &plan.digest(&check)?);
        if let Some(step) = self.cached(&key) {
            return self.take(step, text);
        }
        let upper = self.folder("upper")?;
        plan.write(&upper, image, &check)?;
        self.finish(&key, &upper, text)
    }

    /// Packs what a step made, and remembers it.
    pub(super) fn finish(&mut self, key: &BlobId, upper: &Path, text: &str) -> Outcome {
        let partial = self.build.work.join("layer");
        let epoch = self.build.request.epoch;
        let check = check_of(self.build.runner);
        let packed = layer::pack(self.build.store, upper, epoch, &partial, &check)?;
        let created = now(epoch);
        let step = CachedStep { layer: packed.map(|layer| CachedLayer { created, ..layer }) };
        build_cache::remember(self.build.store, key, &step)?;
        // What was packed is not needed again, and may be large.
        remove_tree(upper).map_err(io_error("remove", upper))?;
        self.take(step, text)
    }

    pub(super) fn take(&mut self, step: CachedStep, text: &str) -> Outcome {
        let Some(layer) = step.layer else {
            self.record(text, None);
            return Ok(());
        };
        let id = BlobId::parse(&layer.digest)?;
        let descriptor = descriptor(MediaType::ImageLayerGzip, &id, layer.size)?;
        self.record(text, Some(&layer));
        self.stage.layers.push(Layer { descriptor, diff_id: layer.diff_id });
        Ok(())
    }

    /// Writes a step into the history. What made no layer is as old as the last that did, so that
    /// a build whose steps are all cached gives the image that it gave before (as BuildKit's).
    pub(super) fn record(&mut self, text: &str, layer: Option<&CachedLayer>) {
        let epoch = self.build.request.epoch;
        let config = &mut self.stage.config;
        let created = match (epoch, layer) {
            (None, Some(layer)) if !layer.created.is_empty() => layer.created.clone(),
            (None, None) => config.created().unwrap_or_else(|| now(None)),
            _ => now(epoch),
        };
        config.record(&created, text, layer.map(|layer| layer.diff_id.as_str()));
    }
}
