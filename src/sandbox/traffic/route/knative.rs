//! Knative Services, whose traffic goes to their revisions.

use serde_json::Value;

use super::Share;
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::workloads::World;

/// Knative: the Service of the app's name. What its status reports is what users get; each revision has a Service of its
/// name, and is counted by the ingress' Envoy as `NAMESPACE/REVISION`.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let key = ObjectKey::namespaced("serving.knative.dev/v1", "Service", &load.namespace, &load.app);
    let service = world.get(&key)?;
    let traffic = service.at("/status/traffic").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut shares: Vec<Share> = Vec::new();
    for entry in &traffic {
        let revision = entry.get("revisionName").and_then(Value::as_str).unwrap_or_default();
        let fraction = entry.get("percent").and_then(Value::as_f64).unwrap_or(0.0) / 100.0;
        match shares.iter_mut().find(|share| share.service == revision) {
            Some(share) => share.fraction += fraction,
            None => {
                let counted = Some(About::Cluster(format!("{}/{revision}", load.namespace)));
                shares.push(Share { service: revision.to_owned(), counted, fraction });
            }
        }
    }
    let left = 1.0 - shares.iter().map(|share| share.fraction).sum::<f64>();
    shares.extend(super::lost(left.max(0.0)));
    Some(shares)
}
