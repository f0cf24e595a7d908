//! The names of kinds that came at run time, kept for good: rows name kinds by texts that live as long as the program.
//!
//! Every name is kept once, however many definitions bring it, and all of them together are bounded: a definition beyond
//! that is not served and says so in its status. Nothing else of a definition is kept here.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::resources::Subresource;

/// Bytes of all names; room for ten thousand definitions.
const MOST: usize = 8 << 20;

static WORDS: LazyLock<Mutex<Words>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Words {
    bytes: usize,
    texts: HashSet<&'static str>,
    lists: HashSet<&'static [&'static str]>,
    subresources: HashSet<&'static [Subresource]>,
}

/// No more names can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this server has met too many names of kinds since it started; start it again to forget those that are gone")]
pub struct TooManyNames;

impl Words {
    fn pay(&mut self, bytes: usize) -> Result<(), TooManyNames> {
        let sum = self.bytes.saturating_add(bytes);
        if sum > MOST {
            return Err(TooManyNames);
        }
        self.bytes = sum;
        Ok(())
    }
}

fn kept<T: Eq + Hash + Clone>(set: &mut HashSet<&'static [T]>, items: &[T]) -> &'static [T] {
    let kept: &'static [T] = Box::leak(items.to_vec().into_boxed_slice());
    set.insert(kept);
    kept
}

/// A name.
pub(super) fn word(text: &str) -> Result<&'static str, TooManyNames> {
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = words.texts.get(text) {
        return Ok(known);
    }
    words.pay(text.len() + 64)?;
    let kept: &'static str = Box::leak(text.into());
    words.texts.insert(kept);
    Ok(kept)
}

/// A list of names.
pub(super) fn list(texts: &[String]) -> Result<&'static [&'static str], TooManyNames> {
    let items = texts.iter().map(|text| word(text)).collect::<Result<Vec<_>, _>>()?;
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = words.lists.get(items.as_slice()) {
        return Ok(known);
    }
    words.pay(size_of_val(items.as_slice()) + 64)?;
    Ok(kept(&mut words.lists, &items))
}

/// The subresources of a kind.
pub(super) fn subresources(items: &[Subresource]) -> Result<&'static [Subresource], TooManyNames> {
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = words.subresources.get(items) {
        return Ok(known);
    }
    words.pay(size_of_val(items) + 64)?;
    Ok(kept(&mut words.subresources, items))
}
