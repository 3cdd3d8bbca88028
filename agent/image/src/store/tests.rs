#![allow(clippy::unwrap_used)]
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use std::sync::Arc;

use super::*;
use crate::unpack::Unpacked;

fn open(dir: &tempfile::TempDir) -> Arc<Store> {
    Arc::new(Store::open(dir.path()).unwrap())
}

/// A layer with one file per name.
fn layer(
    store: &Arc<Store>,
    seed: &str,
    directories: &[(&str, u32)],
    implied: &[&str],
) -> LayerItem {
    let temporary = store.temporary().unwrap();
    fs::create_dir(temporary.tree()).unwrap();
    for (path, mode) in directories {
        let path = temporary.tree().join(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    let implied = implied.iter().map(|path| (*path).to_owned()).collect();
    let unpacked = Unpacked { bytes: 100, inodes: 1, implied };
    store.commit_layer(temporary, Digest::of(seed.as_bytes()), unpacked).unwrap()
}

fn image(store: &Arc<Store>, name: &str, layers: &[LayerItem]) -> ImageItem {
    let digest = Digest::of(name.as_bytes());
    let item = store.commit_image(digest, ImageConfig::default(), layers).unwrap();
    store.note_name(&name.parse().unwrap(), digest, Digest::of(b"")).unwrap();
    item
}

fn count(dir: &tempfile::TempDir, part: &str) -> usize {
    fs::read_dir(dir.path().join(part)).unwrap().count()
}

#[test]
fn what_was_put_into_place_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let one = layer(&store, "1", &[("etc", 0o755)], &[]);
    let two = layer(&store, "2", &[("usr", 0o755)], &[]);
    let item = image(&store, "app", &[one.clone(), two.clone()]);
    // A second one of the same content makes nothing worse.
    assert_eq!(layer(&store, "1", &[], &[]).diff_id, one.diff_id);
    let again = open(&dir);
    assert_eq!(again.image(&item.digest).unwrap(), item);
    assert_eq!(again.layer(&one.diff_id).unwrap(), one);
    let trees = again.trees(&item);
    assert!(trees[0].join("usr").is_dir() && trees[1].join("etc").is_dir());
    assert_eq!(again.name(&"app".parse().unwrap()).unwrap().digest, item.digest);
    assert_eq!(count(&dir, "tmp"), 0);
    let twice = image(&again, "twice", &[one.clone(), two, one]);
    assert_eq!(again.trees(&twice), trees.into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn what_is_half_done_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let one = layer(&store, "1", &[], &[]);
    let item = image(&store, "app", std::slice::from_ref(&one));
    // Killed in the middle of a layer: nothing runs the destructor.
    let half = store.temporary().unwrap();
    fs::create_dir_all(half.tree().join("usr/bin")).unwrap();
    std::mem::forget(half);
    // A power cut before the flush: another boot, and no mark.
    let lost = layer(&store, "2", &[], &[]);
    let path = store.layer_path(&lost.diff_id).join(ITEM);
    let json = fs::read_to_string(&path).unwrap().replace(&store.boot_id, "earlier");
    fs::write(&path, json).unwrap();
    // Damaged.
    fs::create_dir_all(dir.path().join("layers/junk/t")).unwrap();
    drop(store);
    let again = open(&dir);
    assert_eq!((count(&dir, "tmp"), count(&dir, "layers")), (0, 1));
    assert_eq!(again.layer(&lost.diff_id), None);
    assert!(again.layer_path(&one.diff_id).join(DURABLE).exists());
    // An image without its layer is none.
    fs::remove_dir_all(again.layer_path(&one.diff_id)).unwrap();
    assert_eq!(open(&dir).image(&item.digest), None);
}

#[test]
fn directories_that_are_only_implied_look_as_below() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let low = layer(&store, "low", &[("app", 0o700), ("app/data", 0o1777), ("srv", 0o755)], &[]);
    let high = layer(&store, "high", &[("app/data", 0o755)], &["app", "app/data"]);
    let other = layer(&store, "other", &[("srv", 0o755)], &["srv"]);
    let item = image(&store, "app", &[low.clone(), high.clone()]);
    assert!(item.fixed_up);
    let trees = store.trees(&item);
    assert_eq!(trees.len(), 3);
    for (path, mode) in [("app", 0o700), ("app/data", 0o1777)] {
        assert_eq!(fs::metadata(trees[0].join(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
    assert!(!image(&store, "plain", &[low, other]).fixed_up);
}

#[test]
fn pressure_takes_what_was_used_longest_ago() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let base = layer(&store, "base", &[], &[]);
    let mut items = Vec::new();
    for name in ["old", "used", "new"] {
        let own = layer(&store, name, &[], &[]);
        items.push(image(&store, name, &[base.clone(), own]));
    }
    for (age, item) in [(300, &items[0]), (200, &items[1]), (100, &items[2])] {
        let file = File::options().append(true).open(store.image_path(&item.digest).join(ITEM));
        let then = std::time::SystemTime::now() - Duration::from_secs(age);
        file.unwrap().set_modified(then).unwrap();
    }
    let marks = Watermarks { keep: Duration::ZERO, ..Watermarks::default() };
    let (used, none) = (HashSet::from([items[1].digest]), HashSet::new());
    // Room enough: nothing goes.
    let done = store.collect(&used, &none, &marks, || Ok(0.5)).unwrap();
    assert_eq!(done, Collected::default());
    // Pressed until one image has gone.
    let pressed = || Ok(if store.images().unwrap().len() == 3 { 0.9 } else { 0.7 });
    let done = store.collect(&used, &none, &marks, pressed).unwrap();
    assert_eq!((done.images, done.layers), (vec![items[0].digest], 1));
    assert_eq!(store.name(&"old".parse().unwrap()), None);
    // For ever pressed: all but the one in use, and the layer that it shares.
    let done = store.collect(&used, &none, &marks, || Ok(0.99)).unwrap();
    assert_eq!((done.images, done.layers), (vec![items[2].digest], 1));
    assert!(store.layer(&base.diff_id).is_some());
    // By age alone.
    let marks = Watermarks { max_age: Duration::from_secs(150), ..marks };
    let done = store.collect(&none, &HashSet::from([base.diff_id]), &marks, || Ok(0.1)).unwrap();
    assert_eq!((done.images.len(), done.layers), (1, 1));
    assert!(store.layer(&base.diff_id).is_some(), "somebody is pulling an image with it");
    let done = store.collect(&none, &none, &marks, || Ok(0.99)).unwrap();
    assert_eq!((done.layers, count(&dir, "layers")), (1, 0));
}
