//! Jobs over days: runs, what is on record, what `status` says of it, and what is refused.

mod days;
mod halfway;
mod hooks;
mod notify;
mod postgres;
mod refusals;
mod retry;
mod terms;
mod world;
