//! A kubelet for one node whose pods are processes: no container runtime, no images.
//!
//! A container's image is the name of a binary of this machine. Its process runs in the pod's network namespace with an
//! address of its own, in a root folder of its own that holds the machine's `/usr` and the pod's volumes where the manifest
//! wants them, as the user that the manifest names. Probes, restarts, status and graceful deletion follow the Kubernetes
//! documentation; what no test needs (resources, exec, logs, updates of volumes) is left out.

mod container;
mod environment;
mod pod;
mod probe;
mod status;
mod volumes;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::net::NODE;
use super::process::Process;

/// The name of the node.
pub(crate) const NAME: &str = "n1";
/// The first address that is given to a pod: those below are the node's.
const FIRST: u32 = 256;

/// A running kubelet; it stops watching when dropped.
pub(crate) struct Kubelet {
    shared: Arc<Shared>,
    following: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What the tasks of all pods share.
struct Shared {
    client: Client,
    /// A folder for each pod, by its UID.
    folder: PathBuf,
    images: Mutex<Vec<(String, PathBuf)>>,
    pods: Mutex<HashMap<String, Entry>>,
    next: AtomicU32,
    http: reqwest::Client,
}

/// A pod on this node.
struct Entry {
    namespace: String,
    name: String,
    newest: watch::Sender<Arc<Pod>>,
    running: Running,
}

/// The processes of a pod's containers.
type Running = Arc<Mutex<HashMap<String, Arc<Process>>>>;

impl Kubelet {
    /// Registers the node and starts watching pods.
    pub(crate) async fn start(client: Client, folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        register(&client).await.context("registering the node")?;
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let shared = Arc::new(Shared {
            client,
            folder,
            images: Mutex::default(),
            pods: Mutex::default(),
            next: AtomicU32::new(FIRST),
            http,
        });
        let following = tokio::spawn(follow(shared.clone()));
        Ok(Self { shared, following })
    }

    /// Lets the pods be: the bed ends.
    pub(crate) fn stop(&self) {
        self.following.abort();
    }

    /// Says which binary the images are whose names begin so; their tags mean nothing.
    pub(crate) fn image(&self, prefix: &str, binary: PathBuf) {
        self.shared.images.lock().unwrap_or_else(PoisonError::into_inner).push((prefix.to_owned(), binary));
    }

    /// The running processes of the pods whose names begin so, with the pods' names.
    pub(crate) fn processes(&self, namespace: &str, prefix: &str) -> Vec<(String, Arc<Process>)> {
        let pods = self.shared.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let named = pods.values().filter(|entry| entry.namespace == namespace && entry.name.starts_with(prefix));
        named
            .flat_map(|entry| {
                let running = entry.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.values().map(|process| (entry.name.clone(), process.clone())).collect::<Vec<_>>()
            })
            .filter(|(_, process)| process.exit_code().is_none())
            .collect()
    }

    /// The log files of a namespace's pods, newest last; a container that was started again continues its file.
    pub(crate) fn logs(&self, namespace: &str) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.shared.folder.join("logs")).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = found
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{namespace}_")))
            })
            .collect();
        files.sort_by_key(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok());
        files
    }
}

impl Shared {
    /// A line for its log.
    fn say(&self, words: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("kubelet.log"));
        // What cannot be logged is lost; a test that misses it fails by itself.
        file.and_then(|mut file| writeln!(file, "{} {words}", status::now())).ok();
    }

    fn binary(&self, image: &str) -> Option<PathBuf> {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = images.iter().filter(|(prefix, _)| image.starts_with(prefix.as_str()));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, binary)| binary.clone())
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn forget(&self, uid: &str) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

async fn register(client: &Client) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = json!({"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": labels}, "spec": {"taints": []}});
    let parameters = PatchParams::apply("kubelet").force();
    nodes.patch(NAME, &parameters, &Patch::Apply(&node)).await?;
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "10000"});
    let now = status::now();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": NODE}, {"type": "Hostname", "address": NAME}],
        "capacity": room, "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "pods are processes",
            "lastHeartbeatTime": now, "lastTransitionTime": now}],
    }});
    nodes.patch_status(NAME, &PatchParams::default(), &Patch::Merge(&status)).await?;
    // Admission marks a new node as not ready, and nobody else would take that back.
    let ready = json!({"spec": {"taints": null}});
    nodes.patch(NAME, &PatchParams::default(), &Patch::Merge(&ready)).await?;
    Ok(())
}

/// Starts a task for each pod of this node, or of none yet, and keeps it informed.
async fn follow(shared: Arc<Shared>) {
    let api: Api<Pod> = Api::all(shared.client.clone());
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) if ours(&pod) => tell(&shared, pod),
            Ok(watcher::Event::Delete(pod)) => {
                // Gone without waiting for us: its channel closes, and its task clears away.
                shared.forget(&pod.uid().unwrap_or_default());
            }
            Ok(_) => {}
            Err(error) => shared.say(&format!("watching pods: {error}")),
        }
    }
}

/// Whether a pod belongs here. Pods that ask for other nodes are left for those who play these.
fn ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    match &spec.node_name {
        Some(node) => node == NAME,
        None => spec.node_selector.iter().flatten().all(|(key, _)| key == "kubernetes.io/os"),
    }
}

fn tell(shared: &Arc<Shared>, pod: Pod) {
    let Some(uid) = pod.uid() else { return };
    let ended = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let over = pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(ended);
    let mut pods = shared.pods.lock().unwrap_or_else(PoisonError::into_inner);
    let pod = Arc::new(pod);
    if let Some(entry) = pods.get(&uid) {
        entry.newest.send_replace(pod);
        return;
    }
    if over && pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    let (newest, receiver) = watch::channel(pod.clone());
    let running = Running::default();
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    pods.insert(uid, Entry { namespace, name, newest, running: running.clone() });
    tokio::spawn(pod::live(shared.clone(), receiver, running));
}
