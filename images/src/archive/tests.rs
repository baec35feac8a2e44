//! What goes out comes back, in every form; hostile archives end in an error.

use std::fs;
use std::path::Path;

use super::ArchiveFormat;
use crate::blob::BlobId;
use crate::error::ImageError;
use crate::store::Prune;
use crate::testing::{add_image, gzip, layer, new_store};

#[test]
fn what_is_saved_loads_again_in_every_form() {
    let (_dir, store) = new_store();
    let layers = [layer(&[("etc/a", "1")]), layer(&[("etc/b", "2")]), layer(&[("etc/a", "1")])];
    let image = add_image(&store, Some("team/app:v1"), &layers);
    store.tag("team/app:v1", "other").unwrap();
    let out = tempfile::tempdir().unwrap();
    for format in [ArchiveFormat::OciArchive, ArchiveFormat::OciDir, ArchiveFormat::DockerArchive] {
        let path = out.path().join(format!("{format:?}"));
        let names = ["team/app:v1", "other"].map(str::to_owned);
        store.save(&names, &path, format).unwrap();
        let again = store.save(&names, &path, format).unwrap_err();
        assert!(matches!(again, ImageError::Io { .. }), "{again}");

        let (_dir, copy) = new_store();
        let loaded = copy.load(&path, None).unwrap();
        let names: Vec<_> = loaded.iter().map(|image| image.reference().unwrap()).collect();
        assert_eq!(names, ["docker.io/team/app:v1", "docker.io/library/other:latest"]);
        // A docker archive has no manifest, so that its digest is not kept.
        if format != ArchiveFormat::DockerArchive {
            assert_eq!(loaded[0].digest(), image.digest());
        }
        assert_eq!(loaded[0].config(), image.config());
        let folders = loaded[0].layers_unpacked().unwrap();
        assert_eq!(fs::read_to_string(folders[1].join("etc/b")).unwrap(), "2");
        // The third is the first again.
        assert_eq!(folders.len(), 2);
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 3, "something was left behind");
}

#[test]
fn the_same_images_make_the_same_archive() {
    let (_dir, store) = new_store();
    add_image(&store, Some("app"), &[layer(&[("a", "1")])]);
    for format in [ArchiveFormat::OciArchive, ArchiveFormat::DockerArchive] {
        let [first, second] = [0, 1].map(|_| {
            let mut out = Vec::new();
            store.save_stream(&["app".to_owned()], &mut out, format).unwrap();
            out
        });
        assert_eq!(first, second);
    }
}

#[test]
fn a_save_that_fails_leaves_nothing_and_one_that_succeeds_is_the_callers_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, store) = new_store();
    let image = add_image(&store, Some("app"), &[layer(&[("a", "1")])]);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("saved");
    let save = |format| store.save(&["app".to_owned()], &path, format);
    for format in [ArchiveFormat::OciArchive, ArchiveFormat::OciDir, ArchiveFormat::DockerArchive] {
        let layer = BlobId::parse(image.manifest().layers()[0].digest().as_ref()).unwrap();
        let (blob, aside) = (store.blobs().path(&layer), store.partial("aside"));
        fs::rename(&blob, &aside).unwrap();
        save(format).unwrap_err();
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "{format:?} left something");
        fs::rename(&aside, &blob).unwrap();
        save(format).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{format:?}: {mode:o}");
        crate::removal::remove_tree(&path).unwrap();
    }
}

#[test]
fn an_archive_is_read_from_a_stream_too() {
    let (_dir, store) = new_store();
    add_image(&store, Some("team/app:v1"), &[layer(&[("a", "1")])]);
    let mut bytes = Vec::new();
    store.save_stream(&["team/app:v1".to_owned()], &mut bytes, ArchiveFormat::OciArchive).unwrap();
    let (_dir, copy) = new_store();
    let loaded = copy.load_stream(std::io::Cursor::new(gzip(&bytes)), None).unwrap();
    assert_eq!(loaded[0].reference(), Some("docker.io/team/app:v1"));
    let error = copy.load_stream(&b"nonsense"[..], None).unwrap_err().to_string();
    assert!(error.contains("standard input is not an OCI image layout"), "{error}");
}

/// The members of an archive, written as they are.
fn archive(path: &Path, members: &[(&str, &[u8])], links: &[(&str, &str)]) {
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, target).unwrap();
    }
    archive.finish().unwrap();
}

fn config(diff_ids: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = diff_ids.iter().map(|layer| BlobId::of(layer).full()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).unwrap()
}

#[test]
fn an_old_docker_archive_with_linked_and_packed_layers_loads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.tar");
    let (plain, packed) = (layer(&[("a", "1")]), layer(&[("b", "2")]));
    let manifest = br#"[{"Config": "c.json", "RepoTags": null,
        "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}]"#;
    let members: [(&str, &[u8]); 4] = [
        ("manifest.json", manifest),
        ("./c.json", &config(&[&plain, &packed, &plain])),
        ("1/layer.tar", &plain),
        ("2/layer.tar", &gzip(&packed)),
    ];
    archive(&path, &members, &[("3/layer.tar", "../1/layer.tar")]);
    let (_dir, store) = new_store();
    let images = store.load(&path, Some("old")).unwrap();
    let folders = images[0].layers_unpacked().unwrap();
    assert!(folders[0].join("a").exists() && folders[1].join("b").exists());
    assert_eq!(folders.len(), 2);
}

#[test]
fn hostile_archives_end_in_an_error_and_reach_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let secret = dir.path().join("secret");
    let path = dir.path().join("hostile.tar");
    let manifest = |config: &str, layer: &str| {
        format!(r#"[{{"Config": "{config}", "Layers": ["{layer}"]}}]"#).into_bytes()
    };
    let fine = layer(&[("a", "1")]);
    let empty = config(&[]);
    let config = config(&[&fine]);
    let (_store_dir, store) = new_store();
    let refused = |what: &str, members: &[(&str, &[u8])], links: &[(&str, &str)]| {
        archive(&path, members, links);
        let error = store.load(&path, Some("hostile")).unwrap_err();
        assert!(!error.to_string().contains("panicked"), "{what}");
        assert!(store.list().unwrap().images.is_empty(), "{what}: {error}");
        let left = fs::read_dir(store.root().join("partial")).unwrap().count();
        assert_eq!(left, 0, "{what} left something behind");
        error
    };
    let outside = manifest("c.json", secret.to_str().unwrap());
    refused("a layer outside", &[("manifest.json", &outside), ("c.json", &config)], &[]);
    let linked = manifest("c.json", "layer.tar");
    refused(
        "a link outside",
        &[("manifest.json", &linked), ("c.json", &config)],
        &[("layer.tar", secret.to_str().unwrap())],
    );
    refused(
        "links in a circle",
        &[("manifest.json", &linked), ("c.json", &config)],
        &[("layer.tar", "other.tar"), ("other.tar", "layer.tar")],
    );
    let long = [&b"["[..], &vec![b' '; 5 << 20], b"]"].concat();
    for name in ["manifest.json", "index.json"] {
        let error = refused("a document without end", &[(name, &long)], &[]);
        assert!(error.to_string().contains("4194304 bytes"), "{error}");
    }
    refused("no images", &[("manifest.json", b"{}")], &[]);
    refused("nothing", &[], &[]);
    refused("a member outside", &[("../../index.json", b"{}")], &[]);
    let error = refused(
        "fewer diff_ids than layers",
        &[("manifest.json", &linked), ("c.json", &empty), ("layer.tar", &fine)],
        &[],
    );
    assert!(matches!(error, ImageError::BadDocument { .. }), "{error}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}

/// What would not run does not come in, and leaves nothing.
#[test]
fn damage_that_only_unpacking_shows_is_found_when_loading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forged.tar");
    let manifest = br#"[{"Config": "c.json", "RepoTags": ["forged"], "Layers": ["l.tar"]}]"#;
    let (_dir, store) = new_store();
    let refused = |promised: &[u8], sent: &[u8]| {
        let config = config(&[promised]);
        archive(&path, &[("manifest.json", manifest), ("c.json", &config), ("l.tar", sent)], &[]);
        let error = store.load(&path, None).unwrap_err();
        assert!(store.list().unwrap().images.is_empty(), "{error}");
        for folder in ["blobs/sha256", "partial", "layers"] {
            let left = fs::read_dir(store.root().join(folder)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "something is left in {folder}");
        }
        error
    };
    let (layer_1, layer_2) = (layer(&[("a", "1")]), layer(&[("a", "2")]));
    let error = refused(&layer_1, &layer_2);
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    let cut = &layer_1[..300];
    let error = refused(cut, cut);
    assert!(matches!(error, ImageError::BadLayer { .. }), "{error}");
    let hostile = b"no archive".repeat(100);
    let error = refused(&hostile, &hostile);
    assert!(matches!(error, ImageError::BadLayer { .. }), "{error}");
    let truncated = &gzip(&layer_1)[..40];
    let error = refused(&layer_1, truncated);
    assert!(matches!(error, ImageError::BadLayer { .. }), "{error}");
}

/// As Docker 25 and later save an image of `FROM scratch` with nothing but settings: Go's empty
/// lists are null, or left out.
#[test]
fn an_image_without_layers_loads_and_has_an_empty_root() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.tar");
    for rootfs in [r#"{"type": "layers"}"#, r#"{"type": "layers", "diff_ids": null}"#] {
        let config = format!(
            r#"{{"architecture": "amd64", "os": "linux", "rootfs": {rootfs}, "history": null}}"#
        );
        let config_id = BlobId::of(config.as_bytes());
        let config_name = format!("blobs/sha256/{}", config_id.hex());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": config_id.full(), "size": config.len()},
            "layers": null,
        });
        let manifest = manifest.to_string();
        let id = BlobId::of(manifest.as_bytes());
        let manifest_name = format!("blobs/sha256/{}", id.hex());
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": id.full(), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": "docker.io/library/empty:latest"},
        }]});
        let index = index.to_string();
        let of_docker = format!(
            r#"[{{"Config": "{config_name}", "RepoTags": ["empty:latest"], "Layers": null}}]"#
        );
        let blobs: [(&str, &[u8]); 2] =
            [(&config_name, config.as_bytes()), (&manifest_name, manifest.as_bytes())];
        let (old, new) =
            ([("manifest.json", of_docker.as_bytes())], [("index.json", index.as_bytes())]);
        for documents in [&old[..], &[old[0], new[0]]] {
            archive(&path, &[&blobs[..], documents].concat(), &[]);
            let (_dir, store) = new_store();
            store.load(&path, None).unwrap();
            let image = store.resolve("empty").unwrap();
            let folders = image.layers_unpacked().unwrap();
            assert_eq!(folders.len(), 1);
            assert_eq!(fs::read_dir(&folders[0]).unwrap().count(), 0);
            // It stays as long as the image, also when that is saved and collected around.
            store.prune(Prune::default()).unwrap();
            assert!(folders[0].is_dir());
            for format in [ArchiveFormat::OciArchive, ArchiveFormat::DockerArchive] {
                let saved = dir.path().join("saved");
                store.save(&["empty".to_owned()], &saved, format).unwrap();
                let (_dir, copy) = new_store();
                copy.load(&saved, None).unwrap();
                fs::remove_file(&saved).unwrap();
            }
            store.root_disk(&image).unwrap();
        }
    }
}

#[test]
fn an_index_of_several_platforms_gives_ours_and_keeps_its_digest() {
    let (source_dir, source) = new_store();
    let image = add_image(&source, None, &[layer(&[("a", "1")])]);
    let ours = image.entry().clone();
    let (manifest, size) = (image.digest().to_owned(), ours.size());
    let other = BlobId::of(b"a manifest for another CPU").full();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [
            {"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": other,
             "size": 26, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest,
             "size": size, "platform": {"os": "linux", "architecture": "amd64"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": other,
             "size": 26, "platform": {"os": "unknown", "architecture": "unknown"}},
        ],
    });
    let index = serde_json::to_vec(&index).unwrap();
    let index_id = source.take_in_bytes(&index).unwrap();
    let layout = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "digest": index_id.full(), "size": index.len(),
            "annotations": {"org.opencontainers.image.ref.name": "v2",
                            "io.containerd.image.name": "docker.io/team/multi:v2"},
        }],
    });
    fs::write(source_dir.path().join("index.json"), layout.to_string()).unwrap();

    let (_dir, store) = new_store();
    let loaded = store.load(source_dir.path(), None).unwrap();
    assert_eq!(loaded[0].reference(), Some("docker.io/team/multi:v2"));
    assert_eq!(loaded[0].digest(), manifest);
    // By the digest of the index, of the manifest, and pinned.
    for name in [index_id.full(), manifest.clone(), format!("team/multi@{}", index_id.full())] {
        assert_eq!(store.resolve(&name).unwrap().digest(), manifest, "{name}");
    }
    store.prune(Prune::default()).unwrap();
    assert!(store.resolve("team/multi:v2").is_ok(), "the index was taken for garbage");
    // What leaves is the manifest, as the other platforms' are not here.
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("saved");
    store.save(&["team/multi:v2".to_owned()], &path, ArchiveFormat::OciDir).unwrap();
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
    assert_eq!(saved["manifests"][0]["digest"], manifest);
    assert_eq!(saved["manifests"][0]["platform"]["architecture"], "amd64");
}
