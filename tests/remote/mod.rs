//! Stores at a distance, each a real server that the test starts.

mod append_only;
mod conformance;
mod cost;
mod cuts;
mod faults;
pub(crate) mod proxy;
pub(crate) mod servers;
mod tls;
