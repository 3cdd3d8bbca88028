//! How a definition says that its versions become each other.

use serde_json::Value;

use super::names::check_dns_1035_label;
use super::validate::check_choice;
use crate::status::Cause;

/// Versions of the request that a webhook may be sent.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
/// What would need a webhook is refused, not accepted and ignored.
const NOT_CALLED: &str =
    "this server calls no webhooks: keep to strategy None, and to fields that all versions share";
const CLIENT_CONFIG: &str = "spec.conversion.webhookClientConfig";
const REVIEW_VERSIONS: &str = "spec.conversion.conversionReviewVersions";

pub(super) fn check(conversion: &Value, causes: &mut Vec<Cause>) {
    let before = causes.len();
    let strategy = &conversion["strategy"];
    check_choice("spec.conversion.strategy", strategy, &["None", "Webhook"], causes);
    let (hook, versions) = (
        &conversion["webhook"]["clientConfig"],
        &conversion["webhook"]["conversionReviewVersions"],
    );
    let versions = versions.as_array().map_or(&[][..], Vec::as_slice);
    if strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if !hook.is_null() {
            causes.push(Cause::forbidden(CLIENT_CONFIG, why));
        }
        if !versions.is_empty() {
            causes.push(Cause::forbidden(REVIEW_VERSIONS, why));
        }
        return;
    }
    if hook.is_null() {
        causes.push(Cause::required(CLIENT_CONFIG, "required when strategy is set to Webhook"));
    } else if hook["url"].is_null() == hook["service"].is_null() {
        causes.push(Cause::required(CLIENT_CONFIG, "exactly one of url or service is required"));
    }
    check_versions(versions, causes);
    if causes.len() == before {
        causes.push(Cause::forbidden("spec.conversion.strategy", NOT_CALLED));
    }
}

fn check_versions(versions: &[Value], causes: &mut Vec<Cause>) {
    if versions.is_empty() {
        causes.push(Cause::required(REVIEW_VERSIONS, ""));
        return;
    }
    for (at, version) in versions.iter().enumerate() {
        let field = format!("{REVIEW_VERSIONS}[{at}]");
        if versions[..at].contains(version) {
            causes.push(Cause::invalid(field, version, "duplicate version"));
        } else if let Err(why) = check_dns_1035_label(version.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(field, version, &why));
        }
    }
    if !versions.iter().any(|version| REVIEWS.iter().any(|known| version == known)) {
        let why = format!("must include at least one of {}", REVIEWS.join(", "));
        causes.push(Cause::invalid(REVIEW_VERSIONS, &versions.into(), &why));
    }
}
