//! Pods that nobody runs: ready soon after they are made, and gone as soon as they are deleted. A thousand real processes
//! would measure the machine, not the programs; and what a program writes does not depend on them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The node that their manifests name.
pub(crate) const NODE: &str = "crowd";

/// Which pods are played, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    /// Those of this node; all pods of the cluster without.
    pub(crate) node: Option<&'static str>,
    /// An image whose pods never become ready, empty for none.
    pub(crate) never: &'static str,
    /// How long the others take.
    pub(crate) starts: Duration,
}

impl Cast {
    /// Pods of the node [`NODE`], ready at once.
    pub(crate) const NODE: Self = Self { node: Some(NODE), never: "", starts: Duration::ZERO };
}

/// The player of these pods; it stops when dropped.
pub(crate) struct Crowd(JoinHandle<()>);

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Crowd {
    /// Makes the node and begins.
    pub(crate) async fn start(client: Client, cast: Cast) -> anyhow::Result<Self> {
        let nodes: Api<Node> = Api::all(client.clone());
        // Pods of nodes that do not exist are collected as garbage, and a DaemonSet has none without a node.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        nodes.patch(NODE, &PatchParams::apply("bed").force(), &Patch::Apply(&node)).await?;
        // Admission marks a new node as not ready, which keeps the pods of DaemonSets away.
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(&json!({"spec": {"taints": null}}))).await?;
        Ok(Self(tokio::spawn(follow(client, cast))))
    }
}

async fn follow(client: Client, cast: Cast) {
    let mut settings = watcher::Config::default();
    if let Some(node) = cast.node {
        settings = settings.fields(&format!("spec.nodeName={node}"));
    }
    let numbers = Arc::new(AtomicU32::new(0));
    loop {
        let pods = Api::<Pod>::all(client.clone());
        let events = pin!(watcher(pods, settings.clone()));
        let played = events.try_for_each_concurrent(32, |event| {
            let (client, numbers) = (client.clone(), numbers.clone());
            async move {
                if let watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) = event {
                    // What fails because the pod has changed since is told again by the watch.
                    play(&client, &pod, &numbers, cast).await.ok();
                }
                Ok(())
            }
        });
        played.await.ok();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn play(client: &Client, pod: &Pod, numbers: &AtomicU32, cast: Cast) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        return api.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop);
    }
    if pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
        return Ok(());
    }
    if !cast.starts.is_zero() {
        tokio::time::sleep(cast.starts).await;
    }
    let status = status(pod, numbers.fetch_add(1, Ordering::Relaxed), cast.never);
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&json!({"status": status}))).await.map(drop)
}

fn status(pod: &Pod, number: u32, never: &str) -> Value {
    let containers = || pod.spec.iter().flat_map(|spec| &spec.containers);
    let ready = never.is_empty() || containers().all(|one| one.image.as_deref() != Some(never));
    let address = format!("10.245.{}.{}", number / 250 % 250, number % 250 + 1);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let state = if ready {
        json!({"running": {"startedAt": now}})
    } else {
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "there is no such image"}})
    };
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now});
    let containers: Vec<_> = containers()
        .map(|one| {
            json!({"name": one.name, "image": one.image, "imageID": one.image, "ready": ready, "started": ready,
                "restartCount": 0, "state": state})
        })
        .collect();
    json!({
        "phase": if ready { "Running" } else { "Pending" },
        "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "conditions": [condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready)],
        "containerStatuses": containers,
    })
}
