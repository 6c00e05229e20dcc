//! The decision table, without a disk.
