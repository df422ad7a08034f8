//! A forge in memory, for the sandbox, the demo and tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::domain::Sha;
use crate::ports::{CommitStatus, Forge, ForgeError};

/// Keeps what was posted, in order.
#[derive(Debug, Default)]
pub struct LocalForge {
    posted: Mutex<Vec<CommitStatus>>,
}

impl LocalForge {
    /// Everything posted so far, oldest first.
    pub fn posted(&self) -> Vec<CommitStatus> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Forge for LocalForge {
    async fn set_status(&self, status: &CommitStatus) -> Result<(), ForgeError> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).push(status.clone());
        Ok(())
    }

    async fn statuses(&self, sha: &Sha) -> Result<Vec<CommitStatus>, ForgeError> {
        let mut in_force: BTreeMap<String, CommitStatus> = BTreeMap::new();
        for status in self.posted().into_iter().filter(|status| status.sha == *sha) {
            in_force.insert(status.context.clone(), status);
        }
        Ok(in_force.into_values().collect())
    }
}
