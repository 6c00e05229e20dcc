//! Settings that change: a new generation of the config, whose put-if-absent is the change (SPEC 5).

use super::Repository;
use crate::backend::Put;
use crate::error::{Error, Result};
use crate::parity;
use bulla_repo_format::ObjectName;
use bulla_repo_format::config::Config;
use bulla_repo_format::limits::OBJECT_MAX;

impl Repository {
    /// Says how much parity writers add to new packs from now on (SPEC 18); `None`: none. Sidecars that are there stay.
    pub fn set_parity(&mut self, percent: Option<u8>) -> Result<()> {
        self.require_writable()?;
        percent.map_or(Ok(()), parity::check_percent)?;
        if self.config.parity == percent {
            return Ok(());
        }
        let name = ObjectName::Config(self.config.generation);
        let bytes = self.backend.get(&name, OBJECT_MAX)?;
        let open = |bytes: &[u8], generation| {
            Config::open(bytes, generation, &self.ring_key)
                .map_err(|e| Error::object(&ObjectName::Config(generation), e))
        };
        let mut next = open(&bytes, self.config.generation)?;
        next.generation = next.generation.saturating_add(1);
        next.previous = Some(*blake3::hash(&bytes).as_bytes());
        next.parity = percent;
        let sealed = next.seal(&self.ring_key, &self.env.random());
        // What nobody could open must not become the newest.
        let next = open(&sealed, next.generation)?;
        if self.backend.put(&ObjectName::Config(next.generation), &[&sealed])? == Put::Exists {
            let text = "another client changed the settings of the repository meanwhile; run it again";
            return Err(Error::Refused(text.into()));
        }
        self.backend.flush()?;
        self.config = next;
        Ok(())
    }
}
