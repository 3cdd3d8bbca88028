//! Secrets, ConfigMaps and Volumes: read from the API with the agent's own rights, which reach what its tasks
//! name and nothing else.

use std::collections::HashMap;

use commonage_image::{Credentials, Reference, for_registry};
use commonage_schemas::reasons::task as reasons;
use commonage_schemas::{Task, Volume};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt};

use super::{Files, Outcome, Prepared, Workshop, again, failed, name_of};
use crate::report::status_code;

/// Where registries' credentials are in a Secret of type `kubernetes.io/dockerconfigjson`.
const DOCKER_CONFIG: &str = ".dockerconfigjson";
/// A directory of Volumes, by uid, beside a file that says whose it is.
const VOLUMES: &str = "volumes";

/// Objects by kind and name, each read once.
#[derive(Default)]
struct Read(HashMap<(&'static str, String), Files>);

impl Workshop {
    /// What environment and mounts name.
    pub(super) async fn read_objects(
        &self,
        task: &Task,
        prepared: &mut Prepared,
    ) -> Result<(), Outcome> {
        let container = &task.spec.container;
        let mut read = Read::default();
        for (place, variable) in container.env.iter().enumerate() {
            let Some(from) = &variable.value_from else { continue };
            let field = format!("spec.container.env[{place}].valueFrom");
            let (kind, reference) = match (&from.secret_key_ref, &from.config_map_key_ref) {
                (Some(reference), None) => ("Secret", reference),
                (None, Some(reference)) => ("ConfigMap", reference),
                _ => {
                    return Err(failed(
                        reasons::MOUNT_FAILED,
                        format!("{field}: exactly one of secretKeyRef and configMapKeyRef"),
                    ));
                }
            };
            let files = self.object(task, &mut read, kind, &reference.name, &field).await?;
            let Some(value) = files.get(&reference.key) else {
                let what =
                    format!("{field}: {kind} {:?} has no key {:?}", reference.name, reference.key);
                return Err(again(reasons::MOUNT_FAILED, what));
            };
            let value = String::from_utf8(value.clone()).ok().filter(|v| !v.contains('\0'));
            let Some(value) = value else {
                return Err(failed(
                    reasons::MOUNT_FAILED,
                    format!("{field}: its value is no text"),
                ));
            };
            prepared.env.insert(variable.name.clone(), value);
        }
        for (place, mount) in container.mounts.iter().enumerate() {
            let field = format!("spec.container.mounts[{place}]");
            match (&mount.secret, &mount.config_map, &mount.volume) {
                (Some(name), None, None) => {
                    let field = format!("{field}.secret");
                    let files = self.object(task, &mut read, "Secret", name, &field).await?;
                    prepared.files.insert(place, files);
                }
                (None, Some(name), None) => {
                    let field = format!("{field}.configMap");
                    let files = self.object(task, &mut read, "ConfigMap", name, &field).await?;
                    prepared.files.insert(place, files);
                }
                (None, None, Some(name)) => {
                    let field = format!("{field}.volume");
                    let path = self.volume(task, name, &field).await?;
                    prepared.volumes.insert(place, path);
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn object(
        &self,
        task: &Task,
        read: &mut Read,
        kind: &'static str,
        name: &str,
        field: &str,
    ) -> Result<Files, Outcome> {
        let key = (kind, name.to_owned());
        if let Some(known) = read.0.get(&key) {
            return Ok(known.clone());
        }
        let namespace = task.namespace().unwrap_or_default();
        let files = match kind {
            "Secret" => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
                let secret = api.get(name).await.map_err(|e| missing(kind, name, field, &e))?;
                secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect()
            }
            _ => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
                let map = api.get(name).await.map_err(|e| missing(kind, name, field, &e))?;
                let text = map.data.unwrap_or_default().into_iter();
                let bytes = map.binary_data.unwrap_or_default().into_iter();
                text.map(|(k, v)| (k, v.into_bytes()))
                    .chain(bytes.map(|(k, v)| (k, v.0)))
                    .collect::<Files>()
            }
        };
        // The API sees to it that keys are names of files; a directory's would lead elsewhere.
        if let Some(bad) =
            files.keys().find(|key| matches!(key.as_str(), "" | "." | "..") || key.contains('/'))
        {
            let what =
                format!("{field}: {kind} {name:?} has the key {bad:?}, which is no name of a file");
            return Err(failed(reasons::MOUNT_FAILED, what));
        }
        read.0.insert(key, files.clone());
        Ok(files)
    }

    /// The credentials that a task's pull secrets have for an image's registry.
    pub(super) async fn credentials(
        &self,
        task: &Task,
        reference: &Reference,
    ) -> Result<Option<Credentials>, Outcome> {
        let mut read = Read::default();
        for (place, secret) in task.spec.container.image_pull_secrets.iter().enumerate() {
            let field = format!("spec.container.imagePullSecrets[{place}]");
            let files = self.object(task, &mut read, "Secret", &secret.name, &field).await?;
            let Some(config) = files.get(DOCKER_CONFIG) else {
                let what =
                    format!("{field}: Secret {:?} has no key {DOCKER_CONFIG:?}", secret.name);
                return Err(failed(reasons::IMAGE_PULL_FAILED, what));
            };
            let found = for_registry(config, reference.registry())
                .map_err(|what| failed(reasons::IMAGE_PULL_FAILED, format!("{field}: {what}")))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The directory of a Volume, made when it is mounted for the first time.
    async fn volume(
        &self,
        task: &Task,
        name: &str,
        field: &str,
    ) -> Result<std::path::PathBuf, Outcome> {
        let namespace = task.namespace().unwrap_or_default();
        let api: Api<Volume> = Api::namespaced(self.client.clone(), &namespace);
        let volume = api.get(name).await.map_err(|e| missing("Volume", name, field, &e))?;
        let lies_on = volume.status.as_ref().and_then(|status| status.agent.clone());
        if lies_on.as_deref() != Some(self.agent.as_str()) {
            let on = lies_on.unwrap_or_else(|| "no agent yet".to_owned());
            let what =
                format!("{field}: Volume {name:?} lies on {on}, and the task is on {}", self.agent);
            return Err(again(reasons::MOUNT_FAILED, what));
        }
        let uid = volume.uid().filter(|uid| crate::ledger::is_uid(uid));
        let Some(uid) = uid else {
            return Err(failed(reasons::MOUNT_FAILED, format!("{field}: it has no uid")));
        };
        let home = self.directory.join(VOLUMES);
        let made = tokio::task::spawn_blocking(move || {
            make_volume(&home, &uid, &namespace, &volume.name_any())
        });
        match made.await {
            Ok(Ok(path)) => Ok(path),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                Err(failed(reasons::DISK_FULL, format!("{field}: {error}")))
            }
            Ok(Err(error)) => Err(again(reasons::MOUNT_FAILED, format!("{field}: {error}"))),
            Err(error) => Err(again(reasons::MOUNT_FAILED, format!("{}: {error}", name_of(task)))),
        }
    }
}

/// Removes the content of Volumes whose objects are gone. What the API server does not answer about stays.
pub(crate) async fn collect_volumes(client: &kube::Client, directory: &std::path::Path) {
    let home = directory.join(VOLUMES);
    let entries = std::fs::read_dir(&home).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        let whose = std::fs::read_to_string(path.join("name")).unwrap_or_default();
        let Some((namespace, name)) = whose.trim_end().split_once('/') else { continue };
        let api: Api<Volume> = Api::namespaced(client.clone(), namespace);
        let gone = match api.get(name).await {
            Ok(volume) => volume.uid().as_deref() != entry.file_name().to_str(),
            Err(error) => status_code(&error) == Some(404),
        };
        if !gone {
            continue;
        }
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await;
        tracing::info!(namespace, name, ?removed, "the content of a deleted volume is removed");
    }
}

fn make_volume(
    home: &std::path::Path,
    uid: &str,
    namespace: &str,
    name: &str,
) -> std::io::Result<std::path::PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(home)?;
    let content = home.join(uid).join("content");
    builder.create(&content)?;
    // Whoever the tasks run as; nobody else gets past the directories above.
    std::fs::set_permissions(&content, std::fs::Permissions::from_mode(0o1777))?;
    std::fs::write(home.join(uid).join("name"), format!("{namespace}/{name}\n"))?;
    std::fs::File::open(home)?.sync_all()?;
    Ok(content)
}

/// An object that is not there may come; whoever may not see it has somebody to ask.
fn missing(kind: &str, name: &str, field: &str, error: &kube::Error) -> Outcome {
    let words = match status_code(error) {
        Some(404) => format!("{field}: there is no {kind} {name:?} in the task's namespace"),
        _ => format!("{field}: {kind} {name:?}: {error}"),
    };
    again(reasons::MOUNT_FAILED, words)
}
