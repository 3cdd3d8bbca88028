//! Portions of an agent that are not for everybody, or not for good: reserved, revocable, shared,
//! or of one piece. What is plain stays in lanes beside them, so that a cluster without any of
//! these pays nothing for them.

use std::sync::Arc;

use commonage_schemas::resources::Resources;

use crate::accounts::Held;
use crate::lanes::{Goods, LaneNames, Lanes};
use crate::state::Allocator;
use crate::table::Id;

/// What makes a portion of an agent different from the rest of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// Queues that reserved it, each refining the one before; the last one owns it. Empty: nobody.
    pub reserved: Vec<String>,
    /// It can be taken back at any time.
    pub revocable: bool,
    /// It is this volume.
    pub volume: Option<String>,
    /// Several may hold it at once; it counts once per holder.
    pub shared: bool,
    /// It goes as a whole or not at all, like a disk with a mount point of its own.
    pub indivisible: bool,
}

impl Kind {
    pub(crate) fn owner(&self) -> Option<&str> {
        self.reserved.last().map(String::as_str)
    }

    /// Counts towards limits when it is held. A reservation does whether it is held or not.
    pub(crate) fn is_charged(&self) -> bool {
        self.reserved.is_empty() && !self.revocable
    }
}

/// So much of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Of which kind; each kind at most once in a list.
    pub kind: Kind,
    /// How much.
    pub resources: Resources,
}

/// A part in lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kind: Arc<Kind>,
    pub(crate) lanes: Lanes,
    pub(crate) goods: Goods,
}

impl Piece {
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_zero() && self.goods.is_empty()
    }

    /// Whether tasks of the queue may take of it; volumes are mounted instead. `lent`: also what
    /// can be taken back at any time.
    pub(crate) fn is_for(&self, queue: &str, lent: bool) -> bool {
        let kind = &self.kind;
        let reserved = kind.owner().is_some_and(|owner| is_at_or_below(queue, owner));
        let mine = match kind.revocable {
            true => lent && (kind.reserved.is_empty() || reserved),
            false => reserved,
        };
        mine && kind.volume.is_none() && !kind.shared && !kind.indivisible
    }

    pub(crate) fn part(&self, names: &LaneNames) -> Part {
        let resources = names.resources(&self.lanes, Some(&self.goods));
        Part { kind: (*self.kind).clone(), resources }
    }
}

/// Whether a queue is the other, or one below it.
pub(crate) fn is_at_or_below(queue: &str, owner: &str) -> bool {
    let rest = queue.strip_prefix(owner);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether all of `some` is in `all`.
pub(crate) fn contains(all: &[Piece], some: &[Piece]) -> bool {
    some.iter().filter(|piece| !piece.is_empty()).all(|piece| {
        all.iter().any(|have| {
            have.kind == piece.kind
                && piece.lanes.fits(&have.lanes)
                && have.goods.contains(&piece.goods)
        })
    })
}

/// Takes out of `pieces` what is there of `less`.
pub(crate) fn take(pieces: &mut [Piece], less: &Piece) {
    for piece in pieces.iter_mut().filter(|piece| piece.kind == less.kind) {
        piece.lanes.sub(&less.lanes);
        piece.goods.sub(&less.goods);
    }
}

/// Puts back what was taken out.
pub(crate) fn put_back(pieces: &mut [Piece], more: &Piece) {
    for piece in pieces.iter_mut().filter(|piece| piece.kind == more.kind) {
        piece.lanes.add(&more.lanes);
        piece.goods.add(&more.goods);
    }
}

/// What all of them come to.
pub(crate) fn sum(pieces: &[Piece]) -> Lanes {
    let mut lanes = Lanes::ZERO;
    for piece in pieces {
        lanes.add(&piece.lanes);
    }
    lanes
}

/// Somebody at whom a shared piece is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Leaf(Id),
    /// The frameworks of a queue, without what is below it.
    Own(Id),
    Queue(Id),
}

impl Allocator {
    pub(crate) fn pieces_of(&mut self, parts: &[Part]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(parts.len());
        for part in parts {
            self.learn(&part.resources);
            let (lanes, _) = self.names.lanes(&part.resources);
            let goods = Goods::of(&part.resources);
            let piece = Piece { kind: Arc::new(part.kind.clone()), lanes, goods };
            if !piece.is_empty() {
                pieces.push(piece);
            }
        }
        pieces
    }

    /// Books what of an agent is reserved, or takes the booking back.
    pub(crate) fn book_reservations(&mut self, pieces: &[Piece], add: bool) {
        for piece in pieces {
            let Some(owner) = piece.kind.owner() else { continue };
            let queue = self.queue_id(owner);
            let reservations = &mut self.queues[queue].reservations;
            *reservations = if add { *reservations + 1 } else { reservations.saturating_sub(1) };
            let mut next = Some(queue);
            while let Some(id) = next {
                change(&mut self.queues[id].reserved, &piece.lanes, add);
                next = self.queues[id].parent;
            }
            if !add {
                self.collect_queue(queue);
            }
        }
    }

    /// What nobody holds of an agent's parts. Of what is shared there is always one more.
    pub(crate) fn free_pieces(&self, agent: Id) -> Vec<Piece> {
        let offers = self.agents[agent].offers.iter().map(|id| &self.offers[*id].held);
        self.pieces_without(agent, offers)
    }

    /// The same if there were no offers.
    pub(crate) fn pieces_but_for_offers(&self, agent: Id) -> Vec<Piece> {
        self.pieces_without(agent, std::iter::empty())
    }

    fn pieces_without<'a>(
        &'a self,
        agent: Id,
        offers: impl Iterator<Item = &'a Held>,
    ) -> Vec<Piece> {
        let agent = &self.agents[agent];
        let mut free = agent.parts.clone();
        if free.is_empty() {
            return free;
        }
        let tasks = agent.tasks.iter().filter_map(|id| self.tasks[*id].held.as_ref());
        for held in tasks.chain(offers).flat_map(|held| &held.parts) {
            for piece in free.iter_mut().filter(|piece| piece.kind == held.kind) {
                if !piece.kind.shared {
                    piece.lanes.sub(&held.lanes);
                    piece.goods.sub(&held.goods);
                }
            }
        }
        free.retain(|piece| !piece.is_empty());
        free
    }

    /// Whether the shared piece counts at the node with this booking (or stops counting).
    pub(crate) fn counts_once(&mut self, node: Node, agent: Id, piece: &Piece, add: bool) -> bool {
        if !piece.kind.shared {
            return true;
        }
        let holders = self.sharing.entry((node, agent, piece.kind.clone())).or_default();
        let counts = if add { *holders == 0 } else { *holders == 1 };
        *holders = if add { *holders + 1 } else { holders.saturating_sub(1) };
        if *holders == 0 {
            self.sharing.remove(&(node, agent, piece.kind.clone()));
        }
        counts
    }
}

pub(crate) fn change(lanes: &mut Lanes, by: &Lanes, add: bool) {
    if add {
        lanes.add(by);
    } else {
        lanes.sub(by);
    }
}
