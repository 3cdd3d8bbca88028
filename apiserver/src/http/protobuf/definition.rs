//! The field numbers of a CustomResourceDefinition: the one built-in kind that holds itself.

use super::Holds::{
    Bool, Double, Flag, Int, Json, Jsons, Many, ManyByName, MaybeInt, MaybeText, One, OneOr, Text,
    Texts, Time,
};
use super::messages::{META, field};
use super::{Message, Or};

pub(super) static DEFINITION: Message = Message {
    fields: &[
        field(1, "metadata", One(&META)),
        field(2, "spec", One(&SPEC)),
        field(3, "status", One(&STATUS)),
    ],
};

static SPEC: Message = Message {
    fields: &[
        field(1, "group", Text),
        field(3, "names", One(&NAMES)),
        field(4, "scope", Text),
        field(7, "versions", Many(&VERSION)),
        field(9, "conversion", One(&CONVERSION)),
        field(10, "preserveUnknownFields", Flag),
    ],
};

static NAMES: Message = Message {
    fields: &[
        field(1, "plural", Text),
        field(2, "singular", Text),
        field(3, "shortNames", Texts),
        field(4, "kind", Text),
        field(5, "listKind", Text),
        field(6, "categories", Texts),
    ],
};

/// What a webhook's conversion holds does not matter: it is refused.
static CONVERSION: Message =
    Message { fields: &[field(1, "strategy", Text), field(2, "webhook", One(&NOTHING))] };

static NOTHING: Message = Message { fields: &[] };

static STATUS: Message = Message {
    fields: &[
        field(1, "conditions", Many(&CONDITION)),
        field(2, "acceptedNames", One(&NAMES)),
        field(3, "storedVersions", Texts),
    ],
};

static CONDITION: Message = Message {
    fields: &[
        field(1, "type", Text),
        field(2, "status", Text),
        field(3, "lastTransitionTime", Time),
        field(4, "reason", Text),
        field(5, "message", Text),
    ],
};

static VERSION: Message = Message {
    fields: &[
        field(1, "name", Text),
        field(2, "served", Bool),
        field(3, "storage", Bool),
        field(4, "schema", One(&VALIDATION)),
        field(5, "subresources", One(&SUBRESOURCES)),
        field(6, "additionalPrinterColumns", Many(&COLUMN)),
        field(7, "deprecated", Flag),
        field(8, "deprecationWarning", MaybeText),
        field(9, "selectableFields", Many(&SELECTABLE)),
    ],
};

static SELECTABLE: Message = Message { fields: &[field(1, "jsonPath", Text)] };

static COLUMN: Message = Message {
    fields: &[
        field(1, "name", Text),
        field(2, "type", Text),
        field(3, "format", Text),
        field(4, "description", Text),
        field(5, "priority", Int),
        field(6, "jsonPath", Text),
    ],
};

static SUBRESOURCES: Message =
    Message { fields: &[field(1, "status", One(&NOTHING)), field(2, "scale", One(&SCALE))] };

static SCALE: Message = Message {
    fields: &[
        field(1, "specReplicasPath", Text),
        field(2, "statusReplicasPath", Text),
        field(3, "labelSelectorPath", MaybeText),
    ],
};

static VALIDATION: Message = Message { fields: &[field(1, "openAPIV3Schema", One(&SCHEMA))] };

static SCHEMA: Message = Message {
    fields: &[
        field(1, "id", Text),
        field(2, "$schema", Text),
        field(3, "$ref", MaybeText),
        field(4, "description", Text),
        field(5, "type", Text),
        field(6, "format", Text),
        field(7, "title", Text),
        field(8, "default", Json),
        field(9, "maximum", Double),
        field(10, "exclusiveMaximum", Flag),
        field(11, "minimum", Double),
        field(12, "exclusiveMinimum", Flag),
        field(13, "maxLength", MaybeInt),
        field(14, "minLength", MaybeInt),
        field(15, "pattern", Text),
        field(16, "maxItems", MaybeInt),
        field(17, "minItems", MaybeInt),
        field(18, "uniqueItems", Flag),
        field(19, "multipleOf", Double),
        field(20, "enum", Jsons),
        field(21, "maxProperties", MaybeInt),
        field(22, "minProperties", MaybeInt),
        field(23, "required", Texts),
        field(24, "items", OneOr(&SCHEMA, Or::Many)),
        field(25, "allOf", Many(&SCHEMA)),
        field(26, "oneOf", Many(&SCHEMA)),
        field(27, "anyOf", Many(&SCHEMA)),
        field(28, "not", One(&SCHEMA)),
        field(29, "properties", ManyByName(&SCHEMA)),
        field(30, "additionalProperties", OneOr(&SCHEMA, Or::Bool)),
        field(31, "patternProperties", ManyByName(&SCHEMA)),
        field(33, "additionalItems", OneOr(&SCHEMA, Or::Bool)),
        field(34, "definitions", ManyByName(&SCHEMA)),
        field(35, "externalDocs", One(&DOCUMENTATION)),
        field(36, "example", Json),
        field(37, "nullable", Flag),
        field(38, "x-kubernetes-preserve-unknown-fields", Bool),
        field(39, "x-kubernetes-embedded-resource", Flag),
        field(40, "x-kubernetes-int-or-string", Flag),
        field(41, "x-kubernetes-list-map-keys", Texts),
        field(42, "x-kubernetes-list-type", MaybeText),
        field(43, "x-kubernetes-map-type", MaybeText),
        field(44, "x-kubernetes-validations", Many(&RULE)),
    ],
};

static DOCUMENTATION: Message =
    Message { fields: &[field(1, "description", Text), field(2, "url", Text)] };

static RULE: Message = Message {
    fields: &[
        field(1, "rule", Text),
        field(2, "message", Text),
        field(3, "messageExpression", Text),
        field(4, "reason", MaybeText),
        field(5, "fieldPath", Text),
        field(6, "optionalOldSelf", Bool),
    ],
};
