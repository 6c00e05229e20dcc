//! `bulla version`.

use crate::context::Context;
use crate::exit::{Code, Outcome};
use crate::ui::json::SCHEMA;
use serde::Serialize;

/// `version` takes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Version {
    message_type: &'static str,
    schema_version: u32,
    version: &'static str,
    repository_format: u8,
    os: &'static str,
    arch: &'static str,
    backends: &'static [&'static str],
}

/// Prints it.
pub(crate) fn run(context: &Context<'_>, _: &Args) -> Outcome {
    let v = Version {
        message_type: "version",
        schema_version: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        repository_format: bulla_engine::format::MAGIC[5],
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        backends: &["local", "s3", "sftp", "rest", "rclone"],
    };
    if context.ui.json {
        context.ui.document(&v)?;
    } else {
        context.ui.line(format!(
            "bulla {} (repository format {}, JSON schema {}) on {}/{}",
            v.version, v.repository_format, v.schema_version, v.os, v.arch
        ))?;
    }
    Ok(Code::Done)
}
