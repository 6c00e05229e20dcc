//! Restores from a small repository in memory: fidelity, existing targets, damage, and attempts to get out.

mod damage;
mod existing;
mod fidelity;
mod hostile;
mod place;
