#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

fn resources(pairs: &[(&str, &str)]) -> Resources {
    Resources::from_pairs(pairs.iter().copied()).unwrap()
}

fn ranges(text: &str) -> Ranges {
    text.parse().unwrap()
}

#[test]
fn json_in_is_strings_or_numbers_and_out_is_strings() {
    let read: Resources = serde_json::from_value(json!({
        "cpu": 0.5, "memory": "4Gi", "gpu": 1, "ports": "31000-31005,31010",
        "example.com/fpga": "2", "example.com/slots": "7-9", "example.com/keys": "{b, a}",
    }))
    .unwrap();
    assert_eq!(read.cpu_millis(), 500);
    assert_eq!(read.memory_bytes(), 4 << 30);
    assert_eq!(read.gpus(), 1);
    assert_eq!(read.ports().unwrap().len(), 7);
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(
        written,
        json!({
            "cpu": "500m", "memory": "4Gi", "gpu": "1", "ports": "31000-31005,31010",
            "example.com/fpga": "2", "example.com/slots": "7-9", "example.com/keys": "{a,b}",
        })
    );
    assert_eq!(serde_json::from_value::<Resources>(written).unwrap(), read);
}

#[test]
fn json_errors_name_the_resource() {
    for (value, part) in [
        (json!({"memory": "4GB"}), "memory: \"4GB\" is not a quantity"),
        (json!({"cpu": -1}), "cpu: \"-1\" is negative"),
        (json!({"gpu": "500m"}), "gpu: \"500m\" is not a whole number"),
        (json!({"ports": "9-1"}), "ports: \"9-1\" is the wrong way round"),
        (json!({"ports": "70000"}), "ports: \"70000\" is not a range"),
        (json!({"cpu": true}), "an amount of cpu"),
        (json!({"example.com/x": "{a"}), "is not a set"),
        (json!("cpu"), "a map from resource names"),
    ] {
        let message = serde_json::from_value::<Resources>(value).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn parse_errors_come_all_at_once_with_their_fields() {
    let value = json!({"cpu": "x", "cpus": "1", "gpu": 0.5, "memory": null, "disk": "1Gi"});
    let errors = parse_errors("spec.resources", &value);
    let fields: Vec<_> = errors.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.resources.cpu",
            "spec.resources.cpus",
            "spec.resources.gpu",
            "spec.resources.memory"
        ]
    );
    assert!(errors[0].1.starts_with("\"x\" is not a quantity"), "{}", errors[0].1);
    assert!(errors[1].1.contains("did you mean \"cpu\""), "{}", errors[1].1);
    assert!(parse_errors("spec.resources", &json!({"cpu": 1})).is_empty());
    assert_eq!(resources(&[("fpga", "1")]).name_errors().len(), 1);
    assert!(resources(&[("example.com/fpga", "1")]).name_errors().is_empty());
}

#[test]
fn arithmetic_is_checked() {
    let have = resources(&[("cpu", "2"), ("memory", "1Gi"), ("ports", "1-10")]);
    let want = resources(&[("cpu", "500m"), ("memory", "1Gi"), ("ports", "3-4")]);
    let rest = have.checked_sub(&want).unwrap();
    assert_eq!(rest, resources(&[("cpu", "1500m"), ("ports", "1-2,5-10")]));
    assert_eq!(rest.checked_add(&want).unwrap(), have);
    assert_eq!(
        rest.checked_sub(&want).unwrap_err().to_string(),
        "not enough memory: none there, 1Gi wanted"
    );
    let most = resources(&[("disk", "9223372036854775807")]);
    assert!(
        matches!(most.checked_add(&most), Err(ResourcesError::Overflow { name }) if name == "disk")
    );
    assert!(most.scale(2).is_err());
    let set = resources(&[("example.com/x", "{a}")]);
    let number = resources(&[("example.com/x", "1")]);
    assert!(matches!(set.checked_add(&number), Err(ResourcesError::Mismatch { .. })));
    assert!(matches!(set.checked_sub(&number), Err(ResourcesError::Mismatch { .. })));
}

#[test]
fn containment_looks_through_zeros() {
    let have = resources(&[("cpu", "2"), ("ports", "1-10")]);
    assert!(have.contains(&resources(&[("cpu", "2"), ("gpu", "0"), ("ports", "10")])));
    assert!(resources(&[("cpu", "2")]).fits(&have));
    let want = resources(&[("cpu", "3"), ("gpu", "1"), ("ports", "11")]);
    assert_eq!(have.missing(&want), ["cpu", "gpu", "ports"]);
    assert!(resources(&[("cpu", "0")]).is_empty());
    assert_eq!(Resources::new().to_string(), "nothing");
    assert_eq!(have.to_string(), "cpu=2, ports=1-10");
    assert_eq!(have.min(&want), {
        let mut least = resources(&[("cpu", "2")]);
        least.set(PORTS, Amount::Ranges(Ranges::new()));
        least
    });
    assert_eq!(have.scale(3).unwrap(), resources(&[("cpu", "6"), ("ports", "1-10")]));
}

#[test]
fn ranges_have_one_form() {
    assert_eq!(ranges("5,1-3,4,10-12,11").to_string(), "1-5,10-12");
    assert_eq!(ranges("").len(), 0);
    assert_eq!(ranges("0-65535").len(), 65536);
    assert!("1-".parse::<Ranges>().is_err());
    assert!("1,,2".parse::<Ranges>().is_err());
}

#[test]
fn ranges_are_sets() {
    let all = ranges("1-10,20-30,65535");
    assert!(all.contains(&ranges("2-4,20,65535")));
    assert!(!all.contains(&ranges("10-11")));
    assert!(all.has(30) && !all.has(31) && !all.has(0));
    assert_eq!(all.subtract(&ranges("1,5-6,10-25,65535")).to_string(), "2-4,7-9,26-30");
    assert_eq!(all.subtract(&ranges("0-65535")), Ranges::new());
    assert_eq!(ranges("0-65535").subtract(&ranges("0,65535")).to_string(), "1-65534");
    assert_eq!(all.intersect(&ranges("9-21")).to_string(), "9-10,20-21");
    assert_eq!(all.union(&ranges("11-19")).to_string(), "1-30,65535");
    let (taken, rest) = all.take(12).unwrap();
    assert_eq!(taken, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 21]);
    assert_eq!(rest.to_string(), "22-30,65535");
    assert_eq!(all.take(0).unwrap(), (vec![], all.clone()));
    assert_eq!(all.take(22).unwrap().1, Ranges::new());
    assert!(all.take(23).is_none());
}

#[test]
fn schema_is_structural() {
    let schema = schemars::schema_for!(Resources);
    let value = schema.to_value();
    assert_eq!(value["type"], "object");
    assert_eq!(value["additionalProperties"]["x-kubernetes-int-or-string"], true);
}
