//! A job's source, opened: paths that are there, or commands that were started.

use crate::config::{Job, JobSource};
use crate::outcome::Outcome;
use crate::world::{Trouble, World};
use bulla_engine::observer::escape;
use bulla_engine::source::{Filter, FilterSpec, PathSources, Pipeline, Running, Sources, block};
use std::path::Path;
use std::time::Duration;

/// What is read, and what to ask about it afterwards.
pub(super) struct Opened {
    pub(super) sources: Sources,
    pub(super) running: Option<Running>,
    pub(super) excludes: Vec<String>,
    /// Paths that are configured and not there.
    pub(super) missing: usize,
    /// The source is a device, whose end is judged.
    pub(super) device: bool,
    /// What makes the backup doubtful.
    pub(super) warning: Option<String>,
}

fn failed(why: String) -> Trouble {
    Trouble::new(Outcome::Failed, why)
}

/// Opens it.
pub(super) fn open(world: &dyn World, job: &Job) -> Result<Opened, Trouble> {
    match &job.source.value {
        JobSource::Paths { paths, exclude, one_file_system, must_exist } => {
            for path in must_exist {
                if Path::new(&path.value).symlink_metadata().is_err() {
                    let shown = escape(path.value.as_bytes());
                    return Err(failed(format!("{shown} is not there: the source is not what it should be")));
                }
            }
            let there = |path: &&String| Path::new(path.as_str()).symlink_metadata().is_ok();
            let all: Vec<&String> = paths.iter().map(|at| &at.value).collect();
            let present: Vec<Vec<u8>> =
                all.iter().copied().filter(there).map(|p| p.as_bytes().to_vec()).collect();
            if present.is_empty() {
                return Err(failed("nothing of the source is there".to_owned()));
            }
            let missing = all.len() - present.len();
            let excludes: Vec<String> = exclude.iter().map(|at| at.value.clone()).collect();
            let all_of_it = present.iter().any(|p| p == b"/");
            let spec = FilterSpec {
                excludes: excludes.iter().map(|e| e.clone().into_bytes()).collect(),
                if_present: all_of_it.then(crate::drill::marker).into_iter().collect(),
                ..FilterSpec::default()
            };
            let filter = Filter::new(&spec).map_err(|e| failed(e.to_string()))?;
            let sources = PathSources {
                paths: present,
                base: b"/".to_vec(),
                filter,
                one_file_system: *one_file_system,
                with_atime: false,
                skip: world.own_directories(),
            };
            Ok(Opened {
                sources: Sources::Paths(sources),
                running: None,
                excludes,
                missing,
                device: false,
                warning: None,
            })
        }
        JobSource::Command { pipeline, name, magic, min_size, timeout } => {
            let words = |command: &Vec<_>| -> Vec<std::ffi::OsString> {
                command.iter().map(|at: &crate::config::At<String>| at.value.clone().into()).collect()
            };
            let pipeline = Pipeline {
                commands: pipeline.iter().map(words).collect(),
                without: world.secret_variables(),
                magic: magic.as_ref().map(|at| at.value.clone().into_bytes()).unwrap_or_default(),
                min_size: min_size.as_ref().map_or(0, |at| at.value.bytes()),
                timeout: timeout.as_ref().map(|at| Duration::from_secs(at.value.seconds().unsigned_abs())),
            };
            let (source, running) = pipeline.start(name.value.clone().into_bytes()).map_err(failed)?;
            let (sources, running) = (Sources::Stream(source), Some(running));
            Ok(Opened { sources, running, excludes: Vec::new(), missing: 0, device: false, warning: None })
        }
        JobSource::Block { path, name } => {
            let name = name.as_ref().unwrap_or(path).value.clone().into_bytes();
            let (source, mounted) = block(Path::new(&path.value), name).map_err(failed)?;
            let warning =
                mounted.map(|m| format!("{m}: the backup may be of no moment; take it of a snapshot"));
            let sources = Sources::Stream(source);
            Ok(Opened { sources, running: None, excludes: Vec::new(), missing: 0, device: true, warning })
        }
    }
}
