//! Damage: what a broken writer, a broken disk or an attacker does to bytes.

use proptest::prelude::*;

use crate::datum::varint;

/// One damage; places are taken modulo the length.
#[derive(Debug, Clone)]
pub enum Mutation {
    /// A bit is turned.
    Flip(usize, u8),
    /// A byte is another one.
    Set(usize, u8),
    /// The rest is missing.
    Truncate(usize),
    /// A stretch stands again somewhere else.
    Splice(usize, usize, usize),
    /// A stretch is missing.
    Remove(usize, usize),
    /// Bytes are put in.
    Insert(usize, Vec<u8>),
    /// A number stands where there was one byte: a length, a count, a branch.
    Bomb(usize, i64),
    /// A varint that does not end.
    Endless(usize, usize),
}

/// Lengths and counts that a decoder may believe.
const BOMBS: [i64; 12] = [
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
    -1,
    -1_000_000,
    u32::MAX as i64,
    i32::MAX as i64,
    1 << 40,
    4 * 1024 * 1024,
    4 * 1024 * 1024 - 1,
    170_000,
    1_000_000,
];

/// Up to five damages.
pub fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let place = any::<usize>;
    let one = prop_oneof![
        (place(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        place().prop_map(Mutation::Truncate),
        (place(), place(), place()).prop_map(|(from, to, at)| Mutation::Splice(from, to, at)),
        (place(), 1..9usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (place(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (place(), prop::sample::select(&BOMBS[..])).prop_map(|(at, n)| Mutation::Bomb(at, n)),
        (place(), 1..20usize).prop_map(|(at, count)| Mutation::Endless(at, count)),
    ];
    prop::collection::vec(one, 0..6)
}

/// Damages bytes.
pub fn damage(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match mutation {
            Mutation::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
            Mutation::Set(at, byte) => bytes[at % length] = *byte,
            Mutation::Truncate(at) => bytes.truncate(at % length),
            Mutation::Splice(from, to, at) => {
                let (from, to) = (from % length, to % length);
                let stretch = bytes[from.min(to)..from.max(to)].to_vec();
                put(bytes, at % length, 0, &stretch);
            }
            Mutation::Remove(at, count) => put(bytes, at % length, *count, &[]),
            Mutation::Insert(at, new) => put(bytes, at % length, 0, new),
            Mutation::Bomb(at, number) => {
                let mut new = Vec::new();
                varint(*number, &mut new);
                put(bytes, at % length, 1, &new);
            }
            Mutation::Endless(at, count) => put(bytes, at % length, 1, &vec![0xff; *count]),
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, count: usize, new: &[u8]) {
    let end = (at + count).min(bytes.len());
    bytes.splice(at..end, new.iter().copied());
}
