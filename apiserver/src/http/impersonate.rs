//! `Impersonate-*` headers: acting as somebody else (`kubectl --as`), for whom RBAC lets.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::auth::authorizer::{self, Attributes};
use crate::auth::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use crate::builtin::reviews::AUTHENTICATION;
use crate::engine::Engine;
use crate::status::ApiError;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
/// Of all of these headers.
pub(super) const PREFIX: &str = "impersonate-";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// One thing that the caller wants to be, as RBAC knows it.
#[derive(Debug, Default)]
struct Wish {
    kind: &'static str,
    resource: &'static str,
    group: &'static str,
    namespace: String,
    name: String,
    /// The key of an extra.
    subresource: String,
}

/// Whom the request counts as.
///
/// # Errors
/// 403: the caller may not be that; 400: groups without a user.
pub(super) fn effective_user(
    engine: &Engine,
    user: Arc<UserInfo>,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(user);
    }
    let wishes = wishes(headers);
    let [first, ..] = wishes.as_slice() else { return Ok(user) };
    if !matches!(first.kind, "User" | "ServiceAccount") {
        let all: Vec<String> = wishes.iter().map(Wish::in_go).collect();
        let message = format!("requested [{}] without impersonating a user", all.join(" "));
        return Err(ApiError::bad_request(message));
    }
    for wish in &wishes {
        let request = wish.attributes();
        let decision = engine.access().decide(&user, &request);
        if decision.is_denied() {
            return Err(authorizer::forbidden(&user, &request, &decision.reason()));
        }
    }
    Ok(Arc::new(become_all(&wishes)))
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn wishes(headers: &HeaderMap) -> Vec<Wish> {
    let first = |name: &HeaderName| headers.get(name).map(text).filter(|name| !name.is_empty());
    let mut wishes = Vec::new();
    if let Some(name) = first(&USER) {
        wishes.push(match service_account(&name) {
            Some((namespace, name)) => Wish {
                kind: "ServiceAccount",
                resource: "serviceaccounts",
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..Wish::default()
            },
            None => Wish { kind: "User", resource: "users", name, ..Wish::default() },
        });
    }
    wishes.extend(headers.get_all(&GROUP).iter().map(|group| Wish {
        kind: "Group",
        resource: "groups",
        name: text(group),
        ..Wish::default()
    }));
    for (header, value) in headers {
        let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        wishes.push(Wish {
            kind: "UserExtra",
            resource: "userextras",
            group: AUTHENTICATION,
            name: text(value),
            subresource: percent_decode_str(key).decode_utf8_lossy().into_owned(),
            ..Wish::default()
        });
    }
    if let Some(name) = first(&UID) {
        let group = AUTHENTICATION;
        wishes.push(Wish { kind: "UID", resource: "uids", group, name, ..Wish::default() });
    }
    wishes
}

/// Namespace and name in `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let named = crate::meta::dns_label_errors(namespace).is_empty()
        && crate::meta::dns_subdomain_errors(name).is_empty();
    named.then_some((namespace, name))
}

impl Wish {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            verb: "impersonate",
            is_resource: true,
            group: self.group,
            resource: self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            ..Attributes::default()
        }
    }

    /// As Go prints an ObjectReference.
    fn in_go(&self) -> String {
        let version = match self.group {
            "" => String::new(),
            group => format!("{group}/v1"),
        };
        let Wish { kind, namespace, name, subresource, .. } = self;
        format!("{{{kind} {namespace} {name}  {version}  {subresource}}}")
    }
}

fn become_all(wishes: &[Wish]) -> UserInfo {
    let mut user = UserInfo::default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for wish in wishes {
        match wish.kind {
            "ServiceAccount" => {
                user.name = format!("system:serviceaccount:{}:{}", wish.namespace, wish.name);
            }
            "User" => user.name.clone_from(&wish.name),
            "Group" => user.groups.push(wish.name.clone()),
            "UserExtra" => {
                extra.entry(wish.subresource.clone()).or_default().push(wish.name.clone());
            }
            _ => user.uid.clone_from(&wish.name),
        }
    }
    user.extra = extra;
    if let Some(account) = wishes.iter().find(|wish| wish.kind == "ServiceAccount")
        && user.groups.is_empty()
    {
        user.groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", account.namespace),
        ];
    }
    let settled: &[&str] = match user.name.as_str() {
        ANONYMOUS => &[UNAUTHENTICATED],
        _ => &[AUTHENTICATED, UNAUTHENTICATED],
    };
    if !settled.iter().any(|group| user.is_in(group)) {
        user.groups.push(settled[0].to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn groups_are_those_that_kubernetes_adds() {
        for (name, group, groups) in [
            ("alice", "", &["system:authenticated"][..]),
            ("alice", "dev", &["dev", "system:authenticated"]),
            ("alice", "system:unauthenticated", &["system:unauthenticated"]),
            ("system:anonymous", "", &["system:unauthenticated"]),
            (
                "system:serviceaccount:ns:bot",
                "",
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
            ),
        ] {
            let mut sent = headers(&[("impersonate-user", name)]);
            if !group.is_empty() {
                sent.append(GROUP, HeaderValue::from_static(group));
            }
            let user = become_all(&wishes(&sent));
            assert_eq!(
                (user.name.as_str(), &user.groups[..]),
                (name, &super::tests::owned(groups)[..])
            );
        }
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn extras_and_uid_are_taken_over() {
        let sent = headers(&[
            ("impersonate-user", "alice"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "p"),
        ]);
        let user = become_all(&wishes(&sent));
        assert_eq!(user.uid, "7");
        assert_eq!(user.extra["acme.com/project"], ["p"]);
    }

    #[test]
    fn wishes_print_as_go_prints_them() {
        let sent = headers(&[("impersonate-group", "dev")]);
        assert_eq!(wishes(&sent)[0].in_go(), "{Group  dev    }");
    }
}
