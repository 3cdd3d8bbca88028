//! What works.

use std::fs;
use std::sync::Arc;

use commonage_image::{Credentials, Error, Images, Options, Progress, Request};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::made::{CONFIG, MANIFEST};
use crate::made::{Content, INDEX, Layer, Packed, config_of, descriptor, files, manifest_of};
use crate::server::{Place, Registry, Twist, find_file};

fn three_layers() -> Vec<Layer> {
    vec![
        Layer::new(&files(&[("bin/", b""), ("bin/app", b"one")]), Packed::Gzip),
        Layer::new(&files(&[("bin/", b""), ("bin/app", b"two")]), Packed::Zstd),
        Layer::new(&files(&[("etc/", b""), ("etc/conf", &[b'x'; 300_000])]), Packed::Plain),
    ]
}

#[tokio::test]
async fn layers_are_stacked_and_their_progress_told() {
    let layers = three_layers();
    let registry = Registry::plain(Content::image(&layers)).await;
    let place = Place::new();
    let mut heard: Vec<Progress> = Vec::new();
    let image = place.images.pull(&registry.request("a/b:1"), |p| heard.push(p)).await.unwrap();
    assert_eq!(image.config.cmd, ["/bin/app"]);
    assert_eq!(image.layers.len(), 3);
    let app = find_file(&image, "bin/app").unwrap();
    assert_eq!(fs::read_to_string(app).unwrap(), "two");
    assert_eq!(fs::metadata(find_file(&image, "etc/conf").unwrap()).unwrap().len(), 300_000);
    let total: u64 = layers.iter().map(|layer| layer.blob.len() as u64).sum();
    assert!(heard.windows(2).all(|two| two[0].done <= two[1].done), "{heard:?}");
    assert_eq!(
        heard.last().map(|p| (p.total == 0 || p.total == total, p.percent() <= 100)),
        Some((true, true))
    );
    // Again: the manifest is asked for, nothing more.
    let before = registry.count("/blobs/");
    let again = place.pull(&registry.request("a/b:1")).await.unwrap();
    assert_eq!((again.digest, again.layers.clone()), (image.digest, image.layers.clone()));
    assert_eq!(registry.count("/blobs/"), before);
    assert_eq!(registry.count("/manifests/"), 2);
    assert_eq!(place.left(), [("layers", 3), ("images", 1), ("tmp", 0)].into());
}

#[tokio::test]
async fn an_index_leads_to_the_image_of_this_machine() {
    let layers = three_layers();
    let mine = config_of(&layers);
    let config = mine.to_string().into_bytes();
    let manifest = manifest_of(&config, &layers);
    let mut entry = descriptor(MANIFEST, manifest.to_string().as_bytes());
    entry["platform"] = json!({"os": "linux", "architecture": mine["architecture"]});
    let mut other = descriptor(MANIFEST, b"{}");
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, entry]});
    let content = Content::default()
        .blob(config)
        .layers(&layers)
        .manifest("x", &manifest)
        .manifest("1", &index);
    let by_digest = content.digest("1");
    let registry = Registry::plain(content).await;
    let image = Place::new().pull(&registry.request("app:1")).await.unwrap();
    assert_eq!(image.config.environment()["A"], "1");
    Place::new().pull(&registry.request(&format!("app@{by_digest}"))).await.unwrap();
}

#[tokio::test]
async fn a_digest_that_is_kept_needs_no_registry() {
    let content = Content::image(&three_layers());
    let digest = content.digest("1");
    let registry = Registry::plain(content).await;
    let place = Place::new();
    let request = registry.request(&format!("app@{digest}"));
    place.pull(&request).await.unwrap();
    let tagged = registry.request("app:1");
    place.pull(&tagged).await.unwrap();
    let before = registry.seen().len();
    place.pull(&request).await.unwrap();
    assert_eq!(registry.seen().len(), before);
    // Nobody else's though: another caller is checked by the registry.
    let credentials = Some(Credentials { username: "eve".into(), password: "x".into() });
    place.pull(&Request { credentials, ..request.clone() }).await.unwrap();
    assert!(registry.seen().len() > before);
    drop(registry);
    // A tag needs the registry only while it answers.
    place.pull(&tagged).await.unwrap();
    let other = Request {
        credentials: Some(Credentials { username: "eve".into(), password: "x".into() }),
        ..tagged
    };
    assert!(matches!(place.pull(&other).await.unwrap_err(), Error::Unavailable(_)));
}

#[tokio::test]
async fn many_who_want_the_same_pull_once() {
    let layers = three_layers();
    let registry = Registry::plain(Content::image(&layers)).await;
    let place = Place::new();
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (images, request) = (place.images.clone(), registry.request("app:1"));
        pulls.spawn(async move { images.pull(&request, |_| {}).await.unwrap().digest });
    }
    let digests = pulls.join_all().await;
    assert!(digests.windows(2).all(|two| two[0] == two[1]));
    assert_eq!(registry.count("/blobs/"), 4, "three layers and a configuration");
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_stops_and_leaves_nothing() {
    let layers = three_layers();
    let first = layers[0].blob.clone();
    let digest = commonage_image::Digest::of(&first).to_string();
    let reached = Arc::new(Semaphore::new(0));
    let tell = Arc::clone(&reached);
    let registry = Registry::twisted(Content::image(&layers), move |seen| {
        if seen.path.ends_with(&digest) {
            tell.add_permits(1);
            return Some(Twist::Cut(0));
        }
        None
    })
    .await;
    let place = Place::new();
    let request = registry.request("app:1");
    {
        let pull = place.images.pull(&request, |_| {});
        tokio::select! {
            _ = pull => {}
            _ = reached.acquire() => {}
        }
    }
    // The next start would collect it; so that it need not, the worker removes what it has begun.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while place.left()["tmp"] > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!((place.left()["tmp"], place.left()["images"]), (0, 0));
}

#[tokio::test]
async fn the_next_process_finds_images_and_collects_leftovers() {
    let registry = Registry::plain(Content::image(&three_layers())).await;
    let place = Place::new();
    place.pull(&registry.request("app:1")).await.unwrap();
    fs::create_dir_all(place.path().join("tmp/77/t/usr")).unwrap();
    let again = Images::open(place.path(), Options::default()).unwrap();
    assert_eq!(place.left()["tmp"], 0);
    let kept = again.kept().unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].names, [format!("{}/app:1", registry.address)]);
    assert!(kept[0].bytes > 300_000);
}

#[tokio::test]
async fn dockers_dialect_is_understood() {
    let layers = three_layers();
    let config = config_of(&layers).to_string().into_bytes();
    let mut manifest = manifest_of(&config, &layers);
    manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    manifest["config"] = descriptor("application/vnd.docker.container.image.v1+json", &config);
    assert_ne!(manifest["config"]["mediaType"], CONFIG);
    let content = Content::default().blob(config).layers(&layers).manifest("latest", &manifest);
    let registry = Registry::plain(content).await;
    Place::new().pull(&registry.request("app")).await.unwrap();
}
