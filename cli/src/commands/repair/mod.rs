//! `bulla repair`: puts right what is damaged, one file per part of a repository.

mod parity;

use crate::context::Context;
use crate::exit::Outcome;
use clap::Subcommand;

/// What `repair` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Repair damaged packs from their parity, without any key; add parity or drop it
    Parity(parity::Args),
}

/// Repairs.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    match &args.part {
        Part::Parity(args) => parity::run(context, args),
    }
}
