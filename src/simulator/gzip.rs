//! Gzip for bodies that are too large to hold, and so regular that they need not be: the same byte any number of times.
//!
//! The compressed form of such a run is again a run, of zeros: after one literal, every copy of 258 bytes takes two bits, and
//! both are 0. So a bomb costs nothing to make, and a bomb inside a bomb little more. Everything else is stored as it is.

use bytes::Bytes;

use super::body::Run;

/// The magic number, deflate, no flags, no time, no hints, an unknown system (RFC 1952).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The longest copy of deflate, and its symbol (RFC 1951).
const COPY_BYTES: u64 = 258;
const COPY: usize = 285;
const END_OF_BLOCK: usize = 256;

/// The most bytes of a stored block.
const STORED_MAX: usize = 0xffff;

/// The run, compressed: valid to its checksum and length.
pub(super) fn gzip(run: &Run) -> Run {
    let mut head = Bits::default();
    head.out.extend_from_slice(&HEADER);
    stored(&mut head, &run.head, false);
    let (mut zeros, mut tail) = (0, Bits::default());
    if run.count > 0 {
        let codes = open_block(&mut head, run.byte);
        head.code(codes.literal, 2);
        let (copies, literals) = ((run.count - 1) / COPY_BYTES, (run.count - 1) % COPY_BYTES);
        // The zeros of all copies: some fill up the byte begun, most are whole bytes, some begin a byte.
        let fill = (2 * copies).min(head.free());
        head.number(0, fill as u32);
        zeros = (2 * copies - fill) / 8;
        let rest = (2 * copies - fill) % 8;
        let bits = if zeros + rest > 0 {
            &mut tail
        } else {
            &mut head
        };
        bits.number(0, rest as u32);
        (0..literals).for_each(|_| bits.code(codes.literal, 2));
        bits.code(codes.end, 2);
    }
    // All bits of a run that fills no byte are in the head.
    let end = if tail.out.is_empty() {
        &mut head
    } else {
        &mut tail
    };
    stored(end, &run.tail, true);
    let checksum = Checksum::of(run);
    let length = run.head.len() as u64 + run.count + run.tail.len() as u64;
    end.out.extend_from_slice(&checksum.to_le_bytes());
    // The length is counted modulo 2^32.
    end.out.extend_from_slice(&(length as u32).to_le_bytes());
    Run {
        head: head.out.into(),
        byte: 0,
        count: zeros,
        tail: Bytes::from(tail.out),
    }
}

/// Blocks that hold the bytes as they are; the last one of them may be the document's last.
fn stored(bits: &mut Bits, bytes: &[u8], last: bool) {
    let mut rest = bytes;
    loop {
        let (now, later) = rest.split_at(rest.len().min(STORED_MAX));
        bits.number(u32::from(last && later.is_empty()), 1);
        bits.number(0, 2);
        bits.align();
        let length = now.len() as u16;
        bits.out.extend_from_slice(&length.to_le_bytes());
        bits.out.extend_from_slice(&(!length).to_le_bytes());
        bits.out.extend_from_slice(now);
        if later.is_empty() {
            return;
        }
        rest = later;
    }
}

/// Codes of two bits.
struct Codes {
    literal: u32,
    end: u32,
}

/// Begins a block with codes of its own: `0` copies 258 bytes and is followed by `0`, the distance 1; the others are `10` for
/// the byte and `11` for the block's end.
fn open_block(bits: &mut Bits, byte: u8) -> Codes {
    bits.number(0, 1);
    bits.number(2, 2);
    bits.number(COPY as u32 + 1 - 257, 5);
    bits.number(0, 5);
    // Lengths of the codes for the lengths of codes, in the odd order of the RFC: 2 bits for each of 18, 0, 2 and 1.
    const ORDER: [u8; 18] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1];
    bits.number(ORDER.len() as u32 - 4, 4);
    for symbol in ORDER {
        bits.number(
            if matches!(symbol, 0 | 1 | 2 | 18) {
                2
            } else {
                0
            },
            3,
        );
    }
    let byte = usize::from(byte);
    unused(bits, byte);
    length(bits, 2);
    unused(bits, END_OF_BLOCK - byte - 1);
    length(bits, 2);
    unused(bits, COPY - END_OF_BLOCK - 1);
    length(bits, 1);
    // The one distance.
    length(bits, 1);
    Codes {
        literal: 0b10,
        end: 0b11,
    }
}

/// The length of one symbol's code: 0, 1 or 2 bits.
fn length(bits: &mut Bits, length: u32) {
    bits.code(length, 2);
}

/// So many symbols have no code: runs of 11 to 138 are written in one, the rest one by one.
fn unused(bits: &mut Bits, mut symbols: usize) {
    while symbols >= 11 {
        let run = symbols.min(138);
        bits.code(0b11, 2);
        bits.number(run as u32 - 11, 7);
        symbols -= run;
    }
    (0..symbols).for_each(|_| length(bits, 0));
}

/// Bits in deflate's order: each byte is filled from its lowest bit.
#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    /// How many bits of the last byte are taken; 0 when it is full.
    taken: u32,
}

impl Bits {
    /// How many bits of the last byte are free: 0 to 7.
    fn free(&self) -> u64 {
        u64::from((8 - self.taken) % 8)
    }

    fn bit(&mut self, bit: u32) {
        if self.taken == 0 {
            self.out.push(0);
        }
        if let Some(last) = self.out.last_mut() {
            *last |= (bit as u8 & 1) << self.taken;
        }
        self.taken = (self.taken + 1) % 8;
    }

    /// A number: its lowest bit first.
    fn number(&mut self, number: u32, bits: u32) {
        (0..bits).for_each(|at| self.bit(number >> at));
    }

    /// A code: its highest bit first.
    fn code(&mut self, code: u32, bits: u32) {
        (0..bits).rev().for_each(|at| self.bit(code >> at));
    }

    fn align(&mut self) {
        self.taken = 0;
    }
}

/// What some bytes do to a CRC-32: a map that is linear but for a constant, so that the one of a byte's run is a power of the
/// byte's own.
#[derive(Clone, Copy)]
struct Checksum {
    columns: [u32; 32],
    constant: u32,
}

impl Checksum {
    /// The CRC-32 of a run.
    fn of(run: &Run) -> u32 {
        let bytes =
            |crc: u32, bytes: &[u8]| bytes.iter().fold(crc, |crc, &byte| Self::step(crc, byte));
        let head = bytes(!0, &run.head);
        let middle = Self::of_byte(run.byte).power(run.count).apply(head);
        !bytes(middle, &run.tail)
    }

    fn step(crc: u32, byte: u8) -> u32 {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    }

    fn of_byte(byte: u8) -> Self {
        Self {
            columns: std::array::from_fn(|bit| Self::step(1 << bit, 0)),
            constant: Self::step(0, byte),
        }
    }

    fn linear(&self, crc: u32) -> u32 {
        let columns = self.columns.iter().enumerate();
        columns.fold(0, |sum, (bit, column)| {
            sum ^ if crc >> bit & 1 == 1 { *column } else { 0 }
        })
    }

    fn apply(&self, crc: u32) -> u32 {
        self.linear(crc) ^ self.constant
    }

    fn then(&self, next: &Self) -> Self {
        Self {
            columns: self.columns.map(|column| next.linear(column)),
            constant: next.apply(self.constant),
        }
    }

    fn power(self, mut exponent: u64) -> Self {
        let mut power = Self {
            columns: std::array::from_fn(|bit| 1 << bit),
            constant: 0,
        };
        let mut square = self;
        while exponent > 0 {
            if exponent & 1 == 1 {
                power = power.then(&square);
            }
            square = square.then(&square);
            exponent >>= 1;
        }
        power
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes of a run.
    fn all(run: &Run) -> Vec<u8> {
        let middle = vec![run.byte; run.count as usize];
        [&run.head[..], &middle, &run.tail].concat()
    }

    /// A reader of the two kinds of blocks, which knows nothing of how they were written.
    struct Reader<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Reader<'_> {
        fn number(&mut self, bits: u32) -> usize {
            (0..bits).fold(0, |number, bit| {
                let set = self.bytes[self.at / 8] >> (self.at % 8) & 1;
                self.at += 1;
                number | usize::from(set) << bit
            })
        }

        /// The next symbol of an alphabet, given the length of each symbol's code.
        fn symbol(&mut self, lengths: &[usize]) -> usize {
            let (mut code, mut first) = (0, 0);
            for length in 1..=15 {
                code = code << 1 | self.number(1);
                first <<= 1;
                let mut of_length = (0..lengths.len()).filter(|&symbol| lengths[symbol] == length);
                if let Some(symbol) = of_length.clone().nth(code - first) {
                    return symbol;
                }
                first += of_length.by_ref().count();
            }
            panic!("no symbol has this code")
        }

        fn coded(&mut self, out: &mut Vec<u8>) {
            let literals = self.number(5) + 257;
            let distances = self.number(5) + 1;
            let mut lengths = [0; 19];
            let given = self.number(4) + 4;
            let order = [
                16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
            ];
            for symbol in &order[..given] {
                lengths[*symbol] = self.number(3);
            }
            let mut codes = vec![];
            while codes.len() < literals + distances {
                match self.symbol(&lengths) {
                    18 => {
                        let zeros = self.number(7) + 11;
                        codes.resize(codes.len() + zeros, 0);
                    }
                    length => codes.push(length),
                }
            }
            loop {
                match self.symbol(&codes[..literals]) {
                    256 => return,
                    285 => {
                        assert_eq!(self.symbol(&codes[literals..]), 0);
                        let last = *out.last().unwrap();
                        out.resize(out.len() + 258, last);
                    }
                    literal => out.push(u8::try_from(literal).unwrap()),
                }
            }
        }

        fn inflate(&mut self) -> Vec<u8> {
            let mut out = vec![];
            loop {
                let last = self.number(1) == 1;
                match self.number(2) {
                    0 => {
                        self.at = self.at.next_multiple_of(8);
                        let (length, inverse) = (self.number(16), self.number(16));
                        assert_eq!(length ^ inverse, 0xffff);
                        (0..length).for_each(|_| out.push(self.number(8) as u8));
                    }
                    2 => self.coded(&mut out),
                    kind => panic!("a block of kind {kind}"),
                }
                if last {
                    self.at = self.at.next_multiple_of(8);
                    return out;
                }
            }
        }
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        assert_eq!(bytes[..10], HEADER);
        let mut reader = Reader { bytes, at: 80 };
        let out = reader.inflate();
        let checksum = Checksum::of(&Run::held(out.clone().into()));
        assert_eq!(reader.number(32), checksum as usize);
        assert_eq!(reader.number(32), out.len() & 0xffff_ffff);
        assert_eq!(reader.at, 8 * bytes.len(), "and no more");
        out
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        let held = Run::held(Bytes::from_static(b"123456789"));
        assert_eq!(Checksum::of(&held), 0xcbf4_3926);
    }

    #[test]
    fn a_bomb_is_small_and_one_in_a_bomb_much_smaller() {
        let wire = |run: &Run| run.head.len() as u64 + run.count + run.tail.len() as u64;
        let once = gzip(&Run::page(1 << 30));
        assert_eq!(wire(&once) >> 10, 1_016);
        let twice = gzip(&once);
        assert!(wire(&twice) < 1_500, "{}", wire(&twice));
        assert_eq!(
            gunzip(&all(&gzip(&gzip(&Run::page(1 << 20))))),
            all(&gzip(&Run::page(1 << 20)))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_compressed_comes_back(
            head in proptest::collection::vec(any::<u8>(), 0..40), byte: u8,
            count in prop_oneof![0u64..1_100, 9_000u64..10_000],
            tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let run = Run { head: head.into(), byte, count, tail: tail.into() };
            prop_assert_eq!(gunzip(&all(&gzip(&run))), all(&run));
            prop_assert_eq!(Checksum::of(&run), Checksum::of(&Run::held(all(&run).into())));
        }

        #[test]
        fn more_than_a_stored_block_comes_back(length in 65_532usize..65_540) {
            let run = Run::held((0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>().into());
            prop_assert_eq!(gunzip(&all(&gzip(&run))), all(&run));
        }
    }
}
