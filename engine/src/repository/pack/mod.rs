//! Packs as they travel: frames read back ([`PackReader`]), tails that rebuild the index ([`tail`]), and the shared
//! stream that fills new ones ([`PackStream`]).

mod reader;
mod seal;
mod stream;
pub mod tail;

pub use reader::PackReader;
pub use seal::SealedPack;
pub use stream::{PackSink, PackStream, Packer};

use bulla_repo_format::pack::PackKind;
use bulla_repo_format::{ObjectName, PackName};

/// The object a pack of one kind lies under.
pub const fn object_name(kind: PackKind, name: PackName) -> ObjectName {
    match kind {
        PackKind::Data => ObjectName::Pack(name),
        PackKind::Meta => ObjectName::Meta(name),
    }
}
