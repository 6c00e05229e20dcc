//! Words out. The rules:
//!
//! - stdout carries results and nothing else; progress, warnings and prompts go to stderr.
//! - With `--json` both carry JSON: results on stdout, what went wrong on stderr.
//! - Names of files are escaped before a person sees them; no byte of a name reaches the terminal as it is.
//! - A closed stdout ends the command quietly; a closed stderr is nobody's business.

pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod ncdu;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod signals;
pub(crate) mod table;

use crate::args::{Color, Global};
use crate::exit::{Failure, Outcome, Said};
use indicatif::ProgressBar;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// How to speak.
#[derive(Clone)]
pub(crate) struct Ui {
    /// JSON instead of prose.
    pub(crate) json: bool,
    /// No progress and no notices.
    pub(crate) quiet: bool,
    /// 0, 1 (`-v`) or 2 (`-vv`).
    pub(crate) verbosity: u8,
    color: bool,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Ui {
    /// From the options; colours only where stderr is a terminal that wants them.
    pub(crate) fn new(global: &Global) -> Self {
        let plain = crate::context::variable("NO_COLOR").is_some()
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !plain && io::stderr().is_terminal(),
        };
        Self { json: global.json, quiet: global.quiet, verbosity: global.verbose, color, bar: Arc::default() }
    }

    /// Buffered results.
    pub(crate) fn results(&self) -> Results {
        Results { out: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// One line of result.
    pub(crate) fn line(&self, text: impl Display) -> Outcome<()> {
        self.beside_bar(|| {
            let mut out = io::stdout().lock();
            out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
        })
    }

    /// One JSON document as a line of result.
    pub(crate) fn document(&self, value: &impl Serialize) -> Outcome<()> {
        self.line(json::text(value))
    }

    /// Something worth knowing that harms nothing.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.say("notice", text, |t| t.to_owned());
        }
    }

    /// [`Ui::note`] for those who outlive this.
    pub(crate) fn notice(&self) -> Box<dyn Fn(&str) + Send + Sync> {
        let ui = self.clone();
        Box::new(move |text| ui.note(text))
    }

    /// Something that went wrong and was got around.
    pub(crate) fn warn(&self, text: &str) {
        self.say("warning", text, |t| format!("{} {t}", self.paint("33", "warning:")));
    }

    /// Something that went wrong with one item while the rest goes on.
    pub(crate) fn error(&self, text: &str, item: Option<&[u8]>, during: &'static str) {
        if self.json {
            self.stderr(&json::text(&json::ItemError::new(text, item, during)));
        } else {
            self.stderr(&format!("{} {text}", self.paint("31", "error:")));
        }
    }

    /// Progress in words.
    pub(crate) fn progress_line(&self, text: &str) {
        self.stderr(text);
    }

    /// The last words of a command that failed.
    pub(crate) fn failure(&self, said: &Said) {
        if self.json {
            return json_failure(said);
        }
        self.stderr(&format!("{} {}", self.paint("1;31", "error:"), said.message));
        if let Some(hint) = said.hint {
            self.stderr(&format!("{} {hint}", self.paint("36", "hint:")));
        }
    }

    fn say(&self, kind: &'static str, text: &str, prose: impl Fn(&str) -> String) {
        if self.json {
            self.stderr(&json::text(&json::Said {
                message_type: kind,
                schema_version: json::SCHEMA,
                message: text,
            }));
        } else {
            self.stderr(&prose(text));
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn stderr(&self, text: &str) {
        self.beside_bar(|| write_stderr(text));
    }

    /// Writes without tearing the progress bar.
    fn beside_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub(super) fn set_bar(&self, bar: Option<ProgressBar>) {
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }
}

fn write_stderr(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(format!("{text}\n").as_bytes());
}

/// The last words in JSON, also before there is a [`Ui`].
pub(crate) fn json_failure(said: &Said) {
    write_stderr(&json::text(&json::ExitError {
        message_type: "exit_error",
        schema_version: json::SCHEMA,
        code: said.code as u8,
        message: &said.message,
        hint: said.hint,
    }));
}

/// Buffered stdout. Nothing is lost silently: [`Results::finish`] must be called.
pub(crate) struct Results {
    out: BufWriter<StdoutLock<'static>>,
}

impl Results {
    /// One line.
    pub(crate) fn line(&mut self, text: impl Display) -> Outcome<()> {
        writeln!(self.out, "{text}").map_err(Failure::Output)
    }
    /// One JSON document on a line.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> Outcome<()> {
        self.line(json::text(value))
    }
    /// Raw bytes may be written here.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.out
    }
    /// Gives everything to the system.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        self.out.flush().map_err(Failure::Output)
    }
}
