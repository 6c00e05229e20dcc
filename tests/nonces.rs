//! No nonce and no salt is used twice: over a whole run of all verbs, every object that was ever in the store is looked at.
//! Frames are sealed under a key of their pack, which depends on the pack's salt, with counters for nonces; so a salt that
//! is new makes all of them new.

use crate::support::{noise, options, secret, small, source};
use bulla_engine::backend::Memory;
use bulla_engine::backup;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::env::{Entropy, Env};
use bulla_engine::forget;
use bulla_engine::format::ObjectName;
use bulla_engine::format::envelope::{Header, ObjectType};
use bulla_engine::format::pack::PackHeader;
use bulla_engine::format::slot::{Argon2Params, SlotKind};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, PruneOptions};
use bulla_engine::repository::{Repository, SlotSecret, keys};
use std::collections::BTreeMap;
use std::sync::Arc;
