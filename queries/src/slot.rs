//! A table whose rows are put in just before a plan runs.
//!
//! Rules are planned once and run for ever, each time over other rows. Planning a scan of a [`SlotTable`] leaves a
//! [`Slot`] behind, narrowed to the columns that the plan reads; whoever runs the plan fills the slot first.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

/// The rows that one planned scan will read.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    schema: SchemaRef,
    batches: Arc<Mutex<Vec<RecordBatch>>>,
    /// Rows that come while the plan runs, in place of those.
    feed: Arc<Mutex<Option<Feed>>>,
    /// Where the columns were found in the batches seen last: telemetry batches share one schema.
    found: Arc<Mutex<Option<Places>>>,
}

/// Batches that are made while a plan reads them.
pub(crate) struct Feed(Box<dyn Iterator<Item = RecordBatch> + Send>);

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Feed")
    }
}

/// A schema and the positions in it of the columns that the plan reads.
type Places = (SchemaRef, Arc<[usize]>);

impl Slot {
    fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Arc::default(), feed: Arc::default(), found: Arc::default() }
    }

    /// The columns that the plan reads.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Replaces the rows; the batches may have more columns, found by name, in any order.
    pub(crate) fn fill(&self, batches: &[RecordBatch]) -> Result<(), ArrowError> {
        let narrowed = batches.iter().map(|b| self.narrow(b)).collect::<Result<_, _>>()?;
        *self.batches.lock().unwrap_or_else(PoisonError::into_inner) = narrowed;
        Ok(())
    }

    /// The next run reads these batches, each once; a plan may be longer than memory then.
    pub(crate) fn feed(&self, batches: impl Iterator<Item = RecordBatch> + Send + 'static) {
        *self.feed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Feed(Box::new(batches)));
    }

    /// Nothing is fed any more.
    pub(crate) fn forget_feed(&self) {
        drop(self.feed.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The rows as one batch; none if it was never filled.
    pub(crate) fn rows(&self) -> Option<RecordBatch> {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        concat_batches(&self.schema, batches.iter()).ok().filter(|_| !batches.is_empty())
    }

    /// The columns of `batch` that the plan reads, in its order.
    pub(crate) fn narrow(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let places = self.places_in(batch.schema_ref())?;
        let columns = places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)
    }

    fn places_in(&self, schema: &SchemaRef) -> Result<Arc<[usize]>, ArrowError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, places)) = &*found
            && Arc::ptr_eq(known, schema)
        {
            return Ok(Arc::clone(places));
        }
        let places: Arc<[usize]> =
            self.schema.fields().iter().map(|f| schema.index_of(f.name())).collect::<Result<_, _>>()?;
        *found = Some((Arc::clone(schema), Arc::clone(&places)));
        Ok(places)
    }
}

/// So many batches of a feed wait to be read: one that is worked on next, and one that hides a hiccup.
const FED_BATCHES_MAX: usize = 2;

impl Slot {
    fn stream(self, batches: impl Iterator<Item = RecordBatch> + Send + 'static) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), FED_BATCHES_MAX);
        let to = stream.tx();
        stream.spawn_blocking(move || {
            for batch in batches {
                let narrowed = self.narrow(&batch).map_err(Into::into);
                // Who needs no more, as a LIMIT, does not listen any more.
                if to.blocking_send(narrowed).is_err() {
                    break;
                }
            }
            Ok(())
        });
        stream.build()
    }
}

impl PartitionStream for Slot {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Feed(batches)) = feed {
            return self.clone().stream(batches);
        }
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = MemoryStream::try_new(batches, Arc::clone(&self.schema), None);
        Box::pin(stream.unwrap_or_else(|e| unreachable!("a stream without projection has no way to fail: {e}")))
    }
}

/// A table that hands out a [`Slot`] for every scan planned on it.
#[derive(Debug)]
pub(crate) struct SlotTable {
    schema: SchemaRef,
    planned: Mutex<Vec<Slot>>,
}

impl SlotTable {
    pub(crate) fn new(schema: SchemaRef) -> Arc<Self> {
        Arc::new(Self { schema, planned: Mutex::default() })
    }

    /// A slot for somebody who reads these columns without a plan.
    pub(crate) fn slot(&self, columns: &[usize]) -> Result<Slot> {
        let slot = Slot::new(Arc::new(self.schema.project(columns)?));
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push(slot.clone());
        Ok(slot)
    }

    /// The slots of all scans planned since the last call.
    pub(crate) fn take_planned(&self) -> Vec<Slot> {
        std::mem::take(&mut *self.planned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl TableProvider for SlotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let slot = Slot::new(Arc::clone(&schema));
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push(slot.clone());
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(slot)], None, [], false, limit)?))
    }
}
