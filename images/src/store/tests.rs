//! Names, removal and collection.

use std::fs;

use error_reporter::Report;

use super::*;
use crate::testing::{add_image, layer, new_store};

fn names(store: &Store) -> Vec<Option<String>> {
    store.list().unwrap().images.into_iter().map(|record| record.reference).collect()
}

fn blobs(store: &Store) -> usize {
    fs::read_dir(store.root().join("blobs/sha256")).unwrap().count()
}

#[test]
fn an_image_has_the_names_it_is_given() {
    let (_dir, store) = new_store();
    let image = add_image(&store, Some("app:v1"), &[layer(&[("a", "1")])]);
    assert_eq!(store.tag("app:v1", "quay.io/team/app").unwrap(), "quay.io/team/app:latest");
    for name in ["app:v1", "docker.io/library/app:v1", "quay.io/team/app", image.digest()] {
        assert_eq!(store.resolve(name).unwrap().digest(), image.digest(), "{name}");
    }
    let pinned = format!("app@{}", image.digest());
    assert_eq!(store.resolve(&pinned).unwrap().digest(), image.digest());
    let other_repository = format!("other@{}", image.digest());
    assert!(matches!(store.resolve(&other_repository), Err(ImageError::NotFound(_))));
    assert!(matches!(store.tag("app:v1", &pinned), Err(ImageError::BadReference { .. })));
    assert!(matches!(store.tag("none", "x"), Err(ImageError::NotFound(_))));
    let details = store.inspect("app:v1").unwrap();
    assert_eq!(details.names, ["docker.io/library/app:v1", "quay.io/team/app:latest"]);
    assert_eq!(details.config["Healthcheck"]["Test"][0], "NONE");
}

#[test]
fn what_podman_calls_localhost_is_found_by_its_short_name() {
    let (_dir, store) = new_store();
    let image = add_image(&store, Some("localhost/mine"), &[layer(&[("a", "1")])]);
    assert_eq!(store.resolve("mine").unwrap().digest(), image.digest());
    let public = add_image(&store, Some("mine"), &[layer(&[("a", "2")])]);
    assert_eq!(store.resolve("mine").unwrap().digest(), public.digest());
}

#[test]
fn history_tells_each_layer_the_latest_first() {
    let (_dir, store) = new_store();
    add_image(&store, Some("app"), &[layer(&[("a", "1")]), layer(&[("b", "2")])]);
    let history = store.history("app").unwrap();
    let steps: Vec<_> = history.iter().map(|step| step.created_by.clone().unwrap()).collect();
    assert_eq!(steps, ["step 1", "step 0"]);
    assert_ne!(history[0].layer, history[1].layer);
    assert!(history.iter().all(|step| step.size.is_some()));
}

#[test]
fn the_last_name_takes_the_image_with_it() {
    let (_dir, store) = new_store();
    let shared = layer(&[("shared", "1")]);
    let kept = add_image(&store, Some("kept"), std::slice::from_ref(&shared));
    let kept_layers = kept.layers_unpacked().unwrap();
    let gone = add_image(&store, Some("gone"), &[shared, layer(&[("own", "2")])]);
    let gone_layers = gone.layers_unpacked().unwrap();
    let disk = gone.root_disk().unwrap();
    drop(gone);
    store.tag("gone", "gone:too").unwrap();

    let removed = store.remove("gone", false).unwrap();
    assert_eq!(removed.untagged, ["docker.io/library/gone:latest"]);
    assert_eq!(removed.deleted, [""; 0]);
    let removed = store.remove("gone:too", false).unwrap();
    // Manifest, configuration and its own layer.
    assert_eq!(removed.deleted.len(), 3, "{removed:?}");
    assert!(removed.freed > 0);
    assert!(!disk.exists() && !gone_layers[0].exists());
    assert!(kept_layers[0].exists(), "a layer that another image has too was taken");
    assert_eq!(blobs(&store), 3);
    assert!(matches!(store.resolve("gone"), Err(ImageError::NotFound(_))));
}

#[test]
fn a_digest_with_several_names_goes_only_by_force() {
    let (_dir, store) = new_store();
    let digest = add_image(&store, Some("one"), &[layer(&[("a", "1")])]).digest().to_owned();
    store.tag("one", "two").unwrap();
    let refused = store.remove(&digest, false).unwrap_err();
    assert!(matches!(refused, ImageError::SeveralNames { .. }), "{refused}");
    let removed = store.remove(&digest[7..19], true).unwrap();
    assert_eq!(removed.untagged.len(), 2);
    assert_eq!(blobs(&store), 0);
}

#[test]
fn what_a_running_instance_uses_stays() {
    let (_dir, store) = new_store();
    let image = add_image(&store, Some("app"), &[layer(&[("a", "1")])]);
    let layers = image.layers_unpacked().unwrap();
    let refused = store.remove("app", false).unwrap_err();
    assert!(matches!(refused, ImageError::InUse(_)), "{refused}");
    assert_eq!(store.prune(Prune::ALL).unwrap(), Removed::default());
    // The name moves on to a newer image; the old one's user still runs.
    drop(add_image(&store, Some("app"), &[layer(&[("a", "2")])]));
    assert_eq!(names(&store), [None, Some("docker.io/library/app:latest".to_owned())]);
    store.prune(Prune::default()).unwrap();
    assert!(layers[0].exists());
    drop(image);
    let removed = store.prune(Prune::default()).unwrap();
    assert_eq!(removed.deleted.len(), 3, "{removed:?}");
    assert!(!layers[0].exists());
    assert_eq!(names(&store), [Some("docker.io/library/app:latest".to_owned())]);
}

#[test]
fn an_image_that_is_being_brought_in_is_no_garbage() {
    let (_dir, store) = new_store();
    drop(add_image(&store, Some("old"), &[layer(&[("a", "1")])]));
    let writing = store.writing().unwrap();
    store.take_in_bytes(b"the first blob of a pull").unwrap();
    store.remove("old", false).unwrap();
    assert_eq!(blobs(&store), 4);
    drop(writing);
    store.prune(Prune::default()).unwrap();
    assert_eq!(blobs(&store), 0);
}

#[test]
fn prune_takes_what_was_never_finished_and_locks_that_nobody_holds() {
    let (dir, store) = new_store();
    drop(add_image(&store, Some("app"), &[layer(&[("a", "1")])]));
    for name in ["blob-00", "layer-00", "archive-x", "index.json"] {
        fs::write(store.partial(name), "half").unwrap();
    }
    store.prune(Prune::default()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
    let mut locks: Vec<_> = fs::read_dir(dir.path().join("locks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    locks.sort();
    assert_eq!(locks, ["index", "writers"]);
    assert!(store.resolve("app").unwrap().layers_unpacked().is_ok());
}

/// Half a layer, as a kill leaves it, is never taken for a whole one.
#[test]
fn a_layer_that_was_left_half_unpacked_is_unpacked_anew() {
    let (_dir, store) = new_store();
    let archive = layer(&[("a", "1"), ("b", "2")]);
    let image = add_image(&store, Some("app"), std::slice::from_ref(&archive));
    let half = store.partial(&format!("layer-{}", BlobId::of(&archive).hex()));
    fs::create_dir(&half).unwrap();
    fs::write(half.join("a"), "garbage").unwrap();
    let layers = image.layers_unpacked().unwrap();
    assert_eq!(fs::read_to_string(layers[0].join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(layers[0].join("b")).unwrap(), "2");
    assert!(!half.exists());
}

#[test]
fn many_who_want_a_layer_unpack_it_once() {
    let (_dir, store) = new_store();
    let image = add_image(&store, Some("app"), &[layer(&[("a", "1")])]);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| image.layers_unpacked().unwrap())).collect();
        for worker in workers {
            assert!(worker.join().unwrap()[0].join("a").exists());
        }
    });
}

#[test]
fn a_damaged_document_stops_the_collector_and_its_image_can_be_removed() {
    let (_dir, store) = new_store();
    let image = add_image(&store, Some("app"), &[layer(&[("a", "1")])]);
    fs::write(store.blobs().path(image.id()), "damaged").unwrap();
    drop(image);
    add_image(&store, Some("sound"), &[layer(&[("b", "2")])]);
    let second = add_image(&store, Some("second"), &[layer(&[("c", "3")])]);
    fs::remove_file(store.blobs().path(second.id())).unwrap();
    drop(second);
    // The sound one is told and runs; of the others what is wrong with them.
    let listing = store.list().unwrap();
    assert_eq!(listing.images.len(), 1);
    let told: Vec<String> =
        listing.damaged.iter().map(|error| Report::new(error).to_string()).collect();
    assert!(told.iter().any(|why| why.contains("docker.io/library/app:latest")));
    assert!(
        told.iter().any(|why| why.contains("library/second:latest") && why.contains("missing"))
    );
    assert!(store.resolve("sound").unwrap().layers_unpacked().is_ok());
    assert!(matches!(store.resolve("app"), Err(ImageError::Damaged { .. })));

    assert!(matches!(store.prune(Prune::default()), Err(ImageError::Damaged { .. })));
    let removed = store.remove("sound", false).unwrap();
    assert!(removed.hindered.is_some_and(|why| why.contains("library/app:latest")));
    store.remove("second", false).unwrap();
    store.remove("app", false).unwrap();
    assert_eq!(blobs(&store), 0);
}

/// What a version without bounds has unpacked goes like anything else.
#[test]
fn a_layer_of_any_depth_is_collected() {
    let (_dir, store) = new_store();
    let layer = store.root().join("layers").join("d".repeat(64));
    fs::create_dir(store.root().join("layers")).unwrap();
    crate::removal::tests::make_deep(&layer, 5000);
    drop(add_image(&store, Some("app"), &[]));
    store.remove("app", false).unwrap();
    assert!(!layer.exists());
    crate::removal::tests::make_deep(&store.partial("layer-00"), 5000);
    store.prune(Prune::default()).unwrap();
    assert_eq!(fs::read_dir(store.root().join("partial")).unwrap().count(), 0);
}

#[test]
fn what_the_build_cache_keeps_is_told_and_removed_when_asked_for() {
    let (_dir, store) = new_store();
    let archive = layer(&[("a", "cached")]);
    let image = add_image(&store, Some("app"), std::slice::from_ref(&archive));
    image.layers_unpacked().unwrap();
    let blob = &image.manifest().layers()[0];
    let step = serde_json::json!({"layer": {
        "digest": blob.digest().to_string(), "size": blob.size(),
        "diff_id": BlobId::of(&archive).full(),
    }});
    fs::create_dir(store.root().join("build-cache")).unwrap();
    let entry = store.root().join("build-cache").join(format!("{}.json", "0".repeat(64)));
    fs::write(entry, step.to_string()).unwrap();
    // As long as an image has the layer too, the cache costs nothing.
    assert_eq!(store.prune(Prune::default()).unwrap().kept_by_build_cache, 0);
    drop(image);
    let removed = store.remove("app", false).unwrap();
    assert!(removed.kept_by_build_cache > 0 && removed.freed > 0, "{removed:?}");
    let kept = store.prune(Prune::default()).unwrap();
    assert_eq!((kept.freed, kept.kept_by_build_cache), (0, removed.kept_by_build_cache));
    let only_cache = Prune { build_cache: true, named: false };
    let pruned = store.prune(only_cache).unwrap();
    assert!(pruned.freed >= kept.kept_by_build_cache && pruned.kept_by_build_cache == 0);
    assert_eq!(blobs(&store), 0);
}
