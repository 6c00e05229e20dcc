//! What was typed: the global options and the list of commands. Nothing here reads the environment; see
//! [`crate::context`] for what the words mean on this machine.

use crate::commands::{Command, GROUPS};
use bulla_manager::config::Rate;
use clap::{ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "bulla",
    version,
    about = "Deduplicating, encrypting backups that prove they restore",
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The word.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes. In brackets the environment variable of the same meaning; the option wins.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(crate) struct Global {
    /// Repository: a path, or an s3:, sftp:, rest: or rclone: URL; backup takes several [BULLA_REPOSITORY]
    #[arg(short, long, global = true, value_name = "URL", conflicts_with = "repository_file")]
    pub(crate) repo: Vec<OsString>,
    /// File whose first line is the repository [BULLA_REPOSITORY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) repository_file: Option<PathBuf>,
    /// File with the password; one line end at its end is not part of it [BULLA_PASSWORD_FILE]
    #[arg(short, long, global = true, value_name = "FILE", group = "secret")]
    pub(crate) password_file: Vec<PathBuf>,
    /// Command that prints the password; split like a shell does, run without one [BULLA_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", group = "secret")]
    pub(crate) password_command: Vec<String>,
    /// File with a key instead of a password: a key file or the recovery key [BULLA_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub(crate) key_file: Vec<PathBuf>,
    /// Cache directory [BULLA_CACHE_DIR, default: ~/.cache/bulla]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "no_cache")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Keep nothing on this machine
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
    /// Write to the repository at most this much a second: a size as 2M, or a number of KiB
    #[arg(long, global = true, value_name = "RATE")]
    pub(crate) limit_upload: Option<Rate>,
    /// Read from the repository at most this much a second
    #[arg(long, global = true, value_name = "RATE")]
    pub(crate) limit_download: Option<Rate>,
    /// Trust the certificates in this file (PEM), and no others, when the repository is reached by HTTPS [BULLA_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// An option of the repository's kind of store, or with URL# before it of the one at that URL; a wrong one names those
    /// there are
    #[arg(short, long, global = true, value_name = "[URL#]KEY=VALUE")]
    pub(crate) option: Vec<String>,
    /// Print results only, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Name files as they are done: -v new and changed ones, -vv all
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Colours; NO_COLOR is heeded
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Explain the command
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The secret of a repository that another one is made or filled from.
#[derive(Debug, Default, Args)]
pub(crate) struct FromSecret {
    /// File with the password of the repository to copy from [BULLA_FROM_PASSWORD_FILE]
    #[arg(long, value_name = "FILE", group = "from_secret")]
    pub(crate) from_password_file: Option<PathBuf>,
    /// Command that prints it [BULLA_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", group = "from_secret")]
    pub(crate) from_password_command: Option<String>,
    /// File with a key of the repository to copy from [BULLA_FROM_KEY_FILE]
    #[arg(long, value_name = "FILE", group = "from_secret")]
    pub(crate) from_key_file: Option<PathBuf>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The grammar, with the commands grouped in `bulla --help`.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    let mut list = String::new();
    for (title, words) in GROUPS {
        list.push_str(&format!("\n{title}:\n"));
        for word in *words {
            let about = command.find_subcommand(word).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            list.push_str(&format!("  {word:<10} {about}\n"));
        }
    }
    let template = format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n{list}\nOptions of all commands:\n{{options}}{{after-help}}"
    );
    command = command.help_template(template).after_help(
        "bulla COMMAND --help explains one command, bulla help --from restic maps words you know.",
    );
    command
}

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = command().color(color_of(&args)).try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

/// The colour of help and of mistakes has to be known before there are parsed options.
fn color_of(args: &[OsString]) -> ColorChoice {
    let words: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    let is = |when: &str| {
        words.iter().any(|w| *w == format!("--color={when}"))
            || words.windows(2).any(|w| matches!(w, [a, b] if a == "--color" && b == when))
    };
    match (is("never"), is("always")) {
        (true, _) => ColorChoice::Never,
        (_, true) => ColorChoice::Always,
        _ => ColorChoice::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_and_every_command_is_in_one_group() {
        let mut command = command();
        command.build();
        command.clone().debug_assert();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, words)| words.iter().copied()).collect();
        let mut known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }
}
