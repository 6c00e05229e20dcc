//! Passwords and keys: where they come from, and how little they are copied. An option wins over the environment,
//! that over systemd's credentials; a terminal is asked last, and nothing else ever is.

use crate::args::{FromSecret, Global};
use crate::context::{Context, variable};
use crate::exit::{Failure, Outcome};
use crate::ui::signals;
use bulla_engine::Error;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::slot::parse_key;
use bulla_engine::observer::escape;
use bulla_engine::repository::SlotSecret;
use bulla_manager::child::{self, Ended, Group};
use bulla_manager::config::{Destination, SecretRef};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
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

impl<'a> Words<'a> {
    /// For the repository with this number: what was typed once is for all.
    fn of(global: &'a Global, number: usize) -> Self {
        fn nth<T>(list: &[T], number: usize) -> Option<&T> {
            if let [one] = list { Some(one) } else { list.get(number) }
        }
        Self {
            password_file: nth(&global.password_file, number),
            password_command: nth(&global.password_command, number),
            key_file: nth(&global.key_file, number),
            prefix: "BULLA_",
        }
    }
}

impl<'a> From<&'a Global> for Words<'a> {
    fn from(global: &'a Global) -> Self {
        Self::of(global, 0)
    }
}

/// True when each of `repositories` has a secret of its own. A number of secrets that does not fit is a mistake.
pub(crate) fn one_for_each(global: &Global, repositories: usize) -> Outcome<bool> {
    let typed = [
        ("--password-file", global.password_file.len()),
        ("--password-command", global.password_command.len()),
        ("--key-file", global.key_file.len()),
    ];
    match typed.into_iter().find(|(_, n)| *n > 1) {
        None => Ok(false),
        Some((_, n)) if n == repositories => Ok(true),
        Some((option, n)) => {
            let there = if repositories == 1 { "repository" } else { "repositories" };
            let rule = "give it once for all, or once for each -r, in their order";
            Err(Failure::Usage(format!("{option} is given {n} times for {repositories} {there}: {rule}")))
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

/// The secret that opens the repository with this number.
pub(crate) fn numbered(context: &Context<'_>, number: usize) -> Outcome<SlotSecret> {
    open_with(context, &Words::of(context.global, number), "password: ")
}

/// The secret that opens the repository another one is made or filled from.
pub(crate) fn of_source(context: &Context<'_>, from: &FromSecret) -> Outcome<SlotSecret> {
    open_with(context, &from.into(), "password of the repository to copy from: ")
}

/// The secret of a destination, from where the configuration says it is.
pub(crate) fn of_destination(context: &Context<'_>, destination: &Destination) -> Outcome<SlotSecret> {
    match (&destination.key, &destination.password) {
        (Some(key), _) => {
            let (bytes, place) = at(context, "key file", &key.value)?;
            key_from(&bytes, &place)
        }
        (None, Some(password)) => {
            let (bytes, place) = at(context, "password file", &password.value)?;
            passphrase(bytes, &format!("the password of {place}"))
        }
        (None, None) => Err(Failure::NoSecret("the destination names no secret".into())),
    }
}

/// A key in a file: a key file, or the recovery key as it was printed.
pub(crate) fn of_file(context: &Context<'_>, file: &Path) -> Outcome<SlotSecret> {
    key_from(&read_file(context, "key file", file)?, &file.display().to_string())
}

/// The secret of a channel, from where the configuration says it is; as text, it ends before one line end.
pub(crate) fn of_channel(context: &Context<'_>, place: &SecretRef) -> Outcome<Zeroizing<Vec<u8>>> {
    let (mut bytes, place) = at(context, "secret file", place)?;
    strip_line_end(&mut bytes);
    if bytes.is_empty() {
        return Err(Failure::NoSecret(format!("the secret of {place} is empty")));
    }
    Ok(bytes)
}

/// What is at a place, and its name for messages.
fn at(context: &Context<'_>, what: &str, place: &SecretRef) -> Outcome<(Zeroizing<Vec<u8>>, String)> {
    match place {
        SecretRef::File(path) => Ok((read_file(context, what, path)?, path.display().to_string())),
        SecretRef::Systemd(name) => {
            let dir = variable("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                let why = format!("the {what} is systemd's credential {name}, and systemd gave none");
                Failure::NoSecret(why)
            })?;
            let path = PathBuf::from(dir).join(name);
            Ok((read_file(context, what, &path)?, path.display().to_string()))
        }
        // Its arguments may say more than whoever reads an error should know.
        SecretRef::Command(words) => {
            Ok((run_words(words)?, words.first().map(|w| escape(w.as_bytes())).unwrap_or_default()))
        }
        SecretRef::Fd(fd) => Ok((behind(*fd)?, format!("descriptor {fd}"))),
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
        Source::KeyFile(path) => {
            return key_from(&read_file(context, "key file", &path)?, &path.display().to_string());
        }
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
fn key_from(bytes: &[u8], place: &str) -> Outcome<SlotSecret> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Ok(SlotSecret::Key(Secret::new(raw)));
    }
    let bad =
        |why: &dyn std::fmt::Display| Failure::NoSecret(format!("the key file {place} holds no key: {why}"));
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

/// What was read from descriptors: a pipe gives its bytes once, and a run opens a repository several times.
static BEHIND: Mutex<BTreeMap<u32, Zeroizing<Vec<u8>>>> = Mutex::new(BTreeMap::new());

/// What whoever started us left behind a descriptor. Commands that are started get the descriptor as well: of a pipe they
/// learn nothing, since it is empty then; a file they could read again, so it should be a pipe.
fn behind(fd: u32) -> Outcome<Zeroizing<Vec<u8>>> {
    let mut all = BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = all.get(&fd) {
        return Ok(text.clone());
    }
    let read = File::open(format!("/proc/self/fd/{fd}")).and_then(read_limited);
    let text =
        read.map_err(|e| Failure::NoSecret(format!("cannot read the secret behind descriptor {fd}: {e}")))?;
    all.insert(fd, text.clone());
    Ok(text)
}

/// How long a command may take that prints a secret, without and with somebody whom it may ask.
const ALONE: Duration = Duration::from_secs(120);
const ASKING: Duration = Duration::from_secs(600);

fn run_words(words: &[String]) -> Outcome<Zeroizing<Vec<u8>>> {
    let (group, time) = if somebody_there() { (Group::Ours, ASKING) } else { (Group::Own, ALONE) };
    run_within(words, group, time)
}

fn run_within(words: &[String], group: Group, time: Duration) -> Outcome<Zeroizing<Vec<u8>>> {
    let fail = |why: String| Failure::NoSecret(format!("the password command failed: {why}"));
    let (program, args) =
        words.split_first().ok_or_else(|| Failure::Usage("the password command is empty".into()))?;
    let mut command = Command::new(program);
    command.args(args);
    PASSWORD_VARIABLES.iter().for_each(|v| {
        command.env_remove(v);
    });
    // In one allocation, so that no shorter copy stays behind.
    let mut text = Zeroizing::new(vec![0; SECRET_MAX + 1]);
    let mut filled = 0;
    let ended = child::run(command, time, (group, false), &signals::stop_asked, &mut |output| {
        let n = output.read(text.get_mut(filled..).unwrap_or_default())?;
        filled += n;
        if filled > SECRET_MAX {
            return Err(std::io::Error::other(format!("it prints more than {SECRET_MAX} bytes")));
        }
        Ok(n)
    });
    let program = escape(program.as_bytes());
    match ended {
        Ok(Ended::Said(status)) if status.success() => {
            text.truncate(filled);
            Ok(text)
        }
        Ok(Ended::Said(status)) => Err(fail(format!("{program}: {status}"))),
        Ok(Ended::Late) => Err(fail(format!("{program} did not end within {} s", time.as_secs()))),
        Ok(Ended::Stopped) => Err(Error::Interrupted.into()),
        Err(e) => Err(fail(format!("{program}: {e}"))),
    }
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
    fn a_command_that_hangs_or_talks_too_much_gives_no_secret_and_its_arguments_are_not_told() {
        let words = |script: &str| ["sh", "-c", script].map(str::to_owned);
        let run = |script: &str, time| match run_within(&words(script), Group::Own, time) {
            Ok(text) => String::from_utf8(text.to_vec()).unwrap(),
            Err(failure) => failure.said().unwrap().message,
        };
        let long = Duration::from_secs(300);
        assert_eq!(run("printf geheim", long), "geheim");
        assert_eq!(run("exit 3 # tok3n", long), "the password command failed: sh: exit status: 3");
        assert!(run("yes tok3n", long).ends_with("sh: it prints more than 4096 bytes"));
        let late = run("sleep 600 # tok3n", Duration::from_millis(300));
        assert_eq!(late, "the password command failed: sh did not end within 0 s");
    }

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
