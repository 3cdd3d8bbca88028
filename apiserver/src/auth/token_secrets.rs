//! Secrets of type `kubernetes.io/service-account-token`: tokens of service accounts as they were before
//! they expired. Whoever makes such a Secret finds a token in it; it goes with its account.
//!
//! Only this server can sign, so it fills them in itself. Every server does; whoever is second finds
//! nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::service_accounts::{Bound, BoundKind, Holder, Order, ServiceAccounts};
use crate::cache::EventKind;
use crate::engine::{
    DeleteOptions, Engine, ListOptions, Target, WatchOptions, WriteOptions, take_version,
};
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::selector::FieldSelector;
use crate::status::ApiError;

const SELECTOR: &str = "type=kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Such a token has no end of its own: ten years stand for that.
const VALID_FOR_S: i64 = 10 * 365 * 24 * 60 * 60;
/// After something went wrong; everything is looked at again then.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const WATCH_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Keeps these Secrets as they should be.
pub(crate) struct TokenSecrets<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) accounts: &'a ServiceAccounts,
    /// What shows clients that they talk to this cluster.
    pub(crate) ca_pem: &'a str,
}

impl TokenSecrets<'_> {
    /// Until `stop`.
    pub(crate) async fn follow(&self, stop: &CancellationToken) {
        let scheme = self.engine.scheme();
        let (Some(secrets), Some(accounts)) =
            (scheme.by_kind("", "Secret"), scheme.by_kind("", "ServiceAccount"))
        else {
            return;
        };
        let work = async {
            loop {
                if let Err(error) = self.follow_once(secrets, accounts).await {
                    tracing::warn!(%error, "tokens in secrets wait; trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// Until one of the watches ends.
    async fn follow_once(
        &self,
        secrets: &Arc<ResourceDef>,
        accounts: &Arc<ResourceDef>,
    ) -> Result<(), ApiError> {
        let mut of_accounts = self.engine.watch(accounts, None, watch(None)).await?;
        let selector = FieldSelector::parse(SELECTOR)?;
        let mut of_secrets = self.engine.watch(secrets, None, watch(Some(selector))).await?;
        loop {
            tokio::select! {
                chunk = of_secrets.next() => {
                    let Some(chunk) = chunk else { return Ok(()) };
                    for event in chunk.events().iter().filter(|event| event.kind != EventKind::Deleted) {
                        if let Some(secret) = &event.object {
                            self.settle(secrets, secret).await?;
                        }
                    }
                }
                chunk = of_accounts.next() => {
                    let Some(chunk) = chunk else { return Ok(()) };
                    for event in chunk.events().iter().filter(|event| event.kind == EventKind::Deleted) {
                        if let Some(account) = &event.object {
                            self.settle_all(secrets, account.namespace()).await?;
                        }
                    }
                }
            }
        }
    }

    async fn settle_all(&self, def: &Arc<ResourceDef>, namespace: &str) -> Result<(), ApiError> {
        let field_selector = Some(FieldSelector::parse(SELECTOR)?);
        let options =
            ListOptions { field_selector, resource_version: Some(0), ..Default::default() };
        for secret in self.engine.list(def, Some(namespace), options).await?.items {
            self.settle(def, &secret).await?;
        }
        Ok(())
    }

    async fn settle(&self, def: &Arc<ResourceDef>, secret: &Object) -> Result<(), ApiError> {
        let (namespace, name) = (secret.namespace(), secret.name());
        let done = match self.filled(secret) {
            Wanted::Nothing => return Ok(()),
            Wanted::Gone => {
                let delete =
                    DeleteOptions { uid: Some(secret.uid.to_string()), ..DeleteOptions::default() };
                let options = WriteOptions::default();
                self.engine.delete(def, namespace, name, delete, options).await.map(drop)
            }
            Wanted::Filled(_) => {
                let target = &Target::new(def, namespace, name, None);
                let fill = |current: Arc<Object>| async move {
                    match self.filled(&current) {
                        Wanted::Filled(new) => {
                            self.engine.store_edit(target, &current, &new, false).await.map(drop)
                        }
                        Wanted::Nothing | Wanted::Gone => Ok(()),
                    }
                };
                self.engine.retrying(target, move |current| fill(current).boxed()).await
            }
        };
        // Somebody else was there first.
        done.or_else(|error| if matches!(error.code, 404 | 409) { Ok(()) } else { Err(error) })
    }

    /// What is to become of a Secret.
    fn filled(&self, secret: &Object) -> Wanted {
        if secret.deleting {
            return Wanted::Nothing;
        }
        let mut new = secret.to_value();
        take_version(&mut new);
        let annotation = |name: &str| {
            new["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned()
        };
        let (name, uid) = (annotation(ACCOUNT), annotation(ACCOUNT_UID));
        let found = self.engine.cached("", "serviceaccounts", secret.namespace(), &name);
        let Some(account) = found.filter(|found| !found.deleting) else { return Wanted::Gone };
        if !uid.is_empty() && *uid != *account.uid {
            return Wanted::Gone;
        }
        let before = new.clone();
        new["metadata"]["annotations"][ACCOUNT_UID] = (*account.uid).into();
        let has =
            |new: &Value, key: &str| !new["data"][key].as_str().unwrap_or_default().is_empty();
        for (key, text) in [("ca.crt", self.ca_pem), ("namespace", secret.namespace())] {
            if !has(&new, key) {
                new["data"][key] = BASE64_STANDARD.encode(text).into();
            }
        }
        if !has(&new, "token") {
            let bound = Bound {
                kind: BoundKind::Secret,
                name: secret.name().to_owned(),
                uid: secret.uid.to_string(),
            };
            let token = self.accounts.issue(&Order {
                namespace: secret.namespace(),
                holder: Holder::Account,
                name: &name,
                uid: &account.uid,
                audiences: self.accounts.issuers(),
                now_s: Timestamp::now().as_second(),
                valid_for_s: VALID_FOR_S,
                bound: Some(&bound),
            });
            let Some(token) = token else { return Wanted::Nothing };
            new["data"]["token"] = BASE64_STANDARD.encode(token).into();
        }
        if new == before { Wanted::Nothing } else { Wanted::Filled(new) }
    }
}

enum Wanted {
    Nothing,
    Gone,
    Filled(Value),
}

/// The present state, and what becomes of it.
fn watch(field_selector: Option<FieldSelector>) -> WatchOptions {
    WatchOptions {
        label_selector: None,
        field_selector,
        resource_version: None,
        version_match: None,
        bookmarks: false,
        send_initial_events: None,
        timeout: WATCH_TIMEOUT,
    }
}
