//! Namespaces that always exist.
//!
//! What becomes of those that are deleted is the namespace controller's business.

use std::sync::Arc;

use serde_json::json;

use super::{Engine, WriteOptions};
use crate::kinds::namespace::SYSTEM_NAMESPACES;

/// Who makes the namespaces that always exist.
const SYSTEM_MANAGER: &str = "kube-apiserver";

impl Engine {
    pub(super) async fn make_system_namespaces(self: &Arc<Self>) -> anyhow::Result<()> {
        let Some(def) = self.namespaces.clone() else { return Ok(()) };
        for name in SYSTEM_NAMESPACES {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let manager = Some(SYSTEM_MANAGER.to_owned());
            let options = WriteOptions { field_manager: manager, ..WriteOptions::default() };
            match self.create(&def, "", body, options).await {
                Ok(_) => {}
                Err(error) if error.reason == "AlreadyExists" => {}
                Err(error) => anyhow::bail!("namespace {name} can't be made: {error}"),
            }
        }
        Ok(())
    }
}
