//! A task's own token: asked for at the API server with the agent's rights, and renewed while the task runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use commonage_schemas::Task;
use commonage_schemas::reasons::task as reasons;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;

use super::{Files, Outcome, Workshop, again, failed};
use crate::report::status_code;
use crate::runtime::describe;

/// How long a token is good, as Kubernetes' kubelet has it.
const VALID_FOR_S: i64 = 3600;
/// A token is replaced after this share of its life: early enough that a server which is away for a while is no
/// harm. A server may give tokens of a shorter life than asked for.
const RENEWED_AFTER: f64 = 2.0 / 3.0;
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

/// By this machine's own clock, from when it was written: the server's may be another.
fn is_due(directory: &Path) -> bool {
    let path = directory.join(TOKEN);
    let written = fs::metadata(&path).and_then(|file| file.modified());
    let life = fs::read_to_string(path).ok().and_then(|token| life_of(&token));
    let life = life.unwrap_or(Duration::from_secs(VALID_FOR_S.unsigned_abs()));
    let due = life.mul_f64(RENEWED_AFTER);
    written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > due))
}

/// From its beginning to its end, as its claims say. It is not verified: it is ours.
fn life_of(token: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        iat: u64,
        exp: u64,
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    claims.exp.checked_sub(claims.iat).map(Duration::from_secs)
}

/// In one step: a reader sees the old one or the new one.
fn replace(directory: &Path, token: &str) -> std::io::Result<()> {
    let new = directory.join(".token");
    fs::write(&new, token)?;
    let owner = fs::metadata(directory)?;
    std::os::unix::fs::chown(&new, Some(owner.uid()), Some(owner.gid()))?;
    fs::rename(new, directory.join(TOKEN))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As a server would make one, whose signature nobody here looks at.
    fn token(life_s: u64) -> String {
        let claims = serde_json::json!({"iat": 1_800_000_000_u64, "exp": 1_800_000_000 + life_s});
        format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn a_token_is_due_after_two_thirds_of_its_life_and_replaced_in_one_step() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_due(directory.path()), "there is none");
        let written = |token: &str, age_s: u64| {
            replace(directory.path(), token).unwrap();
            let path = directory.path().join(TOKEN);
            let at = std::time::SystemTime::now() - Duration::from_secs(age_s);
            fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), token);
            is_due(directory.path())
        };
        for (token, age_s, due) in [
            (token(3600), 0, false),
            (token(3600), 2390, false),
            (token(3600), 2410, true),
            // Shorter than was asked for.
            (token(600), 390, false),
            (token(600), 410, true),
            // Of some other make: as long as it was asked for.
            ("opaque".to_owned(), 2390, false),
            ("opaque".to_owned(), 2410, true),
        ] {
            assert_eq!(written(&token, age_s), due, "{token} after {age_s} s");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
