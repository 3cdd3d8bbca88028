//! Bodies written by hand, byte for byte.
#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, content.len() as u8];
    bytes.extend_from_slice(content);
    bytes
}

fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), long(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn a_config_map_becomes_its_json() {
    let label = [field(1, b"app"), field(2, b"a")].concat();
    // An empty namespace and a zero creationTimestamp, as Go always sends them.
    let meta = [field(1, b"c"), field(3, b""), field(8, b""), field(11, &label)].concat();
    let data = [field(1, b"k"), field(2, b"v")].concat();
    let raw = [field(1, &meta), field(2, &data), field(3, &data), vec![4 << 3, 1]].concat();
    assert_eq!(
        decode(&envelope("ConfigMap", &raw)).unwrap(),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "c", "labels": {"app": "a"}},
            "data": {"k": "v"},
            "binaryData": {"k": "dg=="},
            "immutable": true,
        })
    );
}

#[test]
fn a_lease_keeps_its_microseconds_and_its_empty_holder() {
    // 2026-01-02T03:04:05.000006Z
    let time = [vec![8], varint(1_767_323_045), vec![16], varint(6000)].concat();
    let spec = [field(1, b""), vec![2 << 3, 15], field(4, &time)].concat();
    let lease = decode(&envelope("Lease", &field(2, &spec))).unwrap();
    assert_eq!(
        lease["spec"],
        json!({
            "holderIdentity": "",
            "leaseDurationSeconds": 15,
            "renewTime": "2026-01-02T03:04:05.000006Z",
        })
    );
}

#[test]
fn a_definition_brings_its_schema_however_deep() {
    let integer = [field(5, b"integer"), vec![9 << 3 | 1], 2.0f64.to_le_bytes().to_vec()].concat();
    let list = [field(5, b"array"), long(24, &field(1, &integer))].concat();
    let map = [field(5, b"object"), long(30, &[vec![8, 1], field(2, &list)].concat())].concat();
    let default = long(8, &field(1, b"{\"a\":[1]}"));
    let property = [field(1, b"p"), field(2, &[map, default].concat())].concat();
    let schema =
        [field(5, b"object"), [varint(18 << 3), vec![0]].concat(), long(29, &property)].concat();
    let version =
        [field(1, b"v1"), vec![2 << 3, 1, 3 << 3, 1], long(4, &field(1, &schema))].concat();
    let names = [field(1, b"widgets"), field(4, b"Widget")].concat();
    let spec =
        [field(1, b"example.com"), field(3, &names), field(4, b"Cluster"), long(7, &version)];
    let raw = long(2, &spec.concat());
    let definition = decode(&envelope("CustomResourceDefinition", &raw)).unwrap();
    assert_eq!(definition["spec"]["names"], json!({"plural": "widgets", "kind": "Widget"}));
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["served"], true);
    assert_eq!(
        version["schema"]["openAPIV3Schema"],
        json!({"type": "object", "properties": {"p": {
            "type": "object", "default": {"a": [1]},
            "additionalProperties": {
                "type": "array", "items": {"type": "integer", "maximum": 2},
            },
        }}})
    );
}

/// A field with a number or a length of two bytes.
fn long(number: u64, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn events_are_read_as_their_group_has_them() {
    let about = [field(1, b"Task"), field(3, b"t")].concat();
    let meta = field(1, &field(1, b"e"));
    let in_group = |group: &str, number: u8| {
        let type_meta = [field(1, group.as_bytes()), field(2, b"Event")].concat();
        let raw = [meta.clone(), field(number, &about)].concat();
        decode(&[MAGIC.to_vec(), field(1, &type_meta), field(2, &raw)].concat()).unwrap()
    };
    let task = json!({"kind": "Task", "name": "t"});
    assert_eq!(in_group("events.k8s.io/v1", 8)["regarding"], task);
    assert_eq!(in_group("v1", 2)["involvedObject"], task);
}

#[test]
fn nonsense_is_refused() {
    let whole = envelope("ConfigMap", &field(1, &field(1, b"c")));
    assert!(decode(&whole).is_some());
    for cut in 5..whole.len() - 4 {
        let _ = decode(&whole[..cut]);
    }
    assert!(decode(b"{}").is_none());
    assert!(decode(&envelope("Pod", b"")).is_none());
    assert!(decode(&envelope("ConfigMap", &[0x0a, 0xff])).is_none());
}
