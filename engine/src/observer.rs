//! Facts out: what a verb meets and counts. The engine never prints; whoever calls decides what is shown.

use crate::error::SourceError;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an entry turned out to be in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryOutcome {
    /// Not in the parent.
    New,
    /// Differs from the parent.
    Changed,
    /// As in the parent.
    Unmodified,
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An entry of the source was decided on; `bytes` is its size.
    Entry {
        /// Raw absolute path.
        path: &'a [u8],
        /// New, changed or not.
        outcome: EntryOutcome,
        /// Its length; 0 for anything but files.
        bytes: u64,
        /// True for a directory.
        directory: bool,
    },
    /// Progress of the verb in its own units; totals grow while a scan goes on.
    Progress {
        /// Entries done.
        files: u64,
        /// Bytes done.
        bytes: u64,
        /// Entries known so far; 0 when unknown.
        total_files: u64,
        /// Bytes known so far.
        total_bytes: u64,
    },
    /// An entry of the source could not be captured whole.
    SourceError(&'a SourceError),
    /// A dry run of a restore would do this. There is one for each entry, so nothing holds them all.
    Planned(&'a crate::restore::Planned),
    /// Something the user should know, that harms nothing.
    Notice(&'a str),
    /// Something went wrong that the verb got around, or a restored entry lacks something.
    Warning(&'a str),
}

/// Receives events, from several threads.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
    /// True when the caller shows progress against a total; finding it costs a walk of its own.
    fn wants_totals(&self) -> bool {
        false
    }
    /// True when the caller wants the verb to stop at the next safe point.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Ignores everything.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event<'_>) {}
}

/// Keeps messages, for tests and embedders.
#[derive(Default)]
pub struct Collector {
    messages: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Collector {
    /// Warnings, notices and source errors so far.
    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().map(|m| m.clone()).unwrap_or_default()
    }
    /// Asks the verb to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Observer for Collector {
    fn event(&self, event: &Event<'_>) {
        let text = match event {
            Event::SourceError(e) => e.to_string(),
            Event::Notice(t) | Event::Warning(t) => (*t).to_owned(),
            _ => return,
        };
        if let Ok(mut m) = self.messages.lock() {
            m.push(text);
        }
    }
    fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A file name for people: UTF-8 as it is, control and invalid bytes as `\xNN`, backslash doubled. No byte of a
/// name can move a cursor or forge a line.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() || is_format_control(c) => {
                    let mut b = [0; 4];
                    for byte in c.encode_utf8(&mut b).bytes() {
                        out.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Bidirectional overrides and invisible characters, which can make a name look like another.
const fn is_format_control(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn no_control_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert!(escape(&all).chars().all(|c| !c.is_control()));
        assert_eq!(escape("a\x1b[31m\u{202e}é\\".as_bytes()), "a\\x1b[31m\\xe2\\x80\\xaeé\\\\");
    }
}
