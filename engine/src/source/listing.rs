//! The names in one directory, sorted. Names lie end to end in one buffer that serves every directory in turn: a
//! million entries cost no million allocations.

use rustix::fs::RawDir;
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::AsFd;

/// Bytes asked of the kernel at once.
const BUFFER: usize = 64 << 10;

/// Where a name lies, and its first bytes for sorting.
#[derive(Clone, Copy)]
struct Slot {
    prefix: u64,
    at: usize,
    len: usize,
}

/// A sorted list of names and a cursor into it.
#[derive(Default)]
pub(super) struct Listing {
    buffer: Vec<u8>,
    /// Names, each ended by a NUL.
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    next: usize,
}

impl Listing {
    /// Forgets all names.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.slots.clear();
        self.next = 0;
    }

    /// Adds a name; names that are not added in order need [`Listing::sort`].
    pub(super) fn push(&mut self, name: &[u8]) {
        let mut prefix = [0; 8];
        prefix.iter_mut().zip(name).for_each(|(p, n)| *p = *n);
        self.slots.push(Slot { prefix: u64::from_be_bytes(prefix), at: self.bytes.len(), len: name.len() });
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
    }

    /// Replaces the names by those in a directory. On an error the names read before it are kept.
    pub(super) fn fill(&mut self, dir: impl AsFd) -> rustix::io::Result<()> {
        self.clear();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.reserve(BUFFER);
        let result = self.read(RawDir::new(dir, buffer.spare_capacity_mut()));
        self.buffer = buffer;
        self.sort();
        result
    }

    fn read(&mut self, mut dir: RawDir<'_, impl AsFd>) -> rustix::io::Result<()> {
        while let Some(entry) = dir.next() {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().to_bytes();
                    if name != b"." && name != b".." {
                        self.push(name);
                    }
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sorts by bytes, each name once.
    fn sort(&mut self) {
        let Self { bytes, slots, .. } = self;
        let name = |s: &Slot| bytes.get(s.at..s.at + s.len).unwrap_or_default();
        slots.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| name(a).cmp(name(b))));
        slots.dedup_by(|a, b| a.prefix == b.prefix && name(a) == name(b));
    }

    /// Keeps one name at most.
    pub(super) fn keep_only(&mut self, name: &[u8]) {
        let kept = self.contains(name);
        self.clear();
        if kept {
            self.push(name);
        }
    }

    /// True when the name is in it.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.slots.binary_search_by(|s| self.name(s).cmp(name)).is_ok()
    }

    fn name(&self, s: &Slot) -> &[u8] {
        self.bytes.get(s.at..s.at + s.len).unwrap_or_default()
    }

    /// All names, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.slots.iter().map(|s| self.name(s))
    }

    /// True when there is no next name.
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.slots.len()
    }

    /// The next name, with its NUL.
    pub(super) fn advance(&mut self) -> Option<&CStr> {
        let slot = *self.slots.get(self.next)?;
        self.next += 1;
        CStr::from_bytes_with_nul(self.bytes.get(slot.at..=slot.at + slot.len)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_bytes_and_single() {
        let mut l = Listing::default();
        let names: [&[u8]; 8] =
            [b"b", b"a\x01", b"a", b"longer-than-8b", b"longer-than-8a", b"\xff", b"b", b"A"];
        names.iter().for_each(|n| l.push(n));
        l.sort();
        let want: [&[u8]; 7] = [b"A", b"a", b"a\x01", b"b", b"longer-than-8a", b"longer-than-8b", b"\xff"];
        assert!(l.iter().eq(want));
        assert!(want.iter().all(|n| l.contains(n)) && !l.contains(b"longer-than-8"));
        assert_eq!(l.advance(), Some(c"A"));
        l.keep_only(b"b");
        assert_eq!(l.advance(), Some(c"b"));
        assert!(l.is_done());
        l.keep_only(b"x");
        assert_eq!(l.advance(), None);
    }
}
