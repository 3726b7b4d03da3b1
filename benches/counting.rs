//! The allocator of `lictor`, counting.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Counting = Counting(MiMalloc);

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// What was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

impl Counts {
    /// While `run` runs, by whatever thread.
    pub(crate) fn of(run: impl FnOnce()) -> Self {
        let before = Self::so_far();
        run();
        let after = Self::so_far();
        Self { allocations: after.allocations - before.allocations, bytes: after.bytes - before.bytes }
    }

    fn so_far() -> Self {
        Self { allocations: ALLOCATIONS.load(Ordering::Relaxed), bytes: BYTES.load(Ordering::Relaxed) }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.allocations += other.allocations;
        self.bytes += other.bytes;
    }
}

struct Counting(MiMalloc);

impl Counting {
    fn count(bytes: usize) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe to be; every call is passed on as it came")]
// SAFETY: all of it is MiMalloc's; the counters are atomics, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller keeps to what `alloc` asks of it.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller keeps to what `alloc_zeroed` asks of it.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::count(bytes.saturating_sub(layout.size()));
        // SAFETY: the caller keeps to what `realloc` asks of it.
        unsafe { self.0.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to what `dealloc` asks of it.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}
