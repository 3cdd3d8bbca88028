//! The field numbers of roles, bindings and reviews.

use super::super::Holds::{Many, MaybeInt, One, Text, TextMap, Texts, TextsMap};
use super::super::Message;
use super::{META, field};

pub(super) static ROLE: Message =
    Message { fields: &[field(1, "metadata", One(&META)), field(2, "rules", Many(&RULE))] };

pub(super) static CLUSTER_ROLE: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "rules", Many(&RULE)),
        field(3, "aggregationRule", One(&AGGREGATION)),
    ],
};

static RULE: Message = Message {
    fields: &[
        field(1, "verbs", Texts),
        field(2, "apiGroups", Texts),
        field(3, "resources", Texts),
        field(4, "resourceNames", Texts),
        field(5, "nonResourceURLs", Texts),
    ],
};

static AGGREGATION: Message =
    Message { fields: &[field(1, "clusterRoleSelectors", Many(&LABEL_SELECTOR))] };

static LABEL_SELECTOR: Message = Message {
    fields: &[field(1, "matchLabels", TextMap), field(2, "matchExpressions", Many(&REQUIREMENT))],
};

static REQUIREMENT: Message = Message {
    fields: &[field(1, "key", Text), field(2, "operator", Text), field(3, "values", Texts)],
};

/// RoleBinding and ClusterRoleBinding alike.
pub(super) static BINDING: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "subjects", Many(&SUBJECT)),
        field(3, "roleRef", One(&ROLE_REF)),
    ],
};

static SUBJECT: Message = Message {
    fields: &[
        field(1, "kind", Text),
        field(2, "apiGroup", Text),
        field(3, "name", Text),
        field(4, "namespace", Text),
    ],
};

static ROLE_REF: Message = Message {
    fields: &[field(1, "apiGroup", Text), field(2, "kind", Text), field(3, "name", Text)],
};

pub(super) static SUBJECT_ACCESS_REVIEW: Message =
    Message { fields: &[field(1, "metadata", One(&META)), field(2, "spec", One(&SUBJECT_ACCESS))] };

static SUBJECT_ACCESS: Message = Message {
    fields: &[
        field(1, "resourceAttributes", One(&RESOURCE)),
        field(2, "nonResourceAttributes", One(&NON_RESOURCE)),
        field(3, "user", Text),
        field(4, "groups", Texts),
        field(5, "extra", TextsMap),
        field(6, "uid", Text),
    ],
};

pub(super) static SELF_SUBJECT_ACCESS_REVIEW: Message = Message {
    fields: &[field(1, "metadata", One(&META)), field(2, "spec", One(&SELF_SUBJECT_ACCESS))],
};

static SELF_SUBJECT_ACCESS: Message = Message {
    fields: &[
        field(1, "resourceAttributes", One(&RESOURCE)),
        field(2, "nonResourceAttributes", One(&NON_RESOURCE)),
    ],
};

static RESOURCE: Message = Message {
    fields: &[
        field(1, "namespace", Text),
        field(2, "verb", Text),
        field(3, "group", Text),
        field(4, "version", Text),
        field(5, "resource", Text),
        field(6, "subresource", Text),
        field(7, "name", Text),
        field(8, "fieldSelector", One(&SELECTOR)),
        field(9, "labelSelector", One(&SELECTOR)),
    ],
};

static NON_RESOURCE: Message =
    Message { fields: &[field(1, "path", Text), field(2, "verb", Text)] };

static SELECTOR: Message = Message {
    fields: &[field(1, "rawSelector", Text), field(2, "requirements", Many(&REQUIREMENT))],
};

pub(super) static SELF_SUBJECT_RULES_REVIEW: Message = Message {
    fields: &[field(1, "metadata", One(&META)), field(2, "spec", One(&SELF_SUBJECT_RULES))],
};

static SELF_SUBJECT_RULES: Message = Message { fields: &[field(1, "namespace", Text)] };

pub(super) static SELF_SUBJECT_REVIEW: Message =
    Message { fields: &[field(1, "metadata", One(&META))] };

pub(super) static TOKEN_REVIEW: Message =
    Message { fields: &[field(1, "metadata", One(&META)), field(2, "spec", One(&TOKEN))] };

static TOKEN: Message =
    Message { fields: &[field(1, "token", Text), field(2, "audiences", Texts)] };

pub(super) static TOKEN_REQUEST: Message =
    Message { fields: &[field(1, "metadata", One(&META)), field(2, "spec", One(&REQUEST))] };

static REQUEST: Message = Message {
    fields: &[
        field(1, "audiences", Texts),
        field(3, "boundObjectRef", One(&BOUND_OBJECT)),
        field(4, "expirationSeconds", MaybeInt),
    ],
};

static BOUND_OBJECT: Message = Message {
    fields: &[
        field(1, "kind", Text),
        field(2, "apiVersion", Text),
        field(3, "name", Text),
        field(4, "uid", Text),
    ],
};
