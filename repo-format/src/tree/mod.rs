//! The tree of a snapshot (SPEC 9): one ordered sequence of entries, cut into nodes by a keyed rule.
//!
//! Entries are ordered by (parent path, name), parents compared component by component, so a directory's
//! listing and a whole subtree are both contiguous, and the tree is a function of its entries.

mod build;
mod entry;
mod list;
mod node;

pub use build::{BuiltTree, TreeBuilder};
pub use entry::{
    Block, ChunkRef, Content, Entry, EntryFlags, EntryKind, Hole, Timestamp, Xattr, compare_paths,
    decode_holes, decode_xattrs, encode_holes, encode_xattrs, is_within, join_path, validate_name,
};
pub use list::{ListBuilder, ListChild, ListNode};
pub use node::{Child, Key, Node, Summary, decode_block, encode_block};
