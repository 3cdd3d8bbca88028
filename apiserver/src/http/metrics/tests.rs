//! What `/metrics` says, as text.

use std::collections::HashSet;

use super::*;
use crate::cache::Passed;
use crate::resource::tests::task_def;
use crate::timed_store::Asked;

fn request(def: Option<&Arc<ResourceDef>>) -> Observation<'_> {
    Observation {
        verb: "GET",
        def,
        subresource: "",
        scope: "resource",
        code: 200,
        dry_run: false,
        took: Duration::from_millis(1),
        waited: Duration::ZERO,
    }
}

#[test]
fn a_definition_that_replaces_another_goes_on_with_its_series() {
    let metrics = Metrics::default();
    for _ in 0..2 {
        metrics.observe(&request(Some(&Arc::new(task_def()))));
    }
    let text = metrics.render(&EngineCounts::default());
    let counted = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let counted: Vec<&str> = counted.collect();
    assert!(matches!(counted[..], [line] if line.ends_with(" 2")), "{counted:?}");
}

#[test]
fn requests_are_counted_and_timed() {
    let metrics = Metrics::default();
    for (code, ms, waited_ms) in [(200, 3, 0), (200, 30, 26), (404, 100_000, 0)] {
        metrics.observe(&Observation {
            subresource: "made-up",
            scope: "",
            code,
            took: Duration::from_millis(ms),
            waited: Duration::from_millis(waited_ms),
            ..request(None)
        });
    }
    let text = metrics.render(&EngineCounts::default());
    let labels = "verb=\"GET\",group=\"\",version=\"\",resource=\"\",subresource=\"\",scope=\"\",\
                  component=\"apiserver\"";
    let total = format!("apiserver_request_total{{{labels},code=\"200\",dry_run=\"\"}} 2\n");
    assert!(text.contains(&total), "{text}");
    for (name, le, count) in [
        ("request", "0.005", 1),
        ("request", "0.05", 2),
        ("request", "60", 2),
        ("request", "+Inf", 3),
        // Without its time in line the second was a short one.
        ("request_sli", "0.005", 2),
    ] {
        let name = format!("apiserver_{name}_duration_seconds_bucket");
        let line = format!("{name}{{{labels},le=\"{le}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(!text.contains("made-up"));
}

#[tokio::test]
async fn sizes_of_answers_are_known_at_once_or_counted_to_the_end() {
    use axum::body::{Body, to_bytes};
    let metrics = Metrics::default();
    let known = metrics.observe(&request(None)).measure(Body::from(vec![0; 1000]));
    let pieces = [vec![0; 1_000_000], vec![0; 1]].map(Ok::<_, std::io::Error>);
    let streamed = Body::from_stream(futures::stream::iter(pieces));
    let streamed = metrics.observe(&request(None)).measure(streamed);
    for body in [known, streamed] {
        assert!(to_bytes(body, usize::MAX).await.is_ok());
    }
    let text = metrics.render(&EngineCounts::default());
    for (le, count) in [("1000", 1), ("1e+06", 1), ("1e+07", 2), ("+Inf", 2)] {
        let end = format!(",le=\"{le}\"}} {count}");
        let is_it = |line: &str| {
            line.starts_with("apiserver_response_sizes_bucket{") && line.ends_with(&end)
        };
        assert!(text.lines().any(is_it), "{end}: {text}");
    }
    let sum = text.lines().find(|line| line.starts_with("apiserver_response_sizes_sum{"));
    assert!(sum.is_some_and(|line| line.ends_with(" 1001001")), "{sum:?}");
}

/// What dashboards look for, and what a parser of the format demands.
#[test]
fn the_text_is_prometheus_and_has_kube_apiservers_names() {
    let def = Arc::new(task_def());
    let metrics = Metrics::default();
    let series = metrics.observe(&request(Some(&def)));
    drop(series.measure(axum::body::Body::from("{}")));
    metrics.watch_counters(&def).sizes.observe_all([100, 2000].into_iter());
    let times = Histogram::new(&DURATIONS);
    times.observe(700);
    let counts = EngineCounts {
        objects: vec![("tasks.commonage.dev".to_owned(), 1)],
        store: vec![Asked {
            operation: "create",
            resource: "tasks.commonage.dev".to_owned(),
            times: times.counted(),
            failed: 0,
        }],
        traffic: vec![("commonage.dev".to_owned(), "tasks".to_owned(), Passed::default())],
        ..EngineCounts::default()
    };
    let text = metrics.render(&counts);
    let (mut families, mut samples) = (HashMap::new(), HashSet::new());
    let mut helped = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().unwrap_or_default();
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or_default();
            assert_eq!(name, helped);
            assert!(families.insert(name, kind).is_none(), "{name} comes twice");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(samples.insert(sample), "{sample} comes twice");
        // Samples follow the head of their family.
        let name = sample.split('{').next().unwrap_or_default();
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let histogram = families.get(helped) == Some(&"histogram");
        assert_eq!(if histogram { base } else { name }, helped);
    }
    for (name, kind) in [
        ("apiserver_request_total", "counter"),
        ("apiserver_request_duration_seconds", "histogram"),
        ("apiserver_request_sli_duration_seconds", "histogram"),
        ("apiserver_response_sizes", "histogram"),
        ("apiserver_current_inflight_requests", "gauge"),
        ("apiserver_longrunning_requests", "gauge"),
        ("apiserver_watch_events_total", "counter"),
        ("apiserver_watch_events_sizes", "histogram"),
        ("apiserver_storage_objects", "gauge"),
        ("apiserver_resource_objects", "gauge"),
        ("apiserver_audit_event_total", "counter"),
        ("authentication_attempts", "counter"),
        ("etcd_request_duration_seconds", "histogram"),
        ("etcd_requests_total", "counter"),
        ("etcd_request_errors_total", "counter"),
        ("authentication_duration_seconds", "histogram"),
        ("authorization_attempts_total", "counter"),
        ("authorization_duration_seconds", "histogram"),
        ("apiserver_client_certificate_expiration_seconds", "histogram"),
        ("apiserver_dropped_requests_total", "counter"),
        ("apiserver_tls_handshake_errors_total", "counter"),
        ("apiserver_init_events_total", "counter"),
        ("apiserver_watch_cache_capacity", "gauge"),
        ("apiserver_watch_cache_events_dispatched_total", "counter"),
        ("apiserver_watch_cache_events_received_total", "counter"),
        ("apiserver_watch_cache_initializations_total", "counter"),
        ("apiserver_cache_list_total", "counter"),
        ("apiserver_cache_list_returned_objects_total", "counter"),
        ("apiserver_storage_list_total", "counter"),
        ("kubernetes_build_info", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_max_fds", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_start_time_seconds", "gauge"),
        ("process_virtual_memory_bytes", "gauge"),
    ] {
        assert_eq!(families.get(name), Some(&kind), "{name}");
        let sampled = samples.iter().any(|sample| sample.starts_with(name));
        assert!(sampled, "{name} has no samples");
    }
    let store = "etcd_request_duration_seconds_count{operation=\"create\",\
                 type=\"tasks.commonage.dev\"}";
    assert!(samples.contains(store), "{text}");
}
