//! Which letters were replayed: the committed offset of a group that nobody joins, and the text that lies with it.
//!
//! Offset and text are committed in the transaction that writes the replayed records, so a letter is replayed once
//! however often the command is called, and whenever it dies. All letters before the offset are done. Letters behind
//! it that are done, because what lies between was not chosen, are in the text as runs.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

/// Stands before the runs: their format.
const FORMAT: &str = "r1:";

/// A broker keeps so many bytes with an offset (`offset.metadata.max.bytes`), unless it is told otherwise.
const TEXT_BYTES_MAX: usize = 4_096;

/// The letters of one partition that were replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// All letters before this offset.
    below: i64,
    /// Behind it, in their order; they do not touch.
    runs: Vec<Range<i64>>,
}

/// What lies with a committed offset was not written by lictor, or by another version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` says of no letters that they were replayed")]
pub struct DoneError(String);

impl Done {
    /// What was committed: the offset and the text.
    ///
    /// # Errors
    /// The text is none of ours.
    pub fn read(next: i64, text: &str) -> Result<Self, DoneError> {
        let mut done = Self { below: next, runs: Vec::new() };
        if text.is_empty() {
            return Ok(done);
        }
        let refuse = || DoneError(text.to_owned());
        let packed = text.strip_prefix(FORMAT).ok_or_else(refuse)?;
        let bytes = URL_SAFE_NO_PAD.decode(packed).map_err(|_| refuse())?;
        let mut rest = bytes.as_slice();
        let mut at = next;
        while !rest.is_empty() {
            let (gap, length) = take_number(&mut rest).zip(take_number(&mut rest)).ok_or_else(refuse)?;
            let start = at.checked_add(gap).ok_or_else(refuse)?;
            at = start.checked_add(length).ok_or_else(refuse)?;
            done.runs.push(start..at);
        }
        Ok(done)
    }

    /// The offset to commit: all letters before it are done.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.below
    }

    /// The text to commit with it.
    #[must_use]
    pub fn text(&self) -> String {
        if self.runs.is_empty() {
            return String::new();
        }
        let mut bytes = Vec::new();
        let mut at = self.below;
        for run in &self.runs {
            put_number(&mut bytes, run.start - at);
            put_number(&mut bytes, run.end - run.start);
            at = run.end;
        }
        format!("{FORMAT}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Whether a letter was replayed.
    #[must_use]
    pub fn has(&self, offset: i64) -> bool {
        offset < self.below || self.runs.iter().any(|run| run.contains(&offset))
    }

    /// What is left of it once the partition begins at `begin`.
    #[must_use]
    pub fn since(mut self, begin: i64) -> Self {
        self.below = self.below.max(begin);
        self.runs.retain(|run| run.end > self.below);
        if let Some(first) = self.runs.first_mut()
            && first.start <= self.below
        {
            self.below = first.end;
            self.runs.remove(0);
        }
        self
    }

    fn fits(&self) -> bool {
        self.text().len() <= TEXT_BYTES_MAX
    }
}

/// Goes through the letters of a partition in their order and notes which are done.
#[derive(Clone, Debug)]
pub struct Walk {
    before: Done,
    after: Done,
    /// The letter that was noted last, and whether it is done.
    last: Option<(i64, bool)>,
    has_gap: bool,
}

impl Walk {
    /// Begins with what was done before.
    #[must_use]
    pub fn new(before: Done) -> Self {
        let after = Done { below: before.below, runs: Vec::new() };
        Self { before, after, last: None, has_gap: false }
    }

    /// Whether a letter was done before.
    #[must_use]
    pub fn was_done(&self, offset: i64) -> bool {
        self.before.has(offset)
    }

    /// Whether it can be noted that the next letter is done: the text has room for so many runs only.
    #[must_use]
    pub fn has_room_for(&self, offset: i64) -> bool {
        // Far from the limit nothing needs to be tried: a run takes at most 27 characters.
        if self.after.runs.len() + self.before.runs.len() < TEXT_BYTES_MAX / 32 {
            return true;
        }
        let mut tried = self.clone();
        tried.note(offset, true);
        tried.done().fits()
    }

    /// The next letter is done, or not.
    ///
    /// # Panics
    /// It lies before the one that was noted last.
    pub fn note(&mut self, offset: i64, is_done: bool) {
        assert!(self.last.is_none_or(|(last, _)| last < offset), "letters are noted in their order");
        let follows_done = self.last.is_some_and(|(_, was_done)| was_done);
        self.last = Some((offset, is_done));
        match self.after.runs.last_mut() {
            _ if !is_done => self.has_gap = true,
            None if !self.has_gap => self.after.below = self.after.below.max(offset + 1),
            // Between the two lies nothing but marks of transactions.
            Some(run) if follows_done => run.end = offset + 1,
            _ => self.after.runs.push(offset..offset + 1),
        }
    }

    /// What is done as of now.
    #[must_use]
    pub fn done(&self) -> Done {
        let position = self.last.map_or(self.after.below, |(last, _)| last + 1);
        let mut done = self.after.clone();
        let rest = self.before.runs.iter().filter(|run| run.end > position);
        done.runs.extend(rest.map(|run| run.start.max(position)..run.end));
        done.runs.dedup_by(|next, run| {
            let touches = next.start <= run.end;
            if touches {
                run.end = next.end;
            }
            touches
        });
        done.since(0)
    }
}

/// LEB128; the numbers are lengths and so not negative.
fn put_number(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = number.unsigned_abs();
    loop {
        let low = (rest & 0x7f).to_le_bytes()[0];
        rest >>= 7;
        if rest == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<i64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift > 56 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return i64::try_from(number).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All below, and from each first offset up to the one after the last.
    fn done(below: i64, runs: &[(i64, i64)]) -> Done {
        Done { below, runs: runs.iter().map(|(first, next)| *first..*next).collect() }
    }

    /// Goes through letters at these offsets and notes those as done that are chosen or were done before.
    fn walk(before: Done, letters: &[i64], chosen: impl Fn(i64) -> bool) -> Done {
        let mut walk = Walk::new(before);
        for &letter in letters {
            let is_done = walk.was_done(letter) || (chosen(letter) && walk.has_room_for(letter));
            walk.note(letter, is_done);
        }
        walk.done()
    }

    #[test]
    fn what_is_replayed_in_order_is_one_offset_whatever_lies_between() {
        assert_eq!(walk(Done::default(), &[0, 2, 3, 7], |_| true), done(8, &[]));
        assert_eq!(walk(done(4, &[]), &[5, 9], |_| true), done(10, &[]));
    }

    #[test]
    fn what_was_not_chosen_is_left_for_later_and_what_was_done_behind_it_is_known() {
        let letters = [0, 2, 4, 6, 8, 10];
        let first = walk(Done::default(), &letters, |letter| letter >= 4 && letter != 8);
        assert_eq!(first, done(0, &[(4, 7), (10, 11)]));
        assert!(!first.has(0) && first.has(4) && first.has(6) && !first.has(8) && first.has(10));
        assert_eq!(walk(first.clone(), &letters, |letter| letter == 0), done(1, &[(4, 7), (10, 11)]));
        assert_eq!(walk(first, &letters, |_| true), done(11, &[]));
    }

    #[test]
    fn a_walk_that_ends_early_keeps_what_was_done_behind_its_end() {
        let before = done(0, &[(4, 7), (10, 11)]);
        assert_eq!(walk(before.clone(), &[0, 2, 4], |_| true), done(7, &[(10, 11)]));
        assert_eq!(walk(before.clone(), &[0], |_| false), before);
        assert_eq!(walk(before.clone(), &[], |_| true), before);
    }

    #[test]
    fn letters_that_were_deleted_are_forgotten() {
        assert_eq!(done(0, &[(4, 7), (10, 11)]).since(5), done(7, &[(10, 11)]));
        assert_eq!(done(0, &[(4, 7)]).since(20), done(20, &[]));
        assert_eq!(done(3, &[(4, 7)]).since(1), done(3, &[(4, 7)]));
    }

    #[test]
    fn what_is_committed_comes_back() {
        for case in
            [done(0, &[]), done(17, &[]), done(5, &[(7, 8), (300, 70_000)]), done(1 << 40, &[(1 << 41, 1 << 42)])]
        {
            assert_eq!(Done::read(case.next(), &case.text()), Ok(case.clone()), "{}", case.text());
        }
    }

    #[test]
    fn a_text_of_somebody_else_is_refused() {
        for text in ["x", "r1:!", "r1:gA", "r1:AQ", "r1:____________8BAQ", "r2:AQE"] {
            assert!(Done::read(0, text).is_err(), "{text}");
        }
    }

    #[test]
    fn runs_come_to_an_end_before_the_brokers_patience_does() {
        let letters: Vec<i64> = (0..5_000).collect();
        let done = walk(Done::default(), &letters, |letter| letter % 2 == 1);
        assert!(done.text().len() <= TEXT_BYTES_MAX);
        assert!(done.runs.len() > 1_500, "{}", done.runs.len());
        assert_eq!(Done::read(done.next(), &done.text()), Ok(done));
    }

    /// Whatever is chosen in whatever order, a letter is done once it was chosen, and none other.
    #[test]
    fn rounds_of_any_choice_add_up() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..500 {
            let letters: Vec<i64> = (0..60).filter(|_| random.u8(..3) > 0).collect();
            let (mut done, mut expected) = (Done::default(), BTreeSet::<i64>::new());
            for _ in 0..6 {
                let share = random.u8(1..5);
                let picks: Vec<i64> = letters.iter().copied().filter(|_| random.u8(..5) < share).collect();
                let until = random.usize(..=letters.len());
                done = walk(done, &letters[..until], |letter| picks.contains(&letter));
                expected.extend(letters[..until].iter().filter(|letter| picks.contains(letter)));
                let committed = Done::read(done.next(), &done.text()).unwrap();
                assert_eq!(committed, done);
                for letter in &letters {
                    assert_eq!(done.has(*letter), expected.contains(letter), "{letter} {done:?}");
                }
            }
        }
    }
}
