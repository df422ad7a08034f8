//! Pods of a node that does not exist: started, ready and ended by who watches them, without a process. They name the node
//! themselves, so that no scheduler is needed, and a real kubelet leaves them alone.

use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, ResourceExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use serin::sandbox::workloads::behaviour::BEHAVIOUR;

const NODE: &str = "fidelity";

/// Plays until it is dropped. A pod whose behaviour says `never-ready` runs and is never ready.
///
/// # Errors
/// When the watch ends, which it does not.
pub(crate) async fn play(client: kube::Client) -> anyhow::Result<()> {
    // Pods for other nodes, or for a scheduler, are somebody else's.
    let settings = watcher::Config::default().fields(&format!("spec.nodeName={NODE}"));
    let mut pods = pin!(watcher(Api::<Pod>::all(client.clone()), settings).default_backoff().applied_objects());
    while let Some(seen) = pods.next().await {
        // A watch that breaks, as by a compaction, begins again.
        let Ok(pod) = seen else { continue };
        // Somebody else may have changed it meanwhile, which is told by another event.
        if let Err(error) = attend(&client, &pod).await {
            eprintln!("pod {}: {error:#}", pod.name_any());
        }
    }
    anyhow::bail!("the watch of pods has ended")
}

async fn attend(client: &kube::Client, pod: &Pod) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let spec = pod.spec.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        return Ok(());
    }
    if pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")) {
        return Ok(());
    }
    let ready = !pod.annotations().get(BEHAVIOUR).is_some_and(|text| text.contains("never-ready"));
    let state = if ready { "True" } else { "False" };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let containers = spec.containers.iter().map(|container| {
        json!({
            "name": container.name, "image": container.image, "imageID": "", "ready": ready, "started": true,
            "restartCount": 0, "state": {"running": {"startedAt": now}},
        })
    });
    let status = json!({"status": {
        "phase": "Running", "podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}], "hostIP": "10.244.0.1",
        "startTime": now, "containerStatuses": containers.collect::<Vec<_>>(),
        "conditions": (["PodScheduled", "Initialized", "ContainersReady", "Ready"]).map(|kind| {
            let status = if kind.ends_with("Ready") { state } else { "True" };
            json!({"type": kind, "status": status, "lastTransitionTime": now})
        }),
    }});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}
