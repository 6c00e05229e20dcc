//! What is wrong with a configuration: all of it at once, each with a code that stays, its place, and what to do.

use std::fmt;
use std::path::PathBuf;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One thing that is wrong, or a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What kind: `E-…` for mistakes, `W-…` for warnings. Codes stay what they are.
    pub code: &'static str,
    /// What, and why it is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Mistake {
    /// True for what is worth knowing and stops nothing.
    pub fn is_warning(&self) -> bool {
        self.code.starts_with('W')
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.place, self.code, self.what, self.fix)
    }
}

/// The one of `names` that is meant, if one is near.
pub(super) fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(wrong, name), name));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// "did you mean", or all there are.
pub(super) fn meant<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str> + Clone) -> String {
    match nearest(wrong, names.clone()) {
        Some(name) => format!("did you mean {name}?"),
        None => {
            let all: Vec<&str> = names.into_iter().collect();
            if all.is_empty() { "there are none".to_owned() } else { format!("there are {}", all.join(", ")) }
        }
    }
}
