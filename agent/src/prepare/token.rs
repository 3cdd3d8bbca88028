//! A task's own token: asked for at the API server with the agent's rights, and renewed while the task runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use commonage_schemas::Task;
use commonage_schemas::reasons::task as reasons;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::{Files, Outcome, Workshop, again, failed};
use crate::report::status_code;
use crate::runtime::describe;

/// How long a token is good, as Kubernetes' kubelet has it.
const VALID_FOR_S: i64 = 3600;
/// A token this old is replaced: early enough that a server which is away for a while is no harm.
const RENEWED_AFTER: Duration = Duration::from_secs(40 * 60);
/// The file that is replaced.
const TOKEN: &str = "token";

impl Workshop {
    /// The files that Kubernetes' clients expect.
    pub(super) async fn token(&self, task: &Task) -> Result<Files, Outcome> {
        let token = request(&self.client, task).await.map_err(|error| {
            let what = format!("spec.container.apiToken: {}", describe(&error));
            match status_code(&error) {
                Some(400..=428 | 430..=499) => failed(reasons::MOUNT_FAILED, what),
                _ => again(reasons::MOUNT_FAILED, what),
            }
        })?;
        let namespace = task.namespace().unwrap_or_default();
        Ok(Files::from([
            (TOKEN.to_owned(), token.into_bytes()),
            ("ca.crt".to_owned(), self.ca_pem.clone().into_bytes()),
            ("namespace".to_owned(), namespace.into_bytes()),
        ]))
    }
}

async fn request(client: &Client, task: &Task) -> Result<String, kube::Error> {
    let api: Api<Task> = Api::namespaced(client.clone(), &task.namespace().unwrap_or_default());
    let spec = TokenRequestSpec { expiration_seconds: Some(VALID_FOR_S), ..Default::default() };
    let order = TokenRequest { spec: Some(spec), ..Default::default() };
    let name = task.name_any();
    let answer: TokenRequest =
        api.create_subresource("token", &name, &PostParams::default(), &order).await?;
    let token = answer.status.and_then(|status| status.token);
    token.ok_or_else(|| {
        kube::Error::SerdeError(serde::de::Error::custom("an answer without a token"))
    })
}

/// Replaces the token in a directory if it is old. What is mounted there sees the new file. A failure is worth a
/// line: the next look tries again.
pub(crate) async fn renew(client: &Client, task: &Task, directory: &Path) {
    if !is_due(directory) {
        return;
    }
    let renewed = match request(client, task).await {
        Ok(token) => replace(directory, &token).map_err(|error| error.to_string()),
        Err(error) => Err(describe(&error)),
    };
    if let Err(error) = renewed {
        tracing::warn!(task = task.name_any(), error, "a task's token can't be renewed");
    }
}

fn is_due(directory: &Path) -> bool {
    let written = fs::metadata(directory.join(TOKEN)).and_then(|file| file.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > RENEWED_AFTER))
}

/// In one step: a reader sees the old one or the new one.
fn replace(directory: &Path, token: &str) -> std::io::Result<()> {
    let new = directory.join(".token");
    fs::write(&new, token)?;
    fs::rename(new, directory.join(TOKEN))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_due_when_it_is_old_and_replaced_in_one_step() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_due(directory.path()), "there is none");
        replace(directory.path(), "first").unwrap();
        assert!(!is_due(directory.path()), "it is new");
        let old = std::time::SystemTime::now() - RENEWED_AFTER - Duration::from_secs(1);
        let file = fs::File::options().write(true).open(directory.path().join(TOKEN)).unwrap();
        file.set_modified(old).unwrap();
        assert!(is_due(directory.path()));
        replace(directory.path(), "second").unwrap();
        assert!(!is_due(directory.path()));
        assert_eq!(fs::read_to_string(directory.path().join(TOKEN)).unwrap(), "second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
