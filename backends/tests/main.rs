//! Stores against real servers.
