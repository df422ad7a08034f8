//! What a test sees: the bed with the parts that it asked for, and a namespace of its own in it.

use std::ops::BitOr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Client, ResourceExt as _};

use super::control_plane::{self, ControlPlane};
use super::gitea::Gitea;
use super::kubelet::Kubelet;
use super::process::Processes;
use super::prometheus::Prometheus;
use super::serin::Serin;
use super::{gateway, install, net};

/// Field manager of what the harness applies.
const MANAGER: &str = "bed";

/// Parts of a bed: what a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts(u8);

impl Parts {
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);
    /// etcd, API server and controller manager.
    pub(crate) const API: Self = Self(1);
    /// Pods as processes, kube-proxy and DNS.
    pub(crate) const PODS: Self = Self(2 | Self::API.0);
    /// Contour and Envoy, with a Gateway.
    pub(crate) const GATEWAY: Self = Self(4 | Self::PODS.0);
    /// Prometheus, which scrapes Envoy.
    pub(crate) const PROMETHEUS: Self = Self(8);
    /// Gitea.
    pub(crate) const GITEA: Self = Self(16);
    /// The control plane, which writes down what ServiceAccounts ask of it.
    pub(crate) const AUDIT: Self = Self(32 | Self::API.0);
    /// Everything that tests need.
    pub(crate) const ALL: Self = Self(31);

    const NAMES: [(&str, Self); 6] = [
        ("api", Self::API),
        ("pods", Self::PODS),
        ("gateway", Self::GATEWAY),
        ("prometheus", Self::PROMETHEUS),
        ("gitea", Self::GITEA),
        ("all", Self::ALL),
    ];

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it is part of what is wanted, however little of it.
    pub(crate) fn meets(self, wanted: Self) -> bool {
        self != Self::NONE && wanted.has(self)
    }

    /// Their names.
    pub(crate) fn words(self) -> String {
        let single = &Self::NAMES[..5];
        single.iter().filter(|(_, parts)| self.has(*parts)).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// By the names that the command line has for them.
    pub(crate) fn named(names: &[String]) -> anyhow::Result<Self> {
        names.iter().try_fold(Self::NONE, |sum, name| {
            let found = Self::NAMES.iter().find(|(known, _)| known == name);
            let (_, parts) =
                found.with_context(|| format!("{name}: one of api, pods, gateway, prometheus, gitea, all"))?;
            Ok(sum | *parts)
        })
    }
}

impl BitOr for Parts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

/// How long to wait for something, at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(pub(crate) Duration);

impl Limit {
    /// For a part to start on a busy machine.
    pub(crate) const START: Self = Self(Duration::from_secs(60));
}

/// Asks until it succeeds; after the limit, an error that says what was waited for and what was seen last.
pub(crate) async fn eventually<T>(
    what: &str,
    limit: Limit,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() > limit.0 => {
                return Err(error.context(format!("waited {} s for {what}; last seen", limit.0.as_secs())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A running bed.
pub(crate) struct Bed {
    /// Its folder: logs and data of all parts.
    pub(crate) folder: PathBuf,
    /// All parts that run as processes.
    pub(crate) processes: Processes,
    control_plane: Option<ControlPlane>,
    kubeconfig: PathBuf,
    /// For requests to the parts.
    pub(crate) http: reqwest::Client,
    admin: Client,
    kubelet: Option<Kubelet>,
    prometheus: Option<Prometheus>,
    gitea: Option<Gitea>,
}

impl Bed {
    /// Starts the parts, in a process that is inside a bed's namespaces.
    pub(crate) async fn start(parts: Parts, folder: PathBuf) -> anyhow::Result<Arc<Self>> {
        net::node(&folder).await?;
        let processes = Processes::default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        // The three know nothing of each other.
        let (control_plane, prometheus, gitea) = tokio::try_join!(
            ControlPlane::start(&folder, &processes, parts.has(Parts::AUDIT)),
            when(parts.has(Parts::PROMETHEUS), Prometheus::start(&folder, &processes, http.clone())),
            when(parts.has(Parts::GITEA), Gitea::start(&folder, &processes, http.clone())),
        )?;
        let kubeconfig = control_plane.kubeconfig();
        let admin = control_plane::client(&kubeconfig, None).await?;
        let control_plane = Some(control_plane);
        let mut bed =
            Self { folder, processes, control_plane, kubeconfig, http, admin, kubelet: None, prometheus, gitea };
        if parts.has(Parts::PODS) {
            bed.start_pods().await.context("starting what pods need")?;
        }
        if parts.has(Parts::GATEWAY) {
            gateway::start(&bed).await.context("starting the gateway")?;
        }
        if parts.has(Parts::GITEA) {
            Serin::install(&bed).await.context("installing what serin needs")?;
        }
        Ok(Arc::new(bed))
    }

    async fn start_pods(&mut self) -> anyhow::Result<()> {
        let kubelet = Kubelet::start(self.admin(), self.folder.join("pods")).await?;
        kubelet.image("ghcr.io/stefanprodan/podinfo", install::binary("podinfo", "podinfo")?);
        kubelet.image("stefanprodan/podinfo", install::binary("podinfo", "podinfo")?);
        kubelet.image("registry.example.com/shop/", install::binary("podinfo", "podinfo")?);
        // A build during the run must not change the daemon under test.
        let (built, ours) = (Path::new(env!("CARGO_BIN_EXE_serin")), self.folder.join("serin"));
        std::fs::hard_link(built, &ours).or_else(|_| std::fs::copy(built, &ours).map(drop))?;
        kubelet.image("serin", ours);
        self.kubelet = Some(kubelet);
        // After the node: kube-proxy asks for its address, once.
        self.control_plane()?.route(&self.processes).await
    }

    /// A cluster of someone else, by its kubeconfig: it offers [`Parts::API`].
    pub(crate) async fn elsewhere(kubeconfig: PathBuf, folder: PathBuf) -> anyhow::Result<Arc<Self>> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        let admin = control_plane::client(&kubeconfig, None).await?;
        let processes = Processes::default();
        let (control_plane, kubelet, prometheus, gitea) = (None, None, None, None);
        Ok(Arc::new(Self { folder, processes, control_plane, kubeconfig, http, admin, kubelet, prometheus, gitea }))
    }

    /// The control plane; a cluster of someone else has none that a test may touch.
    pub(crate) fn control_plane(&self) -> anyhow::Result<&ControlPlane> {
        self.control_plane.as_ref().context("the control plane is not ours")
    }

    /// The kubelet; a test that needs pods has one.
    pub(crate) fn kubelet(&self) -> anyhow::Result<&Kubelet> {
        self.kubelet.as_ref().context("this bed has no pods: the test must say that it needs Parts::PODS")
    }

    /// Prometheus; a test that needs it has it.
    pub(crate) fn prometheus(&self) -> anyhow::Result<&Prometheus> {
        self.prometheus.as_ref().context("this bed has no Prometheus: the test must say that it needs it")
    }

    /// Gitea; a test that needs it has it.
    pub(crate) fn gitea(&self) -> anyhow::Result<&Gitea> {
        self.gitea.as_ref().context("this bed has no Gitea: the test must say that it needs it")
    }

    /// Ends all parts.
    pub(crate) async fn stop(&self) {
        if let Some(kubelet) = &self.kubelet {
            kubelet.stop();
        }
        self.processes.stop().await;
    }

    /// The client of a member of `system:masters`.
    pub(crate) fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// A client that acts as a user: `system:serviceaccount:NS:NAME`, or any other name.
    pub(crate) async fn client(&self, user: &str) -> anyhow::Result<Client> {
        control_plane::client(&self.kubeconfig, Some(user)).await
    }

    /// The kubeconfig of the member of `system:masters`.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Makes a namespace, and waits until the controller manager has made its default ServiceAccount.
    pub(crate) async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let all: Api<Namespace> = Api::all(self.admin());
        let wanted = serde_json::from_value(serde_json::json!({"metadata": {"name": name}}))?;
        all.create(&PostParams::default(), &wanted).await.with_context(|| format!("making the namespace {name}"))?;
        self.account(name, "default").await
    }

    /// Waits for a ServiceAccount.
    pub(crate) async fn account(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(self.admin(), namespace);
        eventually(&format!("the ServiceAccount {namespace}/{name}"), Limit::START, async || {
            accounts.get(name).await.map(drop).map_err(anyhow::Error::from)
        })
        .await
    }

    /// Applies the documents of a YAML text by server-side apply, and returns what became of them.
    pub(crate) async fn apply(&self, yaml: &str) -> anyhow::Result<Vec<DynamicObject>> {
        let mut applied = Vec::new();
        for document in documents(yaml)? {
            applied.push(self.apply_one(document).await?);
        }
        Ok(applied)
    }

    /// Applies one object; its type may just have been installed.
    pub(crate) async fn apply_one(&self, object: DynamicObject) -> anyhow::Result<DynamicObject> {
        let types = object.types.clone().context("an object without apiVersion and kind")?;
        let name = object.name_any();
        let told = format!("applying {} {name}", types.kind);
        let gvk = GroupVersionKind::try_from(&types)?;
        let (resource, scope) = eventually(&format!("the type {}", types.kind), Limit::START, async || {
            let (resource, capabilities) = pinned_kind(&self.admin(), &gvk).await?;
            Ok((resource, capabilities.scope))
        })
        .await
        .with_context(|| told.clone())?;
        let api = self.api(&resource, (scope == Scope::Namespaced).then(|| object.namespace()).flatten().as_deref());
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.context(told)
    }

    /// Applies all YAML files of a folder, or one file.
    pub(crate) async fn apply_files(&self, path: &Path) -> anyhow::Result<()> {
        let mut files = if path.is_dir() {
            std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?
        } else {
            vec![path.to_owned()]
        };
        files.retain(|file| {
            let named = |name: &str| file.file_name().is_some_and(|found| found == name);
            file.extension().is_some_and(|extension| extension == "yaml") && !named("kustomization.yaml")
        });
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file)?;
            self.apply(&text).await.with_context(|| format!("applying {}", file.display()))?;
        }
        Ok(())
    }

    /// The objects of a type.
    pub(crate) fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.admin(), namespace, resource),
            None => Api::all_with(self.admin(), resource),
        }
    }

    /// Words for people who want to look around.
    pub(crate) fn how_to_enter(&self) -> String {
        format!(
            "  folder:      {0}\n  to enter it: nsenter --all --target PID    (PID: the child of `unshare` in `pgrep -af unshare`)\n  then:        export KUBECONFIG={1}\n  Envoy {2}, Prometheus {3}, Gitea {4}",
            self.folder.display(),
            self.kubeconfig.display(),
            gateway::ADDRESS,
            super::prometheus::ADDRESS,
            super::gitea::ADDRESS,
        )
    }
}

/// Waits for something that is wanted perhaps.
async fn when<T>(wanted: bool, made: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    if wanted { made.await.map(Some) } else { Ok(None) }
}

/// The objects of a YAML text; documents without content are left out.
pub(crate) fn documents(yaml: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let values: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).context("reading YAML")?;
    let objects = values.into_iter().filter(|value| !value.is_null());
    objects.map(|value| serde_json::from_value(value).context("reading an object")).collect()
}

/// Fails with what was expected and what was seen.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, expected: &T) -> anyhow::Result<()> {
    if seen != expected {
        bail!("{what}\n  expected: {expected:?}\n  seen:     {seen:?}");
    }
    Ok(())
}
