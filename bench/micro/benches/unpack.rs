//! An image of one layer, loaded into a new store: copied, verified and unpacked.

#![allow(missing_docs, reason = "Criterion's macros make public functions")]

use std::fs::File;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use isolab_images::Store;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Files of one size each, 4 MiB in all: many small ones cost calls, large ones the digest.
const SIZES: [usize; 3] = [1 << 10, 32 << 10, 1 << 20];
const TOTAL: usize = 4 << 20;
/// No disk's waits. And ext4, where the last round's store was removed just now, looks at all of its
/// inodes for each new one (`recently_deleted`): 1.2 ms a file.
const MEMORY: &str = "/dev/shm";

fn append(archive: &mut tar::Builder<impl std::io::Write>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, content).expect("there is room");
}

fn layer(size: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..TOTAL / size {
        append(&mut archive, &format!("folder{}/{number}", number / 64), &content);
    }
    archive.into_inner().expect("memory takes it")
}

/// An archive of `docker save` with one plain layer.
fn write_archive(path: &Path, layer: &[u8]) {
    let digest = Sha256::digest(layer).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest =
        json!([{"Config": "config.json", "RepoTags": ["bench:1"], "Layers": ["layer.tar"]}]);
    let file = File::create(path).expect("a temporary file can be made");
    let mut archive = tar::Builder::new(file);
    append(&mut archive, "config.json", config.to_string().as_bytes());
    append(&mut archive, "layer.tar", layer);
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    archive.finish().expect("there is room");
}

fn unpack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unpack 4 MiB");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    for size in SIZES {
        let folder = TempDir::new_in(MEMORY).expect("a temporary folder can be made");
        let archive = folder.path().join("image.tar");
        write_archive(&archive, &layer(size));
        group.bench_function(format!("files of {} KiB", size >> 10), |bencher| {
            bencher.iter_batched(
                || {
                    let data = TempDir::new_in(folder.path()).expect("a folder can be made");
                    let store = Store::open(data.path()).expect("a new store");
                    (data, store)
                },
                |(data, store)| {
                    let images = store.load(&archive, None).expect("a good archive");
                    assert_eq!(images.len(), 1);
                    // What is removed is removed after the clock has stopped.
                    (data, store, images)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, unpack);
criterion_main!(benches);
