//! Resources in the form in which they are computed with: numbers in fixed lanes, everything else
//! (ports, sets) as goods.

use std::collections::HashMap;
use std::sync::Arc;

use commonage_schemas::resources::{Amount, CPU, DISK, GPU, MEMORY, PORTS, Ranges, Resources};

/// Kinds of numbers known at once: cpu, memory, disk, gpu and eight names of the operator's own.
/// Twelve 64-bit numbers are a cache line and a half, and no cluster seen had more than five.
pub(crate) const LANES: usize = 12;

/// The lane of GPUs, which are given out whole.
pub(crate) const GPU_LANE: usize = 3;

/// GPUs are counted in thousandths like everything else.
const WHOLE: i64 = 1000;

/// Numbers by lane. Never negative; sums saturate (no real cluster comes near 2^63 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lanes(pub(crate) [i64; LANES]);

impl Lanes {
    pub(crate) const ZERO: Self = Self([0; LANES]);
    pub(crate) const UNLIMITED: Self = Self([i64::MAX; LANES]);

    #[inline]
    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|steps| *steps == 0)
    }

    #[inline]
    pub(crate) fn fits(&self, room: &Self) -> bool {
        self.0.iter().zip(&room.0).all(|(want, have)| want <= have)
    }

    /// The first lane in which `room` has less than this wants.
    #[inline]
    pub(crate) fn short_in(&self, room: &Self) -> Option<usize> {
        self.0.iter().zip(&room.0).position(|(want, have)| want > have)
    }

    #[inline]
    pub(crate) fn add(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = a.saturating_add(*b);
        }
    }

    /// The same, where only so many of the first lanes are in use.
    #[inline]
    pub(crate) fn add_first(&mut self, other: &Self, used: usize) {
        for (a, b) in self.0[..used].iter_mut().zip(&other.0[..used]) {
            *a = a.saturating_add(*b);
        }
    }

    /// Takes `other` out, and leaves 0 where there was less.
    #[inline]
    pub(crate) fn sub(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = a.saturating_sub(*b).max(0);
        }
    }

    #[inline]
    pub(crate) fn minus(mut self, other: &Self) -> Self {
        self.sub(other);
        self
    }

    #[inline]
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }

    /// The smaller of both in each lane, GPUs whole.
    #[inline]
    pub(crate) fn min(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = (*a).min(*b);
        }
        self.0[GPU_LANE] -= self.0[GPU_LANE] % WHOLE;
        self
    }

    #[inline]
    pub(crate) fn has_whole_gpus(&self) -> bool {
        self.0[GPU_LANE] % WHOLE == 0
    }

    /// In which lanes there is something, a bit for each.
    #[inline]
    pub(crate) fn mask(&self) -> u16 {
        (0..LANES).fold(0, |mask, lane| mask | u16::from(self.0[lane] > 0) << lane)
    }

    /// The larger of both in each lane.
    #[inline]
    pub(crate) fn max(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = (*a).max(*b);
        }
        self
    }

    /// This where `other` has something, 0 elsewhere.
    #[inline]
    pub(crate) fn only(mut self, other: &Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = if *b > 0 { *a } else { 0 };
        }
        self
    }

    /// How often this goes into `room`, at most `most` times.
    #[inline]
    pub(crate) fn times_in(&self, room: &Self, most: u64) -> u64 {
        let lanes = self.0.iter().zip(&room.0).filter(|(want, _)| **want > 0);
        lanes.map(|(want, have)| (have / want).unsigned_abs()).fold(most, u64::min)
    }

    #[inline]
    pub(crate) fn times(mut self, times: u64) -> Self {
        let times = i64::try_from(times).unwrap_or(i64::MAX);
        for steps in &mut self.0 {
            *steps = steps.saturating_mul(times);
        }
        self
    }
}

/// What can be had one by one: ports, and ranges and sets under names of the operator's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Goods {
    pub(crate) ports: Ranges,
    pub(crate) others: Resources,
}

impl Goods {
    pub(crate) fn of(resources: &Resources) -> Self {
        let others = resources
            .iter()
            .filter(|(name, amount)| *name != PORTS && !matches!(amount, Amount::Scalar(_)))
            .map(|(name, amount)| (name.to_owned(), amount.clone()))
            .collect();
        Self { ports: resources.ports().cloned().unwrap_or_default(), others }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.others.is_empty()
    }

    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.ports.contains(&other.ports) && self.others.contains(&other.others)
    }

    /// What is in both.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let others = match self.others.is_empty() {
            true => Resources::new(),
            false => self.others.min(&other.others),
        };
        let others = others.into_iter().filter(|(_, amount)| !amount.is_zero()).collect();
        Self { ports: self.ports.intersect(&other.ports), others }
    }

    /// Takes out what is there of `other`.
    pub(crate) fn sub(&mut self, other: &Self) {
        if !other.ports.is_empty() {
            self.ports = self.ports.subtract(&other.ports);
        }
        if !other.others.is_empty() {
            let common = self.others.min(&other.others);
            self.others = self.others.checked_sub(&common).unwrap_or_default();
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.ports = self.ports.union(&other.ports);
        if !other.others.is_empty() {
            // Of two shapes under one name the first stays: nothing can be promised of the other.
            self.others = self.others.checked_add(&other.others).unwrap_or(self.others.clone());
        }
    }
}

/// Which name has which lane. Lanes are given to names that agents and queues bring, never to those
/// of tasks alone: anybody may create tasks, and lanes are few.
#[derive(Debug, Clone)]
pub(crate) struct LaneNames {
    names: Vec<Arc<str>>,
    lanes: HashMap<Arc<str>, usize>,
}

impl Default for LaneNames {
    fn default() -> Self {
        let names: Vec<Arc<str>> = [CPU, MEMORY, DISK, GPU].map(Arc::from).to_vec();
        let lanes = names.iter().cloned().zip(0..).collect();
        Self { names, lanes }
    }
}

impl LaneNames {
    pub(crate) fn name(&self, lane: usize) -> &Arc<str> {
        &self.names[lane]
    }

    /// How many lanes are in use.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn lane(&self, name: &str) -> Option<usize> {
        self.lanes.get(name).copied()
    }

    /// Gives lanes to the names that have none; whether any got one.
    pub(crate) fn learn(&mut self, resources: &Resources) -> bool {
        let before = self.names.len();
        for (name, _) in resources.scalars() {
            if self.names.len() < LANES && !self.lanes.contains_key(name) {
                let name: Arc<str> = name.into();
                self.lanes.insert(name.clone(), self.names.len());
                self.names.push(name);
            }
        }
        self.names.len() > before
    }

    /// The numbers in lanes, and the names of those that have none.
    pub(crate) fn lanes(&self, resources: &Resources) -> (Lanes, Vec<Arc<str>>) {
        let (mut lanes, mut unknown) = (Lanes::ZERO, Vec::new());
        for (name, steps) in resources.scalars() {
            match self.lanes.get(name) {
                Some(lane) => lanes.0[*lane] = steps.max(0),
                None if steps > 0 => unknown.push(name.into()),
                None => {}
            }
        }
        (lanes, unknown)
    }

    /// The numbers where there are any, `i64::MAX` elsewhere.
    pub(crate) fn limit(&self, resources: &Resources) -> Lanes {
        let mut lanes = Lanes::UNLIMITED;
        for (name, steps) in resources.scalars() {
            if let Some(lane) = self.lanes.get(name) {
                lanes.0[*lane] = steps.max(0);
            }
        }
        lanes
    }

    /// Back to names, with goods.
    pub(crate) fn resources(&self, lanes: &Lanes, goods: Option<&Goods>) -> Resources {
        let mut resources = goods.map(|goods| goods.others.clone()).unwrap_or_default();
        for (name, steps) in self.names.iter().zip(lanes.0).filter(|(_, steps)| *steps > 0) {
            resources.set_scalar(&**name, steps);
        }
        if let Some(goods) = goods {
            resources.set_ports(goods.ports.clone());
        }
        resources
    }
}
