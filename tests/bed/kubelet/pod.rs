//! The life of one pod: bound, given a network and volumes, its containers started and watched, ended.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::watch;

use super::container::{Container, Start};
use super::{NAME, Running, Shared, status, volumes};
use crate::net::{NODE, ip};
use crate::process::output;

/// Time between two looks at a pod's processes.
const LOOK: Duration = Duration::from_millis(150);

/// A pod on this node.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// Its address.
    pub(super) ip: String,
    /// Its network namespace; `None` on the node's own network.
    pub(super) netns: Option<String>,
    /// Init containers and containers.
    pub(super) init: Vec<Container>,
    pub(super) containers: Vec<Container>,
    pub(super) since: String,
    told: Option<status::Told>,
    running: Running,
}

/// Lives until the pod is gone.
pub(super) async fn live(shared: Arc<Shared>, mut newest: watch::Receiver<Arc<Pod>>, running: Running) {
    let pod = newest.borrow_and_update().clone();
    let uid = pod.uid().unwrap_or_default();
    let told = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let mut life = Life::new(shared.clone(), pod, running);
    if life.pod.metadata.deletion_timestamp.is_none() {
        if let Err(error) = life.begin().await {
            shared.say(&format!("pod {told}: {error:#}"));
        }
        life.go_on(&mut newest).await;
    }
    // Closed: the object is gone already, and nobody waits for a graceful end.
    let grace = if newest.has_changed().is_err() { 0 } else { life.grace() };
    if let Err(error) = life.end(grace).await {
        shared.say(&format!("pod {told}: {error:#}"));
    }
    shared.forget(&uid);
}

impl Life {
    fn new(shared: Arc<Shared>, pod: Arc<Pod>, running: Running) -> Self {
        let folder = shared.folder.join(pod.uid().unwrap_or_default());
        let spec = pod.spec.clone().unwrap_or_default();
        let init = spec.init_containers.unwrap_or_default().into_iter().map(Container::new).collect();
        let containers = spec.containers.into_iter().map(Container::new).collect();
        let since = status::now();
        Self { shared, pod, folder, ip: NODE.to_owned(), netns: None, init, containers, since, told: None, running }
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), &self.pod.namespace().unwrap_or_default())
    }

    fn grace(&self) -> u64 {
        let seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
        u64::try_from(seconds).unwrap_or(0)
    }

    /// Binds the pod to this node and gives it a network.
    async fn begin(&mut self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let spec = self.pod.spec.clone().unwrap_or_default();
        if spec.node_name.is_none() {
            let name = self.pod.name_any();
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": NAME}});
            let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", self.pod.namespace().unwrap_or_default());
            let asked = http::Request::post(path).header("content-type", "application/json");
            let answer = self.shared.client.request_text(asked.body(serde_json::to_vec(&binding)?)?).await;
            answer.context("binding it")?;
        }
        if spec.host_network == Some(true) {
            return Ok(());
        }
        let number = self.shared.number();
        let netns = format!("p{number}");
        self.ip = format!("10.244.{}.{}", number / 256, number % 256);
        // Hairpin: a pod may reach itself through its Service.
        ip(&format!(
            "netns add {netns}\nlink add h{number} type veth peer name eth0 netns {netns}\n\
             link set h{number} master br0 up\nlink set h{number} type bridge_slave hairpin on\n"
        ))
        .await
        .context("making its network")?;
        let mut inside = Command::new("ip");
        inside.args(["-n", &netns, "-batch", "-"]);
        let lines = format!(
            "addr add {}/16 dev eth0\nlink set eth0 up\nlink set lo up\nroute add default via {NODE}\n",
            self.ip
        );
        crate::process::feed(inside, &lines).await.context("making its network")?;
        self.netns = Some(netns);
        Ok(())
    }

    /// Watches over the containers until the pod is to be deleted, or gone.
    async fn go_on(&mut self, newest: &mut watch::Receiver<Arc<Pod>>) {
        let mut problem = volumes::prepare(self).await.err();
        loop {
            if problem.is_some() {
                problem = volumes::prepare(self).await.err();
            }
            self.look(problem.as_ref()).await;
            self.tell().await;
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
            self.pod = newest.borrow_and_update().clone();
            if self.pod.metadata.deletion_timestamp.is_some() {
                return;
            }
        }
    }

    /// One look at every container: those that should run are started, those that run are probed.
    async fn look(&mut self, problem: Option<&anyhow::Error>) {
        if let Some(problem) = problem {
            for container in self.init.iter_mut().chain(&mut self.containers) {
                container.wait("ContainerCreating", &format!("{problem:#}"));
            }
            return;
        }
        let (mut init, mut containers) = (std::mem::take(&mut self.init), std::mem::take(&mut self.containers));
        for container in &mut init {
            self.look_at(container, "OnFailure").await;
            if !container.succeeded() {
                (self.init, self.containers) = (init, containers);
                return;
            }
        }
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone());
        for container in &mut containers {
            self.look_at(container, policy.as_deref().unwrap_or("Always")).await;
        }
        (self.init, self.containers) = (init, containers);
    }

    async fn look_at(&self, container: &mut Container, policy: &str) {
        container.notice_end(policy);
        if container.due() {
            match Start::of(self, &container.spec).await {
                Ok(start) => match container.start(&start) {
                    Ok(process) => {
                        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                        running.insert(container.spec.name.clone(), process);
                    }
                    Err(error) => container.wait("CreateContainerError", &format!("{error:#}")),
                },
                Err((reason, error)) => container.wait(reason, &format!("{error:#}")),
            }
        }
        container.probe(&self.shared.http, &self.ip).await;
    }

    /// Writes the status when it has changed.
    async fn tell(&mut self) {
        let (told, patch) = status::status(self, self.told.as_ref());
        if self.told.as_ref() != Some(&told) {
            let (api, name) = (self.api(), self.pod.name_any());
            match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => self.told = Some(told),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => self.shared.say(&format!("status of {name}: {error}")),
            }
        }
    }

    /// Ends the processes, takes the network away, and lets the object go.
    async fn end(&mut self, grace: u64) -> anyhow::Result<()> {
        let all: Vec<_> = self.containers.iter().chain(&self.init).filter_map(Container::process).collect();
        let deadline = Instant::now() + Duration::from_secs(grace);
        if grace > 0 && !all.is_empty() {
            // What a pod waits for before it is told to end: that nobody sends it requests any more.
            let pauses =
                self.containers.iter().filter_map(|one| one.spec.lifecycle.as_ref()?.pre_stop.as_ref()?.sleep.as_ref());
            let longest = pauses.filter_map(|pause| u64::try_from(pause.seconds).ok()).max().unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(longest.min(grace))).await;
        }
        for process in &all {
            process.signal(rustix::process::Signal::TERM);
        }
        for process in &all {
            process.stop(deadline.saturating_duration_since(Instant::now())).await;
        }
        if let Some(netns) = &self.netns {
            let mut command = Command::new("ip");
            command.args(["netns", "del", netns]);
            output(command).await.context("taking its network away")?;
        }
        std::fs::remove_dir_all(&self.folder).ok();
        let preconditions = Preconditions { uid: self.pod.uid(), ..Preconditions::default() };
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match self.api().delete(&self.pod.name_any(), &now).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error).context("letting its object go"),
        }
    }
}
