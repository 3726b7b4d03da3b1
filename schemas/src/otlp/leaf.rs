//! Which spans may be summed.
//!
//! Agent frameworks repeat the usage of a model call on every span around it, so a plain sum counts it two or three
//! times. A span counts if it bears usage and no descendant does. Span kinds do not tell: the innermost call is
//! sometimes the one without an operation name, and sometimes only the agent span bears usage.
//!
//! Only the spans of one Kafka record are looked at, so that it is known at once. Descendants that arrive in another
//! record are not seen, and then an ancestor counts as well; who can wait for them reads `USAGE_LEAVES` in SQL.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The place of a span in its trace.
pub(super) struct Node {
    pub(super) trace_id: u128,
    /// Not 0.
    pub(super) span_id: u64,
    /// 0 if there is none.
    pub(super) parent_span_id: u64,
    pub(super) bears_usage: bool,
}

/// For every span, in order: whether it bears usage and none of its descendants does.
pub(super) fn usage_leaves(nodes: &[Node]) -> Vec<bool> {
    let mut by_id = HashMap::with_capacity_and_hasher(nodes.len(), Secret::new());
    by_id.extend(nodes.iter().enumerate().map(|(at, node)| (place(node.trace_id, node.span_id), at)));
    let parent_of = |node: &Node| by_id.get(&place(node.trace_id, node.parent_span_id)).copied();
    let mut is_ancestor = vec![false; nodes.len()];
    for (start, node) in nodes.iter().enumerate().filter(|(_, node)| node.bears_usage) {
        let mut parent = parent_of(node);
        // An ancestor that is already marked has marked its own ancestors, so every span is visited once.
        while let Some(at) = parent {
            if at == start || is_ancestor[at] {
                break;
            }
            is_ancestor[at] = true;
            parent = parent_of(&nodes[at]);
        }
    }
    nodes.iter().zip(is_ancestor).map(|(node, is_ancestor)| node.bears_usage && !is_ancestor).collect()
}

/// In words, which hash faster than bytes.
fn place(trace_id: u128, span_id: u64) -> (u64, u64, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "the other half stands beside it")]
    ((trace_id >> 64) as u64, trace_id as u64, span_id)
}

/// What the hashes of one record's identifiers depend on.
struct Secret([u64; 2]);

impl Secret {
    /// Drawn anew for every record: whoever chooses identifiers cannot know which of them collide.
    fn new() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0), random.hash_one(1)])
    }
}

impl BuildHasher for Secret {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        let [state, factor] = self.0;
        IdHasher { state, factor }
    }
}

/// Multiplies word by word to 128 bits and folds them, as wyhash and foldhash do: a few nanoseconds where SipHash takes
/// dozens.
struct IdHasher {
    state: u64,
    factor: u64,
}

impl Hasher for IdHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor | 1);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        let [low, high] = [product as u64, (product >> 64) as u64];
        self.state = low ^ high;
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans as (id, parent, bears usage), all of one trace; gives the ids of the leaves.
    fn leaves(spans: &[(u64, u64, bool)]) -> Vec<u64> {
        let node = |(span_id, parent_span_id, bears_usage): &(u64, u64, bool)| Node {
            trace_id: 7,
            span_id: *span_id,
            parent_span_id: *parent_span_id,
            bears_usage: *bears_usage,
        };
        let leaves = usage_leaves(&spans.iter().map(node).collect::<Vec<_>>());
        spans.iter().zip(leaves).filter(|(_, leaf)| *leaf).map(|(span, _)| span.0).collect()
    }

    #[test]
    fn only_the_innermost_usage_counts_also_across_spans_without_usage() {
        assert_eq!(leaves(&[(1, 0, true), (2, 1, true), (3, 2, false), (4, 3, true)]), [4]);
        assert_eq!(leaves(&[(4, 3, true), (3, 2, false), (2, 1, true), (1, 0, true)]), [4]);
    }

    #[test]
    fn siblings_count_each_and_an_agent_without_children_counts_itself() {
        assert_eq!(leaves(&[(1, 0, true), (2, 1, true), (3, 1, true), (5, 0, true)]), [2, 3, 5]);
    }

    #[test]
    fn missing_parents_and_spans_that_are_their_own_parent_end_the_walk() {
        assert_eq!(leaves(&[(1, 1, true), (2, 9, true)]), [1, 2]);
        assert_eq!(leaves(&[(1, 2, true), (2, 1, false)]), [1]);
    }
}
