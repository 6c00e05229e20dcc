//! Passwords and keys: where they come from, and how little they are copied. An option wins over the environment,
//! that over systemd's credentials; a terminal is asked last, and nothing else ever is.

use crate::args::{FromSecret, Global};
use crate::context::{Context, variable};
use crate::exit::{Failure, Outcome};
use bulla_engine::Error;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::slot::parse_key;
use bulla_engine::repository::SlotSecret;
use bulla_manager::config::{Destination, SecretRef};
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// The variables that hold a password itself; no child process gets them.
pub(crate) const PASSWORD_VARIABLES: [&str; 2] = ["BULLA_PASSWORD", "BULLA_FROM_PASSWORD"];

/// Longer than any password or key file; what is longer is a mistake.
const SECRET_MAX: usize = 4096;

/// A place a secret can come from.
enum Source {
    Text(Zeroizing<Vec<u8>>),
    PasswordFile(PathBuf),
    Command(String),
    KeyFile(PathBuf),
}

/// What was typed of a secret, and the beginning of the variables that say the same.
struct Words<'a> {
    password_file: Option<&'a PathBuf>,
    password_command: Option<&'a String>,
    key_file: Option<&'a PathBuf>,
    prefix: &'static str,
}

impl<'a> From<&'a Global> for Words<'a> {
    fn from(global: &'a Global) -> Self {
        Self {
            password_file: global.password_file.as_ref(),
            password_command: global.password_command.as_ref(),
            key_file: global.key_file.as_ref(),
            prefix: "BULLA_",
        }
    }
}

impl<'a> From<&'a FromSecret> for Words<'a> {
    fn from(from: &'a FromSecret) -> Self {
        Self {
            password_file: from.from_password_file.as_ref(),
            password_command: from.from_password_command.as_ref(),
            key_file: from.from_key_file.as_ref(),
            prefix: "BULLA_FROM_",
        }
    }
}

/// The secret that opens the repository.
pub(crate) fn current(context: &Context<'_>) -> Outcome<SlotSecret> {
    open_with(context, &context.global.into(), "password: ")
}

/// The secret that opens the repository another one is made or filled from.
pub(crate) fn of_source(context: &Context<'_>, from: &FromSecret) -> Outcome<SlotSecret> {
    open_with(context, &from.into(), "password of the repository to copy from: ")
}

/// The secret of a destination, from where the configuration says it is.
pub(crate) fn of_destination(context: &Context<'_>, destination: &Destination) -> Outcome<SlotSecret> {
    match (&destination.key, &destination.password) {
        (Some(key), _) => {
            let (bytes, path) = at(context, "key file", &key.value)?;
            key_from(&bytes, &path)
        }
        (None, Some(password)) => {
            let (bytes, path) = at(context, "password file", &password.value)?;
            passphrase(bytes, &format!("the password of {}", path.display()))
        }
        (None, None) => Err(Failure::NoSecret("the destination names no secret".into())),
    }
}

/// The secret of a channel, from where the configuration says it is; as text, it ends before one line end.
pub(crate) fn of_channel(context: &Context<'_>, place: &SecretRef) -> Outcome<Zeroizing<Vec<u8>>> {
    let (mut bytes, path) = at(context, "secret file", place)?;
    strip_line_end(&mut bytes);
    if bytes.is_empty() {
        return Err(Failure::NoSecret(format!("the secret in {} is empty", path.display())));
    }
    Ok(bytes)
}

/// What is at a place, and its name for messages.
fn at(context: &Context<'_>, what: &str, place: &SecretRef) -> Outcome<(Zeroizing<Vec<u8>>, PathBuf)> {
    match place {
        SecretRef::File(path) => Ok((read_file(context, what, path)?, path.clone())),
        SecretRef::Systemd(name) => {
            let dir = variable("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                let why = format!("the {what} is systemd's credential {name}, and systemd gave none");
                Failure::NoSecret(why)
            })?;
            let path = PathBuf::from(dir).join(name);
            Ok((read_file(context, what, &path)?, path))
        }
        SecretRef::Command(words) => Ok((run_words(words)?, PathBuf::from(words.join(" ")))),
    }
}

fn open_with(context: &Context<'_>, words: &Words<'_>, prompt: &str) -> Outcome<SlotSecret> {
    if let Some(source) = named(words)? {
        return read(context, source);
    }
    ask(prompt).unwrap_or_else(|| {
        Err(Failure::NoSecret("no password was given and there is no terminal to ask on".into()))
    })
}

/// The secret of a new repository: as [`current`], but typed twice; `None` when there is no source and no terminal.
pub(crate) fn first(context: &Context<'_>) -> Outcome<Option<SlotSecret>> {
    match named(&context.global.into())? {
        Some(source) => read(context, source).map(Some),
        None => ask_twice().transpose(),
    }
}

/// True when options or the environment name a source of the secret.
pub(crate) fn is_named(global: &Global) -> Outcome<bool> {
    Ok(named(&global.into())?.is_some())
}

/// A new password for `key add` and `key passwd`.
pub(crate) fn new_password(
    context: &Context<'_>,
    file: Option<&Path>,
    command: Option<&str>,
) -> Outcome<SlotSecret> {
    if let Some(source) =
        file.map(|f| Source::PasswordFile(f.into())).or(command.map(|c| Source::Command(c.into())))
    {
        return read(context, source);
    }
    ask_twice().unwrap_or_else(|| {
        let none =
            "no new password was given and there is no terminal to ask on; give --new-password-file FILE";
        Err(Failure::NoSecret(none.into()))
    })
}

/// The source that options or the environment name.
fn named(words: &Words<'_>) -> Outcome<Option<Source>> {
    let typed = words
        .password_file
        .cloned()
        .map(Source::PasswordFile)
        .or_else(|| words.password_command.cloned().map(Source::Command))
        .or_else(|| words.key_file.cloned().map(Source::KeyFile));
    if typed.is_some() {
        return Ok(typed);
    }
    fn password(v: std::ffi::OsString) -> Source {
        Source::Text(Zeroizing::new(v.as_bytes().to_vec()))
    }
    type Make = fn(std::ffi::OsString) -> Source;
    let makes: [(&str, Make); 4] = [
        ("PASSWORD", password),
        ("PASSWORD_FILE", |v| Source::PasswordFile(v.into())),
        ("PASSWORD_COMMAND", |v| Source::Command(v.to_string_lossy().into_owned())),
        ("KEY_FILE", |v| Source::KeyFile(v.into())),
    ];
    let mut found = makes.into_iter().filter_map(|(name, make)| {
        let name = format!("{}{name}", words.prefix);
        Some((variable(&name).map(make)?, name))
    });
    let Some((source, name)) = found.next() else {
        return Ok(if words.prefix == "BULLA_" { credential() } else { None });
    };
    match found.next() {
        Some((_, other)) => Err(Failure::Usage(format!("{name} and {other} are both set; keep one"))),
        None => Ok(Some(source)),
    }
}

/// What systemd's LoadCredential= laid down for this unit.
fn credential() -> Option<Source> {
    let dir = PathBuf::from(variable("CREDENTIALS_DIRECTORY")?);
    let there = |name: &str| Some(dir.join(name)).filter(|p| p.is_file());
    there("bulla.password").map(Source::PasswordFile).or_else(|| there("bulla.key").map(Source::KeyFile))
}

fn read(context: &Context<'_>, source: Source) -> Outcome<SlotSecret> {
    let (text, what) = match source {
        Source::Text(text) => (text, "BULLA_PASSWORD".to_owned()),
        Source::PasswordFile(path) => {
            (read_file(context, "password file", &path)?, format!("the password file {}", path.display()))
        }
        Source::Command(command) => (run_command(&command)?, "the password command's output".to_owned()),
        Source::KeyFile(path) => return key_from(&read_file(context, "key file", &path)?, &path),
    };
    passphrase(text, &what)
}

fn passphrase(mut text: Zeroizing<Vec<u8>>, what: &str) -> Outcome<SlotSecret> {
    strip_line_end(&mut text);
    if text.is_empty() {
        return Err(Failure::NoSecret(format!("{what} is empty")));
    }
    Ok(SlotSecret::Passphrase(text))
}

/// Exactly one LF or CRLF at the end is how files end, not a part of the password.
fn strip_line_end(text: &mut Zeroizing<Vec<u8>>) {
    if text.last() == Some(&b'\n') {
        text.pop();
        if text.last() == Some(&b'\r') {
            text.pop();
        }
    }
}

/// 32 raw bytes, or the printed form; lines that begin with `#` explain the file to people.
fn key_from(bytes: &[u8], path: &Path) -> Outcome<SlotSecret> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Ok(SlotSecret::Key(Secret::new(raw)));
    }
    let bad = |why: &dyn std::fmt::Display| {
        Failure::NoSecret(format!("the key file {} holds no key: {why}", path.display()))
    };
    let text = std::str::from_utf8(bytes).map_err(|_| bad(&"neither 32 bytes nor text"))?;
    let mut key = Zeroizing::new(String::with_capacity(text.len()));
    text.lines().filter(|l| !l.starts_with('#')).for_each(|l| key.push_str(l));
    parse_key(&key).map(SlotSecret::Key).map_err(|e| bad(&e))
}

fn read_file(context: &Context<'_>, what: &str, path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let fail =
        |e: std::io::Error| Failure::NoSecret(format!("cannot read the {what} {}: {e}", path.display()));
    let file = File::open(path).map_err(fail)?;
    let m = file.metadata().map_err(fail)?;
    if m.is_file() && m.mode() & 0o044 != 0 {
        let mode = m.mode() & 0o777;
        context.ui.warn(&format!(
            "the {what} {} can be read by others (mode {mode:04o}): chmod 600",
            path.display()
        ));
    }
    read_limited(file).map_err(fail)
}

/// Reads into one allocation, so that no shorter copy stays behind.
fn read_limited(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 2));
    from.take(SECRET_MAX as u64 + 1).read_to_end(&mut out)?;
    if out.len() > SECRET_MAX {
        return Err(std::io::Error::other(format!("it is longer than {SECRET_MAX} bytes")));
    }
    Ok(out)
}

fn run_command(line: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    let words =
        split_words(line).ok_or_else(|| Failure::Usage("the password command has an open quote".into()))?;
    run_words(&words)
}

fn run_words(words: &[String]) -> Outcome<Zeroizing<Vec<u8>>> {
    let fail = |why: String| Failure::NoSecret(format!("the password command failed: {why}"));
    let (program, args) =
        words.split_first().ok_or_else(|| Failure::Usage("the password command is empty".into()))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    PASSWORD_VARIABLES.iter().for_each(|v| {
        command.env_remove(v);
    });
    let mut child = command.spawn().map_err(|e| fail(format!("{program}: {e}")))?;
    let text = child.stdout.take().map_or_else(|| Ok(Zeroizing::default()), read_limited);
    let status = child.wait().map_err(|e| fail(e.to_string()))?;
    if !status.success() {
        return Err(fail(format!("{program}: {status}")));
    }
    text.map_err(|e| fail(e.to_string()))
}

/// Words as a shell splits them: blanks, quotes, backslashes; no expansion. `None` for a quote left open.
pub(crate) fn split_words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// True when there is somebody to ask.
fn somebody_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn ask(prompt: &str) -> Option<Outcome<SlotSecret>> {
    somebody_there().then(|| {
        let typed = rpassword::prompt_password(prompt)
            .map_err(|e| Failure::NoSecret(format!("cannot ask for the password: {e}")))?;
        let typed = Zeroizing::new(typed.into_bytes());
        if typed.is_empty() {
            return Err(Failure::NoSecret("an empty password opens nothing".into()));
        }
        Ok(SlotSecret::Passphrase(typed))
    })
}

fn ask_twice() -> Option<Outcome<SlotSecret>> {
    let first = ask("new password: ")?;
    let second = ask("the same again: ")?;
    Some(match (first, second) {
        (Ok(SlotSecret::Passphrase(a)), Ok(SlotSecret::Passphrase(b))) if *a != *b => {
            Err(Failure::Usage("the two passwords differ; nothing was done".into()))
        }
        (Err(e), _) | (_, Err(e)) => Err(e),
        (first, _) => first,
    })
}

/// A file for a secret, made before the secret exists: it must be new, and only its owner may read it. Removed
/// again unless [`NewFile::fill`] succeeded.
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl NewFile {
    /// Makes the empty file.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| Error::io("create", path, e))?;
        Ok(Self { path: path.into(), file, filled: false })
    }
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    /// Takes the file back although it was filled.
    pub(crate) fn discard(mut self) {
        self.filled = false;
    }
    /// Writes `key` below a line that says what it is, durably.
    pub(crate) fn fill(&mut self, explanation: &str, key: &str) -> Outcome<()> {
        let text = Zeroizing::new(format!("# {explanation}\n{key}\n"));
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|e| Error::io("write", &self.path, e))?;
        let dir = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io("sync", dir, e))?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.filled {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_like_a_shell_without_expansion() {
        let split = |s| split_words(s).map(|w| w.join("|"));
        assert_eq!(split("pass show  'my backup'").as_deref(), Some("pass|show|my backup"));
        assert_eq!(split(r#"a "b \" $HOME" c\ d ''"#).as_deref(), Some(r#"a|b " $HOME|c d|"#));
        assert_eq!(split("a 'b"), None);
        assert_eq!(split("a\\"), None);
        assert_eq!(split("  "), Some(String::new()));
    }

    #[test]
    fn one_line_end_is_stripped_and_no_more() {
        for (given, kept) in
            [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a ", "a "), ("\n", ""), ("a\r", "a\r")]
        {
            let mut text = Zeroizing::new(given.as_bytes().to_vec());
            strip_line_end(&mut text);
            assert_eq!(*text, kept.as_bytes());
        }
    }
}
