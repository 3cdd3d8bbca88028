//! YAML as Kubernetes' decoder reads it: octal numbers of YAML 1.1, whole numbers without a fraction.

use serde_json::Value;
use serde_saphyr::Options;
use serde_saphyr::options::DuplicateKeyPolicy;

/// A document, and the line of the first key that is there twice (the last one wins).
///
/// # Errors
/// Not YAML: the first line of why.
pub(crate) fn decode_yaml(bytes: &[u8]) -> Result<(Value, Option<u64>), String> {
    let mut options = Options::default();
    options.legacy_octal_numbers = true;
    let (mut value, line) = match serde_saphyr::from_slice_with_options(bytes, options.clone()) {
        Ok(value) => (value, None),
        Err(strict) => {
            options.duplicate_keys = DuplicateKeyPolicy::LastWins;
            let value: Value = serde_saphyr::from_slice_with_options(bytes, options)
                .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
            let line = strict.location().map_or(0, |location| location.line());
            (value, Some(line))
        }
    };
    whole(&mut value);
    Ok((value, line))
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
        assert_eq!(decode_yaml(text.as_bytes()).unwrap(), (wanted, None));
        assert_eq!(decode_yaml(b"a: 1\na: 2\n").unwrap().0, json!({"a": 2}));
        assert!(decode_yaml(b"a: 1\na: 2\n").unwrap().1.is_some());
        assert!(decode_yaml(b"a: [").is_err());
    }
}
