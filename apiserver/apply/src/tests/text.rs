//! Entries that stay text. That the same comes of them as of trees, [`Cluster::update`] checks in every
//! test of updates.

use serde_json::json;

use super::{Cluster, Unusual, Writer, body, record_text, schema};
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
