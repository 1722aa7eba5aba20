//! Any upstream: bytes say how long the list is, what happens to it before each call, and where upstream lies or fails.
//!
//! Whatever that is, a walk ends, within so many calls, and no list has a record twice. While upstream tells the truth and
//! keeps the order of what stays, a verified list lacks nothing that was there throughout.

use std::collections::HashSet;

use super::{
    model::{Change, Told, Upstream, asked_for, bounds, calls_max, ids_of},
    *,
};

/// What follows the header is read by it.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    /// The next byte's rest; 0 where there are no more. So letters do as well as other bytes.
    fn below(&mut self, most: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % most
    }
}

/// What was done to the list and to its pages so far.
#[derive(Debug, Default)]
struct Done {
    /// A page told something that was not so, or another limit than before.
    lied: bool,
    /// Records changed places.
    reordered: bool,
    changed: bool,
    failures: u64,
}

/// Walks through what the bytes say.
///
/// # Panics
/// If a property does not hold.
pub fn check(bytes: &[u8]) {
    let mut script = Script(bytes);
    let (total, clamp) = (script.below(90) as u64, 1 + script.below(13) as u32);
    let (pages, twice) = (script.below(4) == 1, script.below(4) == 1);
    let mut bounds = Bounds {
        records_max: 100,
        ..bounds(1 + script.below(13) as u32, pages, script.below(5) as u32)
    };
    let (width, verify) = (
        1 + script.below(8),
        [Verify::Seam, Verify::Twice][usize::from(twice)],
    );
    let mut upstream = Upstream::new(total, clamp, pages, Vec::new());
    let mut done = Done::default();
    let mut plan = Plan::new(bounds, verify, 0, Instant::now());
    let mut under_way: Vec<Ask> = Vec::new();
    let outcome = loop {
        while under_way.len() < width
            && let Some(ask) = plan.next_ask()
        {
            under_way.push(ask);
        }
        if under_way.is_empty() {
            match plan.judge(Instant::now()) {
                Ok(None) => continue,
                Ok(Some(list)) => break Ok(list),
                Err(error) => break Err(error),
            }
        }
        let ask = under_way.swap_remove(script.below(under_way.len()));
        if plan.at_first() && ask.window.limit > 1 && script.below(16) == 15 {
            bounds.limit = ask.window.limit / 2;
            done.failures += 1;
            plan.ask_for_less(bounds.limit);
            continue;
        }
        happen(&mut upstream, &mut script, &mut done);
        let mut told = upstream.told(ask.window);
        let most = calls_most(&upstream, bounds, &done);
        assert!(u64::from(upstream.calls) <= most, "it does not end");
        if script.below(8) == 7 {
            if script.below(3) == 0 {
                done.failures += 1;
                plan.ask_again(ask);
                continue;
            }
            lie(&mut told, &mut script);
            done.lied = true;
        }
        let body = told.to_string().into();
        let taken = Page::decode(body, asked_for(ask.window, pages), Instant::now())
            .and_then(|page| plan.take(ask, page));
        // Whoever shows how far it is must be able to at any time.
        let progress = plan.progress();
        assert!(
            progress
                .pages_needed
                .is_none_or(|needed| progress.pages_done <= needed)
        );
        if let Err(error) = taken {
            break Err(error);
        }
    };
    assert!(plan.seen().repairs <= bounds.repairs_max);
    let still = !(done.lied || done.changed);
    let list = match outcome {
        Ok(list) => list,
        Err(error) => {
            assert!(!still, "of a list that stands still: {error}");
            return;
        }
    };
    let ids = ids_of(&list);
    let once: HashSet<u64> = ids.iter().copied().collect();
    assert_eq!(once.len(), ids.len(), "twice");
    if still {
        assert_eq!(ids, (0..total).collect::<Vec<_>>());
        assert!(list.verdict != Verdict::Drifting && list.verdict != Verdict::Settled);
    }
    if list.verdict == Verdict::Verified(Checks::Seam) && !(done.lied || done.reordered) {
        let kept: Vec<u64> = ids
            .into_iter()
            .filter(|id| upstream.stayed.contains(id))
            .collect();
        assert_eq!(kept, upstream.stayed(), "one that stayed is missing");
    }
}

/// What happens to the list before a call.
fn happen(upstream: &mut Upstream, script: &mut Script<'_>, done: &mut Done) {
    let change = match script.below(24) {
        16 => Change::Insert(script.below(100)),
        17 => Change::Delete(script.below(100)),
        18 => Change::Update(script.below(100)),
        19 => Change::Insert(0),
        20 => Change::Delete(0),
        21 => Change::Move(script.below(100), script.below(100)),
        22 => Change::Swap(script.below(100), script.below(100)),
        23 if script.below(2) == 0 => Change::Reverse,
        23 => {
            // It honours another limit from now on.
            upstream.clamp = 1 + script.below(13) as u32;
            done.lied = true;
            return;
        }
        _ => return,
    };
    done.changed = true;
    done.reordered |= matches!(
        change,
        Change::Move(..) | Change::Swap(..) | Change::Reverse
    );
    upstream.change(change);
}

/// Makes a page say what is not so.
fn lie(told: &mut Told, script: &mut Script<'_>) {
    match script.below(7) {
        0 => told.total = script.below(120) as u64,
        1 => told.has_more = !told.has_more,
        2 => drop(told.records.pop()),
        3 => told.records.clear(),
        4 => told.records.reverse(),
        5 => told.limit = 1 + script.below(13) as u32,
        _ => {
            if let Some(first) = told.records.first().cloned() {
                told.records.fill(first);
            }
        }
    }
}

/// The most calls that a walk may cost. A liar's list may seem as long as any that is kept, in windows of two records.
fn calls_most(upstream: &Upstream, bounds: Bounds, done: &Done) -> u64 {
    let windows = bounds.records_max + 2;
    let liars = u64::from(bounds.repairs_max + 3) * (2 * windows + 2);
    let most = match done.lied {
        true => liars,
        false => calls_max(upstream, bounds, 3),
    };
    most + done.failures
}
