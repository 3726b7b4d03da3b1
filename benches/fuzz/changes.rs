//! Changes inputs at random: bytes, chunks, and words of whatever language they are in.

use fastrand::Rng;

/// Numbers at which things end.
const BYTES: [u8; 9] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'\\', b'\n'];
const WORDS: [&[u8]; 14] = [
    b"-1",
    b"0",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"1e400",
    b"NaN",
    b"null",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"INTERVAL '9999999999 days'",
    b"\xf0\x9f\x92\xa9",
    b"\xed\xa0\x80",
    b"''",
];
/// Deep enough for a recursion without a limit to end the process.
const DEEP_MAX: usize = 20_000;

/// Changes, always the same for a seed.
pub(crate) struct Changes {
    random: Rng,
    words: Vec<Vec<u8>>,
    seeds: Vec<Vec<u8>>,
}

impl Changes {
    /// Knows the words of `seeds`.
    pub(crate) fn new(seed: u64, seeds: &[Vec<u8>]) -> Self {
        let mut words: Vec<Vec<u8>> = seeds.iter().flat_map(|seed| words_of(seed)).collect();
        words.sort();
        words.dedup();
        words.extend(WORDS.iter().map(|word| word.to_vec()));
        Self { random: Rng::with_seed(seed), words, seeds: seeds.to_vec() }
    }

    /// A seed that was changed a little, or one of `kept` that was changed in up to five places: what is far from all
    /// seeds is refused for its first fault, whatever else is wrong with it.
    pub(crate) fn of(&mut self, kept: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        let is_near = self.random.u8(..4) > 0;
        let from = if is_near { &self.seeds } else { kept };
        let mut input = from[self.random.usize(..from.len())].clone();
        for _ in 0..self.random.usize(1..=if is_near { 2 } else { 5 }) {
            self.change(&mut input, kept);
            input.truncate(bytes_max);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let from = self.random.usize(..=input.len());
        let to = (from + self.random.usize(..=(input.len() - from).min(64))).min(input.len());
        match self.random.u8(..12) {
            0 if from < input.len() => input[from] ^= 1 << self.random.u8(..8),
            1 if from < input.len() => input[from] = BYTES[self.random.usize(..BYTES.len())],
            2 if from < input.len() => input[from] = input[from].wrapping_add(self.random.u8(..3)).wrapping_sub(1),
            3 => drop(input.drain(from..to)),
            4 => {
                let again = input[from..to].to_vec();
                input.splice(from..from, again);
            }
            5 => input.truncate(from),
            6 => {
                let other = &kept[self.random.usize(..kept.len())];
                let start = self.random.usize(..=other.len());
                let end = (start + self.random.usize(..=256)).min(other.len());
                input.splice(from..to, other[start..end].iter().copied());
            }
            7 | 8 => {
                let word = self.words[self.random.usize(..self.words.len())].clone();
                input.splice(from..from, word);
            }
            9 | 10 => self.change_word(input),
            _ if self.random.u8(..20) == 0 => {
                let deep = input[from..to].repeat(self.random.usize(..DEEP_MAX) / (to - from).max(1));
                input.splice(from..from, deep);
            }
            _ => {
                let length = self.random.usize(..16);
                let noise: Vec<u8> = (0..length).map(|_| self.random.u8(..)).collect();
                input.splice(from..to, noise);
            }
        }
    }

    /// Puts another word in the place of one.
    fn change_word(&mut self, input: &mut Vec<u8>) {
        let words = words_of(input);
        let Some(old) = self.random.choice(&words) else { return };
        let at = input.windows(old.len()).position(|window| window == old.as_slice());
        let new = self.words[self.random.usize(..self.words.len())].clone();
        if let Some(at) = at {
            input.splice(at..at + old.len(), new);
        }
    }
}

/// Runs of letters and digits, and what stands between them.
fn words_of(text: &[u8]) -> Vec<Vec<u8>> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.chunk_by(|a, b| is_letter(a) == is_letter(b)).filter(|word| word.len() < 40).map(<[u8]>::to_vec).collect()
}
