//! A table of TOML while it is read. Reading says which keys there are, so three things follow from the same lines of
//! code: the values, the keys nobody knows, and, reading nothing, the JSON Schema.

use super::mistake::{Mistake, Place, meant};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// A file while it is read.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) mistakes: &'a RefCell<Vec<Mistake>>,
}

impl Source<'_> {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or_default();
        Place { file: self.path.to_owned(), line: before.matches('\n').count() + 1 }
    }
}

/// A table of a file; without one, only what could be in it is said.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// Its dotted name, empty for the file.
    name: String,
    table: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    known: Vec<&'static str>,
    /// Any key may be in it.
    open: bool,
    properties: Map<String, Value>,
    required: Vec<&'static str>,
    others: Option<Value>,
}

type Slot<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    pub(super) fn new(
        source: &'a Source<'a>,
        name: String,
        table: Option<&'a DeTable<'a>>,
        span: Range<usize>,
    ) -> Self {
        let (known, properties, required) = (Vec::new(), Map::new(), Vec::new());
        Self { source, name, table, span, known, open: false, properties, required, others: None }
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> Place {
        self.source.place(self.span.clone())
    }

    /// True when only keys are asked for.
    pub(super) fn describes(&self) -> bool {
        self.table.is_none()
    }

    pub(super) fn wrong(&self, place: Place, code: &'static str, what: impl Display, fix: impl Display) {
        let mistake = Mistake { place, code, what: what.to_string(), fix: fix.to_string() };
        self.source.mistakes.borrow_mut().push(mistake);
    }

    /// A mistake of the table itself.
    pub(super) fn lacks(&self, code: &'static str, what: impl Display, fix: impl Display) {
        if !self.describes() {
            self.wrong(self.place(), code, format!("{} {what}", self.name), fix);
        }
    }

    /// True if the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.get(key).is_some())
    }

    /// The value of a key, which from now on is known. Schemas are made only where nothing is read.
    fn slot(&mut self, key: &'static str, doc: &str, schema: impl FnOnce() -> Value) -> Option<Slot<'a>> {
        self.known.push(key);
        let Some(table) = self.table else {
            let mut schema = schema();
            if let Some(object) = schema.as_object_mut() {
                object.insert("description".to_owned(), doc.into());
            }
            self.properties.insert(key.to_owned(), schema);
            return None;
        };
        table.get(key)
    }

    /// The schema of what a reader asks for.
    fn schema<T>(source: &'a Source<'a>, read: impl Fn(&mut Section<'a>) -> Option<T>) -> Value {
        let mut blank = Section::new(source, String::new(), None, 0..0);
        read(&mut blank);
        blank.finish()
    }

    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn mistyped(&self, key: &str, slot: Slot<'_>, wanted: &str) {
        let what = format!("{} is of type {}", self.key(key), slot.get_ref().type_str());
        self.wrong(self.source.place(slot.span()), "E-KEY-02", what, format!("write {wanted}"));
    }

    /// Text.
    pub(super) fn text(&mut self, key: &'static str, doc: &str) -> Option<At<String>> {
        let slot = self.slot(key, doc, || json!({"type": "string"}))?;
        let Some(text) = slot.get_ref().as_str() else {
            self.mistyped(key, slot, "text, in quotes");
            return None;
        };
        Some(At { value: text.to_owned(), place: self.source.place(slot.span()) })
    }

    /// Text of which a value is made.
    pub(super) fn parsed<T: FromStr<Err = String>>(&mut self, key: &'static str, doc: &str) -> Option<At<T>> {
        let text = self.text(key, doc)?;
        match text.value.parse() {
            Ok(value) => Some(At { value, place: text.place }),
            Err(why) => {
                self.wrong(
                    text.place,
                    "E-VAL-01",
                    format!("{}: {why}", self.key(key)),
                    "write another value",
                );
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        doc: &str,
        words: &[(&'static str, T)],
    ) -> Option<At<T>> {
        let names = || words.iter().map(|(name, _)| *name);
        let slot = self.slot(key, doc, || json!({"enum": names().collect::<Vec<_>>()}))?;
        let place = self.source.place(slot.span());
        let Some(text) = slot.get_ref().as_str() else {
            self.mistyped(key, slot, "text, in quotes");
            return None;
        };
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let what = format!("{} cannot be {text:?}", self.key(key));
            self.wrong(place.clone(), "E-VAL-01", what, meant(text, names().collect::<Vec<_>>()));
        }
        found.map(|value| At { value, place })
    }

    /// A list of some words.
    pub(super) fn words<T: Copy>(
        &mut self,
        key: &'static str,
        doc: &str,
        words: &[(&'static str, T)],
    ) -> Option<Vec<T>> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let schema = || json!({"type": "array", "items": {"enum": names}});
        let said = self.list(key, doc, schema)?;
        let mut out = Vec::new();
        for at in said {
            match words.iter().find(|(name, _)| *name == at.value) {
                Some((_, value)) => out.push(*value),
                None => {
                    let what = format!("{} cannot be {:?}", self.key(key), at.value);
                    self.wrong(at.place, "E-VAL-01", what, meant(&at.value, names.clone()));
                }
            }
        }
        Some(out)
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, doc: &str) -> Option<At<bool>> {
        let slot = self.slot(key, doc, || json!({"type": "boolean"}))?;
        let Some(value) = slot.get_ref().as_bool() else {
            self.mistyped(key, slot, "true or false");
            return None;
        };
        Some(At { value, place: self.source.place(slot.span()) })
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str, doc: &str) -> Option<Vec<At<String>>> {
        self.list(key, doc, || json!({"type": "array", "items": {"type": "string"}}))
    }

    fn list(
        &mut self,
        key: &'static str,
        doc: &str,
        schema: impl FnOnce() -> Value,
    ) -> Option<Vec<At<String>>> {
        let slot = self.slot(key, doc, schema)?;
        let Some(items) = slot.get_ref().as_array() else {
            self.mistyped(key, slot, "a list of texts: [\"…\", \"…\"]");
            return None;
        };
        let text = |item: &Spanned<DeValue<'_>>| match item.get_ref().as_str() {
            Some(text) => Some(At { value: text.to_owned(), place: self.source.place(item.span()) }),
            None => {
                self.mistyped(key, item, "only texts in it, in quotes");
                None
            }
        };
        items.iter().map(text).collect()
    }

    /// A list of lists of texts.
    pub(super) fn text_lists(&mut self, key: &'static str, doc: &str) -> Option<Vec<Vec<At<String>>>> {
        let texts = || json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}}});
        let slot = self.slot(key, doc, texts)?;
        let list = |item: &Spanned<DeValue<'_>>| -> Option<Vec<At<String>>> {
            let text = |item: &Spanned<DeValue<'_>>| {
                Some(At { value: item.get_ref().as_str()?.to_owned(), place: self.source.place(item.span()) })
            };
            item.get_ref().as_array()?.iter().map(text).collect()
        };
        let found = slot.get_ref().as_array().and_then(|items| items.iter().map(list).collect());
        if found.is_none() {
            self.mistyped(key, slot, "a list of lists of texts: [[\"…\", \"…\"], [\"…\"]]");
        }
        found
    }

    /// A whole number of at least so much.
    pub(super) fn whole(&mut self, key: &'static str, doc: &str, least: u32) -> Option<At<u32>> {
        let slot = self.slot(key, doc, || json!({"type": "integer", "minimum": least}))?;
        let place = self.source.place(slot.span());
        let Some(number) = slot.get_ref().as_integer() else {
            self.mistyped(key, slot, "a whole number");
            return None;
        };
        match number.as_str().parse().ok().filter(|value| *value >= least) {
            Some(value) => Some(At { value, place }),
            None => {
                let what = format!("{} cannot be {}", self.key(key), number.as_str());
                self.wrong(place, "E-VAL-01", what, format!("write {least} or more"));
                None
            }
        }
    }

    /// A number or text, as text: rules of retention.
    pub(super) fn number_or_text(&mut self, key: &'static str, doc: &str) -> Option<At<String>> {
        let slot = self.slot(key, doc, || json!({"type": ["integer", "string"]}))?;
        let place = self.source.place(slot.span());
        let value = slot.get_ref();
        match value.as_str().or_else(|| value.as_integer().map(|i| i.as_str())) {
            Some(text) => Some(At { value: text.to_owned(), place }),
            None => {
                self.mistyped(key, slot, "a number or text");
                None
            }
        }
    }

    /// A table below this one.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        doc: &str,
        read: impl Fn(&mut Section<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let source = self.source;
        let slot = self.slot(key, doc, || Self::schema(source, &read))?;
        let Some(table) = slot.get_ref().as_table() else {
            self.mistyped(key, slot, "a table: { … }");
            return None;
        };
        let mut section = Section::new(self.source, self.key(key), Some(table), slot.span());
        let value = read(&mut section);
        section.finish();
        value.map(|value| At { value, place: self.source.place(slot.span()) })
    }

    /// A list of tables.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        doc: &str,
        read: impl Fn(&mut Section<'a>) -> Option<T>,
    ) -> Vec<At<T>> {
        let source = self.source;
        let schema = || json!({"type": "array", "items": Self::schema(source, &read)});
        let Some(slot) = self.slot(key, doc, schema) else { return Vec::new() };
        let Some(items) = slot.get_ref().as_array() else {
            self.mistyped(key, slot, "a list of tables: [{ … }, { … }]");
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in items {
            let Some(table) = item.get_ref().as_table() else {
                self.mistyped(key, item, "only tables in it: { … }");
                continue;
            };
            let mut section = Section::new(source, self.key(key), Some(table), item.span());
            let value = read(&mut section);
            section.finish();
            out.extend(value.map(|value| At { value, place: source.place(item.span()) }));
        }
        out
    }

    /// Where a text stands under a key that must not be one.
    pub(super) fn text_under(&mut self, key: &'static str) -> Option<Place> {
        let slot = self.table?.get(key).filter(|slot| slot.get_ref().is_str())?;
        self.known.push(key);
        Some(self.source.place(slot.span()))
    }

    /// A table of tables, with names of the user's choice; without a value those that could not be read.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        doc: &str,
        read: impl Fn(&mut Section<'a>) -> Option<T>,
    ) -> Vec<(String, At<Option<T>>)> {
        let found = self.table(key, doc, |section| {
            let mut out = Vec::new();
            section.open = true;
            if section.describes() {
                section.others = Some(Self::schema(section.source, &read));
            }
            for (name, slot) in section.table.into_iter().flatten() {
                let place = section.source.place(name.span());
                let name = name.get_ref().to_string();
                let Some(table) = slot.get_ref().as_table() else {
                    section.mistyped(&name, slot, "a table: { … }");
                    continue;
                };
                let mut inner = Section::new(section.source, section.key(&name), Some(table), slot.span());
                let value = read(&mut inner);
                inner.finish();
                out.push((name, At { value, place }));
            }
            Some(out)
        });
        found.map(|at| at.value).unwrap_or_default()
    }

    /// A table of texts that are read further, with names of the user's choice.
    pub(super) fn parsed_by_name<T: FromStr<Err = String>>(
        &mut self,
        key: &'static str,
        doc: &str,
    ) -> Vec<(String, At<T>)> {
        let found = self.table(key, doc, |section| {
            section.open = true;
            section.others = section.describes().then(|| json!({"type": "string"}));
            let mut out = Vec::new();
            for (name, slot) in section.table.into_iter().flatten() {
                let (name, place) = (name.get_ref().to_string(), section.source.place(slot.span()));
                match slot.get_ref().as_str().map(str::parse) {
                    Some(Ok(value)) => out.push((name, At { value, place })),
                    Some(Err(why)) => {
                        let what = format!("{}: {why}", section.key(&name));
                        section.wrong(place, "E-VAL-01", what, "write another value");
                    }
                    None => section.mistyped(&name, slot, "text, in quotes"),
                }
            }
            Some(out)
        });
        found.map(|at| at.value).unwrap_or_default()
    }

    /// A key that must be there: says so if it is not.
    pub(super) fn require<T>(&mut self, key: &'static str, value: Option<T>, example: &str) -> Option<T> {
        self.required.push(key);
        if value.is_none() && !self.has(key) {
            self.lacks("E-KEY-03", format!("has no {key}"), format!("write {key} = {example}"));
        }
        value
    }

    /// Says which keys nobody knows; without a table, gives its schema.
    pub(super) fn finish(self) -> Value {
        for (key, _) in self.table.into_iter().flatten().filter(|_| !self.open) {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let what = format!("no key is named {}", self.key(name));
                self.wrong(self.source.place(key.span()), "E-KEY-01", what, meant(name, self.known.clone()));
            }
        }
        if !self.describes() {
            return Value::Null;
        }
        json!({
            "type": "object",
            "properties": self.properties,
            "required": self.required,
            "additionalProperties": self.others.unwrap_or(Value::Bool(false)),
        })
    }
}
