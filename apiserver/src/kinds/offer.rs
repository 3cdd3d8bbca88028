//! Offer: made by the allocator, answered once.
//!
//! An answer is Kubernetes' own two-step deletion: it sets `status.answer` and the deletion time
//! stamp, and the allocator takes its finalizer off once it has accounted for the answer. So there
//! is no moment at which an accepted offer is gone and its tasks are not there yet.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use commonage_schemas::offer::{OfferDecline, OfferVerdict, refuse_seconds};
use commonage_schemas::{names, reasons};
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::task::add_finalizer;
use super::{acceptance, checked};
use crate::auth;
use crate::engine::{Engine, Target, mark, take_version};
use crate::meta;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};
use crate::strategy::{Context, Strategy, SubresourceRequest};

pub(super) struct Offers;

#[async_trait]
impl Strategy for Offers {
    fn prepare_create(&self, _cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        add_finalizer(object, names::OFFER_FINALIZER);
        Ok(())
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = checked::causes(object);
        if old.is_some_and(|old| old["spec"] != object["spec"]) {
            causes.push(Cause::forbidden("spec", "an offer never changes; make another"));
        }
        causes
    }

    /// A plain DELETE is a decline; the allocator's own is how it takes an offer back, unless it
    /// has written the verdict before.
    fn prepare_delete(&self, cx: Context<'_>, object: &mut Value) {
        if object["status"]["answer"].is_object() {
            return;
        }
        let by_allocator = cx.user.is_in(auth::CONTROLLERS);
        let verdict = match by_allocator {
            true if has_expired(object, cx.now) => OfferVerdict::Expired,
            true => OfferVerdict::Rescinded,
            false => OfferVerdict::Declined,
        };
        let refuse = (!by_allocator).then(|| refuse_seconds(None));
        answer(object, verdict, refuse, cx.now);
    }

    async fn post(
        &self,
        engine: &Arc<Engine>,
        request: &SubresourceRequest,
    ) -> Option<Result<(u16, Bytes), ApiError>> {
        match request.subresource.as_str() {
            "accept" => Some(acceptance::accept(engine, request).await),
            "decline" => Some(decline(engine, request).await),
            _ => None,
        }
    }
}

/// Writes the answer into an offer's status.
pub(super) fn answer(
    offer: &mut Value,
    verdict: OfferVerdict,
    refuse_seconds: Option<f64>,
    now: Timestamp,
) {
    let mut answer = json!({"verdict": verdict, "answeredAt": meta::time_text(now)});
    if let Some(seconds) = refuse_seconds {
        answer["refuseSeconds"] = json!(seconds);
    }
    offer["status"]["answer"] = answer;
}

/// The offer is not there to be answered any more.
pub(super) fn gone(def: &ResourceDef, name: &str) -> ApiError {
    let why = "the offer has been used, declined or rescinded, or has expired";
    ApiError::refused(def, name, reasons::status::OFFER_GONE, why)
}

pub(super) fn has_expired(offer: &Value, now: Timestamp) -> bool {
    let expires =
        offer["spec"]["expiresAt"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    expires.is_some_and(|expires| expires <= now)
}

async fn decline(
    engine: &Arc<Engine>,
    request: &SubresourceRequest,
) -> Result<(u16, Bytes), ApiError> {
    let body = if request.body.is_null() { json!({}) } else { request.body.clone() };
    let mut decline: OfferDecline = serde_json::from_value(body).map_err(|error| {
        ApiError::bad_request(format!("the body is not an OfferDecline: {error}"))
    })?;
    let refuse = refuse_seconds(decline.refuse_seconds);
    let target = &Target::new(&request.def, &request.namespace, &request.name, None);
    let once = |current: Arc<Object>| async move {
        if current.deleting {
            return Err(gone(&request.def, &request.name).into());
        }
        let mut offer = current.to_value();
        take_version(&mut offer);
        let now = Timestamp::now();
        mark(&mut offer, &meta::time_text(now));
        answer(&mut offer, OfferVerdict::Declined, Some(refuse), now);
        engine.store_edit(target, &current, &offer, request.options.dry_run).await
    };
    match engine.retrying(target, move |current| once(current).boxed()).await {
        Ok(_) => {}
        // It may have been answered and accounted for already: nobody can tell that from an offer
        // that never was, and whoever asks does the same about both.
        Err(error) if error.code == 404 => return Err(gone(&request.def, &request.name)),
        Err(error) => return Err(error),
    }
    decline.refuse_seconds = Some(refuse);
    decline.metadata.name = Some(request.name.clone());
    decline.metadata.namespace = Some(request.namespace.clone());
    let body = serde_json::to_vec(&decline).map_err(ApiError::internal)?;
    Ok((201, body.into()))
}
