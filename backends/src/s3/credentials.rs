//! Who asks: the usual variables of AWS, then its shared credentials file. The environment is passed in.
//!
//! What is not looked for: an instance's metadata service and single sign-on, whose tools can print the variables.

use crate::settings::Variables;
use rusty_s3::Credentials;
use std::path::PathBuf;

/// The credentials, or why there are none. A profile that was named is taken from the shared credentials file, whatever the
/// variables hold. An access key of `-` asks as nobody (public buckets, proxies that sign).
pub fn find(profile: Option<&str>, variables: &Variables<'_>) -> Result<Option<Credentials>, String> {
    match profile {
        Some(profile) => of_profile(profile, variables).map(Some),
        None => of_variables(variables),
    }
}

fn of_variables(variables: &Variables<'_>) -> Result<Option<Credentials>, String> {
    let variable = |name: &str| variables.get(name);
    if variable("AWS_ACCESS_KEY_ID").is_some_and(|key| key == "-") {
        return Ok(None);
    }
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => {
            return Ok(Some(make(key, secret, variable("AWS_SESSION_TOKEN"))));
        }
        (Some(_), None) => return Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not".into()),
        (None, Some(_)) => return Err("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not".into()),
        (None, None) => {}
    }
    let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".into());
    of_profile(&profile, variables).map(Some)
}

/// What the shared credentials file has under a name.
fn of_profile(profile: &str, variables: &Variables<'_>) -> Result<Credentials, String> {
    let variable = |name: &str| variables.get(name);
    let named = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let usual = variable("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
    let none =
        "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials";
    let Some(file) = named.or(usual) else { return Err(none.into()) };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(none.into()),
        Err(e) => return Err(format!("cannot read {}: {e}", file.display())),
    };
    let missing = || format!("{} has no keys for the profile {profile:?}", file.display());
    from_file(&text, profile).ok_or_else(missing)
}

fn make(key: String, secret: String, token: Option<String>) -> Credentials {
    match token {
        Some(token) => Credentials::new_with_token(key, secret, token),
        None => Credentials::new(key, secret),
    }
}

/// The keys of one profile. The file is `[profile]` lines and `name = value` lines.
fn from_file(text: &str, profile: &str) -> Option<Credentials> {
    let (mut here, mut key, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            here = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| here) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => key = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(make(key?, secret?, token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    type Found = Result<Option<(String, String, Option<String>)>, String>;

    fn with(pairs: &[(&str, &str)]) -> Found {
        asked(None, pairs)
    }

    fn asked(profile: Option<&str>, pairs: &[(&str, &str)]) -> Found {
        let map: HashMap<String, String> =
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let get = |name: &str| map.get(name).cloned();
        let found = find(profile, &Variables::new(&get))?;
        Ok(found.map(|c| (c.key().into(), c.secret().into(), c.token().map(str::to_owned))))
    }

    #[test]
    fn variables_come_first_then_the_file_and_halves_are_mistakes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=B=\n\n[other]\n\
                    aws_access_key_id=C\naws_secret_access_key=D\naws_session_token=E\n[half]\naws_access_key_id=F\n";
        std::fs::write(&file, text).unwrap();
        let file = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
        let some = |a: &str, b: &str, t: Option<&str>| Ok(Some((a.into(), b.into(), t.map(str::to_owned))));
        assert_eq!(with(&[file]), some("A", "B=", None));
        assert_eq!(with(&[file, ("AWS_PROFILE", "other")]), some("C", "D", Some("E")));
        assert!(with(&[file, ("AWS_PROFILE", "half")]).unwrap_err().contains("half"));
        assert_eq!(
            with(&[file, ("AWS_ACCESS_KEY_ID", "X"), ("AWS_SECRET_ACCESS_KEY", "Y")]),
            some("X", "Y", None)
        );
        assert!(with(&[("AWS_ACCESS_KEY_ID", "X")]).unwrap_err().contains("AWS_SECRET_ACCESS_KEY is not"));
        assert!(with(&[]).unwrap_err().contains("no S3 credentials"));
        assert_eq!(with(&[("AWS_ACCESS_KEY_ID", "-")]), Ok(None));
    }

    /// Also beside variables for another store; and the file is looked for where AWS's tools have it.
    #[test]
    fn a_profile_that_is_named_comes_from_the_file_in_the_home() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let text = "[default]\naws_access_key_id=A\naws_secret_access_key=B\n[b2]\naws_access_key_id=C\n\
                    aws_secret_access_key=D\n";
        std::fs::write(home.path().join(".aws/credentials"), text).unwrap();
        let home = ("HOME", home.path().to_str().unwrap());
        let some = |a: &str, b: &str| Ok(Some((a.into(), b.into(), None)));
        assert_eq!(with(&[home]), some("A", "B"));
        let keys =
            [home, ("AWS_ACCESS_KEY_ID", "X"), ("AWS_SECRET_ACCESS_KEY", "Y"), ("AWS_PROFILE", "default")];
        assert_eq!(asked(Some("b2"), &keys), some("C", "D"));
        assert!(asked(Some("none"), &keys).unwrap_err().contains("\"none\""));
        assert!(asked(Some("b2"), &[]).unwrap_err().contains("no S3 credentials"));
    }

    /// What a panic or a log line could show.
    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let shown = format!("{:?}", Credentials::new_with_token("KEY", "SECRET", "TOKEN"));
        assert!(!shown.contains("SECRET") && !shown.contains("TOKEN"), "{shown}");
    }
}
