//! The one place where an error becomes an exit code and a hint. The codes are those of the manual; 3, 10, 11, 12
//! and 130 are restic's.

use crate::ui::Ui;
use bulla_engine::Error;
use bulla_engine::backend::BackendError;
use bulla_engine::format::FormatError;
use bulla_manager::outcome::Outcome as Ended;
use std::io;
use std::process::ExitCode;

/// Exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line or a file it names is wrong.
    Usage = 2,
    /// Done, but some source could not be read, or something restored lacks a part.
    Partial = 3,
    /// Damage found.
    Damage = 4,
    /// Refused by a rule.
    Refused = 5,
    /// Something is not proven, or not as was promised.
    Unproven = 6,
    /// Something was due and did not happen.
    Missed = 7,
    /// A drill failed, or took too long.
    Drill = 8,
    /// The repository was set back, or has lost something.
    Anomaly = 9,
    /// No repository.
    NoRepository = 10,
    /// Another process does it.
    Busy = 11,
    /// Wrong or missing password.
    NoSecret = 12,
    /// No space left.
    Capacity = 13,
    /// Interrupted.
    Interrupted = 130,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine's reason.
    Engine(Error),
    /// The command line, the environment or a file named there is wrong.
    Usage(String),
    /// There is no password and nobody to ask.
    NoSecret(String),
    /// Something else failed.
    Failed(String),
    /// Interrupted, and what that left behind.
    Stopped(&'static str),
    /// Results could not be written.
    Output(io::Error),
}

/// What a command returns.
pub(crate) type Outcome<T = Code> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Engine(e)
    }
}

impl From<BackendError> for Failure {
    fn from(e: BackendError) -> Self {
        Self::Engine(e.into())
    }
}

/// What is said at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The exit code.
    pub(crate) code: Code,
    /// What and why.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<&'static str>,
}

const HINT_SECRET: &str = "give it with --password-file FILE or --key-file FILE, or set BULLA_PASSWORD_FILE; on a terminal bulla asks";
/// What to do about an older state.
pub(crate) const HINT_ROLLBACK: &str = "find out who or what did that. If it was you (an old copy put back on purpose), say so with: bulla check --accept-rollback";
const HINT_REPOSITORY: &str = "check the path, or make a repository with: bulla init -r DIR";

impl Failure {
    /// Code, message and hint; `None` when nobody is left to read (a closed pipe).
    pub(crate) fn said(&self) -> Option<Said> {
        let (code, message, hint) = match self {
            Self::Engine(e) => return Said::of(e),
            Self::Usage(m) => (Code::Usage, m.clone(), None),
            Self::NoSecret(m) => (Code::NoSecret, m.clone(), Some(HINT_SECRET)),
            Self::Stopped(m) => (Code::Interrupted, (*m).to_owned(), None),
            Self::Failed(m) => (Code::Failed, m.clone(), None),
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => return None,
            Self::Output(e) => (Code::Failed, format!("cannot write results: {e}"), None),
        };
        Some(Said { code, message, hint })
    }
}

impl Said {
    /// Of an error of the engine; `None` for a closed pipe.
    pub(crate) fn of(e: &Error) -> Option<Self> {
        match e {
            // The engine writes a file's bytes to stdout itself.
            Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => None,
            e => {
                let (code, hint) = judge(e);
                Some(Self { code, message: e.to_string(), hint })
            }
        }
    }
}

impl From<Ended> for Code {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Done => Self::Done,
            Ended::Failed => Self::Failed,
            Ended::Partial => Self::Partial,
            Ended::Damage => Self::Damage,
            Ended::Refused => Self::Refused,
            Ended::Unproven => Self::Unproven,
            Ended::Missed => Self::Missed,
            Ended::Drill => Self::Drill,
            Ended::Held => Self::Anomaly,
            Ended::NoRepository => Self::NoRepository,
            Ended::Busy => Self::Busy,
            Ended::NoSecret => Self::NoSecret,
            Ended::Capacity => Self::Capacity,
            Ended::Interrupted => Self::Interrupted,
        }
    }
}

/// Exit code and hint of an engine error.
fn judge(e: &Error) -> (Code, Option<&'static str>) {
    match e {
        Error::NoRepository { .. } => (Code::NoRepository, Some(HINT_REPOSITORY)),
        Error::RepositoryExists { .. } => {
            (Code::Failed, Some("use it as it is, or choose another directory"))
        }
        Error::WrongSecret { .. } => (
            Code::NoSecret,
            Some("if the password is lost, the recovery key printed at init opens it: --key-file"),
        ),
        Error::Backend(BackendError::NoSpace { .. }) => (
            Code::Capacity,
            Some(
                "nothing stored is harmed; make room, or let `bulla prune` free what is forgotten, then run it again",
            ),
        ),
        Error::Backend(BackendError::Denied { source, .. })
            if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
        {
            (Code::Failed, Some("it is mounted read-only: reading works there, writing does not"))
        }
        Error::Backend(BackendError::Denied { .. }) => (
            Code::Failed,
            Some("check owner and mode of the repository, or what your key for the store may do"),
        ),
        Error::Object { source: FormatError::Foreign { .. }, .. } => {
            (Code::Failed, Some("this is not a bulla repository, or a newer bulla wrote it"))
        }
        Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => (
            Code::Capacity,
            Some("make room in the target, then run it again: what is right there already is kept"),
        ),
        Error::UnknownSnapshot { .. } => (Code::Failed, Some("bulla snapshots lists what there is")),
        Error::AmbiguousSnapshot { .. } => (Code::Failed, Some("give more digits of the id")),
        Error::UnknownPath { .. } => (Code::Failed, Some("bulla ls SNAPSHOT lists its paths")),
        Error::ReadOnlyFeature { .. } => {
            (Code::Failed, Some("write with the newer bulla that others here use"))
        }
        Error::RolledBack { .. } => (Code::Anomaly, Some(HINT_ROLLBACK)),
        Error::Refused(_) => (Code::Refused, None),
        Error::Interrupted => {
            (Code::Interrupted, Some("nothing was committed; run it again: what was stored is reused"))
        }
        e if e.is_damage() => {
            (Code::Damage, Some("bulla check names what is damaged and which snapshots it hurts"))
        }
        _ => (Code::Failed, None),
    }
}

/// Ends the process's work: says what failed, gives the code.
pub(crate) fn finish(ui: &Ui, outcome: Outcome) -> ExitCode {
    let code = match outcome {
        Ok(code) => code,
        Err(failure) => failure.said().map_or(Code::Done, |said| {
            ui.failure(&said);
            said.code
        }),
    };
    ExitCode::from(code as u8)
}

/// Keeps the code of a run whose work is done when only its last words had no reader.
pub(crate) fn keep(code: Code, told: Outcome<()>) -> Outcome {
    match told {
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(code),
        told => told.map(|()| code),
    }
}

/// What clap has to say: help and version on stdout, mistakes on stderr, as JSON when that was asked for.
pub(crate) fn usage(said: &clap::Error) -> ExitCode {
    let mistaken = said.use_stderr();
    if mistaken && std::env::args_os().any(|a| a == "--json") {
        let text = said.to_string();
        let message = text.trim_start_matches("error: ").lines().next().unwrap_or_default().to_owned();
        crate::ui::json_failure(&Said { code: Code::Usage, message, hint: None });
    } else {
        let _ = said.print();
    }
    ExitCode::from(if mistaken { Code::Usage } else { Code::Done } as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(e: Error) -> Code {
        Failure::from(e).said().unwrap().code
    }

    #[test]
    fn every_error_has_the_code_of_the_manual() {
        let s = String::new;
        assert_eq!(code(Error::NoRepository { place: s() }) as u8, 10);
        assert_eq!(code(Error::WrongSecret { slots: 1 }) as u8, 12);
        assert_eq!(code(BackendError::NoSpace { object: s(), place: s() }.into()) as u8, 13);
        assert_eq!(code(BackendError::NotFound { object: s(), place: s() }.into()) as u8, 4);
        assert_eq!(code(Error::Damaged { what: s(), reason: s() }) as u8, 4);
        assert_eq!(code(Error::Refused(s())) as u8, 5);
        assert_eq!(code(Error::RolledBack { reason: s() }) as u8, 9);
        assert_eq!(code(Error::Interrupted) as u8, 130);
        assert_eq!(code(Error::Voided { run: s() }) as u8, 1);
        assert_eq!(code(Error::Overtaken { what: s() }) as u8, 1);
        assert_eq!(Failure::Usage(s()).said().unwrap().code as u8, 2);
        let newer = FormatError::Foreign { what: "config" };
        assert_eq!(code(Error::Object { object: s(), source: newer }) as u8, 1);
        assert!(Failure::Output(io::ErrorKind::BrokenPipe.into()).said().is_none());
    }
}
