//! Which spans may be summed.
//!
//! Agent frameworks repeat the usage of a model call on every span around it, so a plain sum counts it two or three
//! times. A span counts if it bears usage and no descendant does. Span kinds do not tell: the innermost call is
//! sometimes the one without an operation name, and sometimes only the agent span bears usage.
//!
//! Only the spans of one Kafka record are looked at, so that it is known at once. Descendants that arrive in another
//! record are not seen, and then an ancestor counts as well; who can wait for them reads `USAGE_LEAVES` in SQL.

use std::collections::HashMap;

/// The place of a span in its trace.
pub(super) struct Node<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) parent_span_id: &'a [u8],
    pub(super) bears_usage: bool,
}

/// For every span, in order: whether it bears usage and none of its descendants does.
pub(super) fn usage_leaves(nodes: &[Node<'_>]) -> Vec<bool> {
    let by_id: HashMap<_, _> = nodes.iter().enumerate().map(|(at, n)| ((n.trace_id, n.span_id), at)).collect();
    let mut is_ancestor = vec![false; nodes.len()];
    for (start, node) in nodes.iter().enumerate().filter(|(_, node)| node.bears_usage) {
        let mut parent = by_id.get(&(node.trace_id, node.parent_span_id));
        // An ancestor that is already marked has marked its own ancestors, so every span is visited once.
        while let Some(&at) = parent {
            if at == start || is_ancestor[at] {
                break;
            }
            is_ancestor[at] = true;
            parent = by_id.get(&(nodes[at].trace_id, nodes[at].parent_span_id));
        }
    }
    nodes.iter().zip(is_ancestor).map(|(node, is_ancestor)| node.bears_usage && !is_ancestor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans as (id, parent, bears usage), all of one trace; gives the ids of the leaves.
    fn leaves(spans: &[(u8, u8, bool)]) -> Vec<u8> {
        let ids: Vec<[[u8; 1]; 2]> = spans.iter().map(|(id, parent, _)| [[*id], [*parent]]).collect();
        let node = |(ids, span): (&'static [[u8; 1]; 2], &(u8, u8, bool))| Node {
            trace_id: b"t",
            span_id: &ids[0],
            parent_span_id: &ids[1],
            bears_usage: span.2,
        };
        let ids: &'static [[[u8; 1]; 2]] = ids.leak();
        let nodes: Vec<_> = ids.iter().zip(spans).map(node).collect();
        let leaves = usage_leaves(&nodes);
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
