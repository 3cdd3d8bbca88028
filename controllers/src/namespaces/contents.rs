//! Everything that is in a namespace: deleted, counted, and put into words.

use std::collections::BTreeMap;

use kube::{
    Client,
    api::{DeleteParams, ListParams},
    discovery::verbs,
};

use super::{DELETION, DISCOVERY, FINALIZERS, Finding, PARSING, REMAINING};
use crate::resources::{Served, is_absent};

/// What became of an attempt to empty a namespace.
#[derive(Debug, Default)]
pub(super) struct Contents {
    undiscovered: Option<String>,
    failures: Vec<String>,
    /// Objects that are still there, by kind.
    remaining: BTreeMap<String, usize>,
    /// Objects that are still there, by what holds them.
    held: BTreeMap<String, usize>,
}

impl Contents {
    /// What is there can't be told.
    pub(super) fn unknown(error: &kube::Error) -> Contents {
        Contents { undiscovered: Some(error.to_string()), ..Contents::default() }
    }

    /// Deletes what is in the namespace, and looks at what is left.
    pub(super) async fn remove(client: &Client, kinds: &[Served], namespace: &str) -> Contents {
        let mut contents = Contents::default();
        let ours = kinds
            .iter()
            .filter(|kind| kind.namespaced && kind.is_deletable())
            .filter(|kind| kind.supports(verbs::DELETE_COLLECTION));
        for kind in ours {
            if let Err(error) = contents.remove_kind(client, namespace, kind).await
                // A definition went meanwhile, and its objects with it.
                && !is_absent(&error)
            {
                contents.failures.push(format!("{}: {error}", kind.name()));
            }
        }
        contents
    }

    async fn remove_kind(
        &mut self,
        client: &Client,
        namespace: &str,
        kind: &Served,
    ) -> kube::Result<()> {
        let api = kind.api(client, namespace);
        let everything = ListParams::default();
        let mut left = api.list_metadata(&everything).await?;
        if left.items.iter().any(|object| object.metadata.deletion_timestamp.is_none()) {
            let answered = kind.metadata_api(client, namespace);
            answered.delete_collection(&DeleteParams::background(), &everything).await?;
            left = api.list_metadata(&everything).await?;
        }
        if !left.items.is_empty() {
            self.remaining.insert(kind.name(), left.items.len());
        }
        for finalizer in left.items.iter().flat_map(|one| one.metadata.finalizers.iter().flatten())
        {
            *self.held.entry(finalizer.clone()).or_default() += 1;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.undiscovered.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }

    /// How many objects are left, of all kinds together.
    pub(super) fn left(&self) -> usize {
        self.remaining.values().sum()
    }

    /// In the order in which kube-controller-manager writes them.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let list = |counts: &BTreeMap<String, usize>, verb: &str| {
            let all = counts.iter();
            all.map(|(what, count)| format!("{what} {verb} {count} resource instances"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let because = |reason: &str, message: String| Some((reason.to_owned(), message));
        let failed = format!(
            "Failed to delete all resource types, {} remaining: {}",
            self.failures.len(),
            self.failures.join(", ")
        );
        let remaining = format!("Some resources are remaining: {}", list(&self.remaining, "has"));
        let held = format!(
            "Some content in the namespace has finalizers remaining: {}",
            list(&self.held, "in")
        );
        let unless = |fine: bool, trouble| if fine { None } else { trouble };
        vec![
            (&DISCOVERY, self.undiscovered.clone().and_then(|why| because("DiscoveryFailed", why))),
            (&PARSING, None),
            (&DELETION, unless(self.failures.is_empty(), because("ContentDeletionFailed", failed))),
            (
                &REMAINING,
                unless(self.remaining.is_empty(), because("SomeResourcesRemain", remaining)),
            ),
            (&FINALIZERS, unless(self.held.is_empty(), because("SomeFinalizersRemain", held))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_kubernetes_words() {
        let contents = Contents {
            remaining: [("configmaps.".to_owned(), 2), ("tasks.commonage.dev".to_owned(), 1)]
                .into(),
            held: [("example.com/a".to_owned(), 2)].into(),
            ..Contents::default()
        };
        let told: Vec<String> = contents
            .findings()
            .into_iter()
            .filter_map(|(_, trouble)| trouble)
            .map(|(reason, message)| format!("{reason}: {message}"))
            .collect();
        assert_eq!(
            told,
            [
                "SomeResourcesRemain: Some resources are remaining: configmaps. has 2 resource instances, \
                 tasks.commonage.dev has 1 resource instances",
                "SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/a in 2 \
                 resource instances",
            ]
        );
        assert!(!contents.is_empty());
        assert!(Contents::default().findings().iter().all(|(_, trouble)| trouble.is_none()));
    }
}
