//! What is done with files over a session: each call is one request or a pipeline of them, and every answer that is not
//! the expected one becomes a [`Failure`] with the server's words.
//!
//! Transfers keep several requests under way, so that their speed is the line's and not one piece a round trip; what is
//! under way is bounded. Whatever is opened is closed, also on the way out of an error.

use super::session::{Pending, Session};
use super::wire::{self, Attributes, Entry, Malformed, Packet, Reply, code, flag, kind};
use crate::store::{Attempt, Failure, Kind};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

/// Bytes of one transfer that are under way: twice the window of an ssh channel.
const UNDER_WAY: usize = 4 << 20;
/// Requests of one transfer that are under way.
const REQUESTS: usize = 64;
/// No directory of a repository has more names; a server that lists more is not listing.
const ENTRIES_MAX: usize = 1 << 24;

/// An open file, closed when dropped.
pub(super) struct Open<'a> {
    session: &'a Session,
    handle: Vec<u8>,
    closed: bool,
}

impl<'a> Open<'a> {
    /// Opens for reading.
    pub(super) fn read(session: &'a Session, path: &str) -> Attempt<Self> {
        let pending = session.ask(kind::OPEN, |p| p.string(path.as_bytes()).u32(flag::READ).u32(0));
        Self::from(pending, "open")
    }

    /// Makes a file that must not exist yet. Nobody may write to it afterwards, and nobody else may read it.
    pub(super) fn create(session: &'a Session, path: &str) -> Attempt<Self> {
        let flags = flag::WRITE | flag::CREATE | flag::EXCLUSIVE;
        let pending = session.ask(kind::OPEN, |p| p.string(path.as_bytes()).u32(flags).permissions(0o400));
        Self::from(pending, "create")
    }

    fn from(pending: Pending<'a>, verb: &str) -> Attempt<Self> {
        let session = pending.session();
        match pending.wait()? {
            Reply::Handle(handle) => Ok(Self { session, handle, closed: false }),
            other => Err(refusal(session, other, verb)),
        }
    }

    /// Asks for its attributes.
    pub(super) fn attributes(&self) -> Pending<'a> {
        self.session.ask(kind::FSTAT, |p| p.string(&self.handle))
    }

    /// Asks that it be made durable.
    pub(super) fn sync(&self) -> Pending<'a> {
        sync(self.session, &self.handle)
    }

    /// Asks to close it.
    pub(super) fn close(mut self) -> Pending<'a> {
        self.closed = true;
        self.session.ask(kind::CLOSE, |p| p.string(&self.handle))
    }

    /// Asks for bytes.
    pub(super) fn piece(&self, offset: u64, len: usize) -> Pending<'a> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.session.ask(kind::READ, |p| p.string(&self.handle).u64(offset).u32(len))
    }

    /// Writes the concatenation of `parts` and, where the server can, makes it durable.
    pub(super) fn write(&self, parts: &[&[u8]]) -> Attempt<()> {
        let (most, mut offset) = (self.session.offers().write, 0u64);
        let (mut pieces, mut under_way) = (Pieces { parts, taken: 0 }, VecDeque::new());
        loop {
            let len = pieces.left().min(most);
            if len == 0 {
                break;
            }
            if under_way.len() >= width(most)
                && let Some(oldest) = under_way.pop_front()
            {
                ok(oldest, "write")?;
            }
            under_way.push_back(self.session.ask(kind::WRITE, |p| {
                p.string(&self.handle).u64(offset).filled(len, |into| pieces.take(len, into))
            }));
            offset = offset.saturating_add(len as u64);
        }
        if self.session.offers().sync {
            under_way.push_back(self.sync());
        }
        under_way.into_iter().try_for_each(|pending| ok(pending, "write"))
    }

    /// Reads exactly `len` bytes at `offset`; `None` if the file ends before.
    pub(super) fn read_exactly(&self, offset: u64, len: usize) -> Attempt<Option<Vec<u8>>> {
        let most = self.session.offers().read;
        let (mut out, mut begun) = (vec![0; len], 0);
        let mut under_way = VecDeque::new();
        loop {
            while begun < len && under_way.len() < width(most) {
                let n = most.min(len - begun);
                under_way.push_back((begun, n, self.piece(offset.saturating_add(begun as u64), n)));
                begun += n;
            }
            let Some((at, n, pending)) = under_way.pop_front() else { return Ok(Some(out)) };
            let Some(bytes) = self.data(pending, n)? else { return Ok(None) };
            let (end, got) = (at + n, at + bytes.len());
            if let Some(into) = out.get_mut(at..got) {
                into.copy_from_slice(&bytes);
            }
            // A server may give less than was asked for.
            if got < end {
                let rest = self.piece(offset.saturating_add(got as u64), end - got);
                under_way.push_front((got, end - got, rest));
            }
        }
    }

    /// The answer to a read of `len` bytes: at least one byte and at most those, or `None` at the end of the file.
    pub(super) fn data(&self, pending: Pending<'_>, len: usize) -> Attempt<Option<Vec<u8>>> {
        match pending.wait()? {
            Reply::Data(bytes) if bytes.is_empty() || bytes.len() > len => {
                Err(self.session.malformed(Malformed("a read gives more than was asked for, or nothing")))
            }
            Reply::Data(bytes) => Ok(Some(bytes)),
            Reply::Status { code: code::EOF, .. } => Ok(None),
            other => Err(refusal(self.session, other, "read")),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.closed {
            drop(self.session.ask(kind::CLOSE, |p| p.string(&self.handle)));
        }
    }
}

/// Requests under way when each moves `most` bytes.
fn width(most: usize) -> usize {
    (UNDER_WAY / most.max(1)).clamp(2, REQUESTS)
}

/// The bytes of `parts`, from front to back.
struct Pieces<'a> {
    parts: &'a [&'a [u8]],
    /// Of the first part.
    taken: usize,
}

impl Pieces<'_> {
    fn left(&self) -> usize {
        self.parts.iter().map(|p| p.len()).sum::<usize>().saturating_sub(self.taken)
    }

    fn take(&mut self, mut len: usize, into: &mut Vec<u8>) {
        while let Some((first, behind)) = self.parts.split_first()
            && len > 0
        {
            let rest = first.get(self.taken..).unwrap_or_default();
            let piece = rest.get(..len).unwrap_or(rest);
            into.extend(piece);
            len -= piece.len();
            self.taken += piece.len();
            if self.taken >= first.len() {
                (self.parts, self.taken) = (behind, 0);
            }
        }
    }
}

fn sync<'a>(session: &'a Session, handle: &[u8]) -> Pending<'a> {
    session.ask(kind::EXTENDED, |p| p.string(b"fsync@openssh.com").string(handle))
}

/// Waits for a yes.
pub(super) fn ok(pending: Pending<'_>, verb: &str) -> Attempt<()> {
    let session = pending.session();
    match pending.wait()? {
        Reply::Status { code: code::OK, .. } => Ok(()),
        other => Err(refusal(session, other, verb)),
    }
}

/// Waits for attributes.
pub(super) fn attributes(pending: Pending<'_>) -> Attempt<Attributes> {
    let session = pending.session();
    match pending.wait()? {
        Reply::Attributes(attributes) => Ok(attributes),
        other => Err(refusal(session, other, "stat")),
    }
}

/// As [`attributes`], and `None` if there is no such file.
pub(super) fn attributes_if_there(pending: Pending<'_>) -> Attempt<Option<Attributes>> {
    match attributes(pending) {
        Ok(attributes) => Ok(Some(attributes)),
        Err(Failure { kind: Kind::Missing, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What an answer means that is not the one hoped for.
fn refusal(session: &Session, reply: Reply, verb: &str) -> Failure {
    let Reply::Status { code, message } = reply else {
        return session.malformed(Malformed("an answer of the wrong kind"));
    };
    let kind = match code {
        code::OK | code::EOF => {
            return session.malformed(Malformed("an answer of the wrong kind"));
        }
        code::NO_SUCH_FILE => Kind::Missing,
        code::PERMISSION_DENIED => Kind::Denied,
        code::NO_CONNECTION | code::CONNECTION_LOST => Kind::Passing { after: None },
        _ => Kind::Final,
    };
    let said = match (message.as_str(), code) {
        // All that OpenSSH says of most errors.
        ("" | "Failure", code::FAILURE) => "the server says \"Failure\" and not why".to_owned(),
        ("", code::UNSUPPORTED) => "the server cannot do that".to_owned(),
        ("", code) => format!("status {code}"),
        (message, _) => format!("the server says \"{message}\""),
    };
    Failure::new(kind, format!("cannot {verb}: {said}"))
}

/// Requests about a path.
impl Session {
    /// Asks for the attributes of what `path` leads to.
    pub(super) fn stat(&self, path: &str) -> Pending<'_> {
        self.ask(kind::STAT, |p| p.string(path.as_bytes()))
    }

    /// Asks for the attributes of `path` itself.
    pub(super) fn lstat(&self, path: &[u8]) -> Pending<'_> {
        self.ask(kind::LSTAT, |p| p.string(path))
    }

    /// Asks to remove a file.
    pub(super) fn remove(&self, path: &[u8]) -> Pending<'_> {
        self.ask(kind::REMOVE, |p| p.string(path))
    }

    /// Asks to make a directory that only its owner may enter.
    pub(super) fn make_dir(&self, path: &str) -> Pending<'_> {
        self.ask(kind::MKDIR, |p| p.string(path.as_bytes()).permissions(0o700))
    }

    /// Asks for a rename that does not replace.
    pub(super) fn rename(&self, from: &str, to: &str) -> Pending<'_> {
        self.ask(kind::RENAME, |p| p.string(from.as_bytes()).string(to.as_bytes()))
    }

    /// Asks for a rename that replaces.
    pub(super) fn replace(&self, from: &str, to: &str) -> Pending<'_> {
        self.extension(b"posix-rename@openssh.com", &[from, to])
    }

    /// Asks for a second name.
    pub(super) fn link(&self, from: &str, to: &str) -> Pending<'_> {
        self.extension(b"hardlink@openssh.com", &[from, to])
    }

    fn extension(&self, name: &[u8], paths: &[&str]) -> Pending<'_> {
        let field = |p: Packet, path: &&str| p.string(path.as_bytes());
        self.ask(kind::EXTENDED, |p| paths.iter().fold(p.string(name), field))
    }

    /// Bytes that are left for us where `path` is, if the server tells.
    pub(super) fn space(&self, path: &str) -> Option<u64> {
        if !self.offers().space {
            return None;
        }
        match self.extension(b"statvfs@openssh.com", &[path]).wait() {
            Ok(Reply::Extended(body)) => wire::space(&body).ok(),
            _ => None,
        }
    }

    /// Everything in a directory but itself and the one above.
    pub(super) fn read_dir(&self, path: &str) -> Attempt<Vec<Entry>> {
        let opened = Open::from(self.ask(kind::OPENDIR, |p| p.string(path.as_bytes())), "list")?;
        let mut out = Vec::new();
        loop {
            match self.ask(kind::READDIR, |p| p.string(&opened.handle)).wait()? {
                // An empty answer is no answer of the draft; OpenSSH's own client takes it as the end.
                Reply::Names(entries) if entries.is_empty() => return Ok(out),
                Reply::Names(entries) => {
                    out.extend(entries.into_iter().filter(|e| e.name != b"." && e.name != b".."));
                }
                Reply::Status { code: code::EOF, .. } => return Ok(out),
                other => return Err(refusal(self, other, "list")),
            }
            if out.len() > ENTRIES_MAX {
                return Err(Failure::last("the server lists more names than a repository can have"));
            }
        }
    }

    /// Makes the names of a directory durable, as far as the server can: there is no request for that, but servers on
    /// Unix open a directory like a file, and sync what is open. `None` where this one does not. The directory stays
    /// open as long as the session.
    pub(super) fn sync_dir(&self, path: &str) -> Attempt<Option<Pending<'_>>> {
        let known = self.directories.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let handle = match known {
            Some(handle) => handle,
            None => self.open_to_sync(path)?,
        };
        Ok(handle.map(|handle| sync(self, &handle)))
    }

    fn open_to_sync(&self, path: &str) -> Attempt<Option<Arc<[u8]>>> {
        let refused = |failure: Failure| match failure.kind {
            Kind::Passing { .. } => Err(failure),
            _ => Ok(None),
        };
        let handle = match self.offers().sync.then(|| Open::read(self, path)) {
            None => None,
            // It may be made yet.
            Some(Err(Failure { kind: Kind::Missing, .. })) => return Ok(None),
            Some(Err(failure)) => refused(failure)?,
            // Only a directory that was synced once can be synced: not every server that opens it does.
            Some(Ok(mut open)) => match ok(open.sync(), "sync") {
                Err(failure) => refused(failure)?,
                Ok(()) => {
                    open.closed = true;
                    Some(Arc::from(open.handle.as_slice()))
                }
            },
        };
        let mut known = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = known.entry(path.to_owned()).or_insert_with(|| handle.clone()).clone();
        drop(known);
        // Another thread was faster: one handle is enough.
        if let Some(handle) = handle.filter(|h| kept.as_ref().is_none_or(|k| !Arc::ptr_eq(h, k))) {
            drop(self.ask(kind::CLOSE, |p| p.string(&handle)));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_parts_in_order_whatever_their_lengths() {
        let parts: [&[u8]; 5] = [b"ab", b"", b"cdefg", b"h", b""];
        for most in 1..10 {
            let (mut pieces, mut out) = (Pieces { parts: &parts, taken: 0 }, Vec::new());
            while pieces.left() > 0 {
                let len = pieces.left().min(most);
                pieces.take(len, &mut out);
            }
            assert_eq!(out, b"abcdefgh", "{most}");
        }
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        assert_eq!(width(32 << 10), 64);
        assert_eq!(width(255 << 10), 16);
        assert_eq!(width(usize::MAX), 2);
    }
}
