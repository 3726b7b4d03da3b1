//! Windows that are put together from panes, and what neighbouring windows share of that.
//!
//! A window of many panes that slides by a few is for the most part what the window before was. So neighbouring panes
//! are merged into blocks, about as many as a block has panes, and a window is put together from those and from the
//! panes beside them. Only where that makes no difference, to the last bit: sums of floating-point numbers depend on
//! their order, and are merged pane by pane.
//!
//! Blocks follow from the panes: nothing of them is logged, and what changes a pane takes its block away.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use lictor_queries::Aggregation;
use lictor_schemas::time::{EventTime, Window};

use crate::pane::{Pane, PaneError, PartialRows};

type Panes = BTreeMap<Window, Pane>;

/// Neighbouring panes, merged.
#[derive(Debug, Default)]
pub(crate) struct Blocks(BTreeMap<EventTime, Block>);

#[derive(Debug)]
enum Block {
    Merged(PartialRows),
    /// Its panes have few keys in common: merged they would take nearly as much room once more.
    Apart,
}

/// Merged panes are kept if they have so many times fewer groups than apart.
const SHARED_MIN: usize = 2;

impl Blocks {
    /// A pane changes or goes.
    pub(crate) fn forget(&mut self, span: Window, aggregation: &Aggregation) {
        if !self.0.is_empty()
            && let Some(block) = aggregation.spec().block_at(span.start)
        {
            self.0.remove(&block.start);
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        let columns = |block: &Block| match block {
            Block::Merged(rows) => rows.keys.iter().chain(&rows.states).map(|c| c.get_array_memory_size()).sum(),
            Block::Apart => 0,
        };
        self.0.values().map(columns).sum()
    }

    /// All groups of a window, each once.
    pub(crate) fn rows_of(
        &mut self,
        window: Window,
        panes: &Panes,
        aggregation: &Aggregation,
    ) -> Result<PartialRows, PaneError> {
        let spec = aggregation.spec();
        let within: Vec<(Window, &Pane)> =
            panes.range(spec.panes_in(window)).map(|(span, pane)| (*span, pane)).collect();
        if within.is_empty() || !aggregation.merges_in_one_go() {
            return merged_two_by_two(&within, aggregation);
        }
        let is_within = |block: &Window| window.start <= block.start && block.end <= window.end;
        let may_share = within.len() > 1 && aggregation.merges_in_any_grouping();
        let block_of = |span: Window| spec.block_at(span.start).filter(|block| may_share && is_within(block));
        let mut parts: Vec<Part<'_>> = Vec::new();
        for of_block in within.chunk_by(|(a, _), (b, _)| block_of(*a).is_some() && block_of(*a) == block_of(*b)) {
            match block_of(of_block[0].0).filter(|_| of_block.len() > 1) {
                Some(block) if self.has_merged(block, of_block, aggregation)? => parts.push(Part::Block(block.start)),
                _ => parts.extend(of_block.iter().map(|(_, pane)| Part::Pane(pane))),
            }
        }
        let rows = |part: &Part<'_>| match part {
            Part::Pane(pane) => pane.all(),
            Part::Block(start) => match self.0.get(start) {
                Some(Block::Merged(rows)) => Ok(rows.clone()),
                _ => Err(PaneError::Incomplete),
            },
        };
        match parts.as_slice() {
            [only] => rows(only),
            parts => merged(parts.iter().map(rows), aggregation),
        }
    }

    /// Whether a block of these panes is there, or is worth its room.
    fn has_merged(
        &mut self,
        block: Window,
        panes: &[(Window, &Pane)],
        aggregation: &Aggregation,
    ) -> Result<bool, PaneError> {
        if let Some(known) = self.0.get(&block.start) {
            return Ok(matches!(known, Block::Merged(_)));
        }
        let apart: usize = panes.iter().map(|(_, pane)| pane.len()).sum();
        let rows = merged(panes.iter().map(|(_, pane)| pane.all()), aggregation)?;
        let is_shared = rows.rows * SHARED_MIN <= apart;
        self.0.insert(block.start, if is_shared { Block::Merged(rows) } else { Block::Apart });
        Ok(is_shared)
    }
}

/// What a window is put together from.
enum Part<'a> {
    Pane(&'a Pane),
    /// The block that starts then.
    Block(EventTime),
}

/// All groups of these parts, each once, in the order in which they occur first. States are merged in the order of the
/// parts.
fn merged(
    parts: impl Iterator<Item = Result<PartialRows, PaneError>>,
    aggregation: &Aggregation,
) -> Result<PartialRows, PaneError> {
    let (mut index, mut merger) = (aggregation.key_index()?, aggregation.merger()?);
    let (mut keys, mut first) = (Vec::new(), Vec::new());
    for (number, part) in parts.enumerate() {
        let part = part?;
        let groups = index.intern(&part.keys, part.rows)?;
        for (row, group) in groups.iter().enumerate() {
            if *group == first.len() {
                first.push((number, row));
            }
        }
        merger.add(&part.states, &groups, first.len())?;
        keys.push(part.keys);
    }
    let columns = aggregation.key_schema().fields().len();
    let key = |column: usize| -> Result<ArrayRef, PaneError> {
        let parts: Vec<&dyn Array> = keys.iter().map(|part| part[column].as_ref()).collect();
        Ok(interleave(&parts, &first)?)
    };
    let keys = (0..columns).map(key).collect::<Result<_, _>>()?;
    Ok(PartialRows { keys, states: merger.finish()?, rows: first.len() })
}

/// As [`merged`], of states that must be merged two by two.
fn merged_two_by_two(panes: &[(Window, &Pane)], aggregation: &Aggregation) -> Result<PartialRows, PaneError> {
    if let [(_, pane)] = panes {
        return pane.all();
    }
    let mut whole = Pane::try_new(aggregation)?;
    for (_, pane) in panes {
        whole.absorb(aggregation, &pane.all()?)?;
    }
    whole.all()
}
