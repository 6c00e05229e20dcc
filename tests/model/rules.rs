//! What varies from run to run of the model: bounds, decisions, requests that are modelled, and the order that is broken.

use bulla_engine::protocol::{self, Fate, Outcome, Sighting};

/// How much of everything there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub writers: u8,
    pub collectors: u8,
    /// Cycles of each collector.
    pub cycles: u8,
    /// Packs each writer may upload.
    pub uploads: u8,
    /// Times a writer begins again as a new run.
    pub restarts: u8,
    /// Copies each collector can make.
    pub copies: u8,
    /// Packs at the start.
    pub packs: u8,
    /// Victims of one mark.
    pub victims: u8,
}

impl Bounds {
    /// One writer, one collector, one of everything, two victims.
    pub const ONE: Bounds = Bounds {
        writers: 1,
        collectors: 1,
        cycles: 1,
        uploads: 1,
        restarts: 1,
        copies: 1,
        packs: 1,
        victims: 2,
    };

    /// `writers` × `collectors`; cycles, uploads, restarts, copies, first packs, victims.
    pub const fn of(writers: u8, collectors: u8, rest: [u8; 6]) -> Bounds {
        let [cycles, uploads, restarts, copies, packs, victims] = rest;
        Bounds { writers, collectors, cycles, uploads, restarts, copies, packs, victims }
    }
}

/// The decisions: the engine's own, each of which a mutant may replace.
#[derive(Clone, Copy)]
pub struct Decisions {
    pub alive: fn(Outcome, bool) -> bool,
    pub may_donate: fn(bool, bool) -> bool,
    pub may_inherit: fn(Outcome, bool) -> bool,
    pub may_rely: fn(bool, bool) -> bool,
    /// The second argument, a death read after the mark, is for mutants: [`protocol::is_root`] cannot see it.
    pub is_root: fn(Sighting, bool) -> bool,
    pub announcement_counts: fn(Outcome) -> bool,
    pub is_needed: fn(bool, bool, bool) -> bool,
    pub fate: fn(bool, bool, bool) -> Fate,
    pub copy_counts: fn(bool, bool, bool) -> bool,
    pub may_delete: fn(Fate, bool, bool) -> bool,
    pub may_void: fn(Outcome, bool, bool) -> bool,
}

impl Decisions {
    pub const REAL: Decisions = Decisions {
        alive: protocol::alive,
        may_donate: protocol::may_donate,
        may_inherit: protocol::may_inherit,
        may_rely: protocol::may_rely,
        is_root: |seen, _| protocol::is_root(seen),
        announcement_counts: protocol::announcement_counts,
        is_needed: protocol::is_needed,
        fate: protocol::fate,
        copy_counts: protocol::copy_counts,
        may_delete: protocol::may_delete,
        may_void: protocol::may_void,
    };
}

/// An order of requests, or a property of the store, that the protocol relies on and that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// Uploads and relies before any announcement.
    NoAnnouncement,
    /// The run is opened only after its packs were put.
    OpenedLate,
    /// Marks and existence are not looked at.
    NoMarks,
    /// Existence is not looked at.
    NoExistence,
    /// Existence, then marks.
    ExistenceFirst,
    /// Verified, then announced.
    VerifyFirst,
    /// A run that begins again does not verify again.
    NoSecondVerify,
    /// No listing after the mark.
    NoRescan,
    /// `snap/` before `pend/`.
    SnapFirst,
    /// Announcements whose name was there at g1 are taken as known.
    KnownNames,
    /// Announcements expire by a delete, their names are put again, commit is a rename.
    NamesReused,
    /// The author of a mark may cancel it.
    Cancel,
    /// A missing pack is put again under its name.
    SamePackName,
    /// Commit is a put and a look at the announcement, not one put-if-absent.
    TwoObjects,
    /// The donor is seen alive, then pinned.
    DonorFirst,
    /// A pin goes when a later announcement lands.
    PinSuperseded,
    /// `gone/` before `snap/`.
    GoneFirst,
    /// The server loses a mark it acknowledged.
    MarkLost,
    /// The server loses an announcement it acknowledged.
    AnnouncementLost,
}

/// A protocol: what is modelled of it, its decisions, and what is broken.
#[derive(Clone, Copy)]
pub struct Rules {
    pub decide: Decisions,
    pub broken: Broken,
    /// Runs may pin donors.
    pub donors: bool,
    /// Forgotten snapshots vanish from `snap/`; g3 lists `snap/` and `gone/` by two requests.
    pub split: bool,
    /// g1 lists `gone/` and `snap/` by two requests, too.
    pub split_before: bool,
    /// g1 keeps in mind which snapshots it saw.
    pub remember: bool,
    /// g1 sees which runs have committed, so that their announcements say nothing any more.
    pub see_commits: bool,
    /// Chunks in packs that are there are not copied again.
    pub count_copies: bool,
    /// With counted copies: what shielded packs hold is read after `pend/` and *before* `snap/` was listed.
    pub read_shielded_first: bool,
    /// The store's put-if-absent is exact.
    pub exact_puts: bool,
    /// Late duplicates of PUT and DELETE.
    pub duplicates: bool,
}

impl Rules {
    /// As the Python model of the design has it: the same states, so the same counts.
    pub const DESIGN: Rules = Rules {
        decide: Decisions::REAL,
        broken: Broken::Nothing,
        donors: true,
        split: false,
        split_before: false,
        remember: false,
        see_commits: false,
        count_copies: false,
        read_shielded_first: false,
        exact_puts: true,
        duplicates: false,
    };

    /// As the engine does it: every listing a request of its own, copies counted.
    pub const ENGINE: Rules = Rules {
        split: true,
        split_before: true,
        remember: true,
        see_commits: true,
        count_copies: true,
        read_shielded_first: true,
        ..Rules::DESIGN
    };

    pub const fn breaking(self, broken: Broken) -> Rules {
        Rules { broken, ..self }
    }

    /// Without donors: smaller, for what has nothing to do with them.
    pub const fn no_donors(self) -> Rules {
        Rules { donors: false, ..self }
    }
}
