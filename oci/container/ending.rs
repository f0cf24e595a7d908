//! Children whose end nobody needs to know, and that have to be reaped all the same.
//!
//! A child that was killed may take as long to end as the file system that it waits for takes to answer; a program of
//! one thread cannot wait for that, and a destructor has nobody to give it to. They are collected here, and a program
//! that lives long fetches them, watches them together with everything else, and reaps them.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

static CHILDREN: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Leaves a child, by a descriptor of pidfd_open(2), to whoever calls [`ending_children`].
pub fn reap_later(child: OwnedFd) {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).push(child);
}

/// The children that were left since the last call.
#[must_use]
pub fn ending_children() -> Vec<OwnedFd> {
    std::mem::take(&mut *CHILDREN.lock().unwrap_or_else(PoisonError::into_inner))
}
