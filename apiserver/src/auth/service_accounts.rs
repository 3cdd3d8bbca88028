//! Tokens of service accounts and of tasks: issued for TokenRequests, and recognized again.
//!
//! Knows claims and their rules, as Kubernetes has them; whether an account is there is asked of
//! the caller. A task's token is the same but for whom it names, and good as long as the task runs. The signature of a token is verified once: who sends it again is looked up by its
//! digest, and only what can change (time, account, bound object) is looked at anew.

mod remembered;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use remembered::Generations;

use super::jwt::{Jwk, SigningKey, Unverified};
use super::{AUTHENTICATED, CREDENTIAL_ID, TASK_PREFIX, TASKS, UserInfo};

/// Whose tokens and for whom, when nothing else is said: kube-apiserver's own default.
pub(crate) const ISSUER_DEFAULT: &str = "https://kubernetes.default.svc.cluster.local";
pub(crate) const USER_PREFIX: &str = "system:serviceaccount:";
const GROUP: &str = "system:serviceaccounts";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// Clocks of machines differ by this much, as Kubernetes allows.
const LEEWAY_S: i64 = 60;

/// An object as far as a token depends on it.
pub(crate) struct Found {
    pub(crate) uid: Box<str>,
    /// It is being deleted; of a task, that it is over.
    pub(crate) deleting: bool,
}

/// Whose a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Account,
    Task,
}

impl Holder {
    fn claim(self) -> &'static str {
        match self {
            Holder::Account => "serviceaccount",
            Holder::Task => "task",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Holder::Account => "serviceaccounts",
            Holder::Task => "tasks",
        }
    }

    fn user(self, namespace: &str, name: &str) -> String {
        let prefix = match self {
            Holder::Account => USER_PREFIX,
            Holder::Task => TASK_PREFIX,
        };
        format!("{prefix}{namespace}:{name}")
    }

    fn groups(self, namespace: &str) -> Vec<String> {
        let group = match self {
            Holder::Account => GROUP,
            Holder::Task => TASKS,
        };
        vec![group.into(), format!("{group}:{namespace}"), AUTHENTICATED.into()]
    }
}

/// Looks up a core kind's object by its plural name, namespace and name.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str, &str, &str) -> Option<Found>;

/// The object that a token lives as long as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoundKind {
    Pod,
    Secret,
    Node,
}

impl BoundKind {
    fn claim(self) -> &'static str {
        match self {
            BoundKind::Pod => "pod",
            BoundKind::Secret => "secret",
            BoundKind::Node => "node",
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            BoundKind::Pod => "pods",
            BoundKind::Secret => "secrets",
            BoundKind::Node => "nodes",
        }
    }

    /// Where such an object is, of an account in this namespace.
    pub(crate) fn namespace(self, of_account: &str) -> &str {
        match self {
            BoundKind::Pod | BoundKind::Secret => of_account,
            BoundKind::Node => "",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) kind: BoundKind,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What a token is to say.
pub(crate) struct Order<'a> {
    pub(crate) holder: Holder,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) audiences: &'a [String],
    /// Seconds since 1970.
    pub(crate) now_s: i64,
    pub(crate) valid_for_s: i64,
    pub(crate) bound: Option<&'a Bound>,
}

/// What a token says whose signature is right.
pub(crate) struct Verified {
    pub(crate) user: Arc<UserInfo>,
    pub(crate) audiences: Vec<String>,
    namespace: String,
    holder: Holder,
    name: String,
    not_before_s: i64,
    expires_s: i64,
    bound: Option<Bound>,
}

pub(crate) struct ServiceAccounts {
    key: SigningKey,
    public: Jwk,
    /// The first one is written into tokens; all are accepted.
    issuers: Vec<String>,
    remembered: Mutex<Generations>,
}

impl ServiceAccounts {
    /// `issuers` empty: the default one.
    pub(crate) fn new(key: SigningKey, issuers: Vec<String>) -> ServiceAccounts {
        let public = Jwk::from_json(&key.jwk()).expect("it comes from a key on P-256");
        let issuers = if issuers.is_empty() { vec![ISSUER_DEFAULT.to_owned()] } else { issuers };
        ServiceAccounts { key, public, issuers, remembered: Mutex::default() }
    }

    pub(crate) fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// The published keys (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        json!({"keys": [self.key.jwk()]})
    }

    /// `None` when the system has no random numbers for us.
    pub(crate) fn issue(&self, order: &Order<'_>) -> Option<String> {
        let Order { holder, namespace, name, uid, audiences, now_s, valid_for_s, bound } = order;
        let mut kubernetes =
            json!({"namespace": namespace, holder.claim(): {"name": name, "uid": uid}});
        if let Some(bound) = bound {
            kubernetes[bound.kind.claim()] = json!({"name": bound.name, "uid": bound.uid});
        }
        self.key.sign(&json!({
            "iss": self.issuers[0],
            "sub": holder.user(namespace, name),
            "aud": audiences,
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + valid_for_s,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": kubernetes,
        }))
    }

    /// `None` when the token is not one of ours at all. `digest` is the token's.
    ///
    /// # Errors
    /// Why it is not accepted, in Kubernetes' words.
    pub(crate) fn recognize(
        &self,
        token: &str,
        digest: [u8; 32],
        now_s: i64,
        lookup: Lookup<'_>,
    ) -> Option<Result<Arc<Verified>, String>> {
        let known = self.remembered.lock().get(&digest);
        let verified = match known {
            Some(verified) => verified,
            None => {
                let token = Unverified::parse(token)?;
                if !self.issuers.iter().any(|issuer| issuer == token.text("iss")) {
                    return None;
                }
                match self.verify(&token) {
                    Ok(verified) => {
                        let verified = Arc::new(verified);
                        self.remembered.lock().insert(digest, verified.clone());
                        verified
                    }
                    Err(why) => return Some(Err(why)),
                }
            }
        };
        Some(verified.holds(now_s, lookup).map(|()| verified))
    }

    fn verify(&self, token: &Unverified<'_>) -> Result<Verified, String> {
        if !self.public.verifies(token) {
            return Err("signature verification failed: error in cryptographic primitive".into());
        }
        let empty = Map::new();
        let kubernetes = token.claims.get("kubernetes.io").and_then(Value::as_object);
        let kubernetes = kubernetes.unwrap_or(&empty);
        let reference = |claim: &str| {
            let text = |field: &str| Some(kubernetes.get(claim)?.get(field)?.as_str()?.to_owned());
            Some((text("name")?, text("uid")?))
        };
        let namespace = kubernetes.get("namespace").and_then(Value::as_str).unwrap_or_default();
        let holder = match kubernetes.contains_key(Holder::Task.claim()) {
            true => Holder::Task,
            false => Holder::Account,
        };
        let (Some((name, uid)), Some(expires_s)) = (reference(holder.claim()), token.time_s("exp"))
        else {
            return Err("service account token claims could not be validated".into());
        };
        let kinds = [BoundKind::Pod, BoundKind::Secret, BoundKind::Node];
        let bound = kinds.into_iter().find_map(|kind| {
            let (name, uid) = reference(kind.claim())?;
            Some(Bound { kind, name, uid })
        });
        let mut extra = BTreeMap::new();
        if let Some(bound) = &bound {
            let said = match bound.kind {
                BoundKind::Pod => Some((POD_NAME, POD_UID)),
                BoundKind::Node => Some((NODE_NAME, NODE_UID)),
                BoundKind::Secret => None,
            };
            if let Some((name, uid)) = said {
                extra.insert(name.to_owned(), vec![bound.name.clone()]);
                extra.insert(uid.to_owned(), vec![bound.uid.clone()]);
            }
        }
        if let id @ 1.. = token.text("jti").len() {
            let id = &token.text("jti")[..id];
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        let user = UserInfo {
            name: holder.user(namespace, &name),
            uid,
            groups: holder.groups(namespace),
            extra,
        };
        Ok(Verified {
            user: Arc::new(user),
            audiences: token.audiences(),
            namespace: namespace.to_owned(),
            holder,
            name,
            not_before_s: token.time_s("nbf").unwrap_or_default(),
            expires_s,
            bound,
        })
    }
}

impl Verified {
    fn holds(&self, now_s: i64, lookup: Lookup<'_>) -> Result<(), String> {
        if now_s > self.expires_s + LEEWAY_S {
            return Err("service account token has expired".into());
        }
        if now_s + LEEWAY_S < self.not_before_s {
            return Err("service account token is not valid yet".into());
        }
        let (namespace, name) = (&self.namespace, &self.name);
        let plural = self.holder.plural();
        let holder = lookup(plural, namespace, name)
            .ok_or_else(|| format!("{plural} {name:?} not found"))?;
        if holder.deleting {
            return Err(match self.holder {
                Holder::Account => format!("service account {namespace}/{name} has been deleted"),
                Holder::Task => format!("task {namespace}/{name} is over"),
            });
        }
        if *holder.uid != *self.user.uid {
            let (found, said) = (&holder.uid, &self.user.uid);
            return Err(match self.holder {
                Holder::Account => {
                    format!("service account UID ({found}) does not match claim ({said})")
                }
                Holder::Task => format!("task UID ({found}) does not match claim ({said})"),
            });
        }
        let Some(bound) = &self.bound else { return Ok(()) };
        let namespace = bound.kind.namespace(&self.namespace);
        match lookup(bound.kind.plural(), namespace, &bound.name) {
            Some(found) if !found.deleting && *found.uid == *bound.uid => Ok(()),
            _ => Err("service account token has been invalidated".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::auth::jwt::tests::new_key;

    const NOW_S: i64 = 1_800_000_000;

    fn issue(accounts: &ServiceAccounts, bound: Option<&Bound>) -> String {
        let order = Order {
            holder: Holder::Account,
            namespace: "ns",
            name: "sa",
            uid: "u1",
            audiences: &["a".into(), "b".into()],
            now_s: NOW_S,
            valid_for_s: 600,
            bound,
        };
        accounts.issue(&order).unwrap()
    }

    fn found(uid: &str) -> Option<Found> {
        Some(Found { uid: uid.into(), deleting: false })
    }

    /// The user, or why not.
    fn ask(
        accounts: &ServiceAccounts,
        token: &str,
        now_s: i64,
        lookup: Lookup<'_>,
    ) -> Result<Arc<UserInfo>, String> {
        let answer = accounts.recognize(token, crate::auth::tokens::digest(token), now_s, lookup);
        answer.unwrap().map(|verified| verified.user.clone())
    }

    #[test]
    fn a_token_is_its_accounts() {
        let accounts = ServiceAccounts::new(new_key(), Vec::new());
        let token = issue(&accounts, None);
        let claims = Unverified::parse(&token).unwrap().claims;
        assert_eq!(claims["iss"], ISSUER_DEFAULT);
        assert_eq!(claims["sub"], "system:serviceaccount:ns:sa");
        assert_eq!(
            claims["kubernetes.io"],
            json!({"namespace": "ns", "serviceaccount": {"name": "sa", "uid": "u1"}})
        );
        let user = ask(&accounts, &token, NOW_S, &|_, _, _| found("u1")).unwrap();
        assert_eq!((&*user.name, &*user.uid), ("system:serviceaccount:ns:sa", "u1"));
        let groups = ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED];
        assert_eq!(user.groups, groups);
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("JTI="));
    }

    #[test]
    fn what_changes_is_looked_at_each_time() {
        let accounts = ServiceAccounts::new(new_key(), Vec::new());
        let token = issue(&accounts, None);
        let ask = |now_s, account: fn() -> Option<Found>| {
            ask(&accounts, &token, now_s, &|_, _, _| account()).map(|_| ())
        };
        let good: fn() -> Option<Found> = || found("u1");
        for _ in 0..2 {
            assert_eq!(ask(NOW_S + 600, good), Ok(()));
            for (answer, says) in [
                (ask(NOW_S + 661, good), "service account token has expired"),
                (ask(NOW_S - 61, good), "service account token is not valid yet"),
                (ask(NOW_S, || None), "serviceaccounts \"sa\" not found"),
                (
                    ask(NOW_S, || Some(Found { uid: "u1".into(), deleting: true })),
                    "service account ns/sa has been deleted",
                ),
                (ask(NOW_S, || found("u2")), "service account UID (u2) does not match claim (u1)"),
            ] {
                assert_eq!(answer, Err(says.to_owned()));
            }
        }
    }

    #[test]
    fn a_bound_token_ends_with_its_object() {
        let accounts = ServiceAccounts::new(new_key(), Vec::new());
        let bound = Bound { kind: BoundKind::Pod, name: "p".into(), uid: "u9".into() };
        let token = issue(&accounts, Some(&bound));
        let with =
            |pod: &'static str| {
                ask(&accounts, &token, NOW_S, &|plural, namespace, name| match (
                    plural, namespace, name,
                ) {
                    ("serviceaccounts", "ns", "sa") => found("u1"),
                    ("pods", "ns", "p") => found(pod),
                    _ => None,
                })
            };
        assert_eq!(with("u9").unwrap().extra[POD_NAME], ["p"]);
        assert_eq!(with("u8").unwrap_err(), "service account token has been invalidated");
    }

    #[test]
    fn a_tasks_token_ends_with_the_task() {
        let accounts = ServiceAccounts::new(new_key(), Vec::new());
        let order = Order {
            holder: Holder::Task,
            namespace: "ns",
            name: "web-0",
            uid: "u1",
            audiences: &[],
            now_s: NOW_S,
            valid_for_s: 600,
            bound: None,
        };
        let token = accounts.issue(&order).unwrap();
        let ask = |task: fn() -> Option<Found>| {
            ask(&accounts, &token, NOW_S, &|plural, _, _| {
                assert_eq!(plural, "tasks");
                task()
            })
        };
        let user = ask(|| found("u1")).unwrap();
        assert_eq!(user.task(), Some(("ns", "web-0")));
        assert_eq!(user.groups, ["system:tasks", "system:tasks:ns", AUTHENTICATED]);
        for (task, says) in [
            ((|| None) as fn() -> Option<Found>, "tasks \"web-0\" not found"),
            (|| found("u2"), "task UID (u2) does not match claim (u1)"),
            (|| Some(Found { uid: "u1".into(), deleting: true }), "task ns/web-0 is over"),
        ] {
            assert_eq!(ask(task).unwrap_err(), says);
        }
    }

    #[test]
    fn tokens_of_others_are_left_to_others() {
        let accounts = ServiceAccounts::new(new_key(), Vec::new());
        let recognize = |token: &str| {
            let digest = crate::auth::tokens::digest(token);
            accounts.recognize(token, digest, NOW_S, &|_, _, _| found("u1")).map(|it| it.is_ok())
        };
        assert_eq!(recognize("t-alice"), None);
        let foreign = ServiceAccounts::new(new_key(), vec!["https://else.where".into()]);
        assert_eq!(recognize(&issue(&foreign, None)), None);
        // Says that it is ours, and is not.
        let forged = ServiceAccounts::new(new_key(), Vec::new());
        assert_eq!(recognize(&issue(&forged, None)), Some(false));
    }
}
