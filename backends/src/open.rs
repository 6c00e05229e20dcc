//! From a location and what the user set to a backend. Nothing is asked of the store yet.

use crate::http::{Http, Timeouts};
use crate::location::Location;
use crate::rclone::{self, Rclone};
use crate::remote::{Notice, Remote};
use crate::rest::Rest;
use crate::retry::Patience;
use crate::s3::{self, S3, credentials};
use crate::settings::{Options, Variables};
use crate::sftp::{Sftp, SftpConfig};
use crate::store::Store;
use bulla_engine::backend::{self, Backend, Local};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// What is needed besides the location.
pub struct Settings<'a> {
    /// `-o key=value`.
    pub options: Options,
    /// The environment.
    pub variables: Variables<'a>,
    /// Certificates that are trusted instead of the usual ones (PEM).
    pub authorities: Option<PathBuf>,
    /// Told of attempts that failed.
    pub notice: Option<Notice>,
}

/// A store, and how a repository is begun in it.
#[derive(Clone)]
pub enum Opened {
    /// A directory of this machine.
    Local(Arc<Local>),
    /// Anything else.
    Remote(Arc<dyn Distant>),
}

/// A backend that can be prepared for a new repository.
pub trait Distant: Backend {
    /// Makes what an empty repository needs before its first put, and refuses a place that is in use.
    fn prepare(&self) -> backend::Result<()>;
}

impl<S: Store> Distant for Remote<S> {
    fn prepare(&self) -> backend::Result<()> {
        Remote::prepare(self)
    }
}

impl Opened {
    /// As the engine takes it.
    pub fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Local(local) => local.clone(),
            Self::Remote(remote) => remote.clone(),
        }
    }

    /// Makes what an empty repository needs before its first put, and refuses a place that is in use.
    pub fn prepare(&self) -> backend::Result<()> {
        match self {
            Self::Local(local) => local.create_layout(),
            Self::Remote(remote) => remote.prepare(),
        }
    }
}

/// The store at a location. The error is a sentence about what was typed or set.
pub fn open(location: &Location, settings: Settings<'_>) -> Result<Opened, String> {
    let Settings { mut options, variables, authorities, notice } = settings;
    let mut patience = Patience::default();
    if let Some(seconds) = options.take_as("retry-seconds")? {
        patience.total = Duration::from_secs(seconds);
    }
    if let Some(millis) = options.take_as("retry-first-ms")? {
        patience.first = Duration::from_millis(millis);
    }
    if let Location::Local(path) = location {
        // How long is tried again is said of all repositories of a command, and here nothing is.
        options.done("a local directory")?;
        return Ok(Opened::Local(Arc::new(Local::new(path))));
    }
    // AWS's own tools call it so.
    let bundle = || variables.get("AWS_CA_BUNDLE").filter(|_| matches!(location, Location::S3 { .. }));
    let pem = match authorities.or_else(|| bundle().map(PathBuf::from)) {
        Some(file) => Some(std::fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?),
        None => None,
    };
    let http = |connections| {
        Http::new(pem.as_deref(), connections, Timeouts::default()).map_err(|e| format!("--cacert: {e}"))
    };
    fn finish<S: Store + 'static>(store: S, patience: Patience, notice: Option<Notice>) -> Opened {
        Opened::Remote(Arc::new(Remote::new(store, patience, notice)))
    }
    match location {
        Location::Local(_) => Err("a local directory is no distant store".into()),
        Location::S3 { endpoint, bucket, prefix } => {
            let config = s3_config(endpoint, bucket, prefix, &mut options, &variables)?;
            options.done("s3:")?;
            Ok(finish(S3::new(http(config.connections)?, config)?, patience, notice))
        }
        Location::Rest(url) => {
            let connections = connections(options.take_as("rest.connections")?);
            options.done("rest:")?;
            let url = with_login(url.clone(), &variables);
            Ok(finish(Rest::new(http(connections)?, url, None, connections), patience, notice))
        }
        Location::Rclone(remote) => {
            let config = rclone::Config {
                remote: remote.clone(),
                program: options.take("rclone.program").unwrap_or_else(|| "rclone".into()),
                arguments: words(options.take("rclone.args")),
                connections: connections(options.take_as("rclone.connections")?),
            };
            options.done("rclone:")?;
            Ok(finish(Rclone::new(config), patience, notice))
        }
        Location::Sftp { user, host, port, path } => {
            let command = options.take("sftp.command").map(|c| words(Some(c)));
            options.done("sftp:")?;
            let (user, host, path) = (user.clone(), host.clone(), path.clone());
            Ok(finish(Sftp::new(SftpConfig { user, host, port: *port, path, command }), patience, notice))
        }
    }
}

/// As many as fill a link of 100 MB/s with packs of 8 MiB at 20 ms, and no more than a small server bears.
fn connections(asked: Option<usize>) -> usize {
    asked.unwrap_or(5).clamp(1, 64)
}

fn words(text: Option<String>) -> Vec<String> {
    text.iter().flat_map(|t| t.split_whitespace()).map(str::to_owned).collect()
}

fn s3_config(
    endpoint: &Url,
    bucket: &str,
    prefix: &str,
    options: &mut Options,
    variables: &Variables<'_>,
) -> Result<s3::Config, String> {
    let region = options
        .take("s3.region")
        .or_else(|| variables.get("AWS_REGION"))
        .or_else(|| variables.get("AWS_DEFAULT_REGION"))
        .unwrap_or_else(|| "us-east-1".into());
    let lookup = match options.take("s3.bucket-lookup").as_deref() {
        None | Some("auto") => s3::Lookup::Auto,
        Some("path") => s3::Lookup::Path,
        Some("dns") => s3::Lookup::Dns,
        Some(other) => return Err(format!("-o s3.bucket-lookup={other}: auto, path or dns")),
    };
    Ok(s3::Config {
        endpoint: endpoint.clone(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        region,
        lookup,
        storage_class: options.take("s3.storage-class"),
        credentials: credentials::find(options.take("s3.profile").as_deref(), variables)?,
        connections: connections(options.take_as("s3.connections")?),
    })
}

/// Puts the login from the environment into a URL that has none.
fn with_login(mut url: Url, variables: &Variables<'_>) -> Url {
    if let (true, Some(user), Some(password)) = (
        url.username().is_empty(),
        variables.get("BULLA_REST_USERNAME"),
        variables.get("BULLA_REST_PASSWORD"),
    ) {
        // Neither can fail for http and https, which Location lets through.
        let _ = url.set_username(&user);
        let _ = url.set_password(Some(&password));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    /// The URL that would be asked for a pack.
    fn asked(place: &str, options: &[&str], variables: &[(&str, &str)]) -> Url {
        let get = |name: &str| {
            variables
                .iter()
                .chain(&[("AWS_ACCESS_KEY_ID", "KEY"), ("AWS_SECRET_ACCESS_KEY", "SECRET")])
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let Ok(Location::S3 { endpoint, bucket, prefix }) = Location::parse(OsStr::new(place)) else {
            panic!("{place}")
        };
        let mut options = Options::parse(options).unwrap();
        let config = s3_config(&endpoint, &bucket, &prefix, &mut options, &Variables::new(&get)).unwrap();
        options.done("s3:").unwrap();
        let http = Http::new(None, 1, Timeouts::default()).unwrap();
        S3::new(http, config).unwrap().signed("packs/x")
    }

    fn value(url: &Url, name: &str) -> Option<String> {
        url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
    }

    #[test]
    fn the_bucket_is_in_the_host_or_in_the_path() {
        let at = |place: &str, options: &[&str]| {
            let mut url = asked(place, options, &[]);
            url.set_query(None);
            url.to_string()
        };
        let aws = "s3:https://s3.eu-central-1.amazonaws.com/backups/host1";
        assert_eq!(at(aws, &[]), "https://backups.s3.eu-central-1.amazonaws.com/host1/packs/x");
        assert_eq!(
            at(aws, &["s3.bucket-lookup=path"]),
            "https://s3.eu-central-1.amazonaws.com/backups/host1/packs/x"
        );
        let dotted = "s3:https://s3.amazonaws.com/back.ups";
        assert_eq!(at(dotted, &[]), "https://s3.amazonaws.com/back.ups/packs/x", "no certificate fits a dot");
        let own = "s3:https://s3.example.com:9000/backups/host1";
        assert_eq!(at(own, &[]), "https://s3.example.com:9000/backups/host1/packs/x");
        assert_eq!(at(own, &["s3.bucket-lookup=dns"]), "https://backups.s3.example.com:9000/host1/packs/x");
    }

    #[test]
    fn a_signature_names_region_and_session() {
        let place = "s3:https://s3.example.com/backups";
        let scope = |url: &Url| value(url, "X-Amz-Credential").unwrap();
        let plain = asked(place, &[], &[]);
        assert!(scope(&plain).starts_with("KEY/") && scope(&plain).ends_with("/us-east-1/s3/aws4_request"));
        assert_eq!(value(&plain, "X-Amz-Security-Token"), None);
        let is_in = |options: &[&str], variables: &[(&str, &str)], region: &str| {
            let url = asked(place, options, variables);
            assert!(scope(&url).ends_with(&format!("/{region}/s3/aws4_request")), "{url}");
        };
        is_in(&["s3.region=eu-north-1"], &[("AWS_REGION", "x")], "eu-north-1");
        is_in(&[], &[("AWS_REGION", "eu-west-3"), ("AWS_DEFAULT_REGION", "x")], "eu-west-3");
        is_in(&[], &[("AWS_DEFAULT_REGION", "ap-south-2")], "ap-south-2");
        let url = asked(place, &[], &[("AWS_SESSION_TOKEN", "a/token+of=an hour")]);
        assert_eq!(value(&url, "X-Amz-Security-Token").as_deref(), Some("a/token+of=an hour"));
    }
}
