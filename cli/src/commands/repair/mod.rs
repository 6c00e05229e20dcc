//! `bulla repair`: puts right what is damaged, one file per part of a repository.

mod index;
mod packs;
mod parity;
mod snapshots;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::ui::progress::Words;
use bulla_engine::Error;
use clap::Subcommand;
use serde::Serialize;

/// What `repair` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// List packs again that no index run lists; remove index runs that cannot be read
    Index(index::Args),
    /// Condemn damaged packs and save what opens in them, or heal them from a copy of the repository
    Packs(packs::Args),
    /// Make new editions of damaged snapshots, with what they have lost named
    Snapshots(snapshots::Args),
    /// Repair damaged packs from their parity, without any key; add parity or drop it
    Parity(parity::Args),
}

/// Repairs.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    match &args.part {
        Part::Index(args) => index::run(context, args),
        Part::Packs(args) => packs::run(context, args),
        Part::Snapshots(args) => snapshots::run(context, args),
        Part::Parity(args) => parity::run(context, args),
    }
}

const WORDS: Words = Words { during: "repair", list_is_result: false };

/// A repair that was stopped has done harm to nothing.
fn stopped(e: Error) -> Failure {
    match e {
        Error::Interrupted => Failure::Stopped("interrupted: what was done so far stays; run it again"),
        e => e.into(),
    }
}

/// An object and what is the matter with it.
#[derive(Serialize)]
struct About {
    object: String,
    reason: String,
}

fn about(list: &[(String, String)]) -> Vec<About> {
    list.iter().map(|(object, reason)| About { object: object.clone(), reason: reason.clone() }).collect()
}
