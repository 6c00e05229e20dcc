//! The primitives that SPEC 2 builds on: they are what they are called, by the numbers of their own specifications and
//! of Project Wycheproof; two implementations agree; and what they do not promise, a slot does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod commitment;
mod known_answers;
mod wycheproof;
