//! Repair: puts right what can be put right, and says what cannot. One file per part of a repository.
//!
//! Kept true: whatever could be restored before can be restored after, also when a repair stops at any request; nothing
//! is deleted before all that is needed of it is durable elsewhere; what cannot be understood is not taken for damage;
//! running a repair again finishes it. The usual order is in README.md, "Your server is dead".

mod assess;
pub mod index;
mod lack;
pub mod packs;
pub mod replica;
pub mod snapshots;

use crate::error::{Error, Result};
use crate::observer::Observer;

fn check_interrupt(observer: &dyn Observer) -> Result<()> {
    if observer.interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}
