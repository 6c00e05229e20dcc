//! A stream as a source: what a dump command writes, or standard input. Half a stream is no backup, so whoever opened
//! it has the last word on whether it was whole.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, Stdio};

/// Decides at the end of a stream whether it was whole.
pub type Commit = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// A stream, for instance what a dump command writes.
pub struct StreamSource {
    /// Its path in the snapshot.
    pub name: Vec<u8>,
    /// The bytes.
    pub reader: Box<dyn Read + Send>,
    /// Asked once the stream has ended: an error means that there is no snapshot.
    pub commit: Option<Commit>,
}

impl StreamSource {
    /// A stream whose end is as good as any other.
    pub fn new(name: impl Into<Vec<u8>>, reader: impl Read + Send + 'static) -> Self {
        Self { name: name.into(), reader: Box::new(reader), commit: None }
    }

    /// What a command writes to its standard output; whole only if it exits with 0. It inherits everything else but
    /// standard input, which is empty.
    pub fn command(name: impl Into<Vec<u8>>, argv: &[OsString]) -> Result<Self> {
        let (program, args) =
            argv.split_first().ok_or_else(|| Error::Refused("there is no command to run".to_owned()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| Error::io("run", program, e))?;
        let output = child.stdout.take();
        let output = output.ok_or_else(|| Error::Refused("the command has no standard output".to_owned()))?;
        let shown = crate::observer::escape(program.as_encoded_bytes());
        let commit = move || match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{shown} failed: {status}")),
            Err(e) => Err(format!("cannot wait for {shown}: {e}")),
        };
        Ok(Self { name: name.into(), reader: Box::new(output), commit: Some(Box::new(commit)) })
    }

    /// Asks whether the stream was whole.
    pub(crate) fn commit(&mut self) -> Result<(), String> {
        self.commit.take().map_or(Ok(()), |commit| commit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Vec<u8>, Result<(), String>) {
        let argv = ["sh", "-c", script].map(OsString::from);
        let mut stream = StreamSource::command("dump", &argv).unwrap();
        let mut out = Vec::new();
        stream.reader.read_to_end(&mut out).unwrap();
        (out, stream.commit())
    }

    #[test]
    fn a_command_is_whole_only_if_it_says_so() {
        assert_eq!(run("cat; echo x"), (b"x\n".to_vec(), Ok(())));
        let (out, end) = run("echo half; exit 3");
        assert_eq!(out, b"half\n");
        assert!(end.unwrap_err().contains("exit status: 3"));
        assert!(run("kill -9 $$").1.unwrap_err().contains("signal"));
        let missing = StreamSource::command("dump", &["/does/not/exist".into()]);
        assert!(missing.err().unwrap().to_string().contains("/does/not/exist"));
        assert!(StreamSource::command("dump", &[]).is_err());
    }
}
