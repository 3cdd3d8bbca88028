//! The rules of our kinds, through the engine.
#![allow(clippy::unwrap_used)]

mod offer;
mod operations;
mod task;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::UserInfo;
use crate::engine::WriteOptions;
use crate::engine::tests::{World, options, task as new_task};
use crate::status::ApiError;

fn as_user(user: UserInfo) -> WriteOptions {
    WriteOptions { user: Arc::new(user), ..options() }
}

/// The fields that an error complains about.
fn fields(error: &ApiError) -> Vec<&str> {
    error.details.as_ref().unwrap().causes.iter().map(|cause| cause.field.as_str()).collect()
}

fn states(task: &Value) -> Vec<&str> {
    let history = task["status"]["history"].as_array().unwrap();
    history.iter().map(|entry| entry["state"].as_str().unwrap()).collect()
}

/// With some memory, without which no task fits.
fn offer(name: &str, mut resources: Value) -> Value {
    if resources["memory"].is_null() {
        resources["memory"] = json!("32Mi");
    }
    json!({
        "apiVersion": "commonage.dev/v1", "kind": "Offer", "metadata": {"name": name},
        "spec": {"framework": "spark", "queue": "eng.batch", "agent": "node-1", "resources": resources},
    })
}
