//! `bulla rescue-kit`: all it takes to restore without bulla, written beside the repository: the second reader, the
//! format's description, and a page that says what to do. Nothing in it is secret, and it needs no password to make.

use crate::context::{Context, canonical};
use crate::exit::{Code, Failure, Outcome};
use crate::ui::format::{count, utc_time};
use crate::ui::json::SCHEMA;
use bulla_backends::location::Location;
use bulla_engine::Error;
use bulla_engine::env::{Clock, SystemClock};
use bulla_engine::format::slot::SlotKind;
use bulla_engine::observer::escape;
use bulla_engine::repository::{Repository, keys};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What `rescue-kit` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The kit restores with Python 3.11 on any Linux; RECOVERY.txt in it says how. Make it anew when keys come or go.
It holds no secret: keep a copy of it with the recovery key.")]
pub(crate) struct Args {
    /// Where; made if it is not there [default: beside the repository, its name and -rescue]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The files that are the same in every kit.
const FILES: [(&str, &str); 6] = [
    ("bulla_rescue.py", include_str!("../../../rescue/bulla_rescue.py")),
    ("bulla_format.py", include_str!("../../../rescue/bulla_format.py")),
    ("bulla_tree.py", include_str!("../../../rescue/bulla_tree.py")),
    ("bulla_parity.py", include_str!("../../../rescue/bulla_parity.py")),
    ("requirements.txt", include_str!("../../../rescue/requirements.txt")),
    ("SPEC.md", include_str!("../../../SPEC.md")),
];
const PAGE: &str = "RECOVERY.txt";

#[derive(Serialize)]
struct Written {
    message_type: &'static str,
    schema_version: u32,
    repository_id: String,
    directory: String,
    files: Vec<&'static str>,
}

/// Writes the kit.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let store = context.store()?.backend();
    let id = Repository::find(store.clone())?.identify()?.to_string();
    let slots = keys::list_in(&*store)?;
    let kinds: Vec<SlotKind> = slots.iter().filter_map(|slot| slot.kind).collect();
    let (lay, dir) = match context.directory()? {
        Some(place) => {
            let place = canonical(&place);
            let dir = args.dir.clone().unwrap_or_else(|| beside(&place));
            if canonical(&dir).starts_with(&place) {
                let text =
                    format!("{} lies in the repository, which holds nothing but itself", dir.display());
                return Err(Failure::Usage(text));
            }
            (Lay::Here(place), dir)
        }
        None => {
            let none = "the repository is not on this machine: name the directory for the kit";
            let dir = args.dir.clone().ok_or_else(|| Failure::Usage(none.into()))?;
            (Lay::There(store.describe().place, context.location()?), dir)
        }
    };
    std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    let page = page(&id, &lay, &kinds);
    for (name, text) in FILES.iter().copied().chain([(PAGE, page.as_str())]) {
        write(&dir.join(name), text).map_err(|e| Error::io("write", dir.join(name), e))?;
    }
    let shown = escape(dir.as_os_str().as_bytes());
    if context.ui.json {
        context.ui.document(&Written {
            message_type: "rescue_kit",
            schema_version: SCHEMA,
            repository_id: id,
            directory: shown,
            files: FILES.iter().map(|(name, _)| *name).chain([PAGE]).collect(),
        })?;
    } else {
        let n = count(FILES.len() as u64 + 1, "file");
        context.ui.line(format!("wrote {n} to {shown}; {PAGE} says how to restore without bulla"))?;
    }
    Ok(Code::Done)
}

/// `/srv/backup` has its kit in `/srv/backup-rescue`.
fn beside(place: &Path) -> PathBuf {
    let mut name = place.components().collect::<PathBuf>().into_os_string();
    name.push("-rescue");
    name.into()
}

/// Whole or not at all, in the place of an older one.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = File::options().write(true).create_new(true).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

fn quoted(path: &Path) -> String {
    bulla_manager::runbook::quoted(&path.to_string_lossy())
}

/// Where a repository lay when the kit was made.
enum Lay {
    /// In a directory.
    Here(PathBuf),
    /// Elsewhere: its name for people, and for us.
    There(String, Location),
}

impl Lay {
    /// What stands behind `-r`.
    fn directory(&self) -> String {
        match self {
            Self::Here(place) => quoted(place),
            Self::There(..) => "repository".into(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Here(place) => quoted(place),
            Self::There(name, _) => name.clone(),
        }
    }

    /// How it gets onto the machine; nothing if it is there.
    fn bring(&self) -> String {
        let Self::There(_, location) = self else { return String::new() };
        let (how, command) = match location {
            Location::S3 { endpoint, bucket, prefix } => (
                "the AWS command line, or any tool that copies a bucket",
                format!("aws s3 sync --endpoint-url {endpoint} s3://{bucket}/{prefix} repository"),
            ),
            Location::Sftp { user, host, port, path } => {
                let user = user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
                let port = port.map(|p| format!("-P {p} ")).unwrap_or_default();
                ("scp", format!("scp -r {port}{user}{host}:{path} repository"))
            }
            Location::Rclone(remote) => ("rclone", format!("rclone copy {remote} repository-rest")),
            Location::Rest(_) | Location::Local(_) => (
                "whatever copies the server's directory",
                "rsync -a SERVER:DIRECTORY/ repository-rest".into(),
            ),
        };
        let rest = matches!(location, Location::Rest(_) | Location::Rclone(_));
        let sort = if rest {
            "\n    find repository-rest -type f -name '*-*' | while read -r f; do n=${f##*/}; mkdir -p repository/${n%%-*}; \
             mv \"$f\" repository/${n%%-*}/${n#*-}; done"
        } else {
            ""
        };
        format!(
            "0. The repository, into the directory `repository` beside this file. With {how}:\n\n    {command}{sort}\n\n"
        )
    }
}

/// RECOVERY.txt. Lines that begin with four blanks are commands, to be typed as they stand.
fn page(id: &str, lay: &Lay, kinds: &[SlotKind]) -> String {
    let program = format!("rescue-env/bin/python bulla_rescue.py -r {}", lay.directory());
    let ways = [
        (SlotKind::Passphrase, "a password", "the password, which is asked for", ""),
        (SlotKind::Recovery, "a recovery key", "the recovery key, which is asked for", "--recovery-key "),
        (SlotKind::KeyFile, "a key file", "the key file, put here as KEYFILE", "--key-file KEYFILE "),
    ];
    let ways: Vec<_> = ways.into_iter().filter(|(kind, ..)| kinds.contains(kind)).collect();
    let mut have = Vec::new();
    for (kind, what, ..) in &ways {
        have.push(format!("{} ({what})", kinds.iter().filter(|k| *k == kind).count()));
    }
    let mut out = format!(
        "How to restore this backup without bulla\n\
         \n\
         repository   {id}\n\
         it lay at    {}\n\
         opens with   {}, as of {}\n\
         made by      bulla {}, repository format {}\n\
         \n\
         You need the repository's directory, one of its keys, a Linux machine with Python 3.11 or newer, and four\n\
         packages from PyPI. Nothing is written to the repository. Commands are run in the directory of this file; if\n\
         the repository lies elsewhere now, put its place behind -r.\n\
         \n\
         {}1. Once, the packages:\n\
         \n    python3 -m venv rescue-env\
         \n    rescue-env/bin/pip install -r requirements.txt\n\
         \n\
         For a machine without network, fetch them on another with `pip download -d packages -r requirements.txt` and add\n\
         `--no-index --find-links packages` to the second command.\n\
         \n\
         2. Restore the newest snapshot into the new directory `restored`, with ONE of:\n",
        lay.name(),
        have.join(", "),
        utc_time(SystemClock.now()),
        env!("CARGO_PKG_VERSION"),
        bulla_engine::format::MAGIC[5],
        lay.bring(),
    );
    for (_, _, how, option) in &ways {
        let _ = write!(out, "\n{how}:\n\n    {program} {option}restore latest restored\n");
    }
    let option = ways.first().map_or("", |(.., option)| option);
    let _ = write!(
        out,
        "\nAs root owners come back too. What cannot be restored is named, and the exit code is then 3.\n\
         \n\
         3. Other snapshots, and parts of one: `list` shows all, `ls` their files; a path at the end restores only that.\n\
         \n    {program} {option}list\
         \n    {program} {option}ls latest\n\
         \n\
         A damaged pack that has a parity sidecar (parity/ with the pack's name) is put right, without a key, by\n\
         `rescue-env/bin/python bulla_parity.py DAMAGED_PACK SIDECAR NEW_FILE`.\n\
         If these programs should fail you, SPEC.md is the whole format: they were written from it alone.\n"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kit_has_the_name_of_its_repository() {
        assert_eq!(beside(Path::new("/srv/b")), Path::new("/srv/b-rescue"));
        assert_eq!(beside(Path::new("/srv/b/")), Path::new("/srv/b-rescue"));
    }
}
