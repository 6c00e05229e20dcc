//! `bulla generate`: completions and manual pages, from the same grammar that is parsed, and rules for Prometheus.

use crate::args;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use bulla_engine::Error;
use bulla_manager::metrics::ALERTS;
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
    /// Write rules for Prometheus that alert on what bulla measures
    Alerts {
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

/// What the manual page of `bulla` says beyond the help.
const MANUAL: &str = "\
EXIT STATUS

0: done

1: failed

2: the command line, or a file it names, is wrong

3: done, but some source could not be read, or something restored lacks a part

4: damage found

5: refused by a rule

10: no repository

12: wrong or missing password

13: no space left

130: interrupted

ENVIRONMENT

BULLA_REPOSITORY, BULLA_REPOSITORY_FILE, BULLA_PASSWORD, BULLA_PASSWORD_FILE, BULLA_PASSWORD_COMMAND, \
BULLA_KEY_FILE, BULLA_CACHE_DIR, BULLA_COMPRESSION and BULLA_HOST mean what the options of these names mean; \
an option wins. BULLA_PROGRESS_FPS says how often a second progress is shown, 0 never. \
CREDENTIALS_DIRECTORY is where systemd puts bulla.password or bulla.key, CACHE_DIRECTORY where it puts the cache. \
NO_COLOR turns colours off.

SIGNALS

SIGUSR1 prints a line of progress. The first SIGINT or SIGTERM stops at the next safe point, the second at once.";

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
            clap_mangen::generate_to(args::command().after_long_help(MANUAL), dir)
                .map_err(|e| Error::io("write manual pages in", dir, e))?;
        }
        What::Alerts { dir } => {
            std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
            let path = dir.join("bulla.rules.yml");
            std::fs::write(&path, ALERTS).map_err(|e| Error::io("write", &path, e))?;
            context.ui.line(format!("{} is written", path.display()))?;
        }
    }
    Ok(Code::Done)
}
