//! What the daemon remembers of a source, read from its ConfigMap by one-shot commands.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::kube::{CONFIG_MAPS, Direct};
use crate::controller::{CONFIRM_PRUNE, state_key, texts};
use crate::domain::Object;
use crate::plan::Inventory;
use crate::release::Ledger;

/// Label of the ConfigMaps that the daemon writes.
const OURS: &str = "app.kubernetes.io/managed-by=serin";

/// Ledger and inventory of a source.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) ledger: Ledger,
    pub(super) inventory: Inventory,
    /// The commit whose prune a person has confirmed.
    pub(super) confirmed: Option<String>,
}

impl Memory {
    /// The memory of one source; `None` before its first apply.
    pub(super) async fn of(direct: &Direct, namespace: &str, source: &str) -> anyhow::Result<Option<Self>> {
        let key = state_key(namespace, source);
        direct.get(CONFIG_MAPS, namespace, &key.name).await?.map(|object| Self::parse(&object)).transpose()
    }

    /// The memories of all sources by name.
    pub(super) async fn all(direct: &Direct, namespace: &str) -> anyhow::Result<BTreeMap<String, Self>> {
        let mut memories = BTreeMap::new();
        for object in direct.list(CONFIG_MAPS, Some(namespace), Some(OURS)).await? {
            if let Some(source) = object.name().strip_prefix("serin-") {
                memories.insert(source.to_owned(), Self::parse(&object)?);
            }
        }
        Ok(memories)
    }

    /// Reads the ConfigMap of a source.
    pub(super) fn parse(object: &Object) -> anyhow::Result<Self> {
        let reading = || format!("reading {}", object.key());
        let ledger = texts::ledger(object).map(|text| Ledger::from_json(&text)).transpose().with_context(reading)?;
        let inventory =
            texts::inventory(object).map(|text| serde_json::from_str(&text)).transpose().with_context(reading)?;
        Ok(Self {
            ledger: ledger.map(|(ledger, _)| ledger).unwrap_or_default(),
            inventory: inventory.unwrap_or_default(),
            confirmed: object.annotation(CONFIRM_PRUNE).map(str::to_owned),
        })
    }
}
