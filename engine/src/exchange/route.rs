//! Which shard a group belongs to.
//!
//! The shard is a function of the group's key alone, so that it does not matter how producers have spread their records
//! over partitions, nor which instance has read them. The hash is ours, because it must be the same in every version:
//! state already lies where it sent it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use lictor_schemas::time::Window;
use lictor_schemas::violation::Violation;

use super::{RuleId, Shipment, StoreFailure, StoreId};

/// How the groups of one store are spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRoute {
    /// The id of the store's state.
    pub name: String,
    /// The numbers of the keys that choose the shard; none if all groups are judged on one.
    pub keys: Vec<usize>,
}

/// Where everything goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// The names of the rules, in the order of their numbers: violations of one row go by rule and subject.
    pub rules: Vec<String>,
    /// How stores are spread, in the order of their numbers.
    pub stores: Vec<StoreRoute>,
}

impl StoreRoute {
    /// The shard of each of `rows` rows with these key columns, of so many `shards`.
    pub(crate) fn shards_of(&self, keys: &[ArrayRef], rows: usize, shards: u32) -> Result<Vec<usize>, ArrowError> {
        let mut hashes = vec![Hash::of(self.name.as_bytes()); rows];
        for key in &self.keys {
            add_column(&mut hashes, &keys[*key])?;
        }
        Ok(hashes.into_iter().map(|hash| hash.bucket(shards) as usize).collect())
    }
}

/// One shard of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub shard: u32,
    /// How many there are.
    pub shards: u32,
}

impl Place {
    /// Where everything is judged in one place.
    pub const ONLY: Self = Self { shard: 0, shards: 1 };
}

/// The rows of one kind in a shipment.
type OfShard = fn(&mut Shipment) -> &mut Vec<(StoreId, RecordBatch)>;

fn partials_of(shipment: &mut Shipment) -> &mut Vec<(StoreId, RecordBatch)> {
    &mut shipment.partials
}

fn updates_of(shipment: &mut Shipment) -> &mut Vec<(StoreId, RecordBatch)> {
    &mut shipment.updates
}

/// Splits shipments by shard.
#[derive(Clone, Debug)]
pub struct Router {
    shards: u32,
    routes: Routes,
}

impl Router {
    /// Spreads over so many shards.
    #[must_use]
    pub fn new(shards: u32, routes: Routes) -> Self {
        assert!(shards > 0, "{shards} shards cannot judge anything");
        Self { shards, routes }
    }

    /// One shipment per shard. Rows go where their group is judged; sources, marks, failures and time go everywhere.
    #[must_use]
    pub fn split(&self, shipment: Shipment) -> Vec<Shipment> {
        let Shipment {
            partials,
            updates,
            violations,
            sources,
            marks,
            feeder,
            feeding,
            now,
            newest,
            failures,
            mut store_failures,
        } = shipment;
        let empty = || Shipment { newest, feeder, ..Shipment::empty(now) };
        let mut split: Vec<Shipment> = (0..self.shards).map(|_| empty()).collect();
        for (rows, of_shard) in [(partials, partials_of as OfShard), (updates, updates_of)] {
            for (store, partial) in rows {
                if let Err(error) = self.split_partial(store, partial, (&mut split, of_shard)) {
                    store_failures.push(StoreFailure { store, message: error.to_string() });
                }
            }
        }
        for (rule, violations) in violations {
            self.split_violations(rule, violations, &mut split);
        }
        for of_shard in &mut split {
            of_shard.sources.clone_from(&sources);
            of_shard.marks.clone_from(&marks);
            of_shard.feeding.clone_from(&feeding);
            of_shard.failures.clone_from(&failures);
            of_shard.store_failures.clone_from(&store_failures);
        }
        split
    }

    fn split_partial(
        &self,
        store: StoreId,
        partial: RecordBatch,
        (split, of_shard): (&mut [Shipment], OfShard),
    ) -> Result<(), ArrowError> {
        let shards = self.shards_of(store, &partial)?;
        let Some(first) = shards.first().copied() else { return Ok(()) };
        if shards.iter().all(|shard| *shard == first) {
            of_shard(&mut split[first]).push((store, partial));
            return Ok(());
        }
        let mut rows: Vec<Vec<u64>> = vec![Vec::new(); split.len()];
        shards.iter().zip(0..).for_each(|(shard, row)| rows[*shard].push(row));
        for (shipment, rows) in split.iter_mut().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            of_shard(shipment).push((store, take_record_batch(&partial, &UInt64Array::from(rows))?));
        }
        Ok(())
    }

    /// The shard of each row of a partial batch `[pane_start, key…, state…]`.
    fn shards_of(&self, store: StoreId, partial: &RecordBatch) -> Result<Vec<usize>, ArrowError> {
        self.routes.stores[store.0].shards_of(&partial.columns()[1..], partial.num_rows(), self.shards)
    }

    fn split_violations(&self, rule: RuleId, violations: Vec<Violation>, split: &mut [Shipment]) {
        let name = &self.routes.rules[rule.0];
        for violation in violations {
            let hash = Hash::of(name.as_bytes()).add(violation.subject.to_key().as_bytes());
            let of_shard = &mut split[hash.bucket(self.shards) as usize].violations;
            match of_shard.last_mut() {
                Some((last, list)) if *last == rule => list.push(violation),
                _ => of_shard.push((rule, vec![violation])),
            }
        }
    }
}

/// FNV-1a over 64 bits, <http://www.isthe.com/chongo/tech/comp/fnv/>, with murmur3's finaliser: FNV alone hardly mixes
/// its low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(0xcbf2_9ce4_8422_2325).add(bytes)
    }

    /// Adds a value; its length goes in too, so that `ab, c` is not `a, bc`.
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let length = (bytes.len() as u64).to_le_bytes();
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().chain(&length).fold(self.0, step))
    }

    /// What a store keeps for a span of event time.
    pub(crate) fn of_span(store: &str, span: Window) -> Self {
        Self::of(store.as_bytes()).add(&span.start.0.to_le_bytes()).add(&span.end.0.to_le_bytes())
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// One of so many buckets.
    pub(crate) fn bucket(self, buckets: u32) -> u32 {
        let mut h = self.0;
        h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^= h >> 33;
        u32::try_from(h % u64::from(buckets)).unwrap_or_else(|_| unreachable!("a remainder is less than {buckets}"))
    }
}

/// Stands for null; no text of ours begins with it.
const NULL: &[u8] = &[0xff];

fn add_column(hashes: &mut [Hash], column: &ArrayRef) -> Result<(), ArrowError> {
    let mut add = |row: usize, bytes: &[u8]| hashes[row] = hashes[row].add(bytes);
    match column.data_type() {
        DataType::Utf8View => {
            let texts = column.as_string_view().iter();
            texts.enumerate().for_each(|(row, text)| add(row, text.map_or(NULL, str::as_bytes)));
        }
        DataType::Int64 => {
            let numbers = column.as_primitive::<Int64Type>().iter();
            numbers
                .enumerate()
                .for_each(|(row, n)| add(row, n.map_or(NULL.to_vec(), |n| n.to_le_bytes().into()).as_ref()));
        }
        _ => {
            let options = FormatOptions::default();
            let texts = ArrayFormatter::try_new(column.as_ref(), &options)?;
            for row in 0..column.len() {
                if column.is_null(row) {
                    add(row, NULL);
                } else {
                    add(row, texts.value(row).try_to_string()?.as_bytes());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Schema};
    use lictor_schemas::time::EventTime;

    fn partial(teams: &[Option<&str>]) -> RecordBatch {
        let fields = ["pane_start", "k0", "s0"]
            .map(|name| Field::new(name, if name == "k0" { DataType::Utf8View } else { DataType::Int64 }, true));
        let rows = i64::try_from(teams.len()).unwrap();
        let numbers = || Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef;
        let teams: ArrayRef = Arc::new(StringViewArray::from(teams.to_vec()));
        RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), vec![numbers(), teams, numbers()]).unwrap()
    }

    fn router(keys: &[usize]) -> Router {
        let stores = vec![StoreRoute { name: "budget".to_owned(), keys: keys.to_vec() }];
        Router::new(4, Routes { rules: vec!["budget".to_owned()], stores })
    }

    fn teams_by_shard(router: &Router, teams: &[Option<&str>]) -> Vec<Vec<Option<String>>> {
        let shipment = Shipment { partials: vec![(StoreId(0), partial(teams))], ..Shipment::empty(EventTime(0)) };
        let teams_of = |batch: &RecordBatch| {
            batch.column(1).as_string_view().iter().map(|t| t.map(str::to_owned)).collect::<Vec<_>>()
        };
        let split = router.split(shipment);
        split.iter().map(|s| s.partials.iter().flat_map(|(_, b)| teams_of(b)).collect()).collect()
    }

    #[test]
    fn every_row_goes_to_one_shard_and_equal_keys_to_the_same() {
        let names: Vec<String> = (0..200).map(|n| format!("team-{}", n % 100)).collect();
        let teams: Vec<Option<&str>> = names.iter().map(|n| Some(n.as_str())).chain([None, None]).collect();
        let split = teams_by_shard(&router(&[0]), &teams);
        assert_eq!(split.iter().map(Vec::len).sum::<usize>(), 202);
        assert!(split.iter().all(|rows| rows.len() > 20), "spread evenly: {:?}", split.iter().map(Vec::len));
        let shards_of = |team: &Option<String>| split.iter().filter(|rows| rows.contains(team)).count();
        assert!(split.iter().flatten().all(|team| shards_of(team) == 1));
    }

    #[test]
    fn a_store_without_distribution_keys_is_on_one_shard() {
        let split = teams_by_shard(&router(&[]), &[Some("a"), Some("b"), Some("c"), Some("d"), Some("e")]);
        assert_eq!(split.iter().filter(|rows| !rows.is_empty()).count(), 1);
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        // State lies where these numbers have sent it.
        assert_eq!(Hash::of(b"budget").add(b"checkout"), Hash(7_114_749_704_145_404_714));
        assert_eq!(Hash::of(b"budget").add(b"checkout").bucket(8), 4);
    }
}
