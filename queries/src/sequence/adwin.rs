//! `adwin`: a window of rows that is cut where its halves have different means (Bifet and Gavaldà 2007; river 0.26).
//!
//! The window is kept as buckets of 1, 2, 4, … rows, at most `max_buckets` of a size. Every `clock` rows each border
//! between two buckets is tried as a cut; where the means differ by more than the bound allows, the oldest bucket goes
//! and it is tried again. After a drift everything begins anew with the next row.

use super::arguments::{Parameter, Settings};
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

pub(super) const ADWIN: Detector = Detector {
    name: "adwin",
    says: "true when the newer rows have another mean than the older ones; begins anew after that",
    source: "river ADWIN",
    values: &[Value::Number],
    parameters: &[
        Parameter::number("delta", 0.002, 1e-12, 1.0),
        Parameter::whole("clock", 32, 1, 1_000_000),
        Parameter::whole("max_buckets", 5, 1, 100),
        Parameter::whole("min_window_length", 5, 1, 1_000_000),
        Parameter::whole("grace_period", 10, 0, 1_000_000),
    ],
    fields: &[Field::flag("drift"), Field::whole("width"), Field::number("mean"), Field::number("variance")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(Adwin::new(settings)),
    settled: |_| 1_000,
};

/// A run of rows: their sum, and the sum of their squared deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    total: f64,
    squares: f64,
}

#[derive(Debug)]
struct Adwin {
    delta: f64,
    clock: u32,
    max_buckets: usize,
    min_length: f64,
    grace: f64,
    window: Window,
}

#[derive(Debug)]
struct Window {
    has_drifted: bool,
    ticks: u32,
    width: f64,
    total: f64,
    squares: f64,
    /// Buckets of 2^n rows, the oldest first.
    sizes: Vec<Vec<Bucket>>,
}

impl Window {
    fn empty() -> Self {
        Self { has_drifted: false, ticks: 0, width: 0.0, total: 0.0, squares: 0.0, sizes: vec![Vec::new()] }
    }

    fn add(&mut self, x: f64, max_buckets: usize) {
        self.sizes[0].push(Bucket { total: x, squares: 0.0 });
        self.width += 1.0;
        if self.width > 1.0 {
            let off = x - self.total / (self.width - 1.0);
            self.squares += (self.width - 1.0) * off * off / self.width;
        }
        self.total += x;
        self.merge(max_buckets);
    }

    /// Makes one bucket of the two oldest of a size that has too many, and so on with the next size.
    fn merge(&mut self, max_buckets: usize) {
        let mut size = 0;
        while self.sizes[size].len() > max_buckets {
            let rows = rows_of(size);
            let (a, b) = (self.sizes[size][0], self.sizes[size][1]);
            self.sizes[size].drain(..2);
            let apart = a.total / rows - b.total / rows;
            let squares = a.squares + b.squares + rows * 0.5 * apart * apart;
            if size + 1 == self.sizes.len() {
                self.sizes.push(Vec::new());
            }
            size += 1;
            self.sizes[size].push(Bucket { total: a.total + b.total, squares });
        }
    }

    fn drop_oldest(&mut self) {
        let size = self.sizes.len() - 1;
        let rows = rows_of(size);
        let oldest = self.sizes[size].remove(0);
        self.width -= rows;
        self.total -= oldest.total;
        let apart = oldest.total / rows - self.total / self.width;
        self.squares -= oldest.squares + rows * self.width * apart * apart / (rows + self.width);
        // With one bucket of a size, merging leaves smaller sizes empty.
        while self.sizes.len() > 1 && self.sizes.last().is_some_and(Vec::is_empty) {
            self.sizes.pop();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a power of two")]
fn rows_of(size: usize) -> f64 {
    (1_u64 << size) as f64
}

impl Adwin {
    fn new(settings: &Settings) -> Self {
        Self {
            delta: settings.number(0),
            clock: settings.whole(1),
            max_buckets: settings.whole(2) as usize,
            min_length: f64::from(settings.whole(3)),
            grace: f64::from(settings.whole(4)),
            window: Window::empty(),
        }
    }

    /// Whether some border between two buckets parts rows of different means.
    fn has_cut(&self) -> bool {
        let (mut older, mut newer) = ((0.0, 0.0), (self.window.width, self.window.total));
        for (size, buckets) in self.window.sizes.iter().enumerate().rev() {
            for (nth, bucket) in buckets.iter().enumerate() {
                let rows = rows_of(size);
                older = (older.0 + rows, older.1 + bucket.total);
                newer = (newer.0 - rows, newer.1 - bucket.total);
                if size == 0 && nth + 1 == buckets.len() {
                    return false;
                }
                let are_long = older.0 >= self.min_length && newer.0 >= self.min_length;
                if are_long && (older.1 / older.0 - newer.1 / newer.0).abs() > self.bound(older.0, newer.0) {
                    return true;
                }
            }
        }
        false
    }

    /// By how much means of so many rows may differ by chance.
    fn bound(&self, older: f64, newer: f64) -> f64 {
        let Window { width, squares, .. } = &self.window;
        let confidence = (2.0 * width.ln() / self.delta).ln();
        let rows = 1.0 / (older - self.min_length + 1.0) + 1.0 / (newer - self.min_length + 1.0);
        (2.0 * rows * (squares / width) * confidence).sqrt() + 2.0 / 3.0 * confidence * rows
    }
}

impl Sequence for Adwin {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.window.has_drifted {
            self.window = Window::empty();
        }
        self.window.add(row.x, self.max_buckets);
        self.window.ticks = (self.window.ticks + 1) % self.clock;
        if self.window.ticks == 0 && self.window.width > self.grace {
            while self.has_cut() {
                self.window.has_drifted = true;
                self.window.drop_oldest();
            }
        }
        let Window { has_drifted, width, total, squares, .. } = &self.window;
        reading.copy_from_slice(&[f64::from(u8::from(*has_drifted)), *width, total / width, squares / width]);
    }

    fn save(&self, to: &mut Saving) {
        let Window { has_drifted, ticks, width, total, squares, sizes } = &self.window;
        to.flag(*has_drifted).u32(*ticks).f64(*width).f64(*total).f64(*squares);
        to.list(sizes.iter(), |to, buckets| {
            to.list(buckets.iter(), |to, bucket| {
                to.f64(bucket.total).f64(bucket.squares);
            });
        });
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        let bucket = |from: &mut Saved<'_>| Some(Bucket { total: from.f64()?, squares: from.f64()? });
        self.window = Window {
            has_drifted: from.flag()?,
            ticks: from.u32()?,
            width: from.f64()?,
            total: from.f64()?,
            squares: from.f64()?,
            sizes: from.list(|from| from.list(bucket))?,
        };
        (!self.window.sizes.is_empty()).then_some(())
    }
}
