//! One handler for every kind: finds the definition, settles what the method means on this path,
//! and answers the reads.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};

use super::chain::Call;
use super::negotiate::{Format, Shape};
use super::{
    inside, leases, list_options, measured, respond, reviews, routes, tokens, watch, writes,
};
use crate::engine::scale;
use crate::resource::{Origin, ResourceDef, Storage};
use crate::schema::go::quoted;
use crate::status::ApiError;
use crate::streams::Kind;

/// What a request is about.
pub(crate) struct Target {
    pub(crate) def: Arc<ResourceDef>,
    /// Empty for cluster-scoped kinds, and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(super) subresource: String,
}

impl Target {
    /// What the engine takes for a collection.
    pub(super) fn namespaces(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// What the engine takes for a write to the object or to a subresource.
    pub(super) fn subresource(&self) -> Option<&str> {
        Some(self.subresource.as_str()).filter(|name| !name.is_empty())
    }

    fn method_not_allowed(&self, verb: &str) -> ApiError {
        ApiError::method_not_allowed(&self.def.group, &self.def.plural, verb)
    }

    /// A verb that the kind has not: in kube-apiserver's words for its own kinds and for custom ones.
    fn lacks(&self, verb: &str) -> ApiError {
        match self.def.origin {
            Origin::BuiltIn => ApiError::method_not_allowed_here(),
            Origin::Custom => self.method_not_allowed(verb),
        }
    }

    fn answers_create(&self, subresource: &str) -> bool {
        let mut own = self.def.subresources.iter();
        own.any(|sub| sub.name == subresource && sub.verbs.iter().any(|verb| verb == "create"))
    }

    fn has_subresource(&self, name: &str) -> bool {
        (name == "status" && self.def.has_status)
            || self.def.subresources.iter().any(|sub| sub.name == name)
    }
}

pub(super) async fn handle(call: &Call<'_>, body: Body) -> Result<Response<Body>, ApiError> {
    let target = match target(call) {
        Some(target) => target,
        None => {
            // It may have been defined a moment ago.
            call.app.engine.definitions_settled().await;
            match target(call) {
                Some(target) => target,
                None => return routes::not_found(call),
            }
        }
    };
    let Some(warning) = target.def.deprecation.clone() else {
        return answer(call, target, body).await;
    };
    match answer(call, target, body).await {
        Ok(mut response) => {
            respond::warn_first(&mut response, warning);
            Ok(response)
        }
        Err(mut error) => {
            error.warnings.insert(0, warning);
            Err(error)
        }
    }
}

async fn answer(call: &Call<'_>, target: Target, body: Body) -> Result<Response<Body>, ApiError> {
    let (named, custom) = (!target.name.is_empty(), target.def.origin == Origin::Custom);
    if let Some(why) = impossible(&target.name).filter(|_| call.info.verb != "create") {
        let why = format!("Name parameter invalid: {}: {why}", quoted(&target.name));
        return Err(ApiError::bad_request(why));
    }
    if !target.subresource.is_empty() && !target.has_subresource(&target.subresource) {
        return match custom {
            true => Err(ApiError::not_found(&target.def, &target.name)),
            false => routes::not_found(call),
        };
    }
    if !custom && call.info.has_more {
        return routes::not_found(call);
    }
    if call.info.is_head && !custom {
        // Custom kinds are asked by verb, these by method.
        return Err(ApiError::method_not_allowed_here());
    }
    let of_all = target.def.is_namespaced() && target.namespace.is_empty();
    let readable = matches!(call.info.verb, "list" | "watch");
    if target.subresource.is_empty() && !target.def.allows(call.info.verb) || of_all && !readable {
        return Err(target.lacks(call.info.verb));
    }
    routes::check_accept(call, &target)?;
    match target.def.storage {
        Storage::Virtual => return reviews::create(call, target, body).await,
        Storage::Measured(what) => return measured::read(call, &target, what).await,
        Storage::Stored | Storage::Projected(_) => {}
    }
    if let (Some(kind), "get" | "create") = (Kind::of(&target.subresource), call.info.verb) {
        return inside::stream(call, &target, kind).await;
    }
    match (call.info.verb, named, target.subresource.as_str()) {
        ("list", ..) => list(call, &target).await,
        ("watch", ..) => watch::handle(call, &target).await,
        ("deletecollection", ..) => writes::delete_collection(call, target, body).await,
        ("create", false, _) => writes::create(call, target, body).await,
        ("get", true, "" | "status") => get(call, &target).await,
        ("get", true, "log") => inside::log(call, &target).await,
        ("get", true, "sandbox") => inside::sandbox(call, &target).await,
        ("get", true, "scale") => get_scale(call, &target).await,
        ("update", true, "scale") => writes::update_scale(call, target, body).await,
        ("update", true, "" | "status" | "finalize") => writes::update(call, target, body).await,
        ("patch", true, "" | "status" | "scale") => writes::patch(call, target, body).await,
        ("delete", true, "") => writes::delete(call, target, body).await,
        ("create", true, "token") => tokens::create(call, target, body).await,
        ("create", true, subresource) if target.answers_create(subresource) => {
            writes::post_subresource(call, target, body).await
        }
        ("update" | "patch", false, _) if custom => {
            Err(ApiError::bad_request("name must be provided"))
        }
        (verb, ..) => Err(target.lacks(verb)),
    }
}

/// Why no object can have a name, whatever its kind.
fn impossible(name: &str) -> Option<String> {
    if matches!(name, "." | "..") {
        return Some(format!("may not be '{name}'"));
    }
    let banned = ['/', '%'].into_iter().find(|c| name.contains(*c))?;
    Some(format!("may not contain '{banned}'"))
}

/// `None`: nobody serves this path.
fn target(call: &Call<'_>) -> Option<Target> {
    let info = call.info;
    if !info.is_served_place() {
        return None;
    }
    let scheme = call.app.engine.scheme();
    let def = scheme.get(&info.group, &info.version, &info.resource)?;
    let collection = matches!(info.verb, "list" | "watch" | "deletecollection");
    let about_namespaces = def.group.is_empty() && def.plural == "namespaces";
    let namespace = match (def.is_namespaced(), info.namespace.is_empty()) {
        // Without a namespace there are only the objects of all of them, to be read.
        (true, true) if def.origin == Origin::Custom && !matches!(info.verb, "list" | "watch") => {
            return None;
        }
        (true, true) if !collection && info.verb != "create" => return None,
        (true, _) => info.namespace.clone(),
        (false, false) if !about_namespaces => return None,
        (false, _) => String::new(),
    };
    let target = Target {
        def: def.clone(),
        namespace,
        // A collection's name is only its selector's, which the options carry.
        name: if collection { String::new() } else { info.name.clone() },
        subresource: info.subresource.clone(),
    };
    if !def.is_stored() && !target.name.is_empty() && def.verbs == ["create"] {
        // Nothing there has a name.
        return None;
    }
    Some(target)
}

async fn get(call: &Call<'_>, target: &Target) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let version = call.query.resource_version()?;
    let engine = &call.app.engine;
    let found = engine.get(&target.def, &target.namespace, &target.name, version).await;
    let response = match found {
        Ok(object) => respond::object(StatusCode::OK, &target.def, &object, format, call.query)?,
        // Only the whole of it: no table shows such a lease.
        Err(error) => match leases::of_node(call, target, version).await {
            Some(lease) if matches!(format.shape, Shape::Whole) => {
                respond::document(StatusCode::OK, lease.to_string().into(), format)
            }
            _ => return Err(error),
        },
    };
    Ok(flagged(call, version, response))
}

async fn get_scale(call: &Call<'_>, target: &Target) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let version = call.query.resource_version()?;
    let engine = &call.app.engine;
    let object = engine.get(&target.def, &target.namespace, &target.name, version).await?;
    let scale = scale::read(&target.def, &object)?;
    Ok(respond::document(StatusCode::OK, scale.to_string().into(), format))
}

async fn list(call: &Call<'_>, target: &Target) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let options = list_options::list(call.query)?;
    if let Shape::Table(version) = format.shape {
        // Refuse a bad includeObject before the work, as kube-apiserver does.
        respond::table_options(version, call.query)?;
    }
    let version = options.resource_version;
    let engine = &call.app.engine;
    let list = engine.list(&target.def, target.namespaces(), options).await?;
    let response = respond::list(&target.def, list, format, call.query).await?;
    Ok(flagged(call, version, response))
}

/// What was read at a `version` of the client's choice comes from the cache, whether the store answers
/// or not. Where it does not, somebody else's writes may be missing: that is said in a warning.
pub(super) fn flagged(
    call: &Call<'_>,
    version: Option<u64>,
    mut response: Response<Body>,
) -> Response<Body> {
    if version.is_some() && call.app.store.is_away() {
        let known = call.app.engine.cache_version();
        let warning = format!(
            "the store does not answer: this is what this server knew last, at resourceVersion {known}"
        );
        respond::add_warnings(&mut response, &[warning]);
    }
    response
}
