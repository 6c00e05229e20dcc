//! TLS: only certificates of authorities that are trusted, which `--cacert` names.

use super::servers::{S3, store, store_trusting};
use bulla_engine::backend::Put;
use bulla_engine::format::{ObjectName, RunId};
use std::time::Instant;

#[test]
fn a_store_behind_tls_is_reached_if_its_authority_is_trusted_and_not_otherwise() {
    let Some((server, authority, port)) = S3::seaweed_with_tls() else { return };
    let url =
        server.url().replace("s3:http:", "s3:https:").replace(&server.port.to_string(), &port.to_string());
    let name = ObjectName::Hold(RunId::new([1; 16]));
    let trusting = store_trusting(&url, &authority).backend();
    assert_eq!(trusting.put(&name, &[b"bytes"]).unwrap(), Put::Created);
    assert_eq!(trusting.put(&name, &[b"other"]).unwrap(), Put::Exists);
    assert_eq!(trusting.get(&name, 9).unwrap(), b"bytes");
    // A certificate nobody vouches for is no trouble that passes: it is told at once.
    let begun = Instant::now();
    let text = store(&url).backend().get(&name, 9).unwrap_err().to_string();
    assert!(text.contains("TLS") && text.contains("locks/0101"), "{text}");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}
