//! The protocol of SPEC 14 as an exhaustive model: every interleaving of its requests, stalls and crashes within
//! given bounds, decided by the functions the engine decides with (`bulla_engine::protocol`). The correct protocol
//! must hold; every broken rule must lose data, and the shortest way to lose it is printed (`--nocapture`).
//!
//! | file | what |
//! |---|---|
//! | `rules` | bounds, the decisions, and the orders that can be broken |
//! | `state` | a state, packed, and the symmetries |
//! | `world`, `writer`, `collector` | who does what: one request per step |
//! | `explore`, `sweep` | all states with traces; all states fast, by fingerprint |
//! | `holds`, `mutants` | the tests of the protocol |
//! | `index`, `stale`, `local` | three smaller models: index runs, stale stores, local crash states |
//!
//! `BULLA_MODEL=full` adds the bounds recorded in LEDGER.md.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test reports by these")]

mod collector;
mod explore;
mod holds;
mod index;
mod local;
mod mutants;
mod rules;
mod stale;
mod state;
mod sweep;
mod world;
mod writer;
