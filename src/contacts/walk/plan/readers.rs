//! Readers of a trail while the list changes: whoever is told the end has had exactly the list that the verdict is about.

use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;

use super::{
    changing::{Upstream, bounds, changing, ids_of, walk_seen},
    *,
};
use crate::contacts::{
    lines::{Line, Lines},
    verdict::Handling,
};

/// One reader, and what it had so far.
struct Reading {
    lines: Lines,
    ids: Vec<u64>,
    end: Option<Result<Verdict>>,
}

impl Reading {
    fn of(trail: &Trail) -> Self {
        Self {
            lines: trail.reader(Handling::Default).lines(),
            ids: Vec::new(),
            end: None,
        }
    }

    /// Takes what is there, a page or all.
    fn read(&mut self, all: bool) {
        while self.end.is_none()
            && let Some(line) = self.lines.next().now_or_never()
        {
            match line.expect("there is an end") {
                Ok(Line::Contacts(run)) => {
                    let records = (0..run.at.len()).filter_map(|place| run.get(place));
                    self.ids.extend(records.map(|record| {
                        let record: serde_json::Value = serde_json::from_slice(record).unwrap();
                        u64::from_str_radix(record["id"].as_str().unwrap(), 16).unwrap()
                    }));
                }
                Ok(Line::End(ending)) => self.end = Some(Ok(ending.verdict)),
                Ok(Line::Progress(_)) => unreachable!("nobody asked for it"),
                Err(error) => self.end = Some(Err(error)),
            }
            if !all {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Catches a page that a reader keeps although the list took it back, one that it gets twice or not at all, and an end
    /// that it is told although what it had is not the list.
    #[test]
    fn who_is_told_the_end_has_had_the_list(
        (total, changes) in changing(6),
        (limit, clamp) in (2_u32..14, 2_u32..14),
        repairs in 0_u32..4,
        width in 1_usize..9,
        seed: u64,
    ) {
        let changes = if total % 4 == 0 { Vec::new() } else { changes };
        let is_still = changes.is_empty();
        let mut upstream = Upstream::new(total, clamp, false, changes);
        let trail = Trail::default();
        let [mut eager, mut slow, mut late] = [0; 3].map(|_| Reading::of(&trail));
        let bounds = bounds(limit, false, repairs);
        let (outcome, _) = walk_seen(&mut upstream, bounds, Verify::Seam, (width, seed), |plan, seed| {
            plan.lay_out(&trail);
            eager.read(true);
            if seed >> 40 & 3 == 0 {
                slow.read(false);
            }
        });
        let before = eager.ids.clone();
        match &outcome {
            Ok(list) => trail.complete(list, list.ending(Instant::now())),
            Err(error) => trail.fail(error.clone()),
        }
        for reading in [&mut eager, &mut slow, &mut late] {
            reading.read(true);
            let end = reading.end.as_ref().expect("it is told how it ended");
            match (end, &outcome) {
                (Ok(verdict), Ok(list)) => {
                    prop_assert_eq!(*verdict, list.verdict);
                    prop_assert_eq!(&reading.ids, &ids_of(list));
                }
                (Err(error), Ok(_)) => prop_assert_eq!(error.kind(), Kind::MergeDrifting),
                (Err(error), Err(cause)) => {
                    prop_assert!([cause.kind(), Kind::MergeDrifting].contains(&error.kind()));
                }
                (Ok(_), Err(_)) => prop_assert!(false, "an end without a list"),
            }
        }
        // Who comes late has nothing to lose.
        let accepted = outcome.as_ref().is_ok_and(|list| list.verdict != Verdict::Drifting);
        prop_assert_eq!(late.end.is_some_and(|end| end.is_ok()), accepted);
        if is_still {
            // All but the last page did not wait for the verdict.
            let limit = u64::from(limit.min(clamp));
            let pages = 1 + total.saturating_sub(limit).div_ceil(limit - 1);
            let early = if pages == 1 { 0 } else { 1 + (pages - 1) * (limit - 1) };
            prop_assert_eq!(before, (0..early).collect::<Vec<_>>());
        }
    }
}
