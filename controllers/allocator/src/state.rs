//! What is known: agents, queues, frameworks, and the leaves (a framework in a queue) at which
//! everything held is booked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use commonage_schemas::resources::Resources;

use crate::changes::Changes;
use crate::cycle::Decided;
use crate::info::{AgentInfo, Availability, FrameworkInfo, ObjectKey};
use crate::lanes::{GPU_LANE, Goods, LaneNames, Lanes};
use crate::maintenance::Maintenance;
use crate::offers::{Filter, Offer};
use crate::parts::{Kind, Node, Piece};
use crate::plan::Plan;
use crate::queues::{Queue, ROOT};
use crate::shapes::Shapes;
use crate::table::{Id, Table};
use crate::tasks::{Members, Task};

/// How the allocator works, for the whole cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// The control plane's region (label `topology.kubernetes.io/region`); agents of another are
    /// offered only to frameworks that are aware of regions. `None`: regions mean nothing.
    pub region: Option<String>,
    /// A refusal lasts at least so long, in milliseconds (Mesos' allocation interval).
    pub refusal_floor_ms: u64,
    /// For so long, in milliseconds, an offer without declared demand stands whoever waits. After
    /// that it is taken back if nobody has answered it and a waiting task would fit without it. A
    /// scheduler that is there answers in milliseconds.
    pub answer_grace_ms: u64,
    /// Who goes first among those who compete.
    pub sorter: Sorter,
    /// Whole agents are given out agent by agent, each to whoever is first then, as Mesos does,
    /// and not framework by framework. Both are fair, and the latter is many times faster.
    pub agent_by_agent: bool,
    /// Agents with GPUs are for frameworks with capability `Gpu` only.
    pub filter_gpus: bool,
    /// Resources that do not count towards shares.
    pub fairness_excluded: Vec<String>,
    /// A limit binds everything below its queue. Mesos counts what is held below a role towards the
    /// role's limit, and stops nobody but the role's own frameworks with it.
    pub limits_bind_below: bool,
    /// What is free on agents that take nothing new counts as room for guarantees too, as with Mesos' whitelist. Nobody
    /// could ever have it there.
    pub headroom_of_closed: bool,
    /// For frameworks that do not say themselves: an offer must reach one of these. `None`: 0.01
    /// cpu or 32 MiB of memory.
    pub min_allocatable: Option<Vec<Resources>>,
}

/// Who goes first among those who compete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sorter {
    /// The smallest weighted dominant share.
    #[default]
    Drf,
    /// Chance, in proportion to the weights.
    Random,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            region: None,
            refusal_floor_ms: 1000,
            answer_grace_ms: 1000,
            sorter: Sorter::Drf,
            agent_by_agent: false,
            filter_gpus: true,
            fairness_excluded: Vec::new(),
            limits_bind_below: true,
            headroom_of_closed: false,
            min_allocatable: None,
        }
    }
}

/// Everything the allocator knows; [`Allocator::plan`] decides from it.
///
/// Between two plans the caller tells of everything that the first plan led to: an offer that was
/// written by [`Allocator::upsert_offer`], a binding by [`Allocator::upsert_task`] with its agent.
/// What was not told is given away again.
#[derive(Debug, Clone)]
pub struct Allocator {
    pub(crate) options: Options,
    pub(crate) names: LaneNames,
    pub(crate) agents: Table<Arc<str>, Agent>,
    pub(crate) queues: Table<Arc<str>, Queue>,
    pub(crate) frameworks: Table<ObjectKey, Framework>,
    pub(crate) leaves: Table<(Id, Id), Leaf>,
    pub(crate) tasks: Table<ObjectKey, Task>,
    pub(crate) offers: Table<ObjectKey, Offer>,
    pub(crate) shapes: Shapes,
    pub(crate) groups: Members,
    pub(crate) gangs: Members,
    /// Plans made so far.
    pub(crate) plans: u64,
    /// Time of the last plan.
    pub(crate) planned_at_ms: Option<u64>,
    /// Agents on which the last plan takes something back for waiting tasks: in the next one they
    /// come before frameworks that have not answered.
    pub(crate) claimed: BTreeSet<Id>,
    /// How often in a row that was so of an agent, without any of them getting anything there.
    pub(crate) claims: BTreeMap<Id, u32>,
    /// Waiting tasks for which something is ending on an agent.
    pub(crate) nominated: BTreeMap<Id, Id>,
    pub(crate) changes: Changes,
    /// Queues that have a limit, and those that have a guarantee.
    pub(crate) limited: BTreeSet<Id>,
    pub(crate) guaranteed: BTreeSet<Id>,
    /// When offers that were not answered end.
    pub(crate) deadlines: BTreeSet<(u64, Id)>,
    /// When refusals end, with their agents; of some that were forgotten before, too.
    pub(crate) filter_ends: BTreeSet<(u64, Id)>,
    /// Bound tasks that are being killed.
    pub(crate) ending: BTreeSet<Id>,
    /// How many bound tasks have which priority.
    pub(crate) bound_priorities: BTreeMap<i32, usize>,
    /// Whether any queue was ever given one.
    pub(crate) queue_priorities: bool,
    pub(crate) arrivals: u64,
    /// How many hold a shared piece, at each node where it counts once.
    pub(crate) sharing: HashMap<(Node, Id, Arc<Kind>), u32>,
    pub(crate) maintenance: BTreeMap<Id, Maintenance>,
}

/// One agent, or a name that tasks and offers mention before the agent itself is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agent {
    pub(crate) name: Arc<str>,
    pub(crate) known: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) availability: Availability,
    /// What is plain of it; the same goes for the next four.
    pub(crate) total: Lanes,
    pub(crate) total_goods: Goods,
    pub(crate) allocated: Lanes,
    pub(crate) offered: Lanes,
    pub(crate) free_goods: Goods,
    pub(crate) parts: Vec<Piece>,
    pub(crate) single_queue: bool,
    pub(crate) flat_queues: bool,
    pub(crate) tasks: BTreeSet<Id>,
    pub(crate) offers: BTreeSet<Id>,
    pub(crate) filters: Vec<Filter>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Agent {
    pub(crate) fn free(&self) -> Lanes {
        self.total.minus(&self.allocated).minus(&self.offered)
    }

    pub(crate) fn has_gpus(&self) -> bool {
        let of_parts = || self.parts.iter().any(|piece| piece.lanes.0[GPU_LANE] > 0);
        self.total.0[GPU_LANE] > 0 || of_parts()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.known && self.availability == Availability::Open
    }
}

/// One framework, or a name that tasks mention before the framework itself is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Framework {
    pub(crate) known: bool,
    /// Whether it has answered the last of its offers that ended; `None` before the first.
    pub(crate) answers: Option<bool>,
    pub(crate) info: FrameworkInfo,
    pub(crate) leaves: BTreeSet<Id>,
    /// `info.min_allocatable` in lanes.
    pub(crate) least: Vec<Lanes>,
    /// `info.min_allocatable_in` by leaf.
    pub(crate) least_in: BTreeMap<Id, Vec<Lanes>>,
    /// `info.demand` by leaf.
    pub(crate) demand: BTreeMap<Id, Vec<Unit>>,
}

/// What one task of a declared demand needs.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) lanes: Lanes,
    pub(crate) ports: usize,
    pub(crate) count: u64,
}

/// Place of a waiting task: priority, then age, then arrival.
pub(crate) type Turn = (Reverse<i32>, u64, u64, Id);

/// A framework in one queue.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) framework: Id,
    pub(crate) framework_key: ObjectKey,
    pub(crate) queue: Id,
    /// The framework lists the queue, so it may be offered something there.
    pub(crate) listed: bool,
    pub(crate) suppressed: bool,
    pub(crate) allocated: Lanes,
    pub(crate) offered: Lanes,
    pub(crate) allocations: u64,
    pub(crate) pending: BTreeSet<Turn>,
    pub(crate) bound: BTreeSet<Id>,
    pub(crate) offers: BTreeSet<Id>,
    /// Those of them that were not answered.
    pub(crate) unanswered: usize,
}

impl Leaf {
    pub(crate) fn held(&self) -> Lanes {
        self.allocated.plus(&self.offered)
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Allocator {
    /// An allocator that knows of nothing.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut allocator = Self {
            options,
            names: LaneNames::default(),
            agents: Table::default(),
            queues: Table::default(),
            frameworks: Table::default(),
            leaves: Table::default(),
            tasks: Table::default(),
            offers: Table::default(),
            shapes: Shapes::default(),
            groups: Members::default(),
            gangs: Members::default(),
            plans: 0,
            planned_at_ms: None,
            claimed: BTreeSet::new(),
            claims: BTreeMap::new(),
            nominated: BTreeMap::new(),
            changes: Changes::default(),
            limited: BTreeSet::new(),
            guaranteed: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            filter_ends: BTreeSet::new(),
            ending: BTreeSet::new(),
            bound_priorities: BTreeMap::new(),
            queue_priorities: false,
            arrivals: 0,
            sharing: HashMap::new(),
            maintenance: BTreeMap::new(),
        };
        allocator.queue_id(ROOT);
        allocator
    }

    /// Decides what to do now. `now_ms` never goes back; the same state, time and `seed` give the
    /// same plan. Nothing that is in the plan counts as held until the caller tells of it.
    pub fn plan(&mut self, now_ms: u64, seed: u64) -> Plan {
        self.forget_old_filters(now_ms);
        if self.plans == 0 {
            for (_, offer) in self.offers.iter_mut() {
                offer.since_ms = Some(now_ms);
            }
        }
        self.plans += 1;
        self.planned_at_ms = Some(now_ms);
        if let Some(last) = self.changes.last.clone().filter(|_| self.is_quiet(now_ms)) {
            return last;
        }
        let some = self.is_plain() && !self.changes.everything;
        let look = some.then(|| self.changes.agents.clone());
        let mut decided = self.run(now_ms, seed, look, None);
        self.note_decided(&mut decided);
        let Decided { plan, claimed, nominated, .. } = decided;
        self.nominated = nominated;
        if plan.why.is_empty() {
            self.claims.clear();
        }
        for agent in &claimed {
            *self.claims.entry(*agent).or_default() += 1;
        }
        self.claimed = claimed;
        plan
    }

    /// Lets the next plan look at everything, as if all of it had changed.
    pub fn look_at_everything(&mut self) {
        self.changes.all();
    }

    /// Decides what to do at once about these agents, or about all of them: what Mesos does between
    /// two of its batches. Refusals outlive it.
    pub fn plan_now(&mut self, now_ms: u64, seed: u64, agents: Option<&[&str]>) -> Plan {
        self.forget_old_filters(now_ms);
        let scope: Option<BTreeSet<Id>> =
            agents.map(|names| names.iter().filter_map(|name| self.agents.id(*name)).collect());
        let look = scope.as_ref().map(|scope| scope.iter().copied().collect());
        // It looks at others than those that have changed.
        self.changes.free.whys.clear();
        let plan = self.run(now_ms, seed, look, scope.as_ref()).plan;
        self.changes.free.whys.clear();
        plan
    }

    fn run(
        &mut self,
        now_ms: u64,
        seed: u64,
        look: Option<Vec<Id>>,
        scope: Option<&BTreeSet<Id>>,
    ) -> Decided {
        let mut free = std::mem::take(&mut self.changes.free);
        free.begin();
        if self.changes.pending == 0 {
            free.whys.clear();
        }
        let few = match (&look, scope) {
            (Some(look), None) => crate::cycle::run_few(self, free, now_ms, seed, look),
            _ => Err(free),
        };
        let (decided, mut free) = few.unwrap_or_else(|mut free| {
            free.put_back();
            free.begin();
            self.changes.standing = None;
            self.changes.stale.clear();
            crate::cycle::run(self, free, now_ms, seed, look, scope)
        });
        free.put_back();
        self.changes.free = free;
        (self.changes.new_guarantee, self.changes.new_weights) = (false, false);
        self.changes.decided = true;
        decided
    }

    /// Tells of an agent, or of a change of it. Refusals of it are forgotten when its labels change.
    pub fn upsert_agent(&mut self, name: &str, info: AgentInfo) {
        self.learn(&info.allocatable);
        let (total, _) = self.names.lanes(&info.allocatable);
        let pieces = self.pieces_of(&info.parts);
        let id = self.agent_id(name);
        self.change_agent(id, |all| all.set_agent(id, info, total, pieces));
        let offers = self.agents[id].offers.iter().copied();
        self.changes.suspects.extend(offers);
    }

    fn set_agent(&mut self, id: Id, info: AgentInfo, total: Lanes, pieces: Vec<Piece>) {
        self.book_reservations(&pieces, true);
        let before = std::mem::replace(&mut self.agents[id].parts, pieces);
        self.book_reservations(&before, false);
        let agent = &mut self.agents[id];
        if agent.labels != info.labels {
            self.retain_filters(id, |_| false);
        }
        let agent = &mut self.agents[id];
        agent.known = true;
        agent.labels = info.labels;
        agent.availability = info.availability;
        agent.total = total;
        agent.total_goods = Goods::of(&info.allocatable);
        agent.single_queue = info.single_queue;
        agent.flat_queues = info.flat_queues;
        self.recount_goods(id);
    }

    /// Tells that an agent is gone. What its tasks hold stays booked to their queues until they are
    /// removed too.
    pub fn remove_agent(&mut self, name: &str) {
        let Some(id) = self.agents.id(name) else { return };
        self.change_agent(id, |all| all.unset_agent(id));
        let offers = self.agents[id].offers.iter().copied();
        self.changes.suspects.extend(offers);
        self.collect_agent(id);
    }

    fn unset_agent(&mut self, id: Id) {
        let agent = &mut self.agents[id];
        agent.known = false;
        agent.labels.clear();
        self.retain_filters(id, |_| false);
        let agent = &mut self.agents[id];
        agent.total = Lanes::ZERO;
        agent.total_goods = Goods::default();
        let before = std::mem::take(&mut agent.parts);
        self.maintenance.remove(&id);
        self.book_reservations(&before, false);
        self.recount_goods(id);
    }

    pub(crate) fn agent_id(&mut self, name: &str) -> Id {
        if let Some(id) = self.agents.id(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        let id = self
            .agents
            .id_or_insert_with(&name, || Agent { name: name.clone(), ..Agent::default() });
        self.changes.grow(id, &name);
        id
    }

    pub(crate) fn collect_agent(&mut self, id: Id) {
        let agent = &self.agents[id];
        if !agent.known && agent.tasks.is_empty() && agent.offers.is_empty() {
            let name = agent.name.clone();
            self.nominated.retain(|_, agent| *agent != id);
            self.agents.remove(&name);
        }
    }
}
