//! A configuration as it is written: each value with its name and its place.

use super::section::Source;
use super::{File, Place};
use std::cell::RefCell;
use toml::de::{DeTable, DeValue};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its dotted name.
    pub key: String,
    /// As it is written, but for a password in a URL.
    pub value: String,
    /// Where.
    pub place: Place,
}

/// All values of files, in the order of the files and of the names in each. What is no TOML is left out.
pub fn entries(files: &[File]) -> Vec<Entry> {
    let mut out = Vec::new();
    for file in files {
        let mistakes = RefCell::new(Vec::new());
        let source = Source { path: &file.path, text: &file.text, mistakes: &mistakes };
        collect(&source, DeTable::parse_recoverable(&file.text).0.get_ref(), "", &mut out);
    }
    out
}

fn collect(source: &Source<'_>, table: &DeTable<'_>, above: &str, out: &mut Vec<Entry>) {
    for (name, slot) in table {
        let name = quoted(name.get_ref());
        let key = if above.is_empty() { name } else { format!("{above}.{name}") };
        match slot.get_ref() {
            DeValue::Table(inner) => collect(source, inner, &key, out),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                for (n, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        collect(source, inner, &format!("{key}.{n}"), out);
                    }
                }
            }
            _ => {
                let value = without_password(source.text.get(slot.span()).unwrap_or_default());
                out.push(Entry { key, value, place: source.place(slot.span()) });
            }
        }
    }
}

/// A name as it is part of a key.
pub(super) fn quoted(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && !name.is_empty();
    if plain { name.to_owned() } else { format!("{name:?}") }
}

/// A text that may be a URL, without the password in it.
fn without_password(text: &str) -> String {
    let hidden = || {
        let host = text.find("://")? + 3;
        let rest = text.get(host..)?;
        let end = rest.find(['/', '"', '\'']).unwrap_or(rest.len());
        let user = rest.get(..end)?.rfind('@')?;
        let colon = rest.get(..user)?.find(':')?;
        Some(format!("{}:…{}", text.get(..host + colon)?, rest.get(user..)?))
    };
    hidden().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (text, shown) in [
            ("\"rest:https://u:secret@h:8000/p\"", "\"rest:https://u:…@h:8000/p\""),
            ("\"rest:https://u:se@cret@h\"", "\"rest:https://u:…@h\""),
            ("\"rest:https://h:8000/a@b\"", "\"rest:https://h:8000/a@b\""),
            ("\"sftp://u@h/p\"", "\"sftp://u@h/p\""),
            ("\"/mnt/b\"", "\"/mnt/b\""),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
