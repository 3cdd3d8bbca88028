//! Entries that stay text. That the same comes of them as of trees, [`Cluster::update`] checks in every
//! test of updates.

use serde_json::json;

use super::{Cluster, Unusual, Writer, body, record, record_new_text, record_text, schema};
use crate::{Types, UPDATE_ENTRIES_MAX};

fn recorded(live: Option<&str>) -> Result<Option<String>, Unusual> {
    let writer = Writer { manager: "m", api_version: "x/v1", subresource: "", now: "T" };
    let (old, new) = (body(json!({"text": "x"})), body(json!({"text": "y"})));
    record_text(&Types::compile(&schema()), &["status"], &old, &new, &writer, live)
}

const MINE: &str = r#"[{"apiVersion":"x/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:text":{}}},"manager":"m","operation":"Update","time":"T"}]"#;

#[test]
fn who_takes_all_of_another_entry_takes_its_place() {
    let other = MINE.replace("\"m\"", "\"other\\n\"").replace("\"T\"", "\"S\"");
    assert_eq!(recorded(Some(&other)), Ok(Some(MINE.to_owned())));
}

#[test]
fn an_object_without_entries_gets_none() {
    assert_eq!(recorded(None), Ok(None));
    assert_eq!(recorded(Some("[]")), Ok(None));
}

#[test]
fn what_is_unusual_is_left_to_the_trees() {
    let unknown = MINE.replace("\"manager\"", "\"new\":1,\"manager\"");
    let no_fields = MINE.replace(r#""fieldsV1":{"f:spec":{"f:text":{}}},"#, "");
    for entries in ["", "{}", "[1]", r#"[{"fieldsV1":[]}]"#, &unknown, &no_fields] {
        assert_eq!(recorded(Some(entries)), Err(Unusual), "{entries}");
    }
    let mut cluster = Cluster::new();
    for number in 0..UPDATE_ENTRIES_MAX {
        cluster.update(&format!("m{number}"), |new| new["spec"][format!("f{number}")] = json!(1));
    }
    let full = serde_json::to_string(&cluster.entries()).unwrap();
    assert_eq!(recorded(Some(&full)), Err(Unusual));
}

/// Each form is met twice: once it is new, once it is known.
#[test]
fn a_new_object_has_the_same_entries_by_its_form() {
    let types = Types::compile(&schema());
    let writer = Writer { manager: "m", api_version: "x/v1", subresource: "", now: "T" };
    let specs = [
        json!({}),
        json!(null),
        json!({"text": "x"}),
        json!({"text": null}),
        json!({"text": 1}),
        json!({"text": {}}),
        json!({"text": {"a": "b"}}),
        json!({"text": [1]}),
        json!({"tex": "", "t": "x"}),
        json!({"inner": {}}),
        json!({"inner": {"a": "x"}}),
        json!({"inner": {"a": "x"}, "text": "x"}),
        json!({"inner": {"a": "x", "text": "x"}}),
        json!({"whole": {}}),
        json!({"whole": {"a": "x"}}),
        json!({"atoms": []}),
        json!({"atoms": ["a", "b"]}),
        json!({"set": []}),
        json!({"set": ["a", "b"]}),
        json!({"set": ["a", "c"]}),
        json!({"set": ["a", "a"]}),
        json!({"env": [{"name": "a", "value": "x"}]}),
        json!({"env": [{"name": "b", "value": "x"}]}),
        json!({"env": [{"name": "b", "tags": ["x"]}, {"name": "a"}]}),
        json!({"env": [{"value": "no name"}]}),
        json!({"ports": [{"port": 1}, {"port": 1, "protocol": "UDP"}]}),
        json!({"port": 1}),
        json!({"port": "http"}),
        json!({"map": {"a": "1", "b": "2"}}),
        json!({"map": {"a": null}}),
        json!({"free": {"a": [1, {"b": {}}], "c": {"d": 1}}}),
        json!({"unknown": {"a": 1}}),
    ];
    let labels = [json!(null), json!({}), json!({"a": "b"}), json!({"a": "c", "d": "e"})];
    for round in 0..2 {
        for (spec, labels) in specs.iter().flat_map(|spec| labels.iter().map(move |l| (spec, l))) {
            let mut new = body(spec.clone());
            new["metadata"]["labels"] = labels.clone();
            new["metadata"]["uid"] = json!(round);
            new["status"] = json!({"state": round});
            let text = record_new_text(&types, &["status"], &new, &writer);
            record(&types, &["status"], None, &mut new, &writer);
            let entries = new["metadata"].get("managedFields").map(|it| it.to_string());
            assert_eq!(text, entries, "{spec} {labels}");
        }
    }
}
