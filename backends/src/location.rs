//! Where a repository is: a path, or `file:`, `s3:`, `sftp:`, `rest:`, `rclone:` and what these mean. The same words in flags,
//! environment and config, and the same as restic's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use url::Url;

/// A place for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory of this machine.
    Local(PathBuf),
    /// A bucket and a prefix in it.
    S3 {
        /// Scheme, host and port.
        endpoint: Url,
        /// The bucket.
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
    /// A directory that an `ssh` leads to.
    Sftp {
        /// Who logs in; the `ssh` knows otherwise.
        user: Option<String>,
        /// A host, or a name in the user's `ssh` config.
        host: String,
        /// The port; the `ssh` knows otherwise.
        port: Option<u16>,
        /// The directory; a relative one begins in the home there.
        path: String,
    },
    /// A server that speaks restic's REST protocol; the URL ends with a slash.
    Rest(Url),
    /// What rclone calls a remote: `name:path`.
    Rclone(String),
}

/// Schemes of other programs, which would otherwise be taken for directories.
const FOREIGN: [&str; 7] = ["http", "https", "b2", "azure", "gs", "ssh", "swift"];

impl Location {
    /// True if both are one place, whoever logs in there.
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rest(a), Self::Rest(b)) => a.origin() == b.origin() && a.path() == b.path(),
            _ => self == other,
        }
    }

    /// True if the one login of the environment may be shown to the server here: no REST server among `named` that has no login
    /// in its URL is another one. A password is for one server, and nobody said for which.
    pub fn takes_login(&self, named: &[Self]) -> bool {
        let server = |location: &Self| match location {
            Self::Rest(url) if url.username().is_empty() => Some(url.origin()),
            _ => None,
        };
        let Some(own) = server(self) else { return true };
        named.iter().filter_map(server).all(|origin| origin == own)
    }

    /// What was typed. The error is a sentence for people and never repeats a password.
    pub fn parse(place: &OsStr) -> Result<Self, String> {
        let bytes = place.as_bytes();
        if bytes.is_empty() {
            return Err("the repository's name is empty".into());
        }
        if let Some(path) = bytes.strip_prefix(b"file:") {
            let path = path.strip_prefix(b"//").filter(|p| p.starts_with(b"/")).unwrap_or(path);
            if path.is_empty() {
                return Err("file: names no directory".into());
            }
            return Ok(Self::Local(OsString::from_vec(path.to_vec()).into()));
        }
        let Some(text) = place.to_str() else { return Ok(Self::Local(place.into())) };
        match text.split_once(':') {
            Some(("s3", rest)) => s3(rest),
            Some(("sftp", rest)) => sftp(rest),
            Some(("rest", rest)) => rest_server(rest),
            Some(("rclone", rest)) if rest.contains(':') => Ok(Self::Rclone(rest.to_owned())),
            Some(("rclone", _)) => Err("rclone: needs a remote and a path: rclone:NAME:PATH".into()),
            Some((scheme, _)) if FOREIGN.contains(&scheme) => Err(format!(
                "there is no {scheme}: backend; there are s3:, sftp:, rest: and rclone:, which reaches most others. \
                 For a directory of that name write ./{scheme}:"
            )),
            _ => Ok(Self::Local(place.into())),
        }
    }
}

fn s3(rest: &str) -> Result<Location, String> {
    let form = "write s3:https://HOST/BUCKET/PREFIX";
    let text = match rest.strip_prefix("//") {
        Some(rest) => format!("https://{rest}"),
        None if rest.starts_with("http://") || rest.starts_with("https://") => rest.to_owned(),
        None => format!("https://{rest}"),
    };
    let url = Url::parse(&text).map_err(|e| format!("s3: {e}; {form}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong in the s3: URL, where others see them: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("s3: a URL of a repository has no ? and no #; {form}"));
    }
    let path = url.path().trim_matches('/').to_owned();
    let (bucket, prefix) = path.split_once('/').unwrap_or((&path, ""));
    if bucket.is_empty() {
        return Err(format!("s3: names no bucket; {form}"));
    }
    let mut endpoint = url.clone();
    endpoint.set_path("/");
    Ok(Location::S3 { endpoint, bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
}

fn sftp(rest: &str) -> Result<Location, String> {
    let form = "write sftp:USER@HOST:PATH, or sftp://USER@HOST:PORT/PATH";
    let bad = |why: &str| Err(format!("sftp: {why}; {form}"));
    let (place, port, path) = if let Some(rest) = rest.strip_prefix("//") {
        let Some((place, path)) = rest.split_once('/') else { return bad("it names no directory") };
        // A second slash makes the path absolute, as in restic's.
        match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(']') || !port.is_empty() => match port.parse() {
                Ok(port) => (host, Some(port), path),
                Err(_) => return bad("the port is no number"),
            },
            _ => (place, None, path),
        }
    } else {
        match rest.split_once(':') {
            Some((place, path)) => (place, None, path),
            None => return bad("it names no directory"),
        }
    };
    let (user, host) = match place.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, place),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty()
        || host.starts_with('-')
        || user.as_deref().is_some_and(|u| u.is_empty() || u.starts_with('-'))
    {
        return bad("that is no host and user");
    }
    if path.is_empty() {
        return bad("it names no directory");
    }
    Ok(Location::Sftp { user, host: host.to_owned(), port, path: path.to_owned() })
}

fn rest_server(rest: &str) -> Result<Location, String> {
    let mut url = Url::parse(rest).map_err(|e| format!("rest: {e}; write rest:https://HOST:PORT/PATH"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("rest: needs http:// or https:// and a host".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("rest: a URL of a repository has no ? and no #".into());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(Location::Rest(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<Location, String> {
        Location::parse(OsStr::new(text))
    }

    #[test]
    fn directories() {
        let path = |s: &str| match at(s) {
            Ok(Location::Local(path)) => Some(path),
            _ => None,
        };
        assert_eq!(path("/srv/b"), Some("/srv/b".into()));
        assert_eq!(path("file:/srv/b"), Some("/srv/b".into()));
        assert_eq!(path("file:///srv/b"), Some("/srv/b".into()));
        assert_eq!(path("file:b"), Some("b".into()));
        assert_eq!(path("./s3:x"), Some("./s3:x".into()));
        assert_eq!(path("a:b"), Some("a:b".into()));
        for bad in ["file:", "", "b2:x", "https://host/x", "rclone:x"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn buckets() {
        let s3 = |endpoint: &str, bucket: &str, prefix: &str| {
            Ok(Location::S3 {
                endpoint: endpoint.parse().unwrap(),
                bucket: bucket.into(),
                prefix: prefix.into(),
            })
        };
        assert_eq!(at("s3:https://h/b/p/q/"), s3("https://h/", "b", "p/q"));
        assert_eq!(at("s3:http://127.0.0.1:8333/b"), s3("http://127.0.0.1:8333/", "b", ""));
        assert_eq!(at("s3:h.example/b/p"), s3("https://h.example/", "b", "p"));
        assert_eq!(at("s3://h.example/b"), s3("https://h.example/", "b", ""));
        for bad in ["s3:", "s3:https://h", "s3:https://h/", "s3:https://h/b?x=1", "s3:https:///b"] {
            assert!(at(bad).is_err(), "{bad}: {:?}", at(bad));
        }
        let text = at("s3:https://KEY:hunter2@h/b").unwrap_err();
        assert!(!text.contains("hunter2") && text.contains("AWS_"), "{text}");
    }

    #[test]
    fn hosts() {
        let sftp = |user: Option<&str>, host: &str, port, path: &str| {
            Ok(Location::Sftp { user: user.map(Into::into), host: host.into(), port, path: path.into() })
        };
        assert_eq!(at("sftp:u@h:/srv/b"), sftp(Some("u"), "h", None, "/srv/b"));
        assert_eq!(at("sftp:h:b"), sftp(None, "h", None, "b"));
        assert_eq!(at("sftp://u@h:2222//srv/b"), sftp(Some("u"), "h", Some(2222), "/srv/b"));
        assert_eq!(at("sftp://h/b"), sftp(None, "h", None, "b"));
        assert_eq!(at("sftp://[::1]:22/b"), sftp(None, "::1", Some(22), "b"));
        assert_eq!(at("sftp:u@dom@h:b"), sftp(Some("u@dom"), "h", None, "b"));
        for bad in ["sftp:h", "sftp:h:", "sftp:-oProxyCommand=x:b", "sftp:-l@h:b", "sftp://h:x/b", "sftp::b"]
        {
            assert!(at(bad).is_err(), "{bad}: {:?}", at(bad));
        }
        let text = at("sftp://u:hunter2@h/b").unwrap_err();
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn servers() {
        let rest = |url: &str| Ok(Location::Rest(url.parse().unwrap()));
        assert_eq!(at("rest:http://h:8000/a"), rest("http://h:8000/a/"));
        assert_eq!(at("rest:https://u:p@h/"), rest("https://u:p@h/"));
        let is_at = |a: &str, b: &str| at(a).unwrap().is_at(&at(b).unwrap());
        assert!(
            is_at("rest:https://h/a", "rest:https://u:p@h:443/a/") && is_at("s3:h/b/p/", "s3:https://h/b/p")
        );
        assert!(
            !is_at("rest:https://h/a", "rest:https://h/b") && !is_at("rest:https://h/", "rest:http://h/")
        );
        assert!(at("rest:ftp://h/").is_err() && at("rest:h").is_err());
        assert_eq!(at("rclone:b2:bucket/x"), Ok(Location::Rclone("b2:bucket/x".into())));
    }

    #[test]
    fn a_login_is_shown_to_one_server() {
        let named = |urls: &[&str]| urls.iter().map(|url| at(url).unwrap()).collect::<Vec<_>>();
        let takes = |here: &str, urls: &[&str]| at(here).unwrap().takes_login(&named(urls));
        let (a, b, own) = ("rest:https://a/x", "rest:https://b/x", "rest:https://u:p@b/x");
        assert!(takes(a, &[]) && takes(a, &[a]) && takes(a, &["rest:https://a/y", "/srv/backup"]));
        assert!(!takes(a, &[b]) && !takes(b, &[a]) && !takes(a, &[a, b]) && !takes(b, &[a, b]));
        assert!(!takes(a, &["rest:http://a/x"]) && !takes(a, &["rest:https://a:8000/x"]));
        assert!(takes(a, &[a, own]) && takes(own, &[a, b]) && takes("/srv/backup", &[a, b]));
    }
}
