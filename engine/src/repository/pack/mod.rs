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
pub(crate) use reader::SPAN;
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
        let listed = self.backend().list_many(&[Area::Meta, Area::Packs])?;
        Ok(listed.into_iter().flat_map(packs_in).collect())
    }
}

/// The packs in a listing, with their sizes.
pub(crate) fn packs_in(listed: Vec<(ObjectName, u64)>) -> impl Iterator<Item = ((PackName, PackKind), u64)> {
    listed.into_iter().filter_map(|(name, size)| match name {
        ObjectName::Pack(name) => Some(((name, PackKind::Data), size)),
        ObjectName::Meta(name) => Some(((name, PackKind::Meta), size)),
        _ => None,
    })
}

/// The object a pack of one kind lies under.
pub const fn object_name(kind: PackKind, name: PackName) -> ObjectName {
    match kind {
        PackKind::Data => ObjectName::Pack(name),
        PackKind::Meta => ObjectName::Meta(name),
    }
}
