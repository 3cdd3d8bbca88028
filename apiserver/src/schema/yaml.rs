//! YAML as Kubernetes' decoder reads it: octal numbers of YAML 1.1, whole numbers without a fraction.

use serde_json::Value;
use serde_saphyr::Options;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::yaml_text;

/// A document, and what Go's decoder says of keys that are there twice (the last one wins).
///
/// # Errors
/// Not YAML: why, as Go says it.
pub(crate) fn decode_yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut options = Options::default();
    options.legacy_octal_numbers = true;
    let mut repeated = Vec::new();
    let read = serde_saphyr::from_slice_with_options(bytes, options.clone()).or_else(|_| {
        let text = String::from_utf8_lossy(bytes);
        let first = yaml_text::first_document(&text);
        repeated = yaml_text::repeated_keys(first)?;
        options.duplicate_keys = DuplicateKeyPolicy::LastWins;
        serde_saphyr::from_slice_with_options(first.as_bytes(), options).map_err(|error| {
            format!("yaml: {}", error.to_string().lines().next().unwrap_or_default())
        })
    });
    let mut value: Value = read?;
    whole(&mut value);
    Ok((value, repeated))
}

/// As for JSON: Go prints 1.0 as 1.
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if let Some(integer) = super::decode::exact(float) {
                *value = integer.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole),
        Value::Object(map) => map.values_mut().for_each(whole),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_those_of_gos_decoder() {
        let text =
            "a: yes\nb: 0777\nc: 1.0\nd: ~\ne: 0x1F\nf: 1.5\ng: \"yes\"\nh: [2.0]\ni: 2020-01-01\n";
        let wanted = json!({
            "a": true, "b": 511, "c": 1, "d": null, "e": 31, "f": 1.5, "g": "yes", "h": [2], "i": "2020-01-01",
        });
        assert_eq!(decode_yaml(text.as_bytes()).unwrap(), (wanted, Vec::new()));
        let (value, repeated) = decode_yaml(b"a: 1\na: 2\n").unwrap();
        assert_eq!(value, json!({"a": 2}));
        assert_eq!(repeated, [r#"line 2: key "a" already set in map"#]);
        let told = decode_yaml(b"a: [").unwrap_err();
        assert_eq!(told, "yaml: line 1: did not find expected node content");
    }

    #[test]
    fn what_follows_the_first_document_is_not_read() {
        for text in
            ["a: 1\n---\nb: 2\n", "a: 1\n---\n", "---\na: 1\n---\nb: [\n", "a: 1\n...\n---\nb: 2\n"]
        {
            assert_eq!(decode_yaml(text.as_bytes()).unwrap().0, json!({"a": 1}), "{text}");
        }
    }
}
