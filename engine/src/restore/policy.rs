//! What of an entry's metadata is to be restored, given who we are and what was asked for.
//!
//! Kept true: without being the superuser, or without being asked, nothing restored carries a privilege: no setuid or
//! setgid bit, no device, no capability, no label.

use super::plan::Intended;
use super::report::{Tally, add};
use super::safe_dir::Metadata;
use super::{Ownership, RestoreOptions};
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::tree::{Entry, decode_xattrs};
use std::collections::HashMap;

const SET_ID: u32 = 0o6000;

/// The rules of one run.
pub(super) struct Policy {
    owners: bool,
    xattrs: bool,
    privileges: bool,
    me: (u32, u32),
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
}

impl Policy {
    pub(super) fn new(snapshot: &Snapshot, options: &RestoreOptions) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let root = uid.is_root();
        let (mut users, mut groups) = (HashMap::new(), HashMap::new());
        if options.ownership == Ownership::ByName && root {
            let text = |name: &[u8]| String::from_utf8(name.to_vec()).ok();
            for (id, name) in &snapshot.users {
                let user = text(name).and_then(|n| nix::unistd::User::from_name(&n).ok().flatten());
                users.extend(user.map(|u| (*id, u.uid.as_raw())));
            }
            for (id, name) in &snapshot.groups {
                let group = text(name).and_then(|n| nix::unistd::Group::from_name(&n).ok().flatten());
                groups.extend(group.map(|g| (*id, g.gid.as_raw())));
            }
        }
        Self {
            owners: root && options.ownership != Ownership::None,
            xattrs: options.xattrs,
            privileges: root && options.privileges,
            me: (uid.as_raw(), gid.as_raw()),
            users,
            groups,
        }
    }

    /// What a stat of the restored entry shall show.
    pub(super) fn intended(&self, entry: &Entry) -> Intended {
        let map = |m: &HashMap<u32, u32>, id: u32| m.get(&id).copied().unwrap_or(id);
        let owner = (map(&self.users, entry.uid), map(&self.groups, entry.gid));
        let mut mode = u32::from(entry.mode);
        // A setuid file that belongs to whoever restores it would lend the wrong identity.
        let trusted = self.privileges && self.owners;
        if !entry.is_dir() && !trusted {
            mode &= !SET_ID;
        }
        Intended { mode, owner: self.owners.then_some(owner), devices: self.privileges }
    }

    /// Everything to apply. `xattrs` is the encoded block, if there is one.
    pub(super) fn metadata(&self, entry: &Entry, xattrs: Option<&[u8]>, tally: &Tally<'_>) -> Metadata {
        let intended = self.intended(entry);
        let mut left_out = intended.mode != u32::from(entry.mode);
        if !self.owners && (entry.uid, entry.gid) != self.me {
            add(&tally.counts.owners_not_restored, 1);
        }
        let mut list = self.xattrs.then(Vec::new);
        if let (Some(list), Some(block)) = (&mut list, xattrs) {
            // The decoder of the tree has checked inline blocks; a broken one elsewhere was reported when it was read.
            *list = decode_xattrs(block).unwrap_or_default();
            let before = list.len();
            let privileged = |n: &[u8]| n.starts_with(b"security.") || n.starts_with(b"trusted.");
            list.retain(|x| self.privileges || !privileged(&x.name));
            left_out |= list.len() < before;
        }
        if left_out {
            add(&tally.counts.privileges_left_out, 1);
        }
        Metadata {
            owner: intended.owner,
            xattrs: list,
            mode: intended.mode,
            // An ancestor of a source path is recorded without times.
            mtime: (!entry.flags.implied).then_some(entry.mtime),
            atime: entry.atime,
        }
    }
}
