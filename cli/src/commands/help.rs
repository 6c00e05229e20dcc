//! `bulla help`: explains a command, or maps the words of a program users come from.

use crate::args;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::table::Table;
use clap::ValueEnum;

/// What `help` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A command, as: key add
    command: Vec<String>,
    /// Map the words of this program to bulla's
    #[arg(long, value_enum, value_name = "PROGRAM", conflicts_with = "command")]
    from: Option<Program>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Program {
    Restic,
    Borg,
    Pbs,
}

/// (theirs, ours). Only words that this version has.
type Words = &'static [(&'static str, &'static str)];

const RESTIC: Words = &[
    ("restic init", "bulla init"),
    ("restic backup PATH", "bulla backup PATH (same flags)"),
    ("restic snapshots", "bulla snapshots"),
    ("restic ls SNAP [DIR]", "bulla ls SNAP [DIR]"),
    ("restic dump SNAP FILE", "bulla cat SNAP:FILE"),
    ("restic cat snapshot ID", "bulla cat snapshot ID"),
    ("restic restore SNAP -t DIR", "bulla restore SNAP -t DIR (same flags)"),
    ("restic check --read-data", "bulla check --read-data"),
    (
        "restic repair index|packs|snapshots",
        "bulla repair index|packs|snapshots (packs may heal --from a copy)",
    ),
    ("restic forget --keep-daily 7", "bulla forget --keep-daily 7 (same flags; 7d covers seven days whole)"),
    ("restic prune", "bulla prune (a forgotten snapshot goes after --grace 7d)"),
    ("restic key list|add|passwd|remove", "bulla key list|add|passwd|remove"),
    ("restic generate --bash-completion", "bulla generate completions bash"),
    ("RESTIC_REPOSITORY, RESTIC_PASSWORD_FILE, …", "BULLA_REPOSITORY, BULLA_PASSWORD_FILE, …"),
    ("exit codes 0 1 3 10 11 12 130", "the same; 4 damage found, 13 no space left"),
];

const BORG: Words = &[
    ("borg init / borg repo-create", "bulla init"),
    ("borg create ::NAME PATH", "bulla backup PATH (snapshots have ids; use --tag for names)"),
    ("borg list / borg repo-list", "bulla snapshots"),
    ("borg list ::NAME", "bulla ls SNAP"),
    ("borg extract --stdout ::NAME FILE", "bulla cat SNAP:FILE"),
    ("borg extract ::NAME", "bulla restore SNAP -t DIR"),
    ("borg check --verify-data", "bulla check --read-data"),
    ("borg check --repair", "bulla repair index, repair packs, repair snapshots"),
    ("borg delete ::NAME", "bulla forget SNAP"),
    ("borg undelete", "bulla undelete SNAP"),
    ("borg prune --keep-daily 7", "bulla forget --keep-daily 7"),
    ("borg compact", "bulla prune"),
    ("borg key change-passphrase", "bulla key passwd"),
    ("borg key export", "bulla key add --recovery"),
    ("archive", "snapshot"),
    (
        "BORG_REPO, BORG_PASSPHRASE, BORG_PASSCOMMAND",
        "BULLA_REPOSITORY, BULLA_PASSWORD, BULLA_PASSWORD_COMMAND",
    ),
];

const PBS: Words = &[
    ("proxmox-backup-client backup root.pxar:/", "bulla backup /"),
    ("proxmox-backup-client snapshot list", "bulla snapshots"),
    ("proxmox-backup-client catalog dump", "bulla ls SNAP"),
    ("proxmox-backup-client restore SNAP root.pxar DIR", "bulla restore SNAP -t DIR"),
    ("verify job", "bulla check --read-data-subset N/T"),
    ("snapshot forget", "bulla forget SNAP"),
    ("prune --keep-daily 7", "bulla forget --keep-daily 7"),
    ("garbage collection", "bulla prune"),
    ("snapshot protected update", "bulla protect SNAP, bulla unprotect SNAP"),
    ("proxmox-backup-client key create", "bulla key add --key-file-out FILE"),
    ("proxmox-backup-client key paperkey", "bulla key add --recovery"),
    ("datastore", "repository"),
    ("backup group", "snapshots -g host,paths"),
    ("PBS_REPOSITORY, PBS_PASSWORD_FILE", "BULLA_REPOSITORY, BULLA_PASSWORD_FILE"),
];

/// Explains.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let text = match args.from {
        Some(Program::Restic) => mapping("restic", RESTIC),
        Some(Program::Borg) => mapping("borg", BORG),
        Some(Program::Pbs) => mapping("Proxmox Backup", PBS),
        None => explain(&args.command)?,
    };
    context.ui.line(text.trim_end())?;
    Ok(Code::Done)
}

fn mapping(name: &'static str, words: Words) -> String {
    let mut table = Table::new(&[name, "bulla"]);
    for (theirs, ours) in words {
        table.row(vec![vec![(*theirs).into()], vec![(*ours).into()]]);
    }
    table.lines().join("\n")
}

fn explain(path: &[String]) -> Outcome<String> {
    let mut command = args::command();
    command.build();
    let mut at = &mut command;
    for word in path {
        let unknown = || Failure::Usage(format!("there is no command {word:?}; see bulla --help"));
        at = at.find_subcommand_mut(word).ok_or_else(unknown)?;
    }
    Ok(at.render_help().to_string())
}
