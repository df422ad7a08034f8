//! Pods that nobody runs: a node whose pods are ready as soon as they are bound to it, and gone as soon as they are deleted.
//! A thousand real processes would measure the machine, not the programs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinHandle;

/// The node that their manifests name.
pub(super) const NODE: &str = "crowd";

/// The player of these pods; it stops when dropped.
pub(super) struct Crowd(JoinHandle<()>);

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Crowd {
    /// Makes the node and begins.
    pub(super) async fn start(client: Client) -> anyhow::Result<Self> {
        let nodes: Api<Node> = Api::all(client.clone());
        // Pods of nodes that do not exist are collected as garbage.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        nodes.patch(NODE, &PatchParams::apply("bed").force(), &Patch::Apply(&node)).await?;
        Ok(Self(tokio::spawn(follow(client))))
    }
}

async fn follow(client: Client) {
    let settings = watcher::Config::default().fields(&format!("spec.nodeName={NODE}"));
    let numbers = Arc::new(AtomicU32::new(0));
    loop {
        let pods = Api::<Pod>::all(client.clone());
        let events = pin!(watcher(pods, settings.clone()));
        let played = events.try_for_each_concurrent(32, |event| {
            let (client, numbers) = (client.clone(), numbers.clone());
            async move {
                if let watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) = event {
                    // What fails because the pod has changed since is told again by the watch.
                    play(&client, &pod, &numbers).await.ok();
                }
                Ok(())
            }
        });
        played.await.ok();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn play(client: &Client, pod: &Pod, numbers: &AtomicU32) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        return api.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop);
    }
    if pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
        return Ok(());
    }
    let number = numbers.fetch_add(1, Ordering::Relaxed);
    let address = format!("10.245.{}.{}", number / 250 % 250, number % 250 + 1);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let ready = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let containers: Vec<_> = containers
        .map(|one| {
            json!({"name": one.name, "image": one.image, "imageID": one.image, "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": now}}})
        })
        .collect();
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "conditions": [ready("PodScheduled"), ready("Initialized"), ready("ContainersReady"), ready("Ready")],
        "containerStatuses": containers,
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.map(drop)
}
