//! serin as the bed runs it: the Deployment, the ServiceAccount and exactly the rights of `deploy/`, the definitions of
//! `crds/`, and a configuration that names a repository in Gitea.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::gitea::{self, OWNER, Repository};
use super::prometheus;
use super::world::{Bed, Limit, documents, eventually};

/// Name of the cluster in statuses and branches.
pub(crate) const CLUSTER: &str = "bed";
/// The namespace that `deploy/` names.
const NAMESPACE: &str = "serin-system";
/// Ports of the daemons: all of them share the node's network.
static NEXT_PORT: AtomicU16 = AtomicU16::new(21000);

/// How a daemon differs from the one of `deploy/`.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether it waits for the Lease.
    pub(crate) leader_election: bool,
    /// Traffic provider of canaries that name none.
    pub(crate) provider: &'static str,
    /// The only namespace whose canaries it runs.
    pub(crate) only_namespace: Option<&'static str>,
    /// The folder of the repository that it applies.
    pub(crate) path: &'static str,
    /// The file of values for the templates in it.
    pub(crate) values: Option<&'static str>,
    /// The address of the repository, when that is not Gitea's own.
    pub(crate) url: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { leader_election: true, provider: "contour", only_namespace: None, path: "apps", values: None, url: None }
    }
}

/// A running daemon.
pub(crate) struct Serin {
    bed: Arc<Bed>,
    /// Its namespace.
    pub(crate) namespace: String,
    port: u16,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Serin {
    /// Applies `crds/` and the cluster roles.
    pub(crate) async fn install(bed: &Bed) -> anyhow::Result<()> {
        bed.apply_files(&root().join("crds")).await?;
        for object in manifest("rbac.yaml")? {
            if kind(&object) == "ClusterRole" {
                bed.apply_one(object).await?;
            }
        }
        Ok(())
    }

    /// Applies `deploy/` in a namespace of its own and waits until the daemon is ready.
    pub(crate) async fn deploy(
        bed: &Arc<Bed>,
        name: &str,
        repository: &Repository<'_>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        Self::start(bed, name, Some(repository), options).await
    }

    /// The same without a repository: it runs every canary of the cluster, as Flagger does.
    pub(crate) async fn deploy_for_all(bed: &Arc<Bed>, name: &str, options: &Options) -> anyhow::Result<Self> {
        Self::start(bed, name, None, options).await
    }

    async fn start(
        bed: &Arc<Bed>,
        name: &str,
        repository: Option<&Repository<'_>>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let namespace = format!("serin-{name}");
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        bed.namespace(&namespace).await?;
        // The Deployment mounts the Secret, whether there is a forge or not.
        let token = if repository.is_some() { BASE64.encode(&bed.gitea()?.token) } else { String::new() };
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "serin-credentials", "namespace": namespace},
            "data": {"git-token": token, "forge-token": token}});
        bed.apply_one(serde_json::from_value(secret)?).await?;
        let made = Self { bed: bed.clone(), namespace, port };
        for file in ["rbac.yaml", "configmap.yaml", "deployment.yaml"] {
            for object in manifest(file)? {
                if kind(&object) != "ClusterRole" {
                    bed.apply_one(made.adapted(&object, repository, options)?).await?;
                }
            }
        }
        made.ready().await?;
        Ok(made)
    }

    /// An object of `deploy/`, in this namespace, and what a bed cannot have otherwise: the network of the node, because
    /// a token is sent over plain HTTP to the own machine only, and therefore a port of its own.
    fn adapted(
        &self,
        object: &DynamicObject,
        repository: Option<&Repository<'_>>,
        options: &Options,
    ) -> anyhow::Result<DynamicObject> {
        let text = serde_json::to_string(object)?.replace(NAMESPACE, &self.namespace);
        let mut object: Value = serde_json::from_str(&text)?;
        match object["kind"].as_str().unwrap_or_default() {
            "ClusterRoleBinding" => object["metadata"]["name"] = self.namespace.as_str().into(),
            "ConfigMap" => object["data"]["serin.yaml"] = self.configuration(repository, options).into(),
            "Deployment" => {
                let pod = &mut object["spec"]["template"]["spec"];
                pod["hostNetwork"] = true.into();
                pod["containers"][0]["ports"][0]["containerPort"] = self.port.into();
                for probe in ["readinessProbe", "livenessProbe"] {
                    pod["containers"][0][probe]["periodSeconds"] = 1.into();
                }
            }
            _ => {}
        }
        Ok(serde_json::from_value(object)?)
    }

    fn configuration(&self, repository: Option<&Repository<'_>>, options: &Options) -> String {
        let Options { leader_election, provider, only_namespace, .. } = options;
        let (namespace, port) = (&self.namespace, self.port);
        let common = json!({
            "cluster": CLUSTER,
            "listen": format!("0.0.0.0:{port}"),
            "provider": provider,
            "flagger": {"namespace": only_namespace.unwrap_or_default()},
            "metricsServer": prometheus::ADDRESS,
            "leaderElection": {"enabled": leader_election, "namespace": namespace, "name": "serin"},
            "canaries": if repository.is_some() { "owned" } else { "all" },
            "sources": repository.map(|repository| source(repository, options)).into_iter().collect::<Vec<_>>(),
        });
        common.to_string()
    }

    /// Waits until the Deployment is available.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let api: Api<Deployment> = Api::namespaced(self.bed.admin(), &self.namespace);
        let waited = eventually("serin being ready", Limit::START, async || {
            let status = api.get("serin").await?.status.unwrap_or_default();
            if status.ready_replicas != Some(1) {
                bail!("{} of 1 pods ready", status.ready_replicas.unwrap_or(0));
            }
            Ok(())
        });
        waited.await.with_context(|| format!("{}\n{}", self.namespace, self.log(20)))
    }

    /// Scales it to nothing, as docs/migration.md tells those who go back to Flagger, and waits until its pod is gone.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        let api: Api<Deployment> = Api::namespaced(self.bed.admin(), &self.namespace);
        let none = json!({"spec": {"replicas": 0}});
        api.patch_scale("serin", &PatchParams::default(), &Patch::Merge(&none)).await?;
        eventually("serin being gone", Limit::START, async || {
            let left = self.bed.kubelet()?.processes(&self.namespace, "serin-").len();
            anyhow::ensure!(left == 0, "{left} of its processes run");
            Ok(())
        })
        .await
    }

    /// kill -9. The kubelet starts it again.
    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        for (_, process) in self.bed.kubelet()?.processes(&self.namespace, "serin-") {
            process.kill().await;
        }
        Ok(())
    }

    /// The last lines of its log.
    pub(crate) fn log(&self, lines: usize) -> String {
        let logs = self.bed.kubelet().map(|kubelet| kubelet.logs(&self.namespace)).unwrap_or_default();
        logs.last().map(|log| super::process::tail(log, lines)).unwrap_or_default()
    }
}

fn source(repository: &Repository<'_>, options: &Options) -> Value {
    let token = |file: &str| json!({"file": format!("/etc/serin/credentials/{file}")});
    json!({
        "name": "apps",
        "url": options.url.clone().unwrap_or_else(|| repository.url()),
        "interval": "2s",
        "path": options.path,
        "values": options.values,
        "auth": {"tokenFrom": token("git-token")},
        "writeBack": {
            "status": {"branch": format!("serin/status/{CLUSTER}")},
            "revert": "commit",
            "author": {"name": "serin", "email": "serin@example.com"},
        },
        "forge": {
            "kind": "gitea",
            "api": gitea::ADDRESS,
            "repository": format!("{OWNER}/{}", repository.name),
            "tokenFrom": token("forge-token"),
        },
    })
}

/// The objects of a file of `deploy/`.
pub(crate) fn manifest(file: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let path = root().join("deploy").join(Path::new(file));
    documents(&std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?)
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default()
}
