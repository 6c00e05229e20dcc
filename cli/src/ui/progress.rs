//! Progress of a long run: bars on a terminal, a line a minute elsewhere, JSON lines for programs. Also the
//! observer that turns the engine's facts into words.

use super::format::{count, duration, size};
use super::{Ui, json, signals};
use bulla_engine::observer::{EntryOutcome, Event, Observer, escape};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(60);
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What a run is called while it goes on, and what to do with its entries.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    /// `archival`, `restore`, `check`: restic's words for where an error happened.
    pub(crate) during: &'static str,
    /// Verbose lists are the result itself, as in a dry run.
    pub(crate) list_is_result: bool,
}

/// The observer of one run.
struct Reporter<'u> {
    ui: &'u Ui,
    words: Words,
    started: Instant,
    files: AtomicU64,
    bytes: AtomicU64,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
    errors: AtomicU64,
}

/// A moment of a run.
#[derive(Clone, Copy)]
struct Moment {
    elapsed: Duration,
    files: u64,
    bytes: u64,
    total_files: u64,
    total_bytes: u64,
    errors: u64,
    rate: f64,
}

/// Runs `work` under observation: progress is shown, signals are requests.
pub(crate) fn watch<T: Send>(ui: &Ui, words: Words, work: impl FnOnce(&dyn Observer) -> T + Send) -> T {
    watch_until(ui, words, &|| (), work)
}

/// The same; `stop` is called once when a signal asks to stop, to end what `work` may be waiting for.
pub(crate) fn watch_until<T: Send>(
    ui: &Ui,
    words: Words,
    stop: &(dyn Fn() + Sync),
    work: impl FnOnce(&dyn Observer) -> T + Send,
) -> T {
    signals::catch();
    let reporter = Reporter {
        ui,
        words,
        started: Instant::now(),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        total_files: AtomicU64::new(0),
        total_bytes: AtomicU64::new(0),
        errors: AtomicU64::new(0),
    };
    let (done, ended) = channel::<()>();
    std::thread::scope(|scope| {
        let reporter = &reporter;
        let ticker = scope.spawn(move || reporter.tick(&ended, stop));
        let result = work(reporter);
        drop(done);
        let _ = ticker.join();
        result
    })
}

impl Reporter<'_> {
    fn tick(&self, ended: &Receiver<()>, stop: &dyn Fn()) {
        let pace = Pace::new(self.ui);
        let bar = pace.bar.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            self.ui.set_bar(Some(bar.clone()));
            bar
        });
        let (mut told, mut shown, mut warned) = (Instant::now(), Instant::now(), false);
        let mut rate = Rate::default();
        while ended.recv_timeout(pace.tick) == Err(RecvTimeoutError::Timeout) {
            let moment = self.moment(&mut rate);
            if signals::stop_asked() && !std::mem::replace(&mut warned, true) {
                self.ui.warn("interrupted: stopping at the next safe point; interrupt again to stop at once");
                stop();
            }
            let due = pace.lines && told.elapsed() >= LINE_EVERY;
            if signals::poked() || due {
                told = Instant::now();
                self.ui.progress_line(&moment.text());
            }
            if let Some(bar) = &bar {
                moment.draw(bar);
            }
            if pace.status.is_some_and(|every| shown.elapsed() >= every) {
                shown = Instant::now();
                let _ = self.ui.document(&moment.status());
            }
        }
        if let Some(bar) = bar {
            self.ui.set_bar(None);
            bar.finish_and_clear();
        }
    }

    fn moment(&self, rate: &mut Rate) -> Moment {
        let elapsed = self.started.elapsed();
        let bytes = self.bytes.load(Relaxed);
        Moment {
            elapsed,
            files: self.files.load(Relaxed),
            bytes,
            total_files: self.total_files.load(Relaxed),
            total_bytes: self.total_bytes.load(Relaxed),
            errors: self.errors.load(Relaxed),
            rate: rate.at(elapsed, bytes),
        }
    }

    fn entry(&self, path: &[u8], outcome: EntryOutcome, bytes: u64, directory: bool) {
        let least = if outcome == EntryOutcome::Unmodified { 2 } else { 1 };
        if self.ui.verbosity < least {
            return;
        }
        if self.ui.json {
            let _ = self.ui.document(&json::VerboseStatus::new(path, outcome, bytes));
            return;
        }
        let word = match outcome {
            EntryOutcome::New => "new      ",
            EntryOutcome::Changed => "changed  ",
            EntryOutcome::Unmodified => "unchanged",
        };
        let what = if directory { String::new() } else { format!(", {}", size(bytes)) };
        let line = format!("{word}  {}{what}", escape(path));
        if self.words.list_is_result {
            let _ = self.ui.line(line);
        } else {
            self.ui.progress_line(&line);
        }
    }
}

impl Observer for Reporter<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Entry { path, outcome, bytes, directory } => {
                self.entry(path, *outcome, *bytes, *directory)
            }
            Event::Progress { files, bytes, total_files, total_bytes } => {
                self.files.store(*files, Relaxed);
                self.bytes.store(*bytes, Relaxed);
                self.total_files.store(*total_files, Relaxed);
                self.total_bytes.store(*total_bytes, Relaxed);
            }
            Event::SourceError(e) => {
                self.errors.fetch_add(1, Relaxed);
                self.ui.error(&e.to_string(), Some(&e.path), self.words.during);
            }
            Event::Notice(text) => self.ui.note(text),
            Event::Warning(text) => self.ui.warn(text),
            _ => {}
        }
    }

    fn wants_totals(&self) -> bool {
        let pace = Pace::new(self.ui);
        pace.bar || pace.lines || pace.status.is_some()
    }

    fn interrupted(&self) -> bool {
        signals::stop_asked()
    }
}

/// How often to say what.
struct Pace {
    bar: bool,
    lines: bool,
    status: Option<Duration>,
    tick: Duration,
}

impl Pace {
    fn new(ui: &Ui) -> Self {
        let fps =
            crate::context::variable("BULLA_PROGRESS_FPS").and_then(|v| v.to_str()?.parse::<f64>().ok());
        let every = fps.filter(|f| *f > 0.0).map(|f| Duration::from_secs_f64(1.0 / f.min(60.0)));
        let shown = !ui.quiet && fps != Some(0.0);
        let terminal = std::io::stderr().is_terminal();
        let bar = shown && !ui.json && terminal;
        let status = (shown && ui.json).then(|| every.unwrap_or(STATUS_EVERY));
        // Signals are looked for at least this often, whatever is shown.
        let tick = every.filter(|_| bar || ui.json).map_or(TICK, |e| e.min(TICK));
        Self { bar, lines: shown && !ui.json && !terminal, status, tick }
    }
}

/// Bytes per second, smoothed over some ten seconds.
#[derive(Default)]
struct Rate {
    at: Duration,
    bytes: u64,
    value: f64,
}

impl Rate {
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    fn at(&mut self, now: Duration, bytes: u64) -> f64 {
        let span = now.saturating_sub(self.at).as_secs_f64();
        if span > 0.0 {
            let recent = bytes.saturating_sub(self.bytes) as f64 / span;
            // A young average leans on what it has seen, an old one on ten seconds.
            let weight = span / now.as_secs_f64().clamp(span, 10.0);
            self.value += (recent - self.value) * weight;
            (self.at, self.bytes) = (now, bytes);
        }
        self.value
    }
}

impl Moment {
    /// Seconds left, when the total is known and something moves.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn left(&self) -> Option<Duration> {
        let left = self.total_bytes.checked_sub(self.bytes).filter(|_| self.total_bytes > 0)?;
        Duration::try_from_secs_f64(left as f64 / self.rate).ok()
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive and small"
    )]
    fn text(&self) -> String {
        let mut parts = match self.total_bytes {
            0 => vec![size(self.bytes), count(self.files, "file")],
            total => vec![
                format!("{} of {}", size(self.bytes), size(total)),
                format!("{} of {}", self.files, count(self.total_files, "file")),
            ],
        };
        parts.push(format!("{}/s", size(self.rate as u64)));
        if let Some(left) = self.left().filter(|l| l.as_secs() > 0) {
            parts.push(format!("ETA {}", duration(left)));
        }
        if self.errors > 0 {
            parts.push(count(self.errors, "error"));
        }
        format!("[{}] {}", duration(self.elapsed), parts.join(", "))
    }

    fn draw(&self, bar: &ProgressBar) {
        let template = if self.total_bytes > 0 { "{bar:24} {percent:>3}% {msg}" } else { "{spinner} {msg}" };
        if bar.position() == 0 || bar.length() != Some(self.total_bytes) {
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_length(self.total_bytes);
        }
        bar.set_position(self.bytes.min(self.total_bytes));
        bar.set_message(self.text());
        bar.tick();
    }

    #[allow(clippy::cast_precision_loss, reason = "a fraction for a progress bar")]
    fn status(&self) -> json::Status {
        json::Status {
            message_type: "status",
            schema_version: json::SCHEMA,
            seconds_elapsed: self.elapsed.as_secs(),
            seconds_remaining: self.left().map(|l| l.as_secs()),
            percent_done: if self.total_bytes == 0 {
                0.0
            } else {
                (self.bytes as f64 / self.total_bytes as f64).min(1.0)
            },
            total_files: self.total_files,
            files_done: self.files,
            total_bytes: self.total_bytes,
            bytes_done: self.bytes,
            error_count: self.errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_reads_as_one() {
        let m = Moment {
            elapsed: Duration::from_secs(75),
            files: 10,
            bytes: 1 << 30,
            total_files: 20,
            total_bytes: 3 << 30,
            errors: 1,
            rate: f64::from(16 << 20),
        };
        assert_eq!(m.text(), "[1m15s] 1.0 GiB of 3.0 GiB, 10 of 20 files, 16.0 MiB/s, ETA 2m08s, 1 error");
        let unknown = Moment { total_bytes: 0, rate: 0.0, errors: 0, ..m };
        assert_eq!(unknown.text(), "[1m15s] 1.0 GiB, 10 files, 0 B/s");
    }

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let mut r = Rate::default();
        assert!((r.at(Duration::from_secs(1), 100) - 100.0).abs() < 1.0);
        for s in 2..120 {
            r.at(Duration::from_secs(s), 100 * s);
        }
        for s in 120..160u64 {
            r.at(Duration::from_secs(s), 12_000);
        }
        assert!(r.value < 10.0, "a stall shows: {}", r.value);
    }
}
