//! A whole world in one process: the sandbox cluster, a bare repository, a forge that remembers, and the unmodified
//! daemon between them, all on one simulated clock.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use super::clock::SimClock;
use super::person::Remote;
use crate::controller::{self, Drain, Outgoing, Ports, Settings, Source, SourceSettings};
use crate::domain::{CanaryKey, Object};
use crate::forge::LocalForge;
use crate::ports::{Clock as _, Cluster, Forge, GitRemote, Identity};
use crate::sandbox::Sandbox;
use crate::sandbox::{api, prometheus};
use crate::telemetry::Telemetry;
use crate::{alerts, cluster, git, hooks, metrics, traffic};

/// Name of the cluster in statuses and branches.
pub const CLUSTER: &str = "demo";
/// Namespace of serin's own objects.
pub const NAMESPACE: &str = "serin-system";
/// The time at which every simulated world begins: a Monday morning.
const START: &str = "2026-01-05T08:00:00Z";

/// The custom types of every bed: generating them takes longer than many a scenario.
static DEFINITIONS: LazyLock<Vec<serde_json::Value>> =
    LazyLock::new(|| crate::api::crd::all().into_iter().chain(crate::sandbox::definitions()).collect());

/// Why a bed could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// A folder or port.
    #[error("setting up the sandbox: {0}")]
    Io(#[from] std::io::Error),
    /// The repository.
    #[error("setting up the repository: {0}")]
    Git(#[from] git2::Error),
    /// The remote.
    #[error("opening the repository: {0}")]
    Remote(#[from] crate::ports::GitError),
    /// An object that the sandbox refuses.
    #[error("installing {0}: {1}")]
    Object(String, String),
}

/// What a bed is made with.
#[derive(Debug, Clone)]
pub struct BedOptions {
    /// Seed of everything random.
    pub seed: u64,
    /// Folder of the source's manifests.
    pub path: String,
    /// Values file of the source.
    pub values: Option<String>,
    /// Time between polls of the source.
    pub interval: Duration,
    /// Run canaries that no source owns.
    pub all_canaries: bool,
    /// Whether there is a source at all.
    pub source: bool,
    /// The source's bare repository and the address that the daemon knows it by; `None`: a new one in a folder of its
    /// own, by its `file` address.
    pub remote: Option<(PathBuf, String)>,
    /// Base URL of the metrics server that the daemon asks; `None`: the sandbox's own.
    pub metrics_server: Option<String>,
    /// The only namespace that the daemon looks at.
    pub only_namespace: Option<String>,
    /// Changes other settings of the daemon.
    pub adjust: Option<Adjust>,
}

/// A change of the daemon's settings.
#[derive(Clone)]
pub struct Adjust(pub Arc<dyn Fn(&mut Settings) + Send + Sync>);

impl std::fmt::Debug for Adjust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Adjust")
    }
}

impl Default for BedOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            path: "clusters/demo".to_owned(),
            values: Some("values/demo.yaml".to_owned()),
            interval: Duration::from_secs(30),
            all_canaries: false,
            source: true,
            remote: None,
            metrics_server: None,
            only_namespace: None,
            adjust: None,
        }
    }
}

/// The world.
pub struct Bed {
    /// Time.
    pub clock: Arc<SimClock>,
    /// Cluster, traffic and metrics.
    pub sandbox: Arc<Sandbox>,
    /// What was posted to the forge.
    pub forge: Arc<LocalForge>,
    /// The source's repository, as people see it.
    pub remote: Remote,
    options: BedOptions,
    folder: tempfile::TempDir,
    prometheus_url: String,
    tasks: Vec<JoinHandle<()>>,
    /// Where the running daemon hears of pushes.
    trigger: Mutex<Option<mpsc::Sender<()>>>,
}

/// The clock that a bed begins with.
pub fn clock() -> SimClock {
    SimClock::new(START.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

impl Bed {
    /// Makes the world: CRDs installed, an empty repository, no daemon yet. Runs on the clock's own runtime.
    ///
    /// # Errors
    /// See [`BedError`].
    pub async fn start(clock: Arc<SimClock>, options: BedOptions) -> Result<Self, BedError> {
        let folder = tempfile::Builder::new().prefix("serin-").tempdir()?;
        let remote = match &options.remote {
            Some((path, _)) => Remote::open(path)?,
            None => Remote::create(&folder.path().join("shop.git"))?,
        };
        let sandbox = Sandbox::new(clock.clone(), options.seed);
        for definition in DEFINITIONS.iter() {
            let object = Object(definition.clone());
            let name = object.name().to_owned();
            sandbox.store.write(object, "kubectl").map_err(|error| BedError::Object(name, error.to_string()))?;
        }
        let namespace =
            Object(serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}));
        let made = sandbox.store.write(namespace, "kubectl");
        made.map_err(|error| BedError::Object(NAMESPACE.to_owned(), error.to_string()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let prometheus_url = format!("http://{}", listener.local_addr()?);
        let router = prometheus::router(sandbox.prometheus.clone());
        let driver = {
            let (clock, store) = (clock.clone(), sandbox.store.clone());
            async move { clock.run(move || store.pending_watch_events() == 0).await }
        };
        let tasks = vec![
            tokio::spawn(async move {
                axum::serve(listener, router).await.ok();
            }),
            tokio::spawn(sandbox.clone().run()),
            tokio::spawn(driver),
        ];
        let forge = Arc::new(LocalForge::default());
        Ok(Self { clock, sandbox, forge, remote, options, folder, prometheus_url, tasks, trigger: Mutex::default() })
    }

    /// Starts the daemon. Aborting the handle kills it at its next await, wherever that is.
    ///
    /// # Errors
    /// See [`BedError`].
    pub fn daemon(&self) -> Result<AbortHandle, BedError> {
        let ports = self.ports();
        let git = self.git()?;
        let forge = self.forge.clone();
        Ok(self.daemon_with(ports, git, forge))
    }

    /// Starts the daemon over the given ports: for tests that put something between.
    pub fn daemon_with(&self, ports: Ports, git: Arc<dyn GitRemote>, forge: Arc<dyn Forge>) -> AbortHandle {
        let source = Source { settings: self.source_settings(), git, forge: Some(forge) };
        let (sender, triggers) = mpsc::channel(1);
        *self.trigger.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let sources = if self.options.source { vec![(source, triggers)] } else { Vec::new() };
        tokio::spawn(controller::run(self.settings(), ports, sources)).abort_handle()
    }

    /// Tells the daemon that something was pushed, as a webhook does.
    pub fn pushed(&self) {
        if let Some(trigger) = &*self.trigger.lock().unwrap_or_else(PoisonError::into_inner) {
            // One that waits already is as good.
            trigger.try_send(()).ok();
        }
    }

    /// The ports of a real daemon: kube client, HTTP clients, all of them.
    pub fn ports(&self) -> Ports {
        self.ports_over(|cluster| cluster)
    }

    /// The same, with something between the daemon and the cluster.
    pub fn ports_over(&self, between: impl FnOnce(Arc<dyn Cluster>) -> Arc<dyn Cluster>) -> Ports {
        let client = api::client(&self.sandbox.store, NAMESPACE);
        let cluster = between(cluster::connect(client, self.clock.clone(), cluster::Options::default()));
        let routed = cluster.clone();
        let settings = self.settings();
        let options = traffic::Options {
            ingress_class: settings.ingress_class,
            ingress_annotations_prefix: settings.ingress_annotations_prefix,
            mesh: None,
        };
        Ports {
            clock: self.clock.clone(),
            metrics: Arc::new(metrics::Metrics::new(self.clock.clone()).with_cluster(cluster.clone())),
            cluster,
            hooks: Arc::new(hooks::HttpHooks::new(self.clock.clone())),
            alerts: Arc::new(alerts::HttpAlerts::new(self.clock.clone())),
            routers: Arc::new(move |provider| traffic::router(provider, routed.clone(), options.clone())),
            telemetry: Arc::new(Telemetry::new(env!("CARGO_PKG_VERSION"), "contour")),
            drain: Drain::default(),
        }
    }

    /// The adapter of the source's repository.
    ///
    /// # Errors
    /// See [`BedError`].
    pub fn git(&self) -> Result<Arc<dyn GitRemote>, BedError> {
        let options = git::Options {
            url: self.url(),
            auth: git::Auth::None,
            write_auth: None,
            cache_dir: self.folder.path().join("cache"),
            limits: git::Limits::default(),
        };
        Ok(git::open(options, self.clock.clone())?)
    }

    /// Address of the source's repository.
    pub fn url(&self) -> String {
        match &self.options.remote {
            Some((_, url)) => url.clone(),
            None => format!("file://{}", self.repository().display()),
        }
    }

    /// Folder of the source's bare repository.
    pub fn repository(&self) -> PathBuf {
        match &self.options.remote {
            Some((path, _)) => path.clone(),
            None => self.folder.path().join("shop.git"),
        }
    }

    /// Lets time pass.
    pub async fn pass(&self, time: Duration) {
        let end = self.clock.now().checked_add(time).unwrap_or(Timestamp::MAX);
        self.clock.sleep_until(end).await;
    }

    /// Lets time pass until a condition holds; false when it did not within `limit`.
    pub async fn wait(&self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.clock.now().checked_add(limit).unwrap_or(Timestamp::MAX);
        while !holds(self) {
            if self.clock.now() >= end {
                return false;
            }
            self.pass(Duration::from_secs(1)).await;
        }
        true
    }

    /// A Canary as it is.
    pub fn canary(&self, key: &CanaryKey) -> Option<Arc<Object>> {
        self.sandbox.store.get(&key.object_key())
    }

    /// Phase of a Canary, empty when there is none.
    pub fn phase(&self, key: &CanaryKey) -> String {
        self.canary(key).map(|canary| canary.str("/status/phase").to_owned()).unwrap_or_default()
    }

    /// Base URL of the simulated Prometheus.
    pub fn prometheus_url(&self) -> &str {
        &self.prometheus_url
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings {
            cluster: CLUSTER.to_owned(),
            namespace: NAMESPACE.to_owned(),
            provider: Some("contour".to_owned()),
            metrics_server: self.options.metrics_server.as_ref().unwrap_or(&self.prometheus_url).clone(),
            only_namespace: self.options.only_namespace.clone(),
            all_canaries: self.options.all_canaries,
            selector_labels: ["app", "name", "app.kubernetes.io/name"].map(str::to_owned).to_vec(),
            include_label_prefix: Vec::new(),
            config_tracking: true,
            no_cross_namespace_refs: false,
            ingress_class: None,
            ingress_annotations_prefix: None,
            outgoing: Outgoing::default(),
        };
        if let Some(Adjust(adjust)) = &self.options.adjust {
            adjust(&mut settings);
        }
        settings
    }

    fn source_settings(&self) -> SourceSettings {
        SourceSettings {
            name: "apps".to_owned(),
            repository: self.url(),
            branch: "main".to_owned(),
            path: self.options.path.clone(),
            values: self.options.values.clone(),
            interval: self.options.interval,
            namespaces: None,
            prune: true,
            suspend: false,
            status_branch: Some(format!("serin/status/{CLUSTER}")),
            revert: true,
            author: Identity { name: "serin".to_owned(), email: "serin@example.com".to_owned() },
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
