//! Names of users and groups, looked up once each.

use nix::unistd::{Gid, Group, Uid, User};
use std::collections::HashMap;

/// A cache over the system's user and group database (which may be a network away).
#[derive(Default)]
pub struct Names {
    users: HashMap<u32, Option<Vec<u8>>>,
    groups: HashMap<u32, Option<Vec<u8>>>,
}

impl Names {
    /// The name of a user, if it has one.
    pub fn user(&mut self, uid: u32) -> Option<Vec<u8>> {
        let find = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| u.name.into_bytes());
        self.users.entry(uid).or_insert_with(find).clone()
    }
    /// The name of a group, if it has one.
    pub fn group(&mut self, gid: u32) -> Option<Vec<u8>> {
        let find = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|g| g.name.into_bytes());
        self.groups.entry(gid).or_insert_with(find).clone()
    }
}
