//! The text form of a vector: header lines `key: value`, an empty line, the object's bytes in hexadecimal.

use bulla_repo_format::id::to_hex;
use std::fmt::Write;

/// One case. `with-…` headers are given to the decoder, `fact-…` headers are what it must find.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) object: String,
    /// The tag of SPEC.md a reject proves; none means the object is valid.
    pub(crate) rule: Option<String>,
    pub(crate) note: String,
    pub(crate) with: Vec<(String, String)>,
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) bytes: Vec<u8>,
}

impl Vector {
    pub(crate) fn ok(object: &str, case: &str, note: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: format!("{object}-ok-{case}.txt"),
            object: object.into(),
            note: note.into(),
            bytes: bytes.into(),
            ..Self::default()
        }
    }

    pub(crate) fn reject(
        object: &str,
        rule: &str,
        case: &str,
        note: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        let mut v = Self::ok(object, case, note, bytes);
        v.name = format!("{object}-{}-{case}.txt", rule.to_lowercase());
        v.rule = Some(rule.into());
        v
    }

    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.with.push((key.into(), value.to_string()));
        self
    }

    pub(crate) fn given(&self, key: &str) -> &str {
        let found = self.with.iter().find(|(k, _)| k == key);
        found.map(|(_, v)| v.as_str()).unwrap_or_else(|| panic!("{}: no header with-{key}", self.name))
    }

    pub(crate) fn print(&self) -> String {
        let mut out = format!("object: {}\n", self.object);
        match &self.rule {
            None => out += "expect: ok\n",
            Some(rule) => write!(out, "expect: reject\nrule: {rule}\n").unwrap(),
        }
        writeln!(out, "note: {}", self.note).unwrap();
        for (prefix, list) in [("with", &self.with), ("fact", &self.facts)] {
            list.iter().for_each(|(k, v)| writeln!(out, "{prefix}-{k}: {v}").unwrap());
        }
        out.push('\n');
        self.bytes.chunks(48).for_each(|line| writeln!(out, "{}", to_hex(line)).unwrap());
        out
    }

    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let (head, hex) = text.split_once("\n\n").unwrap_or_else(|| panic!("{name}: no empty line"));
        let mut v = Self { name: name.into(), ..Self::default() };
        let mut expect = "";
        for line in head.lines() {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line:?}"));
            match key.split_once('-') {
                Some(("with", key)) => v.with.push((key.into(), value.into())),
                Some(("fact", key)) => v.facts.push((key.into(), value.into())),
                _ => match key {
                    "object" => v.object = value.into(),
                    "expect" => expect = value,
                    "rule" => v.rule = Some(value.into()),
                    "note" => v.note = value.into(),
                    _ => panic!("{name}: unknown header {key}"),
                },
            }
        }
        assert_eq!(
            expect,
            if v.rule.is_some() { "reject" } else { "ok" },
            "{name}: rule and expect disagree"
        );
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
        v.bytes = digits.chunks(2).map(pair).collect();
        v
    }
}
