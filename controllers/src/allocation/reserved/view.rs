//! What the objects say of reservations and volumes: which are where, and what they are to the
//! allocator.

use std::collections::HashSet;

use commonage_allocator as alloc;
use commonage_schemas::{Reservation, Volume};
use kube::ResourceExt;

use super::named;
use crate::allocation::{
    cache::{Key, key},
    world::World,
};

/// The objects, and the offers that are not settled: what was made from one of those is not there
/// yet.
pub(crate) struct View<'w> {
    pub(crate) world: &'w World,
    pub(crate) holding: &'w HashSet<Key>,
}

impl View<'_> {
    /// Reservations that are set aside on the agent, by name.
    pub(crate) fn on(&self, agent: &str) -> impl Iterator<Item = &Reservation> {
        // Few, compared with tasks: in a cluster that has none this ends at once.
        let mut all: Vec<&Reservation> = self
            .world
            .reservations
            .iter()
            .map(AsRef::as_ref)
            .filter(|r| r.agents().iter().any(|one| one == agent))
            .filter(|r| !self.is_early(r.status.as_ref().and_then(|s| s.offer.as_deref())))
            .collect();
        all.sort_by_key(|r| r.name_any());
        all.into_iter()
    }

    fn is_early(&self, offer: Option<&str>) -> bool {
        let key = offer.and_then(|offer| offer.split_once('/'));
        key.is_some_and(|(ns, name)| self.holding.contains(&(ns.to_owned(), name.to_owned())))
    }

    /// Where a volume is.
    pub(crate) fn place_of<'v>(&self, volume: &'v Volume) -> Option<&'v str> {
        let status = volume.status.as_ref()?;
        let bound = volume.is_bound() && !self.is_early(status.offer.as_deref());
        status.agent.as_deref().filter(|_| bound)
    }

    /// What a reservation's resources are to the allocator: of its queue, and of those that it
    /// refines.
    pub(crate) fn kind(&self, reservation: &str) -> alloc::Kind {
        let mut chain = Vec::new();
        let mut next = Some(reservation.to_owned());
        while let Some(found) = next.and_then(|name| self.world.reservations.get(&named(&name))) {
            chain.push(found.spec.queue.clone());
            // A chain that is a ring would be a fault of somebody's own making: it ends too.
            next = found.spec.parent.clone().filter(|_| chain.len() < 16);
        }
        chain.reverse();
        chain.dedup();
        alloc::Kind { reserved: chain, ..alloc::Kind::default() }
    }

    pub(super) fn volume_kind(&self, volume: &Volume) -> alloc::Kind {
        let (namespace, name) = key(volume);
        alloc::Kind {
            volume: Some(format!("{namespace}/{name}")),
            shared: volume.spec.shared,
            ..self.kind(&volume.spec.reservation)
        }
    }
}
