//! Whose bearer token this is: asks the token file, then the service accounts, then the issuer of
//! `--oidc-issuer-url`; the first that knows it, knows it.

use std::sync::Arc;

use commonage_schemas::{GROUP, TaskState};
use jiff::Timestamp;
use serde_json::Value;

use super::UserInfo;
use super::oidc::Oidc;
use super::service_accounts::{Found, ServiceAccounts};
use super::tokens::{Tokens, digest};
use crate::engine::Engine;

const UNKNOWN: &str = "invalid bearer token";

pub(crate) struct Authenticator {
    tokens: Tokens,
    accounts: ServiceAccounts,
    oidc: Option<Arc<Oidc>>,
    /// Whom tokens have to be for that are shown to this server.
    audiences: Vec<String>,
}

/// A token that somebody knows.
struct Known {
    user: Arc<UserInfo>,
    /// `None` for tokens that do not say whom they are for: for this server, then.
    audiences: Option<Vec<String>>,
}

impl Authenticator {
    /// `audiences` empty: the issuers of our own tokens, as in kube-apiserver.
    pub(crate) fn new(
        tokens: Tokens,
        accounts: ServiceAccounts,
        oidc: Option<Oidc>,
        audiences: Vec<String>,
    ) -> Authenticator {
        let audiences = if audiences.is_empty() { accounts.issuers().to_vec() } else { audiences };
        Authenticator { tokens, accounts, oidc: oidc.map(Arc::new), audiences }
    }

    pub(crate) fn accounts(&self) -> &ServiceAccounts {
        &self.accounts
    }

    pub(crate) fn oidc(&self) -> Option<&Arc<Oidc>> {
        self.oidc.as_ref()
    }

    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// Why it is nobody, for the log.
    pub(crate) async fn user(&self, engine: &Engine, token: &str) -> Result<Arc<UserInfo>, String> {
        let known = self.find(engine, token).await?;
        self.audiences_of(&known, &self.audiences).map(|_| known.user)
    }

    /// The user of a token that was shown to somebody else, and for which of the audiences asked
    /// for it is good. No audience asked for means this server's.
    ///
    /// # Errors
    /// Why it is nobody, in Kubernetes' words.
    pub(crate) async fn review(
        &self,
        engine: &Engine,
        token: &str,
        asked: &[String],
    ) -> Result<(Arc<UserInfo>, Vec<String>), String> {
        let asked = if asked.is_empty() { &self.audiences } else { asked };
        let known = self.find(engine, token).await?;
        let audiences = self.audiences_of(&known, asked)?;
        Ok((known.user, audiences))
    }

    async fn find(&self, engine: &Engine, token: &str) -> Result<Known, String> {
        let digest = digest(token);
        if let Some(user) = self.tokens.user_by(&digest) {
            return Ok(Known { user, audiences: None });
        }
        let lookup =
            |plural: &str, namespace: &str, name: &str| find(engine, plural, namespace, name);
        let now_s = Timestamp::now().as_second();
        if let Some(answer) = self.accounts.recognize(token, digest, now_s, &lookup) {
            let verified = answer.map_err(|why| format!("[{UNKNOWN}, {why}]"))?;
            let audiences = Some(verified.audiences.clone()).filter(|list| !list.is_empty());
            return Ok(Known { user: verified.user.clone(), audiences });
        }
        let Some(oidc) = &self.oidc else { return Err(UNKNOWN.to_owned()) };
        match oidc.recognize(token, now_s).await {
            None => Err(UNKNOWN.to_owned()),
            Some(Err(why)) => Err(format!("[{UNKNOWN}, {why}]")),
            Some(Ok(user)) => Ok(Known { user, audiences: None }),
        }
    }

    fn audiences_of(&self, known: &Known, asked: &[String]) -> Result<Vec<String>, String> {
        let own = known.audiences.as_deref().unwrap_or(&self.audiences);
        let both: Vec<String> = asked.iter().filter(|one| own.contains(one)).cloned().collect();
        match (both.is_empty(), &known.audiences) {
            (false, _) => Ok(both),
            (true, None) => Err(UNKNOWN.to_owned()),
            (true, Some(own)) => Err(format!(
                "[{UNKNOWN}, token audiences {} is invalid for the target audiences {}]",
                go_list(own),
                go_list(asked)
            )),
        }
    }
}

/// As Go prints a list of texts.
fn go_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// An object that a token depends on. A pod is a view of the Task of the same name, a node of the Agent.
pub(crate) fn find(engine: &Engine, plural: &str, namespace: &str, name: &str) -> Option<Found> {
    if plural == "tasks" {
        let task = engine.cached(GROUP, plural, namespace, name)?;
        return Some(Found { uid: task.uid.clone(), deleting: is_over(&task.to_value()) });
    }
    let (group, plural) = match plural {
        "pods" => (GROUP, "tasks"),
        "nodes" => (GROUP, "agents"),
        plural => ("", plural),
    };
    let object = engine.cached(group, plural, namespace, name)?;
    Some(Found { uid: object.uid.clone(), deleting: object.deleting })
}

/// A task that is told to end may still say something on its way.
fn is_over(task: &Value) -> bool {
    let state = serde_json::from_value::<TaskState>(task["status"]["state"].clone());
    state.is_ok_and(TaskState::is_terminal)
}
