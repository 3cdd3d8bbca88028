//! What one watcher or list wants to see of a kind.

use std::sync::Arc;

use crate::kinds::view::View;
use crate::object::{Fields, Object};
use crate::selector::{FieldSelector, LabelSelector};

/// A namespace, a label selector and a field selector, all of which an object must match.
#[derive(Debug)]
pub(crate) struct Selection {
    namespace: Option<Box<str>>,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    places: Arc<Fields>,
    /// Another field selector that will do as well.
    or_fields: Option<FieldSelector>,
    /// Labels are the objects' own; fields are those that this makes of them.
    view: Option<View>,
    /// Equal for equal selections: what one watcher sees, all with the same identity see.
    identity: Arc<str>,
}

impl Selection {
    pub(crate) fn new(
        places: Arc<Fields>,
        namespace: Option<&str>,
        labels: Option<LabelSelector>,
        fields: Option<FieldSelector>,
    ) -> Selection {
        let labels = labels.filter(|selector| !selector.is_empty());
        let fields = fields.filter(|selector| !selector.is_empty());
        let identity = format!("{namespace:?} {labels:?} {fields:?}").into();
        let namespace = namespace.map(Box::from);
        Selection { namespace, labels, fields, or_fields: None, places, view: None, identity }
    }

    /// What another field selector takes is selected too.
    pub(crate) fn or(mut self, fields: Option<FieldSelector>) -> Selection {
        if fields.is_some() {
            self.identity = format!("{} or {fields:?}", self.identity).into();
            self.or_fields = fields;
        }
        self
    }

    /// The field selector speaks of a view of the objects.
    pub(crate) fn seen_by(mut self, view: Option<View>) -> Selection {
        if view.is_some() {
            self.identity = format!("{view:?} {}", self.identity).into();
            self.view = view;
        }
        self
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub(super) fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// It has no label or field selector.
    pub(crate) fn is_unselective(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    /// It sees everything of its kind.
    pub(super) fn is_everything(&self) -> bool {
        self.namespace.is_none() && self.is_unselective()
    }

    /// The value that a field must have, if it names one.
    pub(crate) fn exact(&self, field: &str) -> Option<&str> {
        if self.or_fields.is_some() {
            return None;
        }
        let fields = self.fields.as_ref()?;
        fields.exact(match self.view {
            Some(view) => view.name_of(field)?,
            None => field,
        })
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| **namespace == *object.namespace())
            && self.labels.as_ref().is_none_or(|labels| labels.matches(|key| object.label(key)))
            && (self.fields.as_ref().is_none_or(|fields| self.takes(fields, object))
                || self.or_fields.as_ref().is_some_and(|fields| self.takes(fields, object)))
    }

    fn takes(&self, fields: &FieldSelector, object: &Object) -> bool {
        fields.matches(|field| self.field(object, field))
    }

    fn field<'o>(&self, object: &'o Object, field: &str) -> Option<&'o str> {
        match field {
            "metadata.name" => Some(object.name()),
            "metadata.namespace" => Some(object.namespace()),
            _ => match self.view {
                Some(view) => view.field(field, |field| self.own_field(object, field)),
                None => self.own_field(object, field),
            },
        }
    }

    fn own_field<'o>(&self, object: &'o Object, field: &str) -> Option<&'o str> {
        object.fields[self.places.position(field)?].as_deref()
    }
}
