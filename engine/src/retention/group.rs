//! Groups of snapshots: those of the same host, paths or tags, as `forget` ranks and `snapshots` lists them.

use crate::observer::escape;
use bulla_repo_format::snapshot::Snapshot;
use std::fmt;
use std::str::FromStr;

/// What the snapshots of a group have in common. With nothing, all snapshots are one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The set of paths.
    pub paths: bool,
    /// The set of tags.
    pub tags: bool,
}

impl Default for GroupBy {
    /// Host and paths.
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

impl FromStr for GroupBy {
    type Err = String;

    /// A comma list of `host`, `paths`, `tags`; the empty one makes one group of all.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut by = Self { host: false, paths: false, tags: false };
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            match word {
                "host" | "hosts" => by.host = true,
                "path" | "paths" => by.paths = true,
                "tag" | "tags" => by.tags = true,
                _ => return Err(format!("{word:?} is none of host, paths, tags")),
            }
        }
        Ok(by)
    }
}

/// A group's name: what its snapshots have in common. `None` is what they may differ in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The host.
    pub host: Option<String>,
    /// The paths, sorted, each once.
    pub paths: Option<Vec<Vec<u8>>>,
    /// The tags, sorted, each once.
    pub tags: Option<Vec<String>>,
}

impl GroupKey {
    /// The group of what has this host, these paths and these tags.
    pub fn new(by: GroupBy, host: &str, paths: &[Vec<u8>], tags: &[String]) -> Self {
        Self {
            host: by.host.then(|| host.to_owned()),
            paths: by.paths.then(|| set(paths)),
            tags: by.tags.then(|| set(tags)),
        }
    }

    /// The group of a snapshot.
    pub fn of(by: GroupBy, s: &Snapshot) -> Self {
        Self::new(by, &s.host, &s.paths, &s.tags)
    }
}

/// A list as a set: the order in which paths and tags were typed means nothing.
fn set<T: Clone + Ord>(list: &[T]) -> Vec<T> {
    let mut out = list.to_vec();
    out.sort();
    out.dedup();
    out
}

impl fmt::Display for GroupKey {
    /// `host web · paths /etc, /srv · tags (none)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(host) = &self.host {
            parts.push(format!("host {}", escape(host.as_bytes())));
        }
        if let Some(paths) = &self.paths {
            parts.push(format!("paths {}", paths.iter().map(|p| escape(p)).collect::<Vec<_>>().join(", ")));
        }
        if let Some(tags) = &self.tags {
            let tags = if tags.is_empty() { "(none)".to_owned() } else { escape(tags.join(",").as_bytes()) };
            parts.push(format!("tags {tags}"));
        }
        if parts.is_empty() {
            parts.push("all snapshots".to_owned());
        }
        f.write_str(&parts.join(" · "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_groups() {
        let by = |text: &str| text.parse::<GroupBy>();
        assert_eq!(by("host,paths").unwrap(), GroupBy::default());
        assert_eq!(by(" tag , tags,").unwrap(), GroupBy { host: false, paths: false, tags: true });
        assert!(by("hots").unwrap_err().contains("\"hots\""));
        let paths = [b"/srv".to_vec(), b"/etc".to_vec(), b"/etc".to_vec()];
        let tags = ["b".to_owned(), "a\n".to_owned()];
        let title = |text: &str| GroupKey::new(by(text).unwrap(), "web", &paths, &tags).to_string();
        assert_eq!(title("host,paths,tags"), "host web · paths /etc, /srv · tags a\\x0a,b");
        assert_eq!(title(""), "all snapshots");
        let none = GroupKey::new(by("tags").unwrap(), "web", &paths, &[]);
        assert_eq!(none.to_string(), "tags (none)");
    }
}
