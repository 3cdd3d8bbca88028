//! The field numbers of the built-in kinds that we serve, from Kubernetes' `generated.proto` files.

mod access;

use super::Holds::{
    Bool, BytesMap, Fields, Int, Many, MaybeInt, MaybeText, MicroTime, One, Text, TextMap, Texts,
    Time,
};
use super::{Field, Holds, Message};

pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    Some(match kind {
        "ClusterRole" => &access::CLUSTER_ROLE,
        "ClusterRoleBinding" | "RoleBinding" => &access::BINDING,
        "ConfigMap" => &CONFIG_MAP,
        "CustomResourceDefinition" => &super::definition::DEFINITION,
        "DeleteOptions" => &DELETE_OPTIONS,
        "Event" if api_version == "events.k8s.io/v1" => &NEW_EVENT,
        "Event" => &EVENT,
        "Lease" => &LEASE,
        "LocalSubjectAccessReview" | "SubjectAccessReview" => &access::SUBJECT_ACCESS_REVIEW,
        "Namespace" => &NAMESPACE,
        "Role" => &access::ROLE,
        "Secret" => &SECRET,
        "SelfSubjectAccessReview" => &access::SELF_SUBJECT_ACCESS_REVIEW,
        "SelfSubjectReview" => &access::SELF_SUBJECT_REVIEW,
        "SelfSubjectRulesReview" => &access::SELF_SUBJECT_RULES_REVIEW,
        "ServiceAccount" => &SERVICE_ACCOUNT,
        "TokenRequest" => &access::TOKEN_REQUEST,
        "TokenReview" => &access::TOKEN_REVIEW,
        _ => return None,
    })
}

pub(super) const fn field(number: u64, name: &'static str, holds: Holds) -> Field {
    Field { number, name, holds }
}

pub(super) static META: Message = Message {
    fields: &[
        field(1, "name", Text),
        field(2, "generateName", Text),
        field(3, "namespace", Text),
        field(5, "uid", Text),
        field(6, "resourceVersion", Text),
        field(7, "generation", Int),
        field(8, "creationTimestamp", Time),
        field(9, "deletionTimestamp", Time),
        field(10, "deletionGracePeriodSeconds", MaybeInt),
        field(11, "labels", TextMap),
        field(12, "annotations", TextMap),
        field(13, "ownerReferences", Many(&OWNER)),
        field(14, "finalizers", Texts),
        field(17, "managedFields", Many(&MANAGED_FIELDS)),
    ],
};

static OWNER: Message = Message {
    fields: &[
        field(1, "kind", Text),
        field(3, "name", Text),
        field(4, "uid", Text),
        field(5, "apiVersion", Text),
        field(6, "controller", Bool),
        field(7, "blockOwnerDeletion", Bool),
    ],
};

static MANAGED_FIELDS: Message = Message {
    fields: &[
        field(1, "manager", Text),
        field(2, "operation", Text),
        field(3, "apiVersion", Text),
        field(4, "time", Time),
        field(6, "fieldsType", Text),
        field(7, "fieldsV1", Fields),
        field(8, "subresource", Text),
    ],
};

static REFERENCE: Message = Message {
    fields: &[
        field(1, "kind", Text),
        field(2, "namespace", Text),
        field(3, "name", Text),
        field(4, "uid", Text),
        field(5, "apiVersion", Text),
        field(6, "resourceVersion", Text),
        field(7, "fieldPath", Text),
    ],
};

static LOCAL_REFERENCE: Message = Message { fields: &[field(1, "name", Text)] };

static CONFIG_MAP: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "data", TextMap),
        field(3, "binaryData", BytesMap),
        field(4, "immutable", Bool),
    ],
};

static SECRET: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "data", BytesMap),
        field(3, "type", Text),
        field(4, "stringData", TextMap),
        field(5, "immutable", Bool),
    ],
};

static SERVICE_ACCOUNT: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "secrets", Many(&REFERENCE)),
        field(3, "imagePullSecrets", Many(&LOCAL_REFERENCE)),
        field(4, "automountServiceAccountToken", Bool),
    ],
};

static NAMESPACE: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "spec", One(&NAMESPACE_SPEC)),
        field(3, "status", One(&NAMESPACE_STATUS)),
    ],
};

static NAMESPACE_SPEC: Message = Message { fields: &[field(1, "finalizers", Texts)] };

/// Its conditions are written by the server alone.
static NAMESPACE_STATUS: Message = Message { fields: &[field(1, "phase", Text)] };

static LEASE: Message =
    Message { fields: &[field(1, "metadata", One(&META)), field(2, "spec", One(&LEASE_SPEC))] };

static LEASE_SPEC: Message = Message {
    fields: &[
        field(1, "holderIdentity", MaybeText),
        field(2, "leaseDurationSeconds", MaybeInt),
        field(3, "acquireTime", MicroTime),
        field(4, "renewTime", MicroTime),
        field(5, "leaseTransitions", MaybeInt),
        field(6, "strategy", MaybeText),
        field(7, "preferredHolder", MaybeText),
    ],
};

/// core/v1.
static EVENT: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "involvedObject", One(&REFERENCE)),
        field(3, "reason", Text),
        field(4, "message", Text),
        field(5, "source", One(&EVENT_SOURCE)),
        field(6, "firstTimestamp", Time),
        field(7, "lastTimestamp", Time),
        field(8, "count", Int),
        field(9, "type", Text),
        field(10, "eventTime", MicroTime),
        field(11, "series", One(&EVENT_SERIES)),
        field(12, "action", Text),
        field(13, "related", One(&REFERENCE)),
        field(14, "reportingComponent", Text),
        field(15, "reportingInstance", Text),
    ],
};

/// events.k8s.io/v1.
static NEW_EVENT: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "eventTime", MicroTime),
        field(3, "series", One(&EVENT_SERIES)),
        field(4, "reportingController", Text),
        field(5, "reportingInstance", Text),
        field(6, "action", Text),
        field(7, "reason", Text),
        field(8, "regarding", One(&REFERENCE)),
        field(9, "related", One(&REFERENCE)),
        field(10, "note", Text),
        field(11, "type", Text),
        field(12, "deprecatedSource", One(&EVENT_SOURCE)),
        field(13, "deprecatedFirstTimestamp", Time),
        field(14, "deprecatedLastTimestamp", Time),
        field(15, "deprecatedCount", Int),
    ],
};

static EVENT_SOURCE: Message =
    Message { fields: &[field(1, "component", Text), field(2, "host", Text)] };

static EVENT_SERIES: Message =
    Message { fields: &[field(1, "count", Int), field(2, "lastObservedTime", MicroTime)] };

static DELETE_OPTIONS: Message = Message {
    fields: &[
        field(1, "gracePeriodSeconds", MaybeInt),
        field(2, "preconditions", One(&PRECONDITIONS)),
        field(3, "orphanDependents", Bool),
        field(4, "propagationPolicy", MaybeText),
        field(5, "dryRun", Texts),
    ],
};

static PRECONDITIONS: Message =
    Message { fields: &[field(1, "uid", MaybeText), field(2, "resourceVersion", MaybeText)] };
