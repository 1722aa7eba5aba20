//! From a query to the bytes of a page: which window is meant, and the envelope around its records.

use super::{
    contacts::{Contacts, decimal},
    fault::{Claim, Fault},
    records::Slice,
    settings::{LIMIT_HARD_MAX, LimitMax, Paging, Settings},
};

/// The largest number of a query: the largest that every reader of JSON gets back unchanged in the echo.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// One window of a stream, as the simulator applied it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) skip: u64,
    /// At least 1.
    pub(super) limit: u64,
}

/// A paging parameter that makes no sense. Which ones upstream refuses is not documented; the simulator refuses them all, so
/// that a gateway that lets one through is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadParameter;

impl Window {
    /// The window that a query asks for.
    pub(super) fn of_query(query: &str, settings: &Settings) -> Result<Self, BadParameter> {
        let (mut skip, mut page, mut limit) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "limit" => &mut limit,
                "skip" if settings.paging != Paging::PageLimit => &mut skip,
                "page" if settings.paging != Paging::SkipLimit => &mut page,
                _ => continue,
            };
            let number = value.parse::<u64>().map_err(|_| BadParameter)?;
            if value.starts_with('+') || number > NUMBER_MAX || slot.replace(number).is_some() {
                return Err(BadParameter);
            }
        }
        if limit == Some(0) || page == Some(0) {
            return Err(BadParameter);
        }
        let limit = limit.unwrap_or(settings.limit_default.into());
        let limit = match settings.limit_max {
            LimitMax::Refuse(max) if limit > max.into() => return Err(BadParameter),
            LimitMax::Clamp(max) => limit.min(max.into()),
            LimitMax::Refuse(_) | LimitMax::Unlimited => limit.min(LIMIT_HARD_MAX),
        };
        let skip = skip
            .or_else(|| page.map(|page| (page - 1).saturating_mul(limit)))
            .unwrap_or(0);
        Ok(Self { skip, limit })
    }
}

/// A page before it is written: honest until a fault says otherwise.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// The records that are written: `count` of them, from this index.
    first: u64,
    count: u64,
    /// The first record is written twice, in place of the second.
    twice: bool,
    /// Whom the first record claims to belong to.
    claiming: Option<Tenant>,
    /// What was asked for, as applied.
    asked: Window,
    /// How many records the stream has.
    total: u64,
    skip: u64,
    limit: u64,
    has_more: bool,
    total_pages: u64,
    total_results: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tenant {
    OtherAccount,
    OtherStream,
}

impl Page {
    /// The page at a window of a stream with so many contacts.
    pub(super) fn new(window: Window, total: u64) -> Self {
        let mut page = Self {
            first: 0,
            count: 0,
            twice: false,
            claiming: None,
            asked: window,
            total,
            skip: window.skip,
            limit: window.limit,
            has_more: false,
            total_pages: total.div_ceil(window.limit),
            total_results: total,
        };
        page.records(window.skip, window.limit);
        page.has_more = page.first + page.count < total;
        page
    }

    /// Which records are written: from where, and how many.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.first, self.count)
    }

    fn records(&mut self, first: u64, count: u64) {
        self.first = first.min(self.total);
        self.count = count.min(self.total - self.first);
    }

    /// Makes the page lie in one way. Faults that are not about the page leave it as it is.
    pub(super) fn bend(&mut self, fault: &Fault) {
        match fault {
            Fault::HasMore(more) => self.has_more = *more,
            Fault::Total(claim) => self.total_results = claim.instead_of(self.total_results),
            Fault::TotalPages(claim) => self.total_pages = claim.instead_of(self.total_pages),
            Fault::EchoSkip(claim) => self.skip = claim.instead_of(self.skip),
            Fault::EchoLimit(claim) => self.limit = claim.instead_of(self.limit),
            Fault::ExtraRecords(more) => self.records(
                self.first,
                self.count + u64::from(*more).min(LIMIT_HARD_MAX),
            ),
            Fault::Shift(by) => {
                let from = Claim::Off(*by).instead_of(self.asked.skip);
                self.records(from, self.asked.limit);
            }
            Fault::Stuck => self.records(0, self.asked.limit),
            Fault::NoRecords => self.count = 0,
            Fault::Twice => self.twice = true,
            Fault::OtherAccount => self.claiming = Some(Tenant::OtherAccount),
            Fault::OtherStream => self.claiming = Some(Tenant::OtherStream),
            _ => {}
        }
    }

    /// The page as JSON, the keys of its envelope in the documented order.
    ///
    /// `records` are those of [`range`](Self::range).
    pub(super) fn write(
        &self,
        contacts: &Contacts,
        records: &Slice,
        account_id: &str,
        stream_id: &str,
    ) -> Vec<u8> {
        // A record is 600 to 700 bytes: one allocation, rarely two.
        let mut out = Vec::with_capacity(160 + 720 * self.count as usize);
        out.extend_from_slice(b"{\"results\":[");
        let mut first = None;
        for (number, record) in records.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            let first = *first.get_or_insert(record);
            let again = self.twice && number == 1;
            let record = if again { first } else { record };
            match self.claiming {
                Some(tenant) if number == 0 => {
                    let (account_id, stream_id) = match tenant {
                        Tenant::OtherAccount => ("000000000000000000000000", stream_id),
                        Tenant::OtherStream => {
                            (account_id, "st-00000000-0000-4000-8000-000000000000")
                        }
                    };
                    contacts
                        .claiming(account_id, stream_id)
                        .write_revised(record, &mut out);
                }
                _ => contacts.write_revised(record, &mut out),
            }
        }
        for (key, value) in [("],\"skip\":", self.skip), (",\"limit\":", self.limit)] {
            out.extend_from_slice(key.as_bytes());
            decimal(&mut out, value);
        }
        out.extend_from_slice(if self.has_more {
            b",\"hasMore\":true"
        } else {
            b",\"hasMore\":false"
        });
        out.extend_from_slice(b",\"totalPages\":");
        decimal(&mut out, self.total_pages);
        out.extend_from_slice(b",\"totalResults\":");
        decimal(&mut out, self.total_results);
        out.push(b'}');
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::{super::records::Records, *};

    fn settings(paging: Paging, limit_max: LimitMax) -> Settings {
        Settings {
            paging,
            limit_max,
            ..Settings::default()
        }
    }

    fn window(query: &str, settings: &Settings) -> Result<(u64, u64), BadParameter> {
        Window::of_query(query, settings).map(|window| (window.skip, window.limit))
    }

    #[test]
    fn each_style_ignores_the_parameters_of_the_other() {
        let skip = settings(Paging::SkipLimit, LimitMax::Unlimited);
        let page = settings(Paging::PageLimit, LimitMax::Unlimited);
        let either = settings(Paging::Either, LimitMax::Unlimited);
        for (query, by_skip, by_page, by_either) in [
            ("", (0, 10), (0, 10), (0, 10)),
            ("skip=30&limit=5", (30, 5), (0, 5), (30, 5)),
            ("page=3&limit=20", (0, 20), (40, 20), (40, 20)),
            ("page=2", (0, 10), (10, 10), (10, 10)),
            ("page=2&skip=7&x=1", (7, 10), (10, 10), (7, 10)),
        ] {
            assert_eq!(window(query, &skip), Ok(by_skip), "{query}");
            assert_eq!(window(query, &page), Ok(by_page), "{query}");
            assert_eq!(window(query, &either), Ok(by_either), "{query}");
        }
    }

    #[test]
    fn a_limit_that_is_too_large_is_clamped_or_refused_or_obeyed() {
        let with = |limit_max| {
            window(
                "skip=200&limit=101",
                &settings(Paging::SkipLimit, limit_max),
            )
        };
        assert_eq!(with(LimitMax::Clamp(100)), Ok((200, 100)));
        assert_eq!(with(LimitMax::Refuse(100)), Err(BadParameter));
        assert_eq!(with(LimitMax::Refuse(101)), Ok((200, 101)));
        assert_eq!(with(LimitMax::Unlimited), Ok((200, 101)));
        let page = settings(Paging::PageLimit, LimitMax::Clamp(100));
        assert_eq!(
            window("page=3&limit=500", &page),
            Ok((200, 100)),
            "a page is as long as the applied limit"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let settings = settings(Paging::Either, LimitMax::Unlimited);
        for query in [
            "skip=-1",
            "skip=+1",
            "skip=1e3",
            "skip=",
            "limit=0",
            "page=0",
            "skip=1&skip=1",
            "skip=9007199254740992",
            "limit=ten",
        ] {
            assert_eq!(window(query, &settings), Err(BadParameter), "{query}");
        }
    }

    proptest! {
        #[test]
        fn pages_put_together_are_the_stream(total in 0u64..60, limit in 1u64..20) {
            let contacts = Contacts::new("acc", "st");
            let (mut ids, mut skip) = (vec![], 0);
            loop {
                let page = Page::new(Window { skip, limit }, total);
                let records = Records::new(total).slice(page.range().0, page.range().1);
                let page: Value = serde_json::from_slice(&page.write(&contacts, &records, "acc", "st")).unwrap();
                prop_assert_eq!(page["skip"].as_u64(), Some(skip));
                prop_assert_eq!(page["limit"].as_u64(), Some(limit));
                prop_assert_eq!(page["totalResults"].as_u64(), Some(total));
                prop_assert_eq!(page["totalPages"].as_u64(), Some(total.div_ceil(limit)));
                let results = page["results"].as_array().unwrap();
                ids.extend(results.iter().map(|record| record["id"].clone()));
                skip += limit;
                prop_assert_eq!(page["hasMore"].as_bool(), Some(skip < total));
                if skip >= total {
                    break;
                }
            }
            let mut all = vec![];
            for index in 0..total {
                let record: Value = serde_json::from_slice(&super::super::contact("acc", "st", index)).unwrap();
                all.push(record["id"].clone());
            }
            prop_assert_eq!(ids, all);
        }
    }
}
