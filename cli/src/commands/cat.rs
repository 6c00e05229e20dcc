//! `bulla cat`: a file's bytes, or an internal object as JSON. Secrets are never printed.

use super::FilterArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::json::{NodeDocument, SnapshotDocument, lossless};
use bulla_engine::Error;
use bulla_engine::browse;
use bulla_engine::format::id::to_hex;
use bulla_engine::format::index::IndexPack;
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::{Content, Entry, EntryKind};
use bulla_engine::repository::Repository;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What `cat` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What there is to print:
  bulla cat SNAPSHOT:/PATH       the bytes of a file
  bulla cat config               the repository's parameters
  bulla cat snapshot SNAPSHOT    all that a snapshot says
  bulla cat tree SNAPSHOT[:/DIR] its entries with their chunks, a line each
  bulla cat index                the packs the index knows, a line each
  bulla cat pack NAME            one pack and its frames")]
pub(crate) struct Args {
    /// SNAPSHOT:/PATH, or one of config, snapshot, tree, index, pack
    #[arg(value_name = "WHAT")]
    what: String,
    /// Which one
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let id = || args.id.as_deref().ok_or_else(|| Failure::Usage(format!("cat {} needs an id", args.what)));
    let none = || match &args.id {
        Some(extra) => Err(Failure::Usage(format!("cat {} takes nothing more, not {extra:?}", args.what))),
        None => Ok(()),
    };
    let word = args.what.as_str();
    if !word.contains(':') && !["config", "snapshot", "tree", "index", "pack"].contains(&word) {
        let text =
            format!("{word:?} is neither SNAPSHOT:/PATH nor one of config, snapshot, tree, index, pack");
        return Err(Failure::Usage(text));
    }
    match word {
        "config" | "index" => none()?,
        "snapshot" | "tree" | "pack" => drop(id()?),
        _ => none()?,
    }
    let repository = context.open()?;
    let filter = args.filter.filter();
    match word {
        "config" => pretty(context, &config(&repository))?,
        "snapshot" => pretty(context, &snapshot(&repository.resolve(id()?, &filter)?.0))?,
        "tree" => {
            let (snapshot, sub) = repository.resolve(id()?, &filter)?;
            tree(context, &repository, &snapshot, &sub)?;
        }
        "index" => index(context, &repository)?,
        "pack" => pretty(context, &one_pack(&repository, id()?)?)?,
        selector => {
            let (snapshot, path) = repository.resolve(selector, &filter)?;
            let mut out = context.ui.results();
            browse::write_file(&repository, &snapshot, &path, out.writer())?;
            out.finish()?;
        }
    }
    Ok(Code::Done)
}

fn pretty(context: &Context<'_>, value: &Value) -> Outcome<()> {
    context.ui.line(format!("{value:#}"))
}

fn config(repository: &Repository) -> Value {
    let c = repository.config();
    json!({
        "id": c.repo.to_string(),
        "version": bulla_engine::format::MAGIC[5],
        "generation": c.generation,
        "created": crate::ui::format::utc_time(bulla_engine::format::tree::Timestamp { seconds: c.created, nanos: 0 }),
        "ring": c.ring.to_string(),
        "epochs": c.keyring.roots().len(),
        "domains": c.keyring.domains().len(),
        "features": { "incompat": c.incompat, "ro_compat": c.ro_compat, "compat": c.compat },
        "chunker": { "min": c.chunker.min, "avg": c.chunker.avg, "max": c.chunker.max },
        "data_frame": c.data_frame,
        "meta_frame": c.meta_frame,
        "data_pack": c.data_pack,
        "meta_pack": c.meta_pack,
    })
}

fn snapshot(s: &Snapshot) -> Value {
    let mut value = serde_json::to_value(SnapshotDocument::from(s)).unwrap_or_default();
    let named = |list: &[(u32, Vec<u8>)]| {
        Value::Object(list.iter().map(|(id, n)| (id.to_string(), lossless(n).0.into())).collect())
    };
    let more = json!({
        "client": s.client.to_string(),
        "seq": s.seq,
        "prev": s.prev.iter().map(|h| json!({"id": h.id.to_string(), "hash": h.hash.to_string()})).collect::<Vec<_>>(),
        "seen": s.seen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "config_generation": s.config_generation,
        "os": s.os,
        "mounts": s.mounts.iter().map(|m| json!({
            "device": m.device, "fs_type": m.fs_type, "path": lossless(&m.path).0,
        })).collect::<Vec<_>>(),
        "users": named(&s.users),
        "groups": named(&s.groups),
        "errors": s.errors.iter().map(|(path, why)| json!({
            "item": lossless(path).0, "message": why,
        })).collect::<Vec<_>>(),
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
        all.extend(more);
    }
    value
}

fn tree(context: &Context<'_>, repository: &Repository, snapshot: &Snapshot, sub: &[u8]) -> Outcome<()> {
    let mut out = context.ui.results();
    let mut told = Ok(());
    let listed = browse::list(repository, snapshot, sub, true, &mut |e| {
        told = out.document(&with_content(e));
        if told.is_ok() { Ok(()) } else { Err(Error::Interrupted) }
    });
    told?;
    listed?;
    out.finish()
}

fn with_content(e: &Entry) -> Value {
    let mut value = serde_json::to_value(NodeDocument::from(e)).unwrap_or_default();
    if let (EntryKind::File { content, .. }, Value::Object(all)) = (&e.kind, &mut value) {
        match content {
            Content::Inline(chunks) => {
                let ids: Vec<String> = chunks.iter().map(|c| c.id.to_string()).collect();
                all.insert("content".into(), ids.into());
            }
            Content::List(root) => {
                all.insert("content_list".into(), root.to_string().into());
            }
        }
    }
    value
}

fn pack(p: &IndexPack) -> Value {
    json!({
        "name": p.name.to_string(),
        "kind": if p.header.kind == PackKind::Data { "data" } else { "meta" },
        "size": p.size,
        "plain_size": p.raw_len(),
        "run": p.run.to_string(),
        "client": p.signer.to_string(),
        "frames": p.frames.len(),
    })
}

fn index(context: &Context<'_>, repository: &Repository) -> Outcome<()> {
    let mut out = context.ui.results();
    for p in packs(repository)?.values() {
        out.document(&pack(p))?;
    }
    out.finish()
}

/// All packs by name, each once.
fn packs(repository: &Repository) -> Outcome<BTreeMap<String, Arc<IndexPack>>> {
    let index = repository.open_index()?;
    index.packs().map(|p| p.map(|p| (to_hex(p.name.as_bytes()), p)).map_err(Failure::from)).collect()
}

fn one_pack(repository: &Repository, name: &str) -> Outcome<Value> {
    let all = packs(repository)?;
    let fitting: Vec<_> = all.iter().filter(|(n, _)| n.starts_with(name)).collect();
    let [(_, p)] = fitting.as_slice() else {
        let found = if fitting.is_empty() { "no pack's" } else { "more than one pack's" };
        return Err(Failure::Usage(format!("{found} name begins with {name:?}")));
    };
    let mut value = pack(p);
    let frames: Vec<Value> = p.frames.iter().map(|f| json!({"sealed": f.sealed, "plain": f.raw})).collect();
    if let Value::Object(all) = &mut value {
        all.insert("frames".into(), frames.into());
    }
    Ok(value)
}
