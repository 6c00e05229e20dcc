//! The command: parse → resolve → run → exit. What was typed is in [`args`], what it means here in [`context`],
//! one file per word in [`commands`], what people and programs read in [`ui`].
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "comments on arguments are help texts: [X] is an environment variable"
)]

mod args;
mod commands;
mod confine;
mod context;
mod domains;
mod exit;
mod notices;
mod secret;
mod site;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_secrets_in_memory();
    ui::signals::tame();
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(said) => return exit::usage(&said),
    };
    let ui = ui::Ui::new(&cli.global);
    let heeded = std::sync::atomic::AtomicU64::new(0);
    let context = context::Context::new(&ui, &cli.global, &heeded);
    let outcome = commands::run(&context, &cli.command);
    if outcome.is_ok() {
        for option in context.idle_options() {
            ui.warn(&format!(
                "-o URL#{option} is for no repository of this command: write its URL as it is given"
            ));
        }
    }
    exit::finish(&ui, outcome)
}

/// No core dump and no debugger of the same user sees keys. Where the system refuses, nothing is lost but that.
fn keep_secrets_in_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
