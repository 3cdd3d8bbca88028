//! Who belongs to whom, as far as the garbage collector has to know.
//!
//! Pure: fed by watches, asked by the workers. Only objects that have owners, and those that are
//! being deleted together with their dependents or apart from them, are kept: a cluster full of
//! objects that nobody owns costs nothing here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

/// `(group, plural)`.
pub(crate) type KindKey = (String, String);
pub(crate) type Uid = Arc<str>;

/// What the graph knows about an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: Arc<KindKey>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) deleting: bool,
    /// Deletion waits for the dependents.
    pub(crate) foreground: bool,
    /// Deletion leaves the dependents alone.
    pub(crate) orphan: bool,
}

impl Node {
    pub(crate) fn new(kind: &Arc<KindKey>, meta: &ObjectMeta) -> Node {
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|one| one == finalizer);
        let deleting = meta.deletion_timestamp.is_some();
        Node {
            kind: kind.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphan: deleting && has(ORPHAN),
        }
    }

    fn matters(&self) -> bool {
        !self.owners.is_empty() || self.foreground || self.orphan
    }

    /// The owner's deletion waits for this one.
    pub(crate) fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|one| one.uid == owner && one.block_owner_deletion == Some(true))
    }
}

/// A node with everything that belongs to it, as one attempt sees it.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) uid: Uid,
    pub(crate) node: Node,
    pub(crate) dependents: Vec<(Uid, Node)>,
    /// Its foreground deletion waits, over others that wait likewise, for itself.
    pub(crate) in_ring: bool,
}

#[derive(Default)]
pub(crate) struct Graph {
    nodes: HashMap<Uid, Node>,
    /// By the owner's uid.
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    /// Owners that a live look has found; forgotten when they go.
    present: HashSet<Uid>,
}

impl Graph {
    /// An object is there, or has changed. Returns what to look at.
    pub(crate) fn apply(&mut self, uid: &str, node: Node) -> Vec<Uid> {
        let uid: Uid = uid.into();
        let before = self.nodes.get(&uid);
        if before == Some(&node) {
            return Vec::new();
        }
        let mut look = Vec::new();
        let owners_before = before.map(|node| node.owners.clone()).unwrap_or_default();
        for owner in &owners_before {
            if !node.owners.iter().any(|one| one.uid == owner.uid) {
                self.unlink(&owner.uid, &uid);
            }
            // It may have waited for this one.
            look.extend(self.waiting(&owner.uid));
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.as_str().into()).or_default().insert(uid.clone());
        }
        if node.foreground || node.orphan {
            look.push(uid.clone());
        }
        if node.foreground {
            look.extend(self.dependents_of(&uid));
        }
        if !node.owners.is_empty() && !node.deleting && !self.has_only_present_owners(&node) {
            look.push(uid.clone());
        }
        match node.matters() {
            true => drop(self.nodes.insert(uid, node)),
            false => drop(self.nodes.remove(&uid)),
        }
        look
    }

    fn has_only_present_owners(&self, node: &Node) -> bool {
        node.owners.iter().all(|owner| {
            let foreground = self.nodes.get(owner.uid.as_str()).is_some_and(|one| one.foreground);
            self.present.contains(owner.uid.as_str()) && !foreground
        })
    }

    /// An object is gone. Returns what to look at.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<Uid> {
        self.present.remove(uid);
        let mut look = self.dependents_of(uid);
        if let Some(node) = self.nodes.remove(uid) {
            for owner in &node.owners {
                self.unlink(&owner.uid, uid);
                look.extend(self.waiting(&owner.uid));
            }
        }
        look
    }

    /// A watch has begun anew: of this kind there is only what it has listed. Returns what to look at.
    pub(crate) fn retain(&mut self, kind: &KindKey, listed: &HashSet<Uid>) -> Vec<Uid> {
        // What went unseen may have been an owner.
        self.present.clear();
        let gone: Vec<Uid> = self
            .nodes
            .iter()
            .filter(|(uid, node)| *node.kind == *kind && !listed.contains(*uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        let mut look: Vec<Uid> = gone.iter().flat_map(|uid| self.remove(uid)).collect();
        look.extend(self.nodes.keys().cloned());
        look
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn dependents_of(&self, uid: &str) -> Vec<Uid> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The owner, if its deletion waits for its dependents.
    fn waiting(&self, owner: &str) -> Option<Uid> {
        let (uid, _) = self.nodes.get_key_value(owner).filter(|(_, node)| node.foreground)?;
        Some(uid.clone())
    }

    /// A live look has found these owners, and they are not being deleted.
    pub(crate) fn confirm(&mut self, owners: Vec<Uid>) {
        self.present.extend(owners);
    }

    pub(crate) fn work(&self, uid: &Uid) -> Option<Work> {
        let node = self.nodes.get(uid)?.clone();
        let dependents = self
            .dependents_of(uid)
            .into_iter()
            .filter_map(|uid| self.nodes.get(&uid).cloned().map(|node| (uid, node)));
        let in_ring = node.foreground && self.is_in_ring(uid);
        Some(Work { uid: uid.clone(), dependents: dependents.collect(), node, in_ring })
    }

    /// Whether the deletion of this object waits for a dependent whose deletion waits, over any
    /// number of others, for this object. Looks at what is being deleted in the foreground only.
    fn is_in_ring(&self, uid: &Uid) -> bool {
        let mut reached = HashSet::new();
        let mut ahead = vec![uid.clone()];
        while let Some(owner) = ahead.pop() {
            for dependent in self.dependents.get(&owner).into_iter().flatten() {
                let waits = |node: &&Node| node.foreground && node.blocks(&owner);
                if self.nodes.get(dependent).filter(waits).is_none() {
                    continue;
                }
                if dependent == uid {
                    return true;
                }
                if reached.insert(dependent.clone()) {
                    ahead.push(dependent.clone());
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Arc<KindKey> {
        Arc::new(("g".to_owned(), "things".to_owned()))
    }

    fn owned_by(owners: &[&str]) -> Node {
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        let owners = owners.iter().map(owner).collect();
        let meta = ObjectMeta { owner_references: Some(owners), ..ObjectMeta::default() };
        Node::new(&kind(), &meta)
    }

    fn names(uids: Vec<Uid>) -> Vec<String> {
        let mut names: Vec<String> = uids.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn what_nobody_owns_is_not_kept() {
        let mut graph = Graph::default();
        assert!(graph.apply("a", owned_by(&[])).is_empty());
        assert!(graph.work(&"a".into()).is_none());
        assert!(graph.remove("a").is_empty());
    }

    #[test]
    fn dependents_are_looked_at_until_their_owners_are_known_and_when_they_go() {
        let mut graph = Graph::default();
        assert_eq!(names(graph.apply("child", owned_by(&["owner"]))), ["child"]);
        graph.confirm(vec!["owner".into()]);
        assert!(graph.apply("other", owned_by(&["owner"])).is_empty());
        assert_eq!(names(graph.remove("owner")), ["child", "other"]);
        assert_eq!(names(graph.apply("late", owned_by(&["owner"]))), ["late"]);
    }

    #[test]
    fn a_foreground_deletion_is_looked_at_again_when_a_dependent_goes() {
        let mut graph = Graph::default();
        graph.apply("child", owned_by(&["owner"]));
        let owner = Node { foreground: true, deleting: true, ..owned_by(&[]) };
        assert_eq!(names(graph.apply("owner", owner)), ["child", "owner"]);
        let work = graph.work(&"owner".into());
        assert!(work.is_some_and(|work| work.dependents[0].1.blocks("owner")));
        assert_eq!(names(graph.remove("child")), ["owner"]);
        let work = graph.work(&"owner".into());
        assert!(work.is_some_and(|work| work.dependents.is_empty()));
    }

    #[test]
    fn deletions_that_wait_for_each_other_are_known_as_such() {
        let mut graph = Graph::default();
        let deleted = |owner| Node { foreground: true, deleting: true, ..owned_by(&[owner]) };
        graph.apply("a", owned_by(&["c"]));
        graph.apply("b", deleted("a"));
        graph.apply("c", deleted("b"));
        graph.apply("leaf", deleted("a"));
        let in_ring = |graph: &Graph, uid: &str| graph.work(&uid.into()).is_some_and(|w| w.in_ring);
        assert!(!["a", "b", "c", "leaf"].iter().any(|uid| in_ring(&graph, uid)));
        // The last of them brings its neighbours up for a look, which finds the ring closed.
        assert_eq!(names(graph.apply("a", deleted("c"))), ["a", "b", "c", "leaf"]);
        assert!(["a", "b", "c"].iter().all(|uid| in_ring(&graph, uid)));
        assert!(!in_ring(&graph, "leaf"));
        let mut opened = deleted("b");
        opened.owners[0].block_owner_deletion = Some(false);
        assert_eq!(names(graph.apply("c", opened)), ["a", "b", "c"]);
        assert!(!["a", "b", "c"].iter().any(|uid| in_ring(&graph, uid)));
    }

    #[test]
    fn a_dependent_that_is_let_go_frees_its_owner() {
        let mut graph = Graph::default();
        graph.apply("child", owned_by(&["owner"]));
        let owner = Node { foreground: true, deleting: true, ..owned_by(&[]) };
        graph.apply("owner", owner);
        assert_eq!(names(graph.apply("child", owned_by(&[]))), ["owner"]);
        assert!(graph.work(&"child".into()).is_none());
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut graph = Graph::default();
        graph.apply("gone", owned_by(&["owner"]));
        graph.apply("stays", owned_by(&["gone"]));
        graph.confirm(vec!["gone".into()]);
        let listed = HashSet::from([Uid::from("stays")]);
        assert_eq!(names(graph.retain(&kind(), &listed)), ["stays"]);
        assert!(graph.work(&"gone".into()).is_none());
    }
}
