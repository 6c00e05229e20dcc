//! `bulla key`: passwords and key files come and go; the data is never touched.

use crate::context::Context;
use crate::exit::{Code, Failure, Outcome, keep};
use crate::secret::{self, NewFile};
use crate::ui::json::SCHEMA;
use crate::ui::prompt;
use crate::ui::table::Table;
use bulla_engine::format::SlotId;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::slot::{Argon2Params, SlotKind, print_key};
use bulla_engine::observer::escape;
use bulla_engine::repository::{Repository, SlotSecret, keys};
use clap::Subcommand;
use serde::Serialize;
use std::path::PathBuf;

/// What `key` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the keys; a label can be read only with its own key
    List,
    /// Add a password, a key file or a recovery key
    Add(Add),
    /// Change the password that opens the repository now
    Passwd(New),
    /// Remove a key
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    new: New,
    /// Add a random key and write it to this new file (mode 0600)
    #[arg(long, value_name = "FILE", group = "new")]
    key_file_out: Option<PathBuf>,
    /// Add another recovery key and print it once
    #[arg(long, group = "new")]
    recovery: bool,
}

#[derive(Debug, clap::Args)]
struct New {
    /// File with the new password
    #[arg(long, value_name = "FILE", group = "new")]
    new_password_file: Option<PathBuf>,
    /// Command that prints the new password
    #[arg(long, value_name = "COMMAND", group = "new")]
    new_password_command: Option<String>,
    /// A name for the key, kept sealed in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
}

#[derive(Debug, clap::Args)]
struct Remove {
    /// Its id or the beginning of it, from key list
    #[arg(value_name = "ID")]
    id: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.open()?;
    match &args.verb {
        Verb::List => list(context, &repository),
        Verb::Add(add_args) => add(context, &repository, add_args),
        Verb::Passwd(new) => passwd(context, &repository, new),
        Verb::Remove(r) => remove(context, &repository, r),
    }
}

#[derive(Serialize)]
struct SlotDocument {
    id: String,
    short_id: String,
    kind: &'static str,
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

#[derive(Serialize)]
struct Changed<'a> {
    message_type: &'static str,
    schema_version: u32,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<&'a str>,
}

fn list(context: &Context<'_>, repository: &Repository) -> Outcome {
    let slots: Vec<SlotDocument> = keys::list(repository)?
        .into_iter()
        .map(|s| SlotDocument {
            id: s.id.to_string(),
            short_id: s.id.short(),
            kind: s.kind.map_or("damaged", SlotKind::word),
            current: s.id == repository.opened_by(),
            label: (s.id == repository.opened_by()).then(|| repository.opened_by_label().to_owned()),
        })
        .collect();
    if context.ui.json {
        context.ui.document(&slots)?;
        return Ok(Code::Done);
    }
    let mut table = Table::new(&["ID", "Kind", "In use", "Label"]);
    for s in slots {
        let used = if s.current { "now" } else { "" };
        let label = s.label.map_or_else(|| "(sealed)".into(), |l| escape(l.as_bytes()));
        table.row(vec![vec![s.short_id], vec![s.kind.into()], vec![used.into()], vec![label]]);
    }
    let mut out = context.ui.results();
    table.lines().into_iter().try_for_each(|l| out.line(l))?;
    out.finish()?;
    Ok(Code::Done)
}

fn add(context: &Context<'_>, repository: &Repository, args: &Add) -> Outcome {
    let cost = Argon2Params::DEFAULT;
    let fresh = || Secret::new(repository.env().random());
    if args.recovery {
        let key = fresh();
        let text = print_key(&key);
        let id = keys::add(repository, SlotKind::Recovery, &SlotSecret::Key(key), &args.new.label, cost)?;
        return keep(Code::Done, tell(context, "key_added", &id, "added a recovery key", Some(&text)));
    }
    if let Some(path) = &args.key_file_out {
        let mut file = NewFile::create(path)?;
        let key = fresh();
        file.fill("bulla key file: whoever has it can open the repository", &print_key(&key))?;
        let secret = SlotSecret::Key(key);
        let id = match keys::add(repository, SlotKind::KeyFile, &secret, &args.new.label, cost) {
            Ok(id) => id,
            Err(e) => {
                file.discard();
                return Err(e.into());
            }
        };
        return keep(Code::Done, tell(context, "key_added", &id, "added a key file", None));
    }
    let secret = new_secret(context, &args.new)?;
    let id = keys::add(repository, SlotKind::Passphrase, &secret, &args.new.label, cost)?;
    keep(Code::Done, tell(context, "key_added", &id, "added a password", None))
}

fn passwd(context: &Context<'_>, repository: &Repository, new: &New) -> Outcome {
    let current = keys::list(repository)?.into_iter().find(|s| s.id == repository.opened_by());
    if current.and_then(|s| s.kind) != Some(SlotKind::Passphrase) {
        let text = "the repository was opened with a key, not with a password; \
                    open it with the password to change, or use key add and key remove";
        return Err(Failure::Usage(text.into()));
    }
    let secret = new_secret(context, new)?;
    let id = keys::replace(repository, &secret, &new.label, Argon2Params::DEFAULT)?;
    keep(Code::Done, tell(context, "key_changed", &id, "changed the password; its key is now", None))
}

fn new_secret(context: &Context<'_>, new: &New) -> Outcome<SlotSecret> {
    secret::new_password(context, new.new_password_file.as_deref(), new.new_password_command.as_deref())
}

fn remove(context: &Context<'_>, repository: &Repository, args: &Remove) -> Outcome {
    let fitting: Vec<_> =
        keys::list(repository)?.into_iter().filter(|s| s.id.to_string().starts_with(&args.id)).collect();
    let [slot] = fitting.as_slice() else {
        let found = if fitting.is_empty() { "no key has" } else { "several keys have" };
        return Err(Failure::Usage(format!("{found} an id that begins with {:?}; see key list", args.id)));
    };
    let kind = slot.kind.map_or("damaged", SlotKind::word);
    if !args.yes {
        match prompt::confirm(&format!("Remove the {kind} key {}?", slot.id.short())) {
            Some(true) => {}
            Some(false) => return Err(Failure::Usage("nothing was removed".into())),
            None => return Err(Failure::Usage("there is no terminal to ask on: confirm with --yes".into())),
        }
    }
    keys::remove(repository, &slot.id)?;
    keep(Code::Done, tell(context, "key_removed", &slot.id, &format!("removed the {kind} key"), None))
}

fn tell(
    context: &Context<'_>,
    what: &'static str,
    id: &SlotId,
    prose: &str,
    key: Option<&str>,
) -> Outcome<()> {
    if context.ui.json {
        let id = id.to_string();
        let message = Changed { message_type: what, schema_version: SCHEMA, id, recovery_key: key };
        return context.ui.document(&message);
    }
    context.ui.line(format!("{prose} {}", id.short()))?;
    key.map_or(Ok(()), |key| context.ui.line(&*super::init::frame(key)))
}
