//! `serin run`: the daemon.
//!
//! Order of life: configuration, HTTP, cluster, Lease, loops. Order of death: loops (drained), Lease, HTTP. Another
//! configuration is a death and a new life in the same process.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::api::CachedRecords;
use super::args::RunArgs;
use super::clock::SystemClock;
use super::config::{Config, ConfigErrors};
use super::{compose, kube, reload};
use crate::cluster::lease::{Leadership, LeaseOptions, hold};
use crate::controller::{self, Drain, Ports, Source};
use crate::domain::Gvk;
use crate::http::{Endpoints, Readiness, Ready, RecordsSlot, serve};
use crate::ports::{Clock, Cluster, ClusterError, timeout};
use crate::telemetry::{LogSecrets, Telemetry, init_logging};
use crate::{alerts, cluster, hooks, metrics, traffic};

/// Time for work under way to end, within the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(20);
/// Time to give the Lease back, and then for answers under way to end.
const FAREWELL: Duration = Duration::from_secs(3);
/// Pause between two tries to reach the cluster at start.
const RETRY: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop. Exit code 0 after draining.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let config = load(args)?;
    let secrets = LogSecrets::default();
    init_logging(args.log_format.into(), &args.log_level, &secrets).context("setting up logs by --log-level")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let code = runtime.block_on(lives(args, config, &secrets));
    // A call that hangs in a thread must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// The configuration: the file, with Flagger's flags over it.
fn load(args: &RunArgs) -> Result<Config, ConfigErrors> {
    let file = file(args);
    let alone = args.flagger.alone().filter(|_| args.config.is_none() && !file.exists());
    let config = alone.map_or_else(|| Config::load(file), Ok)?;
    args.flagger.over(config, &compose::is_set)
}

fn file(args: &RunArgs) -> &Path {
    args.config.as_deref().unwrap_or(Path::new("serin.yaml"))
}

/// One life after the other: a changed configuration ends one and begins the next, which costs nothing but a moment
/// because all that counts is in the cluster and in Git.
async fn lives(args: &RunArgs, mut config: Config, secrets: &LogSecrets) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    loop {
        match daemon(args, &config, secrets, &mut signals).await? {
            Ended::With(code) => return Ok(code),
            Ended::Reload(new) => config = *new,
        }
    }
}

/// How a life ended.
enum Ended {
    With(ExitCode),
    Reload(Box<Config>),
}

/// Both signals that ask for an end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}

async fn daemon(args: &RunArgs, config: &Config, secrets: &LogSecrets, signals: &mut Signals) -> anyhow::Result<Ended> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let telemetry = Telemetry::new(env!("CARGO_PKG_VERSION"), &config.provider);
    let telemetry = Arc::new(telemetry.with_log_secrets(secrets.clone()));
    let (sources, triggers) = sources(args, config, &clock)?;
    let settings = compose::settings(config)?;
    let client = kube::client(&args.cluster).await?;
    let ready = Readiness::default();
    let (web, pushed) = Web::start(config, telemetry.clone(), ready.clone()).await?;
    let (listen, many) = (web.address, config.sources.len());
    tracing::info!(cluster = config.cluster, provider = config.provider, sources = many, %listen, "serin starts");

    let leadership = config.leader_election.enabled.then(|| {
        let election = &config.leader_election;
        let options = LeaseOptions::new(&election.namespace, &election.name, &compose::identity());
        hold(client.clone(), clock.clone(), options)
    });
    let adapter = cluster::connect(client, clock.clone(), cluster::Options::default());
    web.records.set(Arc::new(records(config, adapter.clone()))).ok();
    let started = async {
        wait_for_lease(leadership.as_ref(), &ready).await;
        wait_for_cluster(adapter.as_ref(), clock.as_ref(), &ready).await;
    };
    let anew = || load(args);
    tokio::select! {
        () = started => {}
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before any loop began");
            end(leadership, web).await;
            return Ok(Ended::With(ExitCode::SUCCESS));
        }
        new = reload::changed(file(args), config, &anew, clock.as_ref()) => {
            end(leadership, web).await;
            return Ok(Ended::Reload(new));
        }
    }
    let drain = Drain::default();
    let ports = ports(config, adapter, clock.clone(), telemetry, drain.clone());
    let forwarding = tokio::spawn(forward(pushed, triggers));
    let loops = tokio::spawn(controller::run(settings, ports, sources));
    ready.set(Ready::Yes);
    let life = Life { drain, leadership: leadership.as_ref(), clock: clock.as_ref(), ready };
    let ended = life.until_the_end(args, config, loops, signals).await;
    forwarding.abort();
    end(leadership, web).await;
    Ok(ended)
}

/// What ends the loops, and how.
struct Life<'a> {
    drain: Drain,
    leadership: Option<&'a Leadership>,
    clock: &'a dyn Clock,
    ready: Readiness,
}

impl Life<'_> {
    /// Lets the loops run until a signal, the loss of the Lease, or another configuration.
    async fn until_the_end(
        &self,
        args: &RunArgs,
        config: &Config,
        mut loops: JoinHandle<()>,
        signals: &mut Signals,
    ) -> Ended {
        let anew = || load(args);
        tokio::select! {
            biased;
            () = lost(self.leadership) => Ended::With(self.stop_at_once(&loops)),
            _ = &mut loops => {
                tracing::error!("the loops ended by themselves");
                Ended::With(ExitCode::FAILURE)
            }
            name = signals.next() => {
                tracing::info!(signal = name, "draining: nothing new begins, what is under way is finished");
                Ended::With(self.drained(loops, signals).await)
            }
            new = reload::changed(file(args), config, &anew, self.clock) => {
                tracing::info!("the configuration or a secret changed: draining, then starting anew");
                let code = self.drained(loops, signals).await;
                // Only after an undisturbed end is it still wanted.
                if code == ExitCode::SUCCESS { Ended::Reload(new) } else { Ended::With(code) }
            }
        }
    }

    /// Lets what is under way end. Success only when it did.
    async fn drained(&self, mut loops: JoinHandle<()>, signals: &mut Signals) -> ExitCode {
        self.ready.set(Ready::No("draining"));
        self.drain.begin();
        tokio::select! {
            biased;
            () = lost(self.leadership) => self.stop_at_once(&loops),
            drained = timeout(self.clock, DRAIN, &mut loops) => {
                if drained.is_err() {
                    tracing::warn!("work under way did not end in time and is dropped: the next start repeats it");
                    loops.abort();
                    return ExitCode::FAILURE;
                }
                tracing::info!("drained");
                ExitCode::SUCCESS
            }
            name = signals.next() => {
                tracing::warn!(signal = name, "stopped without draining: the next start repeats what was under way");
                loops.abort();
                ExitCode::FAILURE
            }
        }
    }

    /// Another may act from now on: nothing of ours may be written any more (I5).
    fn stop_at_once(&self, loops: &JoinHandle<()>) -> ExitCode {
        loops.abort();
        self.ready.set(Ready::No("the lease is lost"));
        tracing::error!("the lease is lost: stopped at once");
        ExitCode::FAILURE
    }
}

/// Returns when the Lease is lost; never without leader election.
async fn lost(leadership: Option<&Leadership>) {
    match leadership {
        Some(leadership) => {
            // A candidacy that died holds nothing any more.
            leadership.leader.clone().wait_for(|leader| !leader).await.ok();
        }
        None => std::future::pending().await,
    }
}

async fn wait_for_lease(leadership: Option<&Leadership>, ready: &Readiness) {
    if let Some(leadership) = leadership {
        ready.set(Ready::No("standby: another replica holds the lease"));
        if leadership.leader.clone().wait_for(|leader| *leader).await.is_err() {
            // The task died; without it there is nothing to run for, and the liveness probe cannot tell.
            tracing::error!("leader election ended by itself");
            std::future::pending::<()>().await;
        }
    }
}

/// Reads the canaries once, so that an unreachable cluster shows in `/readyz`.
async fn wait_for_cluster(cluster: &dyn Cluster, clock: &dyn Clock, ready: &Readiness) {
    ready.set(Ready::No("waiting for the cluster"));
    loop {
        match cluster.list(&Gvk::new("flagger.app/v1beta1", "Canary"), None).await {
            Ok(_) => return,
            Err(error @ ClusterError::UnknownKind(_)) => {
                tracing::error!(%error, "canaries cannot be run: `serin crds | kubectl apply -f -` installs the types");
                return;
            }
            Err(error) => tracing::warn!(%error, "the cluster does not answer, trying again"),
        }
        clock.sleep_until(clock.now().checked_add(RETRY).unwrap_or(jiff::Timestamp::MAX)).await;
    }
}

/// A source with the receiver of its triggers, as the controller takes it.
type Triggered = (Source, mpsc::Receiver<()>);
/// Where the triggers of each source go in.
type Triggers = BTreeMap<String, mpsc::Sender<()>>;

fn sources(args: &RunArgs, config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<(Vec<Triggered>, Triggers)> {
    let cache = compose::cache_dir(args.cache_dir.as_deref());
    let mut remotes = compose::Remotes::default();
    let mut forges = compose::Forges::default();
    let mut sources = Vec::new();
    let mut triggers = Triggers::new();
    for source in &config.sources {
        let git = remotes.open(source, &cache, clock)?;
        let forge = forges.open(source, clock)?;
        let (sender, receiver) = mpsc::channel(1);
        triggers.insert(source.name.clone(), sender);
        sources.push((Source { settings: compose::source_settings(config, source), git, forge }, receiver));
    }
    Ok((sources, triggers))
}

/// What `/api` reads.
fn records(config: &Config, cluster: Arc<dyn Cluster>) -> CachedRecords {
    let sources = config.sources.iter().map(|source| source.name.clone()).collect();
    CachedRecords { cluster, namespace: config.leader_election.namespace.clone(), sources }
}

fn ports(
    config: &Config,
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    drain: Drain,
) -> Ports {
    let routed = cluster.clone();
    let options = traffic::Options {
        ingress_class: config.flagger.ingress_class.clone(),
        ingress_annotations_prefix: config.flagger.ingress_annotations_prefix.clone(),
        ..traffic::Options::default()
    };
    Ports {
        metrics: Arc::new(
            metrics::Metrics::new(clock.clone())
                .with_cluster(cluster.clone())
                .with_environment(Arc::new(compose::variable)),
        ),
        hooks: Arc::new(hooks::HttpHooks::new(clock.clone())),
        alerts: Arc::new(alerts::HttpAlerts::new(clock.clone())),
        routers: Arc::new(move |provider| traffic::router(provider, routed.clone(), options.clone())),
        cluster,
        clock,
        telemetry,
        drain,
    }
}

/// The HTTP server.
struct Web {
    address: std::net::SocketAddr,
    /// Filled once the cluster is reached.
    records: RecordsSlot,
    server: JoinHandle<()>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Web {
    /// Begins to serve; with the names of the sources whose remotes say that they have changed.
    async fn start(
        config: &Config,
        telemetry: Arc<Telemetry>,
        ready: Readiness,
    ) -> anyhow::Result<(Self, mpsc::Receiver<String>)> {
        let hooks = config.sources.iter().filter_map(|source| {
            let webhook = source.webhook.as_ref()?;
            Some(compose::secret(source, &webhook.secret_from).map(|secret| (source.name.clone(), secret)))
        });
        let hooks: BTreeMap<String, SecretString> = hooks.collect::<Result<_, _>>()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("listening on {}: change `listen` in serin.yaml", config.listen))?;
        let address = listener.local_addr().context("listening")?;
        let (triggers, pushed) = mpsc::channel(64);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let records = RecordsSlot::default();
        let endpoints = Endpoints { telemetry, ready, hooks, triggers, records: records.clone() };
        let server = tokio::spawn(async move {
            let stopped = async {
                stopped.await.ok();
            };
            if let Err(error) = serve(listener, endpoints, stopped).await {
                tracing::error!(%error, "serving health and metrics");
            }
        });
        Ok((Self { address, records, server, stop }, pushed))
    }
}

/// Hands pushes on to their sources. A source that has a trigger waiting needs no second one: its next look sees both.
async fn forward(mut pushed: mpsc::Receiver<String>, triggers: Triggers) {
    while let Some(source) = pushed.recv().await {
        tracing::debug!(source, "pushed, looking");
        if let Some(trigger) = triggers.get(&source) {
            trigger.try_send(()).ok();
        }
    }
}

/// The last steps: the Lease goes to the next, answers under way go out.
async fn end(leadership: Option<Leadership>, web: Web) {
    if let Some(leadership) = leadership {
        // An API server that is gone must not hold up the end: the Lease runs out by itself.
        timeout(&SystemClock, FAREWELL, leadership.release()).await.ok();
    }
    web.stop.send(()).ok();
    timeout(&SystemClock, FAREWELL, web.server).await.ok();
}
