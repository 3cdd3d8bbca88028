//! Questions that are asked by creating an object (authorization.k8s.io, authentication.k8s.io):
//! nothing of them is stored.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};

use super::{definition, leniently};
use crate::resource::{Column, ResourceDef, Scope, Storage};

pub(crate) const AUTHENTICATION: &str = "authentication.k8s.io";
pub(crate) const AUTHORIZATION: &str = "authorization.k8s.io";

pub(super) fn definitions() -> Vec<ResourceDef> {
    let mut all = vec![
        definition::<SelfSubjectReview>(
            AUTHENTICATION,
            "SelfSubjectReview",
            "selfsubjectreviews",
            &[],
        ),
        definition::<TokenReview>(AUTHENTICATION, "TokenReview", "tokenreviews", &[]),
        definition::<LocalSubjectAccessReview>(
            AUTHORIZATION,
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            &[],
        ),
        definition::<SelfSubjectAccessReview>(
            AUTHORIZATION,
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
            &[],
        ),
        definition::<SelfSubjectRulesReview>(
            AUTHORIZATION,
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
            &[],
        ),
        definition::<SubjectAccessReview>(
            AUTHORIZATION,
            "SubjectAccessReview",
            "subjectaccessreviews",
            &[],
        ),
    ];
    for def in &mut all {
        def.storage = Storage::Virtual;
        // Whoever answers fills in what is missing.
        def.zero = None;
        def.verbs = &["create"];
        if def.kind != "LocalSubjectAccessReview" {
            def.scope = Scope::Cluster;
        }
        def.columns = vec![Column::name(), Column::age()];
        leniently(def);
    }
    all
}

/// What `serviceaccounts/token` takes and answers: a kind without a collection of its own.
pub(crate) fn token_request() -> ResourceDef {
    let mut def = definition::<TokenRequest>(AUTHENTICATION, "TokenRequest", "tokenrequests", &[]);
    def.storage = Storage::Virtual;
    def.zero = None;
    def.verbs = &["create"];
    leniently(&mut def);
    def
}
