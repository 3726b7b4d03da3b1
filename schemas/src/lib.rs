//! What rows and events are.
//!
//! Everything that enters lictor is turned here into Arrow rows, and everything that leaves it has its type here. The
//! crate is pure: no I/O, no clock, no async runtime. That is what lets replay, backtest and tests run the same code as
//! production.
//!
//! Invariant: the same bytes and the same arguments give the same rows, on every machine and at every time.

pub mod columns;
pub mod event;
pub mod genops;
pub mod otlp;
pub mod prices;
pub mod rule;
pub mod tables;
pub mod time;
pub mod violation;
