//! An upstream in memory whose list changes while it is read: what the properties of a walk are stated about, for those
//! that are drawn at random and for the fuzzer's.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::*;
use crate::contacts::page::{Window, contact::Tenant, decode::Asked};

/// What happens to the list before one of the calls. Places are taken modulo its length.
#[derive(Clone, Copy, Debug)]
pub(in crate::contacts::walk) enum Change {
    Insert(usize),
    Delete(usize),
    Update(usize),
    /// The record goes to another place, and those between move up.
    Move(usize, usize),
    Swap(usize, usize),
    Reverse,
}

/// Upstream, whose list changes before some of its calls.
#[derive(Debug)]
pub(in crate::contacts::walk) struct Upstream {
    pub(super) ids: Vec<u64>,
    versions: HashMap<u64, u32>,
    /// What was there from the beginning, and never went.
    pub(super) stayed: HashSet<u64>,
    changes: Vec<(u16, Change)>,
    pub(super) calls: u16,
    pub(super) largest: usize,
    pub(super) clamp: u32,
    pages: bool,
}

impl Upstream {
    pub(in crate::contacts::walk) fn new(
        total: u64,
        clamp: u32,
        pages: bool,
        changes: Vec<(u16, Change)>,
    ) -> Self {
        let ids: Vec<u64> = (0..total).collect();
        Self {
            stayed: ids.iter().copied().collect(),
            versions: HashMap::new(),
            largest: ids.len(),
            ids,
            changes,
            calls: 0,
            clamp,
            pages,
        }
    }

    /// What was there from the beginning and never went, in order.
    pub(in crate::contacts::walk) fn stayed(&self) -> Vec<u64> {
        let mut stayed: Vec<u64> = self.stayed.iter().copied().collect();
        stayed.sort_unstable();
        stayed
    }

    pub(super) fn change(&mut self, change: Change) {
        let len = self.ids.len();
        match change {
            Change::Insert(at) => {
                let id = 1_000_000 + u64::from(self.calls) * 1000 + self.versions.len() as u64;
                self.versions.insert(id, 0);
                self.ids.insert(at % (len + 1), id);
            }
            _ if len == 0 => {}
            Change::Delete(at) => {
                let gone = self.ids.remove(at % len);
                self.stayed.remove(&gone);
            }
            Change::Update(at) => *self.versions.entry(self.ids[at % len]).or_default() += 1,
            Change::Move(from, to) => {
                let id = self.ids.remove(from % len);
                self.ids.insert(to % len, id);
            }
            Change::Swap(one, other) => self.ids.swap(one % len, other % len),
            Change::Reverse => self.ids.reverse(),
        }
        self.largest = self.largest.max(self.ids.len());
    }

    #[cfg(test)]
    pub(in crate::contacts::walk) fn page(&mut self, window: Window) -> String {
        self.told(window).to_string()
    }

    /// What it tells of a window.
    pub(super) fn told(&mut self, window: Window) -> Told {
        let due = |(call, change): &(u16, Change)| (*call == self.calls).then_some(*change);
        let due: Vec<Change> = self.changes.iter().filter_map(due).collect();
        due.into_iter().for_each(|change| self.change(change));
        self.calls += 1;
        let limit = window.limit.min(self.clamp);
        let skip = match self.pages {
            true => window.skip / u64::from(window.limit) * u64::from(limit),
            false => window.skip,
        };
        let total = self.ids.len() as u64;
        let ids = self.ids.iter().skip(skip as usize).take(limit as usize);
        let record = |id| {
            let version = self.versions.get(id).unwrap_or(&0);
            format!(r#"{{"version":{version},"id":"{id:024x}"}}"#)
        };
        Told {
            records: ids.map(record).collect(),
            skip,
            limit,
            has_more: skip + u64::from(limit) < total,
            total,
        }
    }
}

/// A page, before it is written.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) records: Vec<String>,
    pub(super) skip: u64,
    pub(super) limit: u32,
    pub(super) has_more: bool,
    pub(super) total: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let results = self.records.join(",");
        let (skip, limit, more, total) = (self.skip, self.limit, self.has_more, self.total);
        write!(
            f,
            r#"{{"results":[{results}],"skip":{skip},"limit":{limit},"hasMore":{more},"totalResults":{total}}}"#
        )
    }
}

/// Walks with so many pages at once, which upstream reads in an order that the seed draws. Each answer is seen as soon as it
/// is taken.
#[cfg(test)]
pub(super) fn walk_seen(
    upstream: &mut Upstream,
    bounds: Bounds,
    verify: Verify,
    (width, mut seed): (usize, u64),
    mut see: impl FnMut(&Plan, u64),
) -> (Result<List>, Plan) {
    let mut plan = Plan::new(bounds, verify, 0, Instant::now());
    let mut asked: Vec<Ask> = Vec::new();
    let outcome = loop {
        while asked.len() < width
            && let Some(ask) = plan.next_ask()
        {
            asked.push(ask);
        }
        if asked.is_empty() {
            match plan.judge(Instant::now()) {
                Ok(None) => continue,
                Ok(Some(list)) => break Ok(list),
                Err(error) => break Err(error),
            }
        }
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let ask = asked.swap_remove((seed >> 33) as usize % asked.len());
        assert!(upstream.calls < 5000, "the walk does not end");
        let body = upstream.page(ask.window).into();
        let page = Page::decode(body, asked_for(ask.window, bounds.pages), Instant::now())
            .expect("a page of its own");
        let taken = plan.take(ask, page);
        see(&plan, seed);
        if let Err(error) = taken {
            break Err(error);
        }
    };
    (outcome, plan)
}

/// What the model's pages are the answers to.
pub(super) fn asked_for(window: Window, pages: bool) -> Asked<'static> {
    let tenant = Tenant {
        account: "acme",
        stream: "st-1",
    };
    Asked {
        window,
        pages,
        tenant,
    }
}

/// The ids of a list, in order.
pub(super) fn ids_of(list: &List) -> Vec<u64> {
    let document: serde_json::Value =
        serde_json::from_slice(&list.document().concat()).expect("a document");
    let records = document["results"].as_array().expect("records").iter();
    let id = |record: &serde_json::Value| {
        let id = record["id"].as_str().expect("an id");
        u64::from_str_radix(id, 16).expect("one of the model's")
    };
    records.map(id).collect()
}

pub(super) fn bounds(limit: u32, pages: bool, repairs_max: u32) -> Bounds {
    Bounds {
        limit,
        pages,
        records_max: 10_000,
        bytes_max: 1 << 20,
        repairs_max,
    }
}

/// The most calls that a walk may cost. Between two repairs each window is asked for once, the first one twice, and those
/// whose total is old news once more.
pub(super) fn calls_max(upstream: &Upstream, bounds: Bounds, readings: u32) -> u64 {
    let limit = bounds.limit.min(upstream.clamp);
    let stride = u64::from(limit) - u64::from(!bounds.pages && limit > 1);
    let windows = 2 + (upstream.largest as u64).div_ceil(stride);
    u64::from(bounds.repairs_max + readings) * (2 * windows + 2)
}
