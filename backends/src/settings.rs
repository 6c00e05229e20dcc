//! What the user set besides the URL: `-o key=value`, and the variables of the environment, which are passed in so that
//! a library that embeds this decides what is seen.

use std::collections::BTreeMap;

/// The environment as far as it is shown.
pub struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Variables<'a> {
    /// Asks `get` for every variable.
    pub fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { get }
    }

    /// A variable; an empty one counts as none.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|v| !v.is_empty())
    }
}

/// True for what can be the key of an option: letters, digits, dots and dashes.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// What could be a URL, or a part of one, may hold a password.
fn may_hold_a_password(text: &str) -> bool {
    text.contains("://") || text.contains('@')
}

/// An option as an error may name it: by its key, and never by what may hold a password.
pub fn shown(word: &str) -> &str {
    match word.split_once('=') {
        Some((key, _)) if is_key(key.trim()) => key.trim(),
        _ if !may_hold_a_password(word) => word,
        _ => match word.rsplit_once('#') {
            Some((_, end)) if !end.is_empty() && !may_hold_a_password(end) => end,
            _ => "with a URL",
        },
    }
}

/// Options that are taken out one by one; one that nobody took was a mistake.
#[derive(Debug, Default, Clone)]
pub struct Options {
    left: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Options {
    /// From `key=value` words.
    pub fn parse<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<Self, String> {
        let mut left = BTreeMap::new();
        for word in words {
            let word = word.as_ref();
            let parts = word.split_once('=').map(|(key, value)| (key.trim(), value));
            let (key, value) = parts
                .filter(|(key, _)| is_key(key))
                .ok_or_else(|| format!("-o {}: write key=value", shown(word)))?;
            if left.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("-o {key} is given twice"));
            }
        }
        Ok(Self { left, known: Vec::new() })
    }

    /// Takes over others, which win.
    pub fn replace(&mut self, others: Self) {
        self.left.extend(others.left);
    }

    /// The value of an option of this kind of store.
    pub fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// The same, read as something else.
    pub fn take_as<T: std::str::FromStr>(&mut self, key: &'static str) -> Result<Option<T>, String> {
        let Some(text) = self.take(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| match may_hold_a_password(&text) {
            true => format!("-o {key}: that is no value for it"),
            false => format!("-o {key}={text}: that is no value for it"),
        })
    }

    /// Whatever nobody took is said, with what there is.
    pub fn done(self, kind: &str) -> Result<(), String> {
        let Some(key) = self.left.into_keys().next() else { return Ok(()) };
        if self.known.iter().all(|key| !key.contains('.')) {
            return Err(format!("there is no option {key:?}: {kind} has none of its own"));
        }
        Err(format!("there is no option {key:?} for {kind}; there are {}", self.known.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_repeats_what_may_hold_a_password() {
        for (word, says) in [
            ("rest:https://u:pa=ss@h/", "-o with a URL: write key=value"),
            ("rest:https://u:pass@h/#rest.connections", "-o rest.connections: write key=value"),
            ("rest:https://u:pa#ss@h/", "-o with a URL: write key=value"),
            ("sftp:u:pa=ss@h", "-o with a URL: write key=value"),
            ("s3.region", "-o s3.region: write key=value"),
        ] {
            assert_eq!(Options::parse([word]).unwrap_err(), says);
        }
        let mut options = Options::parse(["n=https://u:pass@h/"]).unwrap();
        assert_eq!(options.take_as::<u8>("n").unwrap_err(), "-o n: that is no value for it");
    }

    #[test]
    fn options_are_taken_and_what_is_left_is_a_mistake() {
        let mut options = Options::parse(["s3.region=eu", "s3.connections=7"]).unwrap();
        assert_eq!(options.take("s3.region").as_deref(), Some("eu"));
        assert_eq!(options.take("s3.storage-class"), None);
        let text = options.clone().done("s3").unwrap_err();
        assert!(
            text.contains("\"s3.connections\"") && text.contains("s3.region, s3.storage-class"),
            "{text}"
        );
        assert_eq!(options.take_as::<usize>("s3.connections"), Ok(Some(7)));
        options.done("s3").unwrap();
        assert!(Options::parse(["a"]).is_err() && Options::parse(["a=1", "a=2"]).is_err());
        assert!(Options::parse(["n=x"]).unwrap().take_as::<u8>("n").is_err());
        assert!(
            Options::parse(["n=x"])
                .unwrap()
                .done("a local directory")
                .unwrap_err()
                .contains("has none of its own")
        );
    }
}
