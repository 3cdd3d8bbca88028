//! What the router of kube-apiserver says of its own paths before any handler is asked: no such path,
//! no such method, nothing that can be answered in the form asked for. Custom kinds have one handler
//! for all of them, which says the same in other words.

use axum::body::Body;
use http::Response;

use super::chain::Call;
use super::negotiate::{accept, media_types};
use super::resources::Target;
use super::respond;
use crate::resource::{Origin, ResourceDef, Scheme};
use crate::status::ApiError;

/// What every answer can be written as.
const OBJECT: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What a watch can be written as, which shares its path with the list.
const STREAM: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// Whether the path is the router's, which then says what is wrong with it as a Status. What lies
/// elsewhere is Go's multiplexer's, which answers in plain text.
pub(super) fn are_of(scheme: &Scheme, path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let mut segments = path.split('/');
    match (segments.next(), segments.next(), segments.next()) {
        (Some("api" | "version"), ..) => true,
        // All groups together are the router's; of each group's own paths only those of our kinds.
        (Some("apis"), None, _) | (Some("apis"), Some(""), None) => true,
        (Some("apis"), Some(group), _) => {
            let built_in = |def: &ResourceDef| def.origin == Origin::BuiltIn && def.group == group;
            !group.is_empty() && scheme.iter().any(|def| built_in(def))
        }
        (Some(".well-known"), Some("openid-configuration"), _) => true,
        (Some("openid"), Some("v1"), _) => true,
        _ => false,
    }
}

/// Nobody serves this path.
pub(super) fn not_found(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    match are_of(&call.app.engine.scheme(), &call.info.path) {
        true => Err(ApiError::not_found_here()),
        false => Ok(respond::page_not_found()),
    }
}

/// # Errors
/// 406 when nothing that Accept names is what this path of a built-in kind can answer. (Parameters and
/// qualities are for the handler to judge.)
pub(super) fn check_accept(call: &Call<'_>, target: &Target) -> Result<(), ApiError> {
    let accepted = accept(call.headers);
    let streams = matches!(call.info.verb, "list" | "watch");
    let known = |media: &str| media == "*/*" || OBJECT.contains(&media);
    let of_streams = |media: &str| streams && STREAM.contains(&media);
    let has_form_of_its_own = !matches!(&*target.subresource, "" | "status" | "scale" | "finalize");
    if target.def.origin == Origin::Custom
        || has_form_of_its_own
        || accepted.is_empty()
        || media_types(&accepted).any(|media| known(media) || of_streams(media))
    {
        return Ok(());
    }
    let mut available = OBJECT.to_vec();
    if streams {
        available.extend(STREAM);
    }
    Err(ApiError::not_acceptable_here(&available))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_kinds_have_no_router() {
        let scheme = Scheme::new(crate::builtin::definitions());
        for (path, routed) in [
            ("/api/v1/nothing", true),
            ("/api", true),
            ("/apis", true),
            ("/apis/", true),
            ("/version/x", true),
            ("/apis/rbac.authorization.k8s.io/v9", true),
            ("/apis/example.com/v1/things", false),
            ("/apix", false),
            ("/nothing", false),
            ("//api/v1/nodes", false),
            ("/apis//v1/nodes", false),
            ("/", false),
        ] {
            assert_eq!(are_of(&scheme, path), routed, "{path}");
        }
    }
}
