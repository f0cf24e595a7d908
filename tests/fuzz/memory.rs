//! Bounds on what a parser allocates.
//!
//! Counted on the calling thread only, so that targets may run side by side. A bound is a constant plus a multiple of
//! the input's length: what grows faster is an attack with a small input. It counts what is held at once and, as a
//! measure of work that no clock disturbs, everything that was ever allocated.

/// What an input of some length may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// Bytes held at once, whatever the input.
    pub(crate) base: usize,
    /// Bytes held at once for every byte of input.
    pub(crate) held: usize,
    /// Bytes allocated in the course of time for every byte of input, on top of eight times the base.
    pub(crate) ever: usize,
}

/// Runs `parse` and panics if it takes more memory than `bound` allows for `length` bytes.
pub(crate) fn bounded<T>(length: usize, bound: Bound, parse: impl FnOnce() -> T) -> T {
    let mut result = None;
    let cost = allocation_counter::measure(|| result = Some(parse()));
    let most = |each: usize, base: usize| u64::try_from(base + each * length).unwrap_or(u64::MAX);
    let held = most(bound.held, bound.base);
    assert!(cost.bytes_max <= held, "{length} bytes of input made the parser hold {} at once", cost.bytes_max);
    let ever = most(bound.ever, 8 * bound.base);
    assert!(cost.bytes_total <= ever, "{length} bytes of input made the parser allocate {} in all", cost.bytes_total);
    result.expect("the closure has run")
}
