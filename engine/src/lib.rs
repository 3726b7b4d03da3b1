//! When things happen.
//!
//! The engine works in epochs: a bounded batch of records is decoded, run through every rule and committed. One loop
//! owns all state of a stage. Data flows one way: decode → table → window → rule → decision → sink.
//!
//! Invariants: the engine never names DataFusion or librdkafka; only [`clock`] reads a clock; everything else is a
//! deterministic function of its inputs.

pub mod alerts;
pub mod aside;
pub mod backfill;
pub mod backtest;
mod blocks;
pub mod clock;
pub mod company;
pub mod config;
pub mod conformance;
pub mod console;
pub mod dead_letters;
pub mod decision;
pub mod decoding;
pub mod exchange;
pub mod fingerprint;
pub mod frontier;
pub mod guard;
pub mod http;
mod ipc;
pub mod join;
pub mod judge_stage;
pub mod lints;
pub mod live;
pub mod metrics;
pub mod outputs;
mod packed;
mod pane;
mod pane_index;
pub mod pipeline;
pub mod rule_test;
pub mod rules_dir;
mod running;
pub mod scan_stage;
pub mod segment;
mod sessions;
pub mod shard;
pub mod shipped;
mod state_rows;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod verdict;
pub mod verify;
pub mod watermark;
pub mod windowed;
