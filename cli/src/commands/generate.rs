//! `bulla generate`: completions and manual pages, from the same grammar that is parsed.

use crate::args;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use bulla_engine::Error;
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

/// What `generate` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where; made if it is not there
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Writes it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    match &args.what {
        What::Completions { shell } => {
            let shell = match shell {
                Shell::Bash => clap_complete::Shell::Bash,
                Shell::Zsh => clap_complete::Shell::Zsh,
                Shell::Fish => clap_complete::Shell::Fish,
            };
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut args::command(), "bulla", &mut text);
            let mut out = context.ui.results();
            std::io::Write::write_all(out.writer(), &text).map_err(Failure::Output)?;
            out.finish()?;
        }
        What::Man { dir } => {
            std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
            clap_mangen::generate_to(args::command(), dir)
                .map_err(|e| Error::io("write manual pages in", dir, e))?;
        }
    }
    Ok(Code::Done)
}
