//! Rows F-67 and F-69: what is wrong or made to do harm is refused with its field or entry, and nothing is kept.

use commonage_image::{Digest, Error, Limits, Options};
use serde_json::{Value, json};

use crate::made::{
    Content, INDEX, Layer, MANIFEST, Packed, config_of, descriptor, files, manifest_of,
};
use crate::server::{Place, Registry, Seen, Twist};

fn layer() -> Layer {
    Layer::new(&files(&[("a", b"hello")]), Packed::Gzip)
}

/// The refusal of an image whose documents were changed.
async fn changed(change: impl Fn(&mut Value, &mut Value)) -> Error {
    let layers = [layer()];
    let mut config = config_of(&layers);
    let mut manifest = manifest_of(b"", &layers);
    change(&mut config, &mut manifest);
    let bytes = config.to_string().into_bytes();
    if manifest["config"]["size"] == json!(0) {
        manifest["config"] = descriptor(crate::made::CONFIG, &bytes);
    }
    let content = Content::default().blob(bytes).layers(&layers).manifest("1", &manifest);
    let registry = Registry::plain(content).await;
    Place::new().refused(&registry.request("app:1")).await
}

#[track_caller]
fn invalid(error: &Error, field: &str) {
    assert!(matches!(error, Error::Invalid(text) if text.contains(field)), "{field}: {error:?}");
}

#[tokio::test]
async fn wrong_documents_are_refused_with_their_field() {
    invalid(&changed(|_, m| m["schemaVersion"] = json!(1)).await, "manifest.schemaVersion");
    invalid(&changed(|_, m| m["mediaType"] = json!(INDEX)).await, "manifest.mediaType");
    invalid(&changed(|_, m| m["layers"][0]["mediaType"] = json!("x")).await, "layers[0].mediaType");
    invalid(&changed(|_, m| m["layers"][0]["digest"] = json!("md5:1")).await, "layers[0].digest");
    let many = |m: &mut Value| m["layers"] = json!(vec![m["layers"][0].clone(); 10_000]);
    invalid(&changed(|_, m| many(m)).await, "manifest.layers: has 10000");
    invalid(&changed(|c, _| c["rootfs"]["diff_ids"] = json!([])).await, "config.rootfs.diff_ids");
    let other = Digest::of(b"other").to_string();
    invalid(&changed(|c, _| c["rootfs"]["diff_ids"] = json!([other])).await, "diff_ids says");
    invalid(&changed(|_, m| m["layers"][0]["size"] = json!(7)).await, "layers[0]: size");
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_refused() {
    let content = Content::image(&[layer()]);
    let config = manifest_config(&content);
    for (part, field) in [("/manifests/", "manifest"), (config.as_str(), "config: size")] {
        let part = part.to_owned();
        let twist =
            move |seen: &Seen| seen.path.contains(&part).then(|| Twist::Body(b"{}".to_vec()));
        let digest = content.digest("1");
        let registry = Registry::twisted(content.clone(), twist).await;
        let error = Place::new().refused(&registry.request(&format!("app@{digest}"))).await;
        invalid(&error, field);
    }
    // One bit of a layer, everything else right.
    let mut flipped = layer().blob;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let of_layer = Digest::of(&layer().blob).to_string();
    let registry = Registry::twisted(content, move |seen| {
        seen.path.ends_with(&of_layer).then(|| Twist::Body(flipped.clone()))
    })
    .await;
    let error = Place::new().refused(&registry.request("app:1")).await;
    invalid(&error, "layers[0]: digest");
}

fn manifest_config(content: &Content) -> String {
    let manifest: Value = serde_json::from_slice(&content.manifests["1"].1).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn indexes_that_go_in_circles_or_are_huge_end() {
    // A true circle would need a broken hash; what remains is a chain that never ends, and a lie.
    let mut content = Content::default();
    let mut inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    for depth in 0..6 {
        content = content.manifest(&depth.to_string(), &inner);
        let entry = descriptor(INDEX, inner.to_string().as_bytes());
        inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    }
    let content = content.manifest("1", &inner);
    let registry = Registry::plain(content).await;
    invalid(&Place::new().refused(&registry.request("app:1")).await, "index.manifests");
    let entry = descriptor(MANIFEST, b"x");
    let huge = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 2000]});
    let registry = Registry::plain(Content::default().manifest("1", &huge)).await;
    invalid(&Place::new().refused(&registry.request("app:1")).await, "has 2000 entries");
    let endless = Twist::Body as fn(Vec<u8>) -> Twist;
    let registry =
        Registry::twisted(Content::default(), move |_| Some(endless(vec![b' '; 5 << 20]))).await;
    invalid(&Place::new().refused(&registry.request("app:1")).await, "larger than");
}

/// The refusal of an image of one layer, under small limits.
async fn layer_refused(layer: Layer) -> Error {
    let limits = Limits { unpacked_bytes: 1 << 20, inodes: 1000, ..Limits::default() };
    let place = Place::with(Options { limits, ..Options::default() });
    std::fs::write(place.path().join("secret"), "untouched").unwrap();
    let registry = Registry::plain(Content::image(&[layer])).await;
    let error = place.refused(&registry.request("app:1")).await;
    assert_eq!(place.left()["layers"], 0);
    assert_eq!(std::fs::read_to_string(place.path().join("secret")).unwrap(), "untouched");
    error
}

#[tokio::test]
async fn layers_made_to_do_harm_are_refused_with_their_entry() {
    for (entry, said) in
        [("../../secret", "\"..\""), ("/etc/passwd", "absolute"), ("a/.wh..", "delete")]
    {
        let error = layer_refused(Layer::new(&files(&[(entry, b"x")]), Packed::Gzip)).await;
        invalid(&error, said);
        invalid(&error, entry);
        invalid(&error, "layers[0]");
    }
}

#[tokio::test]
async fn bombs_do_not_go_off() {
    let zeros = vec![0_u8; 8 << 20];
    for packed in [Packed::Gzip, Packed::Zstd, Packed::Plain] {
        let error = layer_refused(Layer::new(&files(&[("zeros", &zeros)]), packed)).await;
        invalid(&error, "\"zeros\"");
    }
    // Behind the end of the archive, where no entry accounts for it.
    let mut tail = files(&[("a", b"x")]);
    tail.resize(64 << 20, 7);
    invalid(&layer_refused(Layer::new(&tail, Packed::Zstd)).await, "more than");
    // A header that is all name.
    let mut long = files(&[("././@LongLink", &zeros)]);
    long[156] = b'L';
    long[148..156].fill(b' ');
    let sum: u32 = long[..512].iter().map(|b| u32::from(*b)).sum();
    long[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    invalid(&layer_refused(Layer::new(&long, Packed::Gzip)).await, "bytes");
}

#[tokio::test]
async fn what_is_no_archive_is_refused() {
    for (blob, media) in [
        (b"no gzip at all".to_vec(), "application/vnd.oci.image.layer.v1.tar+gzip"),
        (b"no zstd at all".to_vec(), "application/vnd.oci.image.layer.v1.tar+zstd"),
        (vec![b'x'; 2000], "application/vnd.oci.image.layer.v1.tar"),
    ] {
        let diff_id = Digest::of(&blob);
        invalid(&layer_refused(Layer { blob, diff_id, media }).await, "layers[0]");
    }
}
