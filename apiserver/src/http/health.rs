//! `/livez`, `/readyz`, `/healthz`: does it run, may it be given work, and what of it is broken.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use commonage_store::Store;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{Response, StatusCode};

use super::App;
use super::chain::Call;
use super::respond::{NO_SNIFF, page_not_found, text};

/// A store that takes longer than this to say its revision serves no client in time either.
const STORE_TIME_MAX: Duration = Duration::from_secs(2);

fn checks(probe: &str) -> &'static [&'static str] {
    match probe {
        "readyz" => &["ping", "etcd", "cache", "shutdown"],
        "healthz" => &["ping", "etcd"],
        // A restart mends none of the others.
        _ => &["ping"],
    }
}

async fn holds(app: &App, check: &str) -> bool {
    match check {
        // Whatever the store is: monitors ask for it, or leave it out, by this name.
        "etcd" => tokio::time::timeout(STORE_TIME_MAX, app.store.revision())
            .await
            .is_ok_and(|revision| revision.is_ok()),
        "cache" => app.engine.ready(),
        "shutdown" => !app.draining.load(Relaxed),
        _ => true,
    }
}

/// `only`: of `/livez/ping`, the one check that is asked for.
pub(super) async fn answer(call: &Call<'_>, probe: &str, only: Option<&str>) -> Response<Body> {
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut report = String::new();
    let mut all_hold = true;
    let mut asked = 0;
    for check in checks(probe) {
        if only.is_some_and(|only| only != *check) {
            continue;
        }
        asked += 1;
        if excluded.contains(check) {
            report.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if holds(call.app, check).await {
            report.push_str(&format!("[+]{check} ok\n"));
        } else {
            all_hold = false;
            report.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    if asked == 0 {
        return page_not_found();
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks(probe).contains(name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() && only.is_none() {
        let unknown = unknown.join(",");
        report.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {unknown}\n"
        ));
    }
    if only.is_some() && !all_hold {
        // A check asked for by itself has its own words.
        let why = "internal server error: reason withheld\n";
        let mut response = text(StatusCode::INTERNAL_SERVER_ERROR, why);
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
        return response;
    }
    let verbose = call.query.get("verbose").is_some();
    let mut response = match (all_hold, verbose && only.is_none()) {
        (true, false) => text(StatusCode::OK, "ok"),
        (true, true) => text(StatusCode::OK, format!("{report}{probe} check passed\n")),
        (false, _) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{probe} check failed\n"))
        }
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
}
