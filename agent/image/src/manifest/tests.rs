#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn here() -> Platform {
    Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() }
}

fn parse(value: &Value) -> Result<Document, Error> {
    read(value.to_string().as_bytes(), None, &here(), &Limits::default())
}

fn descriptor(media: &str, content: &[u8]) -> Value {
    json!({"mediaType": media, "digest": Digest::of(content).to_string(), "size": content.len()})
}

fn good() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFESTS[0],
        "config": descriptor(CONFIGS[0], b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+zstd", b"a")],
    })
}

#[test]
fn both_dialects_are_read() {
    let docker = json!({
        "schemaVersion": 2,
        "mediaType": MANIFESTS[1],
        "config": descriptor(CONFIGS[1], b"{}"),
        "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", b"a")],
    });
    for (value, compression) in [(good(), Compression::Zstd), (docker, Compression::Gzip)] {
        let Document::Manifest(manifest) = parse(&value).unwrap() else { panic!("an index") };
        assert_eq!(manifest.layers[0].compression, compression);
        assert_eq!(manifest.layers[0].blob.digest, Digest::of(b"a"));
        assert_eq!(manifest.config.size, 2);
    }
}

#[test]
fn an_index_gives_what_is_for_this_machine() {
    let entry = |arch: &str, content: &[u8]| {
        let mut entry = descriptor(MANIFESTS[0], content);
        entry["platform"] = json!({"os": "linux", "architecture": arch});
        entry
    };
    let index = |manifests: Vec<Value>| json!({"schemaVersion": 2, "mediaType": INDEXES[1], "manifests": manifests});
    let found = parse(&index(vec![entry("arm64", b"1"), entry("amd64", b"2")])).unwrap();
    assert_eq!(found, Document::Index(Descriptor { digest: Digest::of(b"2"), size: 1 }));
    let error = parse(&index(vec![entry("arm64", b"1"), entry("s390x", b"2")])).unwrap_err();
    assert!(matches!(&error, Error::NotFound(text) if text.contains("linux/arm64, linux/s390x")));
    let huge = vec![entry("amd64", b"1"); 1001];
    assert!(parse(&index(huge)).unwrap_err().to_string().contains("index.manifests"));
}

#[test]
fn every_wrong_field_is_named() {
    let with = |pointer: &str, value: Value| {
        let mut manifest = good();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = manifest.pointer_mut(parent).unwrap();
        parent[key] = value;
        manifest
    };
    let layer = good()["layers"][0].clone();
    for (manifest, field) in [
        (with("/schemaVersion", json!(1)), "manifest.schemaVersion"),
        (with("/mediaType", json!("text/plain")), "manifest.mediaType"),
        (with("/mediaType", json!(INDEXES[0])), "manifest.mediaType"),
        (with("/manifests", json!([])), "both"),
        (with("/config", Value::Null), "no config"),
        (with("/config/mediaType", json!("application/x")), "manifest.config.mediaType"),
        (with("/config/digest", json!("sha256:zz")), "manifest.config.digest"),
        (with("/config/size", json!(1_u64 << 40)), "manifest.config.size"),
        (with("/layers", json!([{"mediaType": "x"}])), "manifest.layers[0].mediaType"),
        (with("/layers", json!(vec![layer.clone(); 10_000])), "manifest.layers: has 10000"),
    ] {
        let error = parse(&manifest).unwrap_err();
        assert!(matches!(&error, Error::Invalid(text) if text.contains(field)), "{field}: {error}");
    }
    for (key, value) in
        [("size", json!(-1)), ("size", json!("7")), ("size", Value::Null), ("digest", json!(7))]
    {
        let mut manifest = good();
        manifest["layers"][0][key] = value;
        let error = parse(&manifest).unwrap_err().to_string();
        assert!(error.contains(&format!("manifest.layers[0].{key}")), "{error}");
    }
    let mut far = good();
    far["layers"][0]["size"] = json!(u64::MAX);
    far["layers"].as_array_mut().unwrap().push(layer);
    assert!(parse(&far).unwrap_err().to_string().contains("to download"));
    assert!(read(b"\xff{", None, &here(), &Limits::default()).is_err());
}

/// Whatever a registry says: an answer in words, or a manifest whose every part is named by a digest and within limits.
mod fuzz {
    use proptest::prelude::*;

    use super::*;

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            prop::sample::select(vec![
                MANIFESTS[0],
                MANIFESTS[1],
                CONFIGS[0],
                "application/vnd.oci.image.layer.v1.tar+zstd",
                "sha256:",
                "sha256:../../../etc/passwd",
                "linux",
                "amd64",
            ])
            .prop_map(Value::from),
            Just(Value::from(Digest::of(b"a").to_string())),
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let keys = prop::sample::select(vec![
            "schemaVersion",
            "mediaType",
            "config",
            "layers",
            "manifests",
            "digest",
            "size",
            "platform",
            "os",
            "architecture",
            "urls",
            "fsLayers",
        ]);
        scalar().prop_recursive(4, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((keys.clone(), inner), 0..6).prop_map(|fields| {
                    Value::Object(
                        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                    )
                }),
            ]
        })
    }

    fn look_at(document: Result<Document, Error>, limits: &Limits) {
        match document {
            Ok(Document::Manifest(manifest)) => {
                assert!(manifest.layers.len() <= limits.layers);
                let bytes: u64 = manifest.layers.iter().map(|layer| layer.blob.size).sum();
                assert!(
                    bytes <= limits.compressed_bytes
                        && manifest.config.size <= limits.document_bytes
                );
            }
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::Invalid(_) | Error::NotFound(_)), "{error:?}")
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_document_is_more_than_refused(value in any_value(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let limits = Limits::default();
            look_at(read(value.to_string().as_bytes(), None, &here(), &limits), &limits);
            look_at(read(&bytes, None, &here(), &limits), &limits);
        }

        #[test]
        fn nor_is_a_good_one_with_one_part_of_another(
            part in prop::sample::select(vec![
                "/schemaVersion", "/mediaType", "/config", "/config/digest", "/config/size", "/layers", "/layers/0",
                "/layers/0/digest", "/layers/0/size", "/layers/0/mediaType",
            ]),
            value in any_value(),
        ) {
            let mut manifest = good();
            *manifest.pointer_mut(part).unwrap() = value;
            let limits = Limits { layers: 2, ..Limits::default() };
            look_at(parse_within(&manifest, &limits), &limits);
        }
    }

    fn parse_within(value: &Value, limits: &Limits) -> Result<Document, Error> {
        read(value.to_string().as_bytes(), None, &here(), limits)
    }
}
