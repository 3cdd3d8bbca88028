//! What of each agent is not for everybody: which reservations and volumes are on it, and which
//! tasks and offers have something of them.
//!
//! For the allocator an agent is what nobody has reserved, and beside that its parts: each
//! reservation without its refinements and volumes. What tasks and offers hold of a part they hold
//! beside the rest of what is theirs, so nothing is booked twice, and an agent without parts costs
//! nothing.

mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use commonage_allocator as alloc;
use commonage_schemas::{
    Offer, Reservation, Resources, Task,
    offer::{OfferedVolume, ReservedPart},
    resources::{Amount, DISK},
    volume::bytes,
};
use kube::ResourceExt;

pub(crate) use self::view::View;
use super::{
    cache::{Key, key},
    world::World,
};

/// Who has something of reservations or volumes, by agent.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    /// Tasks that use something, and where.
    tasks: HashMap<Key, Use>,
    /// Offers that hold something, and where.
    offers: HashMap<Key, Use>,
    tasks_on: HashMap<String, BTreeSet<Key>>,
    offers_on: HashMap<String, BTreeSet<Key>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Use {
    agent: String,
    parts: Vec<ReservedPart>,
    /// By key, with bytes; of tasks the bytes are the volume's own.
    volumes: Vec<(Key, i64)>,
    lent: bool,
}

/// What was given out of reservations in this turn, by name and agent: their users are not known
/// yet.
pub(crate) type Taken = HashMap<(String, String), Resources>;

impl Use {
    fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.volumes.is_empty() && !self.lent
    }

    fn of(&self, reservation: &str) -> Resources {
        let mine = self.parts.iter().filter(|part| part.reservation == reservation);
        mine.fold(Resources::new(), |sum, part| plus(&sum, &part.resources))
    }
}

/// What an agent is to the allocator.
#[derive(Debug, Default)]
pub(crate) struct Portions {
    pub(crate) parts: Vec<alloc::Part>,
    /// All parts together.
    pub(crate) sum: Resources,
}

/// Both together; what does not add up stays as it was on the left.
pub(crate) fn plus(a: &Resources, b: &Resources) -> Resources {
    a.checked_add(b).unwrap_or_else(|_| a.clone())
}

/// What is left of `a`; nothing where `b` is more.
pub(crate) fn minus(a: &Resources, b: &Resources) -> Resources {
    a.checked_sub(&a.min(b)).unwrap_or_default()
}

fn larger(a: &Resources, b: &Resources) -> Resources {
    plus(a, &minus(b, a))
}

pub(crate) fn disk(bytes: i64) -> Resources {
    let some = (bytes > 0).then(|| (DISK.to_owned(), Amount::Scalar(bytes)));
    some.into_iter().collect()
}

pub(crate) fn named(name: &str) -> Key {
    (String::new(), name.to_owned())
}

impl Reserved {
    /// Takes in a task, or that there is none. Returns the agents on which something changed.
    pub(crate) fn task(&mut self, key: &Key, task: Option<&Task>, world: &World) -> Vec<String> {
        let holds = task.filter(|task| task.holds_resources());
        let used = holds.map(|task| use_of(key, task, world)).filter(|used| !used.is_empty());
        replace(&mut self.tasks, &mut self.tasks_on, key, used)
    }

    /// Takes in an offer that holds, or that it holds no more.
    pub(crate) fn offer(&mut self, key: &Key, offer: Option<&Offer>) -> Vec<String> {
        let held = offer.map(|offer| {
            let volumes = offer.spec.volumes.iter();
            Use {
                agent: offer.spec.agent.clone(),
                parts: offer.spec.reserved.clone(),
                volumes: volumes
                    .map(|v| ((key.0.clone(), v.volume.clone()), bytes(&v.size)))
                    .collect(),
                lent: offer.spec.revocable.is_some(),
            }
        });
        let held = held.filter(|held| !held.is_empty());
        replace(&mut self.offers, &mut self.offers_on, key, held)
    }

    fn uses<'s>(&'s self, agent: &str) -> impl Iterator<Item = &'s Use> {
        self.tasks_on.get(agent).into_iter().flatten().filter_map(|key| self.tasks.get(key))
    }

    fn holds<'s>(&'s self, agent: &str) -> impl Iterator<Item = &'s Use> {
        self.offers_on.get(agent).into_iter().flatten().filter_map(|key| self.offers.get(key))
    }

    /// Tasks that mount the volume, by name.
    pub(crate) fn users(&self, volume: &Key) -> Vec<String> {
        let mut users: Vec<String> = self
            .tasks
            .iter()
            .filter(|(_, used)| used.volumes.iter().any(|(key, _)| key == volume))
            .map(|(key, _)| key.1.clone())
            .collect();
        users.sort();
        users
    }

    /// Whether an offer holds the volume.
    pub(crate) fn is_offered(&self, volume: &Key) -> bool {
        self.offers.values().any(|held| held.volumes.iter().any(|(key, _)| key == volume))
    }

    /// What tasks use of a reservation on an agent.
    pub(crate) fn used(&self, reservation: &str, agent: &str) -> Resources {
        self.uses(agent).fold(Resources::new(), |sum, used| plus(&sum, &used.of(reservation)))
    }

    /// What nobody uses and no offer holds of a reservation on an agent.
    pub(crate) fn free(&self, view: &View<'_>, reservation: &str, agent: &str) -> Resources {
        let Some(found) = view.world.reservations.get(&named(reservation)) else {
            return Resources::new();
        };
        let held = self.holds(agent);
        let held = held.fold(Resources::new(), |sum, held| plus(&sum, &held.of(reservation)));
        minus(&self.own(view, found, agent), &held)
    }

    /// What of a reservation is neither somebody's refinement nor a volume, nor used by a task.
    fn own(&self, view: &View<'_>, reservation: &Reservation, agent: &str) -> Resources {
        let all = Self::for_tasks(view, reservation, agent);
        minus(&all, &self.used(&reservation.name_any(), agent))
    }

    /// What of a reservation is neither somebody's refinement nor a volume.
    fn for_tasks(view: &View<'_>, reservation: &Reservation, agent: &str) -> Resources {
        let name = reservation.name_any();
        let mut own = reservation.spec.resources.clone();
        for child in view.on(agent) {
            if child.spec.parent.as_deref() == Some(&name) {
                own = minus(&own, &child.spec.resources);
            }
        }
        for volume in view.world.volumes.iter().filter(|v| v.spec.reservation == name) {
            if view.place_of(volume) == Some(agent) {
                own = minus(&own, &disk(volume.bound_bytes()));
            }
        }
        own
    }

    /// The parts of an agent.
    pub(crate) fn portions(&self, view: &View<'_>, agent: &str) -> Portions {
        let mut by_kind: BTreeMap<alloc::Kind, Resources> = BTreeMap::new();
        let mut names: BTreeSet<String> = view.on(agent).map(|r| r.name_any()).collect();
        let held: Vec<&Use> = self.holds(agent).collect();
        names.extend(held.iter().flat_map(|h| h.parts.iter().map(|p| p.reservation.clone())));
        for name in names {
            let bound = view.on(agent).find(|r| r.name_any() == name);
            let own = bound.map(|r| Self::for_tasks(view, r, agent)).unwrap_or_default();
            // What an offer holds is there until the offer is settled, whatever became of it.
            let held = held.iter().fold(Resources::new(), |sum, held| plus(&sum, &held.of(&name)));
            add(&mut by_kind, view.kind(&name), &larger(&own, &held));
        }
        let mounted: HashSet<&Key> =
            self.uses(agent).flat_map(|used| used.volumes.iter().map(|(key, _)| key)).collect();
        for volume in view.world.volumes.iter().filter(|v| view.place_of(v) == Some(agent)) {
            let key = key(volume.as_ref());
            if volume.spec.shared || !mounted.contains(&key) {
                add(&mut by_kind, view.volume_kind(volume), &disk(volume.bound_bytes()));
            }
        }
        by_kind.retain(|_, resources| !resources.is_empty());
        let sum = by_kind.values().fold(Resources::new(), |sum, part| plus(&sum, part));
        let parts = by_kind.into_iter().map(|(kind, resources)| alloc::Part { kind, resources });
        Portions { parts: parts.collect(), sum }
    }

    /// Which reservations the parts of a new offer come from, which volumes come along, and what is
    /// lent.
    pub(crate) fn spell_out(
        &self,
        view: &View<'_>,
        offer: &alloc::NewOffer,
        taken: &mut Taken,
    ) -> (Vec<ReservedPart>, Vec<OfferedVolume>, Resources) {
        let (mut reserved, mut volumes, mut lent) = (Vec::new(), Vec::new(), Resources::new());
        for part in &offer.parts {
            if part.kind.revocable {
                lent = plus(&lent, &part.resources);
                continue;
            }
            if let Some(volume) = &part.kind.volume {
                let key = volume.split_once('/').map(|(ns, name)| (ns.to_owned(), name.to_owned()));
                let found = key.and_then(|key| view.world.volumes.get(&key));
                let own = found
                    .filter(|v| v.namespace().as_deref() == Some(&*offer.to.framework.namespace));
                volumes.extend(own.map(|volume| OfferedVolume {
                    volume: volume.name_any(),
                    reservation: volume.spec.reservation.clone(),
                    size: volume.status.as_ref().and_then(|s| s.size.clone()).unwrap_or_default(),
                    shared: volume.spec.shared,
                }));
                continue;
            }
            self.find(view, &offer.agent, part, taken, &mut reserved);
        }
        (reserved, volumes, lent)
    }

    /// Which reservations the parts of a binding come from, and what is lent. `None`: something of
    /// it was given to others in this turn.
    pub(crate) fn spell_out_binding(
        &self,
        view: &View<'_>,
        binding: &alloc::Binding,
        taken: &mut Taken,
    ) -> Option<(Vec<ReservedPart>, Resources)> {
        let (mut reserved, mut lent) = (Vec::new(), Resources::new());
        for part in &binding.parts {
            if part.kind.revocable {
                lent = plus(&lent, &part.resources);
            } else if !self.find(view, &binding.agent, part, taken, &mut reserved).is_empty() {
                return None;
            }
        }
        Some((reserved, lent))
    }

    /// Takes a part out of reservations of its kind; returns what none of them has.
    fn find(
        &self,
        view: &View<'_>,
        agent: &str,
        part: &alloc::Part,
        taken: &mut Taken,
        reserved: &mut Vec<ReservedPart>,
    ) -> Resources {
        let mut rest = part.resources.clone();
        for reservation in view.on(agent) {
            let name = reservation.name_any();
            if view.kind(&name) != part.kind {
                continue;
            }
            let others = taken.entry((name.clone(), agent.to_owned())).or_default();
            let mine = rest.min(&minus(&self.free(view, &name, agent), others));
            let mine: Resources =
                mine.into_iter().filter(|(_, amount)| !amount.is_zero()).collect();
            if !mine.is_empty() {
                rest = minus(&rest, &mine);
                *others = plus(others, &mine);
                reserved.push(ReservedPart { reservation: name, resources: mine });
            }
        }
        rest.into_iter().filter(|(_, amount)| !amount.is_zero()).collect()
    }

    /// What a bound task holds of its agent's parts, and their sum.
    pub(crate) fn parts_of_task(
        &self,
        view: &View<'_>,
        task: &Task,
    ) -> (Vec<alloc::Part>, Resources) {
        let agent = task.spec.agent.as_deref().unwrap_or_default();
        let (mut by_kind, mut sum) = (BTreeMap::new(), Resources::new());
        for part in &task.spec.reserved {
            // What comes from a reservation that is no more counts as plain.
            if view.on(agent).any(|reservation| reservation.name_any() == part.reservation) {
                add(&mut by_kind, view.kind(&part.reservation), &part.resources);
                sum = plus(&sum, &part.resources);
            }
        }
        if let Some(lent) = &task.spec.lent {
            let kind = alloc::Kind { revocable: true, ..alloc::Kind::default() };
            add(&mut by_kind, kind, lent);
            sum = plus(&sum, lent);
        }
        let parts = by_kind.into_iter().map(|(kind, resources)| alloc::Part { kind, resources });
        (parts.collect(), sum)
    }

    /// Tasks on an agent that use something that is not for everybody.
    pub(crate) fn tasks_on(&self, agent: &str) -> Vec<Key> {
        self.tasks_on.get(agent).into_iter().flatten().cloned().collect()
    }

    /// The parts that an offer holds, and their sum without volumes.
    pub(crate) fn parts_of(&self, view: &View<'_>, offer: &Offer) -> (Vec<alloc::Part>, Resources) {
        let mut by_kind = BTreeMap::new();
        let mut sum = Resources::new();
        for part in &offer.spec.reserved {
            let mut kind = view.kind(&part.reservation);
            if kind.reserved.is_empty() {
                kind.reserved.push(offer.spec.queue.clone());
            }
            add(&mut by_kind, kind, &part.resources);
            sum = plus(&sum, &part.resources);
        }
        if let Some(lent) = &offer.spec.revocable {
            let kind = alloc::Kind { revocable: true, ..alloc::Kind::default() };
            add(&mut by_kind, kind, lent);
            sum = plus(&sum, lent);
        }
        let namespace = offer.namespace().unwrap_or_default();
        for held in &offer.spec.volumes {
            let kind = alloc::Kind {
                volume: Some(format!("{namespace}/{}", held.volume)),
                shared: held.shared,
                ..view.kind(&held.reservation)
            };
            add(&mut by_kind, kind, &disk(bytes(&held.size)));
        }
        let parts = by_kind.into_iter().map(|(kind, resources)| alloc::Part { kind, resources });
        (parts.collect(), sum)
    }
}

fn add(by_kind: &mut BTreeMap<alloc::Kind, Resources>, kind: alloc::Kind, resources: &Resources) {
    let sum = by_kind.entry(kind).or_default();
    *sum = plus(sum, resources);
}

fn replace(
    all: &mut HashMap<Key, Use>,
    on: &mut HashMap<String, BTreeSet<Key>>,
    key: &Key,
    new: Option<Use>,
) -> Vec<String> {
    if all.get(key) == new.as_ref() {
        return Vec::new();
    }
    let mut changed = Vec::new();
    if let Some(old) = all.remove(key) {
        if let Some(there) = on.get_mut(&old.agent) {
            there.remove(key);
            if there.is_empty() {
                on.remove(&old.agent);
            }
        }
        changed.push(old.agent);
    }
    if let Some(new) = new {
        on.entry(new.agent.clone()).or_default().insert(key.clone());
        changed.push(new.agent.clone());
        all.insert(key.clone(), new);
    }
    changed.dedup();
    changed
}

fn use_of(key: &Key, task: &Task, world: &World) -> Use {
    let volumes = task.spec.volumes().map(|name| {
        let volume = (key.0.clone(), name.to_owned());
        let bytes = world.volumes.get(&volume).map_or(0, |volume| volume.bound_bytes());
        (volume, bytes)
    });
    Use {
        agent: task.spec.agent.clone().unwrap_or_default(),
        parts: task.spec.reserved.clone(),
        volumes: volumes.collect(),
        lent: task.spec.lent.is_some(),
    }
}
