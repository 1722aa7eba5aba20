//! Which records a stream has, and in which order, as its edits left it.
//!
//! A record is computed from its number and from how often it was updated, so nothing but the order is kept: as pieces, each a
//! run of neighbouring numbers. A million contacts are one piece; an edit cuts one into three at most, and pieces that
//! fit together again are joined. All is linear in the pieces, which are few and small.

use super::{change::ChangeError, contacts::CONTACTS_MAX};

/// The most pieces of a stream, 1.6 MB of them; some 50,000 edits in random places.
pub(super) const PIECES_MAX: usize = 100_000;

/// The most records that may ever be inserted into a stream.
pub(super) const INSERTED_MAX: u32 = 1_000_000;

/// One record, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// What its id is made of: below [`CONTACTS_MAX`] for one that was there from the start.
    pub(super) number: u32,
    /// How often it was updated.
    pub(super) revision: u32,
}

/// Records whose numbers ascend, or descend, by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// The number of the first in order.
    first: u32,
    /// At least 1.
    len: u32,
    revision: u32,
    backwards: bool,
}

impl Piece {
    fn of(record: Record) -> Self {
        Self {
            first: record.number,
            len: 1,
            revision: record.revision,
            backwards: false,
        }
    }

    fn number(&self, offset: u32) -> u32 {
        if self.backwards {
            self.first - offset
        } else {
            self.first + offset
        }
    }

    fn record(&self, offset: u32) -> Record {
        Record {
            number: self.number(offset),
            revision: self.revision,
        }
    }

    /// So many of its records, from there; none without any.
    fn part(&self, offset: u32, len: u32) -> Option<Self> {
        (len > 0).then(|| Self {
            first: self.number(offset),
            len,
            ..*self
        })
    }

    fn reversed(&self) -> Self {
        Self {
            first: self.number(self.len - 1),
            backwards: !self.backwards,
            ..*self
        }
    }

    /// Both as one, if the second goes on where the first ends.
    fn join(&self, next: &Self) -> Option<Self> {
        if self.revision != next.revision {
            return None;
        }
        let goes = |piece: &Self, backwards| piece.len == 1 || piece.backwards == backwards;
        let backwards = if Some(next.first) == self.first.checked_add(self.len) {
            false
        } else if Some(next.first) == self.first.checked_sub(self.len) {
            true
        } else {
            return None;
        };
        (goes(self, backwards) && goes(next, backwards)).then_some(Self {
            len: self.len + next.len,
            backwards,
            ..*self
        })
    }
}

/// Some records in their order.
#[derive(Clone, Debug)]
pub(super) struct Slice(Vec<Piece>);

impl Slice {
    pub(super) fn iter(&self) -> impl Iterator<Item = Record> {
        self.0
            .iter()
            .flat_map(|piece| (0..piece.len).map(|offset| piece.record(offset)))
    }
}

/// The records of one stream, in order.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pieces: Vec<Piece>,
    len: u64,
    inserted: u32,
}

impl Records {
    /// Numbers 0 to `len`, at most [`CONTACTS_MAX`] of them.
    pub(super) fn new(len: u64) -> Self {
        let len = len.min(CONTACTS_MAX);
        let all = Piece {
            first: 0,
            len: len as u32,
            revision: 0,
            backwards: false,
        };
        Self {
            pieces: Vec::from_iter((len > 0).then_some(all)),
            len,
            inserted: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The record at a position, counted from 0.
    pub(super) fn at(&self, position: u64) -> Result<Record, ChangeError> {
        if position >= self.len {
            return Err(ChangeError::NoRecord {
                position,
                len: self.len,
            });
        }
        let (piece, offset) = self.find(position);
        Ok(self.pieces[piece].record(offset))
    }

    /// The records from a position on, as many as there are, to `count`.
    pub(super) fn slice(&self, first: u64, count: u64) -> Slice {
        let mut left = count.min(self.len.saturating_sub(first));
        if left == 0 {
            return Slice(Vec::new());
        }
        let (at, mut offset) = self.find(first);
        let mut parts = Vec::new();
        for piece in &self.pieces[at..] {
            // Not more than the piece has, so it fits.
            let len = left.min((piece.len - offset).into()) as u32;
            parts.extend(piece.part(offset, len));
            left -= u64::from(len);
            offset = 0;
            if left == 0 {
                break;
            }
        }
        Slice(parts)
    }

    /// A new record before the one at a position, or at the end.
    pub(super) fn insert_at(&mut self, position: u64) -> Result<Record, ChangeError> {
        if position > self.len {
            return Err(ChangeError::NoRecord {
                position,
                len: self.len,
            });
        }
        if self.inserted == INSERTED_MAX {
            return Err(ChangeError::TooMany);
        }
        let record = Record {
            number: CONTACTS_MAX as u32 + self.inserted,
            revision: 0,
        };
        self.splice(position, 0, Some(record))?;
        self.inserted += 1;
        Ok(record)
    }

    /// The record is gone.
    pub(super) fn delete(&mut self, position: u64) -> Result<Record, ChangeError> {
        let record = self.at(position)?;
        self.splice(position, 1, None)?;
        Ok(record)
    }

    /// The record says that it was changed.
    pub(super) fn update(&mut self, position: u64) -> Result<Record, ChangeError> {
        let mut record = self.at(position)?;
        record.revision += 1;
        self.splice(position, 1, Some(record))?;
        Ok(record)
    }

    /// Two records change places.
    pub(super) fn swap(&mut self, one: u64, other: u64) -> Result<(), ChangeError> {
        let (first, second) = (self.at(one)?, self.at(other)?);
        self.room(4)?;
        self.splice(one, 1, Some(second))?;
        self.splice(other, 1, Some(first))
    }

    /// The last is the first.
    pub(super) fn reverse(&mut self) {
        self.pieces.reverse();
        self.pieces
            .iter_mut()
            .for_each(|piece| *piece = piece.reversed());
    }

    fn room(&self, more: usize) -> Result<(), ChangeError> {
        if self.pieces.len() + more > PIECES_MAX {
            return Err(ChangeError::TooMany);
        }
        Ok(())
    }

    /// The piece that holds a position, and where in it; behind the last for the end.
    fn find(&self, position: u64) -> (usize, u32) {
        let mut before = 0;
        for (at, piece) in self.pieces.iter().enumerate() {
            let len = u64::from(piece.len);
            if position < before + len {
                return (at, (position - before) as u32);
            }
            before += len;
        }
        (self.pieces.len(), 0)
    }

    /// Removes `removed` records, 0 or 1, at a position that has them, and puts one there.
    fn splice(
        &mut self,
        position: u64,
        removed: u32,
        new: Option<Record>,
    ) -> Result<(), ChangeError> {
        let (at, offset) = self.find(position);
        let cut = self.pieces.get(at).copied();
        let before = cut.and_then(|piece| piece.part(0, offset));
        let behind = cut.and_then(|piece| {
            let from = offset + removed;
            // A part of nothing has no first number.
            (from < piece.len).then(|| piece.part(from, piece.len - from))?
        });
        let parts = [before, new.map(Piece::of), behind].into_iter().flatten();
        let end = (at + 1).min(self.pieces.len());
        self.room(parts.clone().count().saturating_sub(end - at))?;
        self.pieces.splice(at..end, parts);
        self.len = self.len - u64::from(removed) + u64::from(new.is_some());
        // What was put there has at most three pieces: they, and their neighbours, may fit together now.
        for at in (at.saturating_sub(1)..at + 3).rev() {
            let pair = (self.pieces.get(at), self.pieces.get(at + 1));
            if let (Some(one), Some(next)) = pair
                && let Some(joined) = one.join(next)
            {
                self.pieces[at] = joined;
                self.pieces.remove(at + 1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(records: &Records) -> Vec<(u32, u32)> {
        let all = records.slice(0, u64::MAX);
        all.iter()
            .map(|record| (record.number, record.revision))
            .collect()
    }

    #[test]
    fn what_is_undone_is_one_piece_again() {
        let mut records = Records::new(CONTACTS_MAX);
        records.swap(10, 500_000).unwrap();
        assert_eq!(records.pieces.len(), 5);
        records.swap(500_000, 10).unwrap();
        assert_eq!(records.pieces.len(), 1);
        records.insert_at(70).unwrap();
        records.delete(70).unwrap();
        records.reverse();
        records.reverse();
        assert_eq!(records.pieces, Records::new(CONTACTS_MAX).pieces);
    }

    #[test]
    fn edits_are_bounded_and_a_refused_one_changes_nothing() {
        // As if every second record had been updated, from the first on.
        let most = PIECES_MAX as u32 - 2;
        let mut records = Records::new(CONTACTS_MAX);
        let one = |number: u32| Piece {
            first: number,
            len: 1,
            revision: number % 2,
            backwards: false,
        };
        let rest = records.pieces[0].part(most, CONTACTS_MAX as u32 - most);
        records.pieces = (0..most).map(one).chain(rest).collect();
        assert_eq!(records.swap(500_000, 600_000), Err(ChangeError::TooMany));
        records.delete(CONTACTS_MAX - 1).unwrap();
        records.insert_at(CONTACTS_MAX - 1).unwrap();
        assert_eq!(records.pieces.len(), PIECES_MAX);
        let before = records.pieces.clone();
        assert_eq!(records.swap(500_000, 600_000), Err(ChangeError::TooMany));
        assert_eq!(records.delete(500_000), Err(ChangeError::TooMany));
        assert_eq!(records.pieces, before);
        assert_eq!(
            records.delete(CONTACTS_MAX),
            Err(ChangeError::NoRecord {
                position: CONTACTS_MAX,
                len: CONTACTS_MAX
            })
        );
    }

    proptest! {
        #[test]
        fn edits_do_what_they_do_to_a_vec(
            len in 0u64..12, edits in proptest::collection::vec((0u8..6, 0usize..14, 0usize..14), 0..40),
        ) {
            let mut records = Records::new(len);
            let mut model: Vec<(u32, u32)> = (0..len as u32).map(|number| (number, 0)).collect();
            let mut inserted = CONTACTS_MAX as u32;
            for (kind, one, other) in edits {
                let (i, j) = (one as u64, other as u64);
                match kind {
                    0 => {
                        let done = records.insert_at(i);
                        prop_assert_eq!(done.is_ok(), one <= model.len());
                        if done.is_ok() {
                            model.insert(one, (inserted, 0));
                            inserted += 1;
                        }
                    }
                    1 => {
                        let gone = records.delete(i).ok().map(|record| (record.number, record.revision));
                        prop_assert_eq!(gone, (one < model.len()).then(|| model.remove(one)));
                    }
                    2 => {
                        prop_assert_eq!(records.update(i).is_ok(), one < model.len());
                        if let Some(record) = model.get_mut(one) {
                            record.1 += 1;
                        }
                    }
                    3 | 4 => {
                        let possible = one.max(other) < model.len();
                        prop_assert_eq!(records.swap(i, j).is_ok(), possible);
                        if possible {
                            model.swap(one, other);
                        }
                    }
                    _ => {
                        records.reverse();
                        model.reverse();
                    }
                }
                prop_assert_eq!(records.len(), model.len() as u64);
                prop_assert_eq!(all(&records), &model[..]);
                let (from, to) = (one.min(model.len()), (one + other).min(model.len()));
                let part: Vec<_> = records.slice(i, j).iter().map(|record| (record.number, record.revision)).collect();
                prop_assert_eq!(part, &model[from..to]);
                let fits = records.pieces.windows(2).any(|pair| pair[0].join(&pair[1]).is_some());
                prop_assert!(!fits, "{:?}", records.pieces);
            }
        }
    }
}
