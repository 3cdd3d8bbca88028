//! The one pass over a stored value: uid, labels, whether it is being deleted, selectable fields.
//!
//! Everything else is skipped without building a tree.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::resource::ResourceDef;

/// Where to look: a trie of member names.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    root: Node,
    /// With the place of the value: two names may stand for one path.
    names: Box<[(Box<str>, usize)]>,
    /// Paths that are looked at.
    count: usize,
}

#[derive(Debug, Default)]
struct Node {
    capture: Option<Capture>,
    children: Vec<(Box<str>, Node)>,
}

#[derive(Clone, Copy, Debug)]
enum Capture {
    Uid,
    Deleting,
    Labels,
    Field(usize),
}

#[derive(Debug, Default)]
pub(super) struct Light {
    pub(super) uid: Box<str>,
    pub(super) labels: Box<[(Box<str>, Box<str>)]>,
    pub(super) fields: Box<[Option<Box<str>>]>,
    pub(super) deleting: bool,
}

impl Fields {
    /// The selectable fields (dotted paths of members, as CRDs demand of them) of the stored version
    /// of a kind, then those that only other versions have.
    pub(crate) fn of_all(stored: &ResourceDef, versions: &[Arc<ResourceDef>]) -> Fields {
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for def in std::iter::once(stored).chain(versions.iter().map(|def| &**def)) {
            for (name, path) in &def.selectable_fields {
                if !fields.iter().any(|(known, _)| known == name) {
                    fields.push((name, path.as_str()));
                }
            }
        }
        Fields::new(fields.into_iter())
    }

    /// Pairs of a field's name in selectors and its path (`.spec.agent`).
    pub(super) fn new<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Fields {
        let mut root = Node::default();
        root.insert("metadata.uid", Capture::Uid);
        root.insert("metadata.deletionTimestamp", Capture::Deleting);
        root.insert("metadata.labels", Capture::Labels);
        let mut names = Vec::new();
        let mut paths: Vec<&str> = Vec::new();
        for (name, path) in fields {
            let place = paths.iter().position(|known| *known == path).unwrap_or_else(|| {
                root.insert(path.trim_start_matches('.'), Capture::Field(paths.len()));
                paths.push(path);
                paths.len() - 1
            });
            names.push((Box::from(name), place));
        }
        Fields { root, names: names.into(), count: paths.len() }
    }

    /// The place of a selectable field in [`super::Object::fields`].
    pub(crate) fn position(&self, field: &str) -> Option<usize> {
        self.names.iter().find(|(name, _)| **name == *field).map(|(_, place)| *place)
    }

    pub(super) fn extract(&self, value: &[u8]) -> Result<Light, serde_json::Error> {
        let mut light = Light { fields: vec![None; self.count].into(), ..Light::default() };
        let mut json = serde_json::Deserializer::from_slice(value);
        Walk { node: &self.root, light: &mut light }.deserialize(&mut json)?;
        Ok(light)
    }
}

impl Node {
    fn insert(&mut self, path: &str, capture: Capture) {
        let mut node = self;
        for part in path.split('.') {
            let at = match node.children.iter().position(|(name, _)| **name == *part) {
                Some(at) => at,
                None => {
                    node.children.push((part.into(), Node::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[at].1;
        }
        node.capture = Some(capture);
    }

    fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|(child, _)| **child == *name).map(|(_, node)| node)
    }
}

struct Walk<'n, 'l> {
    node: &'n Node,
    light: &'l mut Light,
}

impl Walk<'_, '_> {
    fn text(self, text: &str) {
        match self.node.capture {
            Some(Capture::Uid) => self.light.uid = text.into(),
            Some(Capture::Deleting) => self.light.deleting = true,
            Some(Capture::Field(at)) => self.light.fields[at] = Some(text.into()),
            Some(Capture::Labels) | None => {}
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some(Capture::Labels) = self.node.capture {
            let mut labels = Vec::with_capacity(map.size_hint().unwrap_or(0));
            while let Some((key, value)) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
                labels.push((key.into(), value.into()));
            }
            labels.sort_unstable();
            self.light.labels = labels.into();
            return Ok(());
        }
        while let Some(name) = map.next_key_seed(Name)? {
            match self.node.child(&name) {
                Some(node) => map.next_value_seed(Walk { node, light: self.light })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.text(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.text(&value.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.text(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.text(&value.to_string());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name, borrowed from the input unless it has escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
