//! Scenario tests: whole verbs against memory, faulty and real stores. One binary, so that it links once.

mod crash;
mod damage;
mod incremental;
mod protocol;
mod support;
