//! Object lock: whether a bucket has it, and until when an object is kept. In XML, which is small enough to be written here.

use super::{S3, digest, explain};
use crate::http::element;
use crate::store::{Attempt, Failure, Kind, LockMode, Retention};
use jiff::Timestamp;

/// An answer about one bucket or object.
const ANSWER_MAX: u64 = 64 << 10;
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

fn words(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Governance => "GOVERNANCE",
        LockMode::Compliance => "COMPLIANCE",
    }
}

impl S3 {
    /// What `GET ?object-lock` of the bucket says. A key that may not ask is told nothing.
    pub(super) fn bucket_locks(&self) -> Attempt<bool> {
        let action = self.bucket.get_object(self.credentials(), "");
        let answer = self.send_with("GET", action, Some("object-lock"), &[], None)?;
        match answer.status() {
            200 => {
                let body = answer.body(ANSWER_MAX)?;
                Ok(element(&String::from_utf8_lossy(&body), "ObjectLockEnabled") == Some("Enabled"))
            }
            _ => match answer.complaint() {
                failure @ Failure { kind: Kind::Passing { .. }, .. } => Err(failure),
                _ => Ok(false),
            },
        }
    }

    /// Puts a retention. A store refuses one that ends earlier than the one there is. If that binds as much, it counts; if it
    /// binds fewer, it is its end to which all are bound.
    pub(super) fn put_retention(&self, path: &str, wanted: Retention) -> Attempt<()> {
        let key = self.key(path);
        let until = Timestamp::from_second(wanted.until).map_err(|_| Failure::last("that is no time"))?;
        let failure = match self.try_retention(&key, wanted.mode, until) {
            Err(failure) if !matches!(failure.kind, Kind::Missing | Kind::Passing { .. }) => failure,
            other => return other,
        };
        match self.retained(&key)? {
            Some((mode, there)) if there >= until => {
                if mode == LockMode::Compliance || mode == wanted.mode {
                    return Ok(());
                }
                self.try_retention(&key, wanted.mode, there)
            }
            _ => Err(failure),
        }
    }

    fn try_retention(&self, key: &str, mode: LockMode, until: Timestamp) -> Attempt<()> {
        let mode = words(mode);
        let text = format!(
            "<Retention xmlns=\"{NAMESPACE}\"><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
        );
        let parts = [text.as_bytes()];
        let md5 = digest(&parts);
        let headers = [("content-md5", md5.as_str())];
        let action = self.bucket.put_object(self.credentials(), key);
        let answer = self.send_with("PUT", action, Some("retention"), &headers, Some(&parts))?;
        if matches!(answer.status(), 200 | 204) { Ok(()) } else { Err(explain(answer.complaint())) }
    }

    /// Who is bound by an object's retention, and until when. A mode that is not known binds fewest.
    fn retained(&self, key: &str) -> Attempt<Option<(LockMode, Timestamp)>> {
        let action = self.bucket.get_object(self.credentials(), key);
        let answer = self.send_with("GET", action, Some("retention"), &[], None)?;
        if answer.status() != 200 {
            return Ok(None);
        }
        let body = answer.body(ANSWER_MAX)?;
        let text = String::from_utf8_lossy(&body);
        let compliance = element(&text, "Mode") == Some(words(LockMode::Compliance));
        let mode = if compliance { LockMode::Compliance } else { LockMode::Governance };
        let until = element(&text, "RetainUntilDate").and_then(|t| t.parse::<Timestamp>().ok());
        Ok(until.map(|until| (mode, until)))
    }
}
