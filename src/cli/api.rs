//! The lists of `/api`, from the daemon's own watch caches: asking costs the cluster nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::get;
use super::memory::Memory;
use crate::controller::state_key;
use crate::domain::Gvk;
use crate::http::{List, Records};
use crate::ports::{Cluster, ClusterError};

/// Reads what the daemon has cached.
pub(super) struct CachedRecords {
    pub(super) cluster: Arc<dyn Cluster>,
    /// Where the memories of the sources are.
    pub(super) namespace: String,
    /// Names of the configured sources.
    pub(super) sources: Vec<String>,
}

#[async_trait]
impl Records for CachedRecords {
    async fn records(&self, list: List, namespace: Option<&str>) -> Result<Vec<Value>, String> {
        let memories = self.memories().await.map_err(|error| format!("{error:#}"))?;
        Ok(match list {
            List::Canaries => {
                let canaries = Gvk::new("flagger.app/v1beta1", "Canary");
                let objects = self.cluster.list(&canaries, namespace).await.map_err(unanswered)?;
                objects.iter().map(|object| get::canary(object, &memories)).collect()
            }
            List::Releases => get::all_releases(&memories, namespace),
            List::Sources => get::sources(&memories),
        })
    }
}

impl CachedRecords {
    /// The memories of the sources; empty ones of those that have not applied yet.
    async fn memories(&self) -> anyhow::Result<BTreeMap<String, Memory>> {
        let mut memories = BTreeMap::new();
        for source in &self.sources {
            let object = self.cluster.get(&state_key(&self.namespace, source)).await?;
            let memory = object.as_deref().map(Memory::parse).transpose()?;
            memories.insert(source.clone(), memory.unwrap_or_default());
        }
        Ok(memories)
    }
}

fn unanswered(error: ClusterError) -> String {
    format!("listing canaries: {error}")
}
