//! Stores at a distance, each a real server that the test starts.

mod conformance;
mod cost;
mod faults;
mod proxy;
mod servers;
