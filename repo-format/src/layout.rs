//! Objects and where they lie: the only place that spells storage paths (SPEC 3).

use crate::id::{ClientId, IndexName, PackName, RunId, SlotId, from_hex};
use std::fmt;

/// A class of objects, each under a prefix of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// `config/`: generations of the repository's config.
    Config,
    /// `keys/`: slots.
    Keys,
    /// `packs/`: data packs.
    Packs,
    /// `meta/`: tree packs.
    Meta,
    /// `index/`: index runs.
    Index,
    /// `pend/`: announcements.
    Announcements,
    /// `snap/`: verdicts, that is snapshots and voids.
    Verdicts,
    /// `gone/`: deaths of snapshots.
    Deaths,
    /// `marks/`: condemned packs.
    Marks,
    /// `locks/`: holds that never expire.
    Holds,
    /// `forget/`: snapshots to be forgotten once their grace is over.
    Forgets,
    /// `clients/`: certificates.
    Clients,
    /// `records/`: the ledger.
    Records,
    /// `parity/`: Reed-Solomon sidecars.
    Parity,
}

impl Area {
    /// All of them, in the order of SPEC 3.
    pub const ALL: [Self; 14] = [
        Self::Config,
        Self::Keys,
        Self::Packs,
        Self::Meta,
        Self::Index,
        Self::Announcements,
        Self::Verdicts,
        Self::Deaths,
        Self::Marks,
        Self::Holds,
        Self::Forgets,
        Self::Clients,
        Self::Records,
        Self::Parity,
    ];

    /// The directory of the area, without slashes.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Keys => "keys",
            Self::Packs => "packs",
            Self::Meta => "meta",
            Self::Index => "index",
            Self::Announcements => "pend",
            Self::Verdicts => "snap",
            Self::Deaths => "gone",
            Self::Marks => "marks",
            Self::Holds => "locks",
            Self::Forgets => "forget",
            Self::Clients => "clients",
            Self::Records => "records",
            Self::Parity => "parity",
        }
    }
}

/// The name of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// A generation of the config.
    Config(u32),
    /// A key slot.
    Slot(SlotId),
    /// A pack of file content.
    Pack(PackName),
    /// A pack of tree nodes.
    Meta(PackName),
    /// An index run.
    Index(IndexName),
    /// Announcement `k` of a run.
    Announcement(RunId, u32),
    /// The verdict of a run: its snapshot, or VOID.
    Verdict(RunId),
    /// The death of a snapshot.
    Death(RunId),
    /// The mark of a collector.
    Mark(RunId),
    /// A hold.
    Hold(RunId),
    /// The wish to forget a snapshot.
    Forget(RunId),
    /// A client's certificate.
    Client(ClientId),
    /// A ledger record: writer and sequence number.
    Record(ClientId, u64),
    /// The parity sidecar of a pack.
    Parity(PackName),
}

impl ObjectName {
    /// The class of the object.
    pub const fn area(&self) -> Area {
        match self {
            Self::Config(_) => Area::Config,
            Self::Slot(_) => Area::Keys,
            Self::Pack(_) => Area::Packs,
            Self::Meta(_) => Area::Meta,
            Self::Index(_) => Area::Index,
            Self::Announcement(..) => Area::Announcements,
            Self::Verdict(_) => Area::Verdicts,
            Self::Death(_) => Area::Deaths,
            Self::Mark(_) => Area::Marks,
            Self::Hold(_) => Area::Holds,
            Self::Forget(_) => Area::Forgets,
            Self::Client(_) => Area::Clients,
            Self::Record(..) => Area::Records,
            Self::Parity(_) => Area::Parity,
        }
    }

    /// The object stored at `path`, or `None` when no object of format 1 has that path.
    pub fn parse(path: &str) -> Option<Self> {
        let (dir, rest) = path.split_once('/')?;
        match dir {
            "config" => from_hex(rest).map(|b| Self::Config(u32::from_be_bytes(b))),
            "keys" => rest.parse().ok().map(Self::Slot),
            "packs" => rest.parse().ok().map(Self::Pack),
            "meta" => rest.parse().ok().map(Self::Meta),
            "parity" => rest.parse().ok().map(Self::Parity),
            "index" => rest.parse().ok().map(Self::Index),
            "pend" => {
                let (run, k) = rest.split_once('.')?;
                let k = u32::from_be_bytes(from_hex(k)?);
                Some(Self::Announcement(run.parse().ok()?, k))
            }
            "snap" => rest.parse().ok().map(Self::Verdict),
            "gone" => rest.parse().ok().map(Self::Death),
            "marks" => rest.parse().ok().map(Self::Mark),
            "locks" => rest.parse().ok().map(Self::Hold),
            "forget" => rest.parse().ok().map(Self::Forget),
            "clients" => rest.parse().ok().map(Self::Client),
            "records" => {
                let (writer, seq) = rest.split_once('.')?;
                let seq = u64::from_be_bytes(from_hex(seq)?);
                Some(Self::Record(writer.parse().ok()?, seq))
            }
            _ => None,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.area().dir())?;
        match self {
            Self::Config(generation) => write!(f, "{generation:08x}"),
            Self::Slot(id) => write!(f, "{id}"),
            Self::Pack(name) | Self::Meta(name) | Self::Parity(name) => write!(f, "{name}"),
            Self::Index(name) => write!(f, "{name}"),
            Self::Announcement(run, k) => write!(f, "{run}.{k:08x}"),
            Self::Verdict(run) | Self::Death(run) | Self::Mark(run) | Self::Hold(run) | Self::Forget(run) => {
                write!(f, "{run}")
            }
            Self::Client(id) => write!(f, "{id}"),
            Self::Record(writer, seq) => write!(f, "{writer}.{seq:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_and_nothing_else_does() {
        let (p, r, c) = (PackName::new([0xab; 32]), RunId::new([1; 16]), ClientId::new([2; 16]));
        let index = IndexName { generation: 3, hash: [4; 32] };
        let all = [
            ObjectName::Config(u32::MAX),
            ObjectName::Slot(SlotId::new([9; 16])),
            ObjectName::Pack(p),
            ObjectName::Meta(p),
            ObjectName::Parity(p),
            ObjectName::Index(index),
            ObjectName::Announcement(r, 17),
            ObjectName::Verdict(r),
            ObjectName::Death(r),
            ObjectName::Mark(r),
            ObjectName::Hold(r),
            ObjectName::Forget(r),
            ObjectName::Client(c),
            ObjectName::Record(c, u64::MAX),
        ];
        for name in all {
            let path = name.to_string();
            assert_eq!(ObjectName::parse(&path), Some(name), "{path}");
            assert_eq!(path.split('/').next(), Some(name.area().dir()));
            assert_eq!(ObjectName::parse(&format!("{path}x")), None);
            assert_eq!(ObjectName::parse(&path.to_uppercase()), None);
        }
        assert_eq!(ObjectName::parse(&format!("packs/ab/{p}")), None, "deeper");
        assert_eq!(ObjectName::parse("tmp/x"), None);
    }
}
