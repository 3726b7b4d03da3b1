//! Names of attributes, as numbers.
//!
//! The columns are built from few names, each of which may fill slots of several tables. A name gets its number when
//! the plans are made, and an attribute is looked up once, whoever wants it. Spans of one instrumentation bear the same
//! attributes in the same order, so the name that came next the last time is tried first: then one comparison finds it.
//!
//! Invariant: only names that were found well-formed are remembered, and who remembers them or wants them changes
//! nothing but how long it takes. What strangers call their attributes fills a memory of a fixed size.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::value::{Attribute, Value};

/// A name that a column is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name(u32);

impl Name {
    /// Its place in a list by names.
    #[inline]
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

/// A power of two, several times the names that a producer uses.
const PLACES: usize = 512;
/// So many places a name may lie at, so that two that are looked for at one place need not drive each other out.
const TRIES: usize = 4;
/// Most names are compared in one go of so many bytes.
const HEAD_BYTES: usize = 32;
/// Longer names are looked up anew each time; the longest of ours have 44 bytes.
const BYTES_MAX: usize = 2 * HEAD_BYTES;

/// The key field of a `KeyValue`, its number and wire type.
const KEY: u8 = 0x0a;
/// Those of its value field.
const VALUE: u8 = 0x12;

/// The names of a decoder's tables.
pub(super) struct Names {
    wanted: HashMap<Box<str>, Name, BuildHasherDefault<NameHasher>>,
    /// The first bytes of those that were met.
    heads: Vec<Head>,
    /// What there is to say of those.
    met: Vec<Met>,
    /// Their further bytes.
    tails: Vec<[u8; HEAD_BYTES]>,
    /// The place of the last one that was met.
    last: usize,
    /// The place of the one that came next the last time.
    next: usize,
}

/// How attributes of the usual shape begin that have a certain name: the key field and the first byte of the value
/// field.
#[derive(Clone)]
struct Head {
    bytes: [u8; HEAD_BYTES],
    /// All ones where there are bytes.
    mask: [u8; HEAD_BYTES],
}

#[derive(Clone, Copy)]
struct Met {
    /// Of head and tail; 0 if there is nothing.
    len: usize,
    name: Option<Name>,
    /// The place of the one that came next.
    next: usize,
}

impl Default for Names {
    fn default() -> Self {
        let none = Head { bytes: [0; HEAD_BYTES], mask: [0; HEAD_BYTES] };
        Self {
            wanted: HashMap::default(),
            heads: vec![none; PLACES],
            met: vec![Met { len: 0, name: None, next: 0 }; PLACES],
            tails: vec![[0; HEAD_BYTES]; PLACES],
            last: 0,
            next: 0,
        }
    }
}

impl Names {
    /// The number of a name, from now on wanted. To be called before anything is met.
    pub(super) fn want(&mut self, name: &str) -> Name {
        let next = Name(u32::try_from(self.wanted.len()).unwrap_or(u32::MAX));
        *self.wanted.entry(name.into()).or_insert(next)
    }

    /// The number of a name; none if nobody wants it.
    pub(super) fn of(&self, name: &str) -> Option<Name> {
        self.wanted.get(name).copied()
    }

    /// The attributes that have a value and are wanted.
    pub(super) fn attributes<'a>(&self, pairs: &'a [KeyValue]) -> impl Iterator<Item = Attribute<'a>> {
        pairs.iter().filter_map(|pair| {
            let value = Value::of(pair.value.as_ref()?.value.as_ref()?)?;
            Some(Attribute { name: self.of(&pair.key)?, value })
        })
    }

    /// Of a `KeyValue` that begins with a name met before: its number, and what follows the first byte of its value
    /// field.
    ///
    /// `ahead` begins with the pair and shows what comes after it, if anything does: more bytes than a name has are
    /// compared at once.
    #[inline(always)]
    pub(super) fn meet<'p>(&mut self, pair: &'p [u8], ahead: &[u8]) -> Option<(Option<Name>, &'p [u8])> {
        let at = self.next;
        if let Some(rest) = self.begins(at, pair, ahead) {
            let met = self.met[at];
            (self.last, self.next) = (at, met.next);
            return Some((met.name, rest));
        }
        self.find(pair, ahead)
    }

    #[inline(never)]
    fn find<'p>(&mut self, pair: &'p [u8], ahead: &[u8]) -> Option<(Option<Name>, &'p [u8])> {
        let [KEY, len @ ..0x80, rest @ ..] = pair else { return None };
        let place = place_of(rest.get(..usize::from(*len))?);
        let (at, rest) = tries(place).find_map(|at| Some((at, self.begins(at, pair, ahead)?)))?;
        self.follow(at);
        Some((self.met[at].name, rest))
    }

    /// The number of a name that was not met, or not in an attribute of the usual shape; it is remembered.
    pub(super) fn introduce(&mut self, key: &str) -> Option<Name> {
        let name = self.of(key);
        let len = [KEY, 0].len() + key.len() + [VALUE].len();
        if let Ok(key_len) = u8::try_from(key.len())
            && len <= BYTES_MAX
        {
            let (mut bytes, mut mask) = ([[0; HEAD_BYTES]; 2], [0; HEAD_BYTES]);
            let flat = bytes.as_flattened_mut();
            (flat[0], flat[1], flat[len - 1]) = (KEY, key_len, VALUE);
            flat[2..len - 1].copy_from_slice(key.as_bytes());
            mask[..len.min(HEAD_BYTES)].fill(u8::MAX);
            let place = place_of(key.as_bytes());
            let [head, tail] = bytes;
            let is_its = |at: &usize| (self.heads[*at].bytes, self.tails[*at], self.met[*at].len) == (head, tail, len);
            let at = tries(place).find(|at| self.met[*at].len == 0 || is_its(at)).unwrap_or(place);
            self.heads[at] = Head { bytes: head, mask };
            self.tails[at] = tail;
            self.met[at] = Met { len, name, next: self.met[at].next };
            self.follow(at);
        }
        name
    }

    fn follow(&mut self, at: usize) {
        self.met[self.last].next = at;
        (self.last, self.next) = (at, self.met[at].next);
    }

    /// What follows, if `pair` begins with the name at that place.
    #[inline(always)]
    fn begins<'p>(&self, at: usize, pair: &'p [u8], ahead: &[u8]) -> Option<&'p [u8]> {
        let (head, len) = (&self.heads[at], self.met[at].len);
        let rest = pair.get(len..)?;
        let is_same = match ahead.first_chunk() {
            Some(first) => {
                !differs(first, &head.bytes, &head.mask)
                    && (len <= HEAD_BYTES || pair[HEAD_BYTES..len] == self.tails[at][..len - HEAD_BYTES])
            }
            // Then the name is shorter, too.
            None => head.bytes.get(..len) == Some(&pair[..len]),
        };
        (is_same && len > 0).then_some(rest)
    }
}

/// Whether bytes differ where the mask has ones: a few instructions, and no loop of a length to be guessed.
#[inline(always)]
fn differs(bytes: &[u8; HEAD_BYTES], head: &[u8; HEAD_BYTES], mask: &[u8; HEAD_BYTES]) -> bool {
    let (mut differing, mut at) = (0, 0);
    while at < HEAD_BYTES {
        differing |= (word(bytes, at) ^ word(head, at)) & word(mask, at);
        at += 8;
    }
    differing != 0
}

#[inline(always)]
fn word(b: &[u8; HEAD_BYTES], at: usize) -> u64 {
    u64::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6], b[at + 7]])
}

fn place_of(key: &[u8]) -> usize {
    let mut hasher = NameHasher::default();
    hasher.write(key);
    // The multiplication leaves the best bits on top.
    usize::try_from(hasher.finish() >> 48).unwrap_or(0) % PLACES
}

fn tries(place: usize) -> impl Iterator<Item = usize> {
    (0..TRIES).map(move |further| (place + further) % PLACES)
}

/// Hashes attribute names eight bytes at a time, as rustc's `FxHasher` does.
///
/// The map holds our own names only and strangers' names are merely looked up in it, so nobody can make it collide; the
/// places of those that were met are as many as they are.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder().iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        self.add(rest);
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl NameHasher {
    fn add(&mut self, word: u64) {
        // The multiplier of FxHasher: 2^64 by the golden ratio, odd.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute of this name as it lies in a message, its value field cut off behind the first byte.
    fn pair(key: &str) -> Vec<u8> {
        [&[KEY, u8::try_from(key.len()).unwrap()], key.as_bytes(), &[VALUE]].concat()
    }

    #[test]
    fn a_name_is_met_once_it_was_introduced_wanted_or_not() {
        let mut names = Names::default();
        let wanted = names.want("genops.team");
        for (key, name) in [("genops.team", Some(wanted)), ("nobody.wants.this", None)] {
            assert_eq!(names.meet(&pair(key), &[]), None, "{key}");
            assert_eq!([names.introduce(key), names.introduce(key)], [name; 2]);
            assert_eq!(names.meet(&pair(key), &[]), Some((name, &[][..])));
        }
        assert_eq!(names.met.iter().filter(|met| met.len > 0).count(), 2, "each has one place");
    }

    #[test]
    fn names_are_told_apart_by_every_byte_however_much_lies_behind_them() {
        let mut names = Names::default();
        let keys = ["team", "teams", "team.name.of.the.department.of.x", "team.name.of.the.department.of.y", "", "t"];
        assert!(keys.iter().all(|key| names.introduce(key).is_none()));
        for key in keys {
            let [mut alone, mut changed] = [pair(key), pair(key)];
            alone.push(7);
            changed[key.len()] ^= 1;
            for behind in [0, 100] {
                let [ahead, other] = [&alone, &changed].map(|pair| [&pair[..], &vec![0xff; behind][..]].concat());
                assert_eq!(names.meet(&alone, &ahead), Some((None, &[7][..])), "{key}");
                assert_eq!(names.meet(&changed, &other), None, "{key}");
            }
            assert_eq!(names.meet(&pair(key)[..key.len() + 2], &alone), None, "{key} without its value");
        }
    }

    #[test]
    fn what_strangers_write_fills_no_more_than_the_memory() {
        let mut names = Names::default();
        let wanted = names.want("genops.team");
        for number in 0..10 * PLACES {
            assert_eq!(names.introduce(&format!("stranger.{number}")), None);
        }
        assert_eq!(names.met.len(), PLACES);
        assert_eq!(names.introduce("genops.team"), Some(wanted));
        let long = "x".repeat(BYTES_MAX);
        assert_eq!((names.introduce(&long), names.meet(&pair(&long), &[])), (None, None));
    }
}
