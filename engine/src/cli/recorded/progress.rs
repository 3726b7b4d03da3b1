//! How far a replay has come, for whoever looks at a terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use lictor_connectors::Meter;
use lictor_engine::clock::Clock;

/// How often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;

/// A bar on standard error.
pub(in crate::cli) struct Bar {
    meter: Meter,
    total: u64,
    unit: &'static str,
}

impl Bar {
    pub(in crate::cli) fn new(meter: Meter, total: u64, unit: &'static str) -> Self {
        Self { meter, total, unit }
    }

    /// Does `work` with the bar beside it, if standard error is a terminal.
    pub(in crate::cli) fn during<T>(&self, clock: impl Clock + Sync, work: impl FnOnce() -> T) -> T {
        if !io::stderr().is_terminal() {
            return work();
        }
        self.drawn_during(clock, work)
    }

    fn drawn_during<T>(&self, clock: impl Clock + Sync, work: impl FnOnce() -> T) -> T {
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let drawer = scope.spawn(|| {
                let began = clock.monotonic();
                while !is_done.load(Ordering::Relaxed) {
                    let passed = clock.monotonic().saturating_sub(began);
                    // Who cannot see the bar misses nothing.
                    let _ = write!(io::stderr(), "\r{}\u{1b}[K", self.line(self.meter.read(), passed));
                    thread::park_timeout(REDRAW);
                }
                let _ = write!(io::stderr(), "\r\u{1b}[K");
            });
            // Also when `work` panics: the scope waits for the drawer.
            let _end = End { is_done: &is_done, drawer: drawer.thread() };
            work()
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a picture"
    )]
    fn line(&self, read: u64, passed: Duration) -> String {
        let share = (read as f64 / self.total.max(1) as f64).min(1.0);
        let full = (share * WIDTH as f64) as usize;
        let left = if share > 0.0 { passed.as_secs_f64() * (1.0 - share) / share } else { 0.0 };
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH - full));
        let (percent, unit) = (share * 100.0, self.unit);
        format!("{bar} {percent:5.1} %  {read} of {} {unit}, {left:.0} s left", self.total)
    }
}

/// Ends the drawing when it goes, however the work has ended.
struct End<'a> {
    is_done: &'a AtomicBool,
    drawer: &'a Thread,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        self.drawer.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use lictor_engine::clock::SystemClock;

    use super::*;

    #[test]
    fn work_that_panics_ends_the_bar() {
        let bar = Bar::new(Meter::default(), 200, "records");
        let drawn = AssertUnwindSafe(|| bar.drawn_during(SystemClock::start(), || panic!("work")));
        let panicked = catch_unwind(drawn).unwrap_err();
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"work"));
    }

    #[test]
    fn the_bar_fills_and_says_how_long_it_takes() {
        let bar = Bar::new(Meter::default(), 200, "records");
        let line = bar.line(50, Duration::from_secs(2));
        assert!(line.starts_with("███████░") && line.ends_with(" 25.0 %  50 of 200 records, 6 s left"), "{line}");
        assert!(bar.line(0, Duration::ZERO).contains("0.0 %"));
        assert!(Bar::new(Meter::default(), 0, "bytes").line(5, Duration::ZERO).contains("100.0 %"));
    }
}
