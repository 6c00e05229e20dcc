//! `bulla init`: makes a repository. The recovery key is shown once, here, and stored nowhere.

use crate::args::FromSecret;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome, keep};
use crate::secret::{self, NewFile};
use crate::ui::format::{parse_percent, parse_size, size};
use crate::ui::json::SCHEMA;
use bulla_backends::open::Opened;
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::limits::FRAME_RAW_MAX;
use bulla_engine::format::slot::print_key;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::{Error, format};
use serde::Serialize;
use std::path::PathBuf;

/// What `init` takes.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
The password comes from --password-file, --password-command, the environment or the terminal.
With --key-file-out and none of these, the key file is the only key besides the recovery key.")]
pub(crate) struct Args {
    /// Write the recovery key to this new file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_key_out: Option<PathBuf>,
    /// Also make a random key file (mode 0600) that opens the repository without a password
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file_out: Option<PathBuf>,
    /// A name for the first key, kept sealed in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) label: String,
    /// Store this share of parity with each pack, so that damage can be repaired (3 is usual)
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub(crate) parity: Option<u8>,
    /// How files are cut: the average size of a chunk (a power of two), or minimum, average and maximum
    /// [default: 32K,128K,512K]
    #[arg(long, value_name = "AVG|MIN,AVG,MAX", value_parser = chunker)]
    pub(crate) chunker: Option<ChunkerParams>,
    /// Cut and identify chunks as this repository does, so that they can be copied from it as they are
    #[arg(long, value_name = "URL", conflicts_with = "chunker")]
    pub(crate) copy_chunker_from: Option<std::ffi::OsString>,
    /// Its secret
    #[command(flatten)]
    pub(crate) from: FromSecret,
    /// How much is compressed together, 4K to 8M: more is smaller, less is faster to read a little of [default: 4M]
    #[arg(long, value_name = "SIZE", value_parser = frame_size)]
    pub(crate) frame_size: Option<u32>,
    /// Size at which a pack of file contents is complete, 1M to 256M: larger ones are fewer objects and requests, and more
    /// memory and time for each [default: 8M]
    #[arg(long, value_name = "SIZE", value_parser = pack_size)]
    pub(crate) pack_size: Option<u64>,
}

/// The sizes of chunks as typed; an average alone has a quarter and four times of it around.
fn chunker(text: &str) -> Result<ChunkerParams, String> {
    let bytes = |word: &str| u32::try_from(parse_size(word)?).map_err(|_| format!("{word} is too large"));
    let sizes = text.split(',').map(bytes).collect::<Result<Vec<u32>, String>>()?;
    let params = match *sizes.as_slice() {
        [avg] => ChunkerParams { min: avg / 4, avg, max: avg.saturating_mul(4) },
        [min, avg, max] => ChunkerParams { min, avg, max },
        _ => return Err("it takes an average, or minimum, average and maximum".into()),
    };
    params.validate().map_err(|e| e.to_string())?;
    Ok(params)
}

fn pack_size(text: &str) -> Result<u64, String> {
    let range = 1 << 20..=256 << 20;
    let bytes = parse_size(text)?;
    let outside = || format!("{text} is not from {} to {}", size(*range.start()), size(*range.end()));
    range.contains(&bytes).then_some(bytes).ok_or_else(outside)
}

fn frame_size(text: &str) -> Result<u32, String> {
    let range = 4 << 10..=FRAME_RAW_MAX;
    u32::try_from(parse_size(text)?)
        .ok()
        .filter(|n| range.contains(n))
        .ok_or_else(|| format!("{text} is not from {} to {}", size(4 << 10), size(FRAME_RAW_MAX.into())))
}

/// Makes a repository.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let store = context.store()?;
    let made = create(context, store, args)?;
    keep(Code::Done, made.tell(context, true))
}

/// A new repository and what its owner must be told.
pub(crate) struct Made {
    /// The repository, unlocked.
    pub(crate) repository: Repository,
    recovery_key: zeroize::Zeroizing<String>,
    recovery_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

/// Makes the repository. Files for keys are made first, so that none exists whose key has no place to go.
pub(crate) fn create(context: &Context<'_>, opened: Opened, args: &Args) -> Outcome<Made> {
    let store = opened.backend();
    let place = store.describe().place;
    if Repository::exists(&*store)? {
        return Err(Error::RepositoryExists { place }.into());
    }
    let given = match &args.key_file_out {
        Some(_) if !secret::is_named(context.global)? => None,
        _ => secret::first(context)?,
    };
    let mut recovery_file = args.recovery_key_out.as_deref().map(NewFile::create).transpose()?;
    let mut key_file = args.key_file_out.as_deref().map(NewFile::create).transpose()?;
    let env = context.env();
    let key = key_file.as_ref().map(|_| Secret::new(env.random()));
    let copy = |k: &Secret| SlotSecret::Key(k.duplicate());
    let first = given.or_else(|| key.as_ref().map(copy)).ok_or_else(|| {
        Failure::NoSecret("a new repository needs a password or a key file, and none was given".into())
    })?;
    if let (Some(file), Some(key)) = (&mut key_file, &key) {
        file.fill("bulla key file: whoever has it can open the repository", &print_key(key))?;
    }
    let default = match &args.copy_chunker_from {
        Some(url) => InitOptions::like(&context.open_source(url, &args.from)?),
        None => InitOptions::default(),
    };
    let options = InitOptions {
        label: args.label.clone(),
        parity: args.parity,
        chunker: args.chunker.unwrap_or(default.chunker),
        data_frame: args.frame_size.unwrap_or(default.data_frame),
        data_pack: args.pack_size.unwrap_or(default.data_pack),
        ..default
    };
    let more = key.as_ref().filter(|k| !is_key(&first, k)).map(copy);
    let secrets: Vec<&SlotSecret> = [Some(&first), more.as_ref()].into_iter().flatten().collect();
    let made = opened
        .prepare()
        .map_err(Error::from)
        .and_then(|()| Repository::init_with(context.limited(store.clone()), &options, &secrets, env));
    if made.is_err() && !Repository::exists(&*store).unwrap_or(true) {
        // A key to nothing would only be taken for one to something.
        key_file.take().into_iter().for_each(NewFile::discard);
    }
    let made = made?;
    let repository = made.repository;
    if !repository.backend().conditional_put()? {
        context.ui.note(
            "put-if-absent is not exact in this store: nothing is lost by it, but a run that died stays in the way of a \
             prune until it is named with `prune --assume-dead`; and never run init twice here at the same moment",
        );
    }
    if let Some(file) = &mut recovery_file {
        let what =
            format!("bulla recovery key of repository {}: keep it apart from the backup", repository.id());
        file.fill(&what, &made.recovery_key)?;
    }
    Ok(Made {
        repository,
        recovery_key: made.recovery_key,
        recovery_file: recovery_file.map(|f| f.path().to_owned()),
        key_file: key_file.map(|f| f.path().to_owned()),
    })
}

fn is_key(secret: &SlotSecret, key: &Secret) -> bool {
    matches!(secret, SlotSecret::Key(k) if k.expose() == key.expose())
}

#[derive(Serialize)]
struct Initialised<'a> {
    message_type: &'static str,
    schema_version: u32,
    id: String,
    repository: String,
    format: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<String>,
}

impl Made {
    /// Tells the owner; `alone` says what to do next.
    pub(crate) fn tell(&self, context: &Context<'_>, alone: bool) -> Outcome<()> {
        let place = self.repository.backend().describe().place;
        let shown = |p: &PathBuf| p.display().to_string();
        if context.ui.json {
            return context.ui.document(&Initialised {
                message_type: "initialized",
                schema_version: SCHEMA,
                id: self.repository.id().to_string(),
                repository: place,
                format: format::MAGIC[5],
                recovery_key: self.recovery_file.is_none().then_some(self.recovery_key.as_str()),
                recovery_key_file: self.recovery_file.as_ref().map(shown),
                key_file: self.key_file.as_ref().map(shown),
            });
        }
        let mut text = format!("made repository {} at {place}\n", self.repository.id().short());
        if let Some(file) = &self.key_file {
            text.push_str(&format!("wrote its key file to {}\n", file.display()));
        }
        match &self.recovery_file {
            Some(file) => text.push_str(&format!(
                "wrote its recovery key to {}\nKeep it apart from this machine: without it a lost password means lost backups.",
                file.display()
            )),
            None => text.push_str(&frame(&self.recovery_key)),
        }
        if alone {
            text.push_str(&format!("\n\nNext: bulla -r {place} backup PATH"));
        }
        context.ui.line(text)
    }
}

/// The recovery key in a frame that nobody overlooks.
pub(super) fn frame(key: &str) -> zeroize::Zeroizing<String> {
    let lines = [
        "Recovery key. It is shown only now and stored nowhere.",
        "",
        key,
        "",
        "Print it or write it down, and keep it away from this machine.",
        "If every password and key file is lost, it opens the backups:",
        "put it in a file and give that with --key-file.",
    ];
    let width = lines.iter().map(|l| l.len()).max().unwrap_or(0);
    let rule = "=".repeat(width + 4);
    let mut out = zeroize::Zeroizing::new(String::with_capacity((width + 8) * (lines.len() + 3)));
    out.push('\n');
    out.push_str(&rule);
    for line in lines {
        out.push_str("\n| ");
        out.push_str(line);
        out.push_str(&" ".repeat(width - line.len()));
        out.push_str(" |");
    }
    out.push('\n');
    out.push_str(&rule);
    out
}
