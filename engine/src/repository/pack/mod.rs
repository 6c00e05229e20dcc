//! Packs as they travel: frames read back ([`PackReader`]), tails that rebuild the index ([`tail`]), and the shared
//! stream that fills new ones ([`PackStream`]).

mod pool;
mod reader;
mod room;
mod seal;
mod stream;
pub mod tail;

pub(crate) use pool::{Buffer, Pool};
pub use reader::PackReader;
pub use seal::SealedPack;
pub use stream::{PackSink, PackStream, Packer};

use super::Repository;
use crate::error::Result;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::{Area, ObjectName, PackName};
use std::collections::BTreeMap;

impl Repository {
    /// The packs that are there, with their sizes.
    pub fn present_packs(&self) -> Result<BTreeMap<(PackName, PackKind), u64>> {
        let mut out = BTreeMap::new();
        for area in [Area::Packs, Area::Meta] {
            for (name, size) in self.backend().list(area)? {
                match name {
                    ObjectName::Pack(name) => out.insert((name, PackKind::Data), size),
                    ObjectName::Meta(name) => out.insert((name, PackKind::Meta), size),
                    _ => None,
                };
            }
        }
        Ok(out)
    }
}

/// The object a pack of one kind lies under.
pub const fn object_name(kind: PackKind, name: PackName) -> ObjectName {
    match kind {
        PackKind::Data => ObjectName::Pack(name),
        PackKind::Meta => ObjectName::Meta(name),
    }
}
