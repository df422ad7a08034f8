//! The conformance suite in real time: recorded scenarios of Flagger, played to serin against the bed's own API server and
//! controller manager. What differs from the recording must be what differs on the sandbox.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use kube::api::DynamicObject;
use rustix::process::Signal;
use serde_json::Value;
use similar::TextDiff;
use tokio::process::Command;

use crate::crowd::{Cast, Crowd};
use crate::process::Process;
use crate::recorder::Wall;
use crate::recorder::api::Api;
use crate::recorder::compare;
use crate::recorder::differences::Differences;
use crate::recorder::drive::Stage;
use crate::recorder::log::Log;
use crate::recorder::recording::Recording;
use crate::recorder::render::render;
use crate::recorder::scenario::Scenario;
use crate::recorder::servers::Servers;
use crate::recorder::sim;
use crate::serin::Serin;
use crate::world::{Bed, Limit, Parts, eventually};
use crate::{install, net};

/// Scenarios that are played at the same time: they mostly wait.
const AT_ONCE: usize = 20;
/// An image that no registry has.
const MISSING_IMAGE: &str = "unknown:1";
/// What a pod takes to be ready: tens of times less than an interval.
const STARTS: Duration = Duration::from_millis(800);
/// Ports of the daemons.
static NEXT_PORT: AtomicU16 = AtomicU16::new(22000);

/// What became of a scenario.
enum Outcome {
    Equal,
    /// It differs as it does on the sandbox, and `differences.yaml` says why.
    Explained(Vec<String>),
    Unexplained(String),
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// Plays the scenarios that have one of these texts in their names, all of them without. It fails when something differs
/// that does not on the sandbox.
pub(crate) async fn run(names: &[String]) -> anyhow::Result<ExitCode> {
    if !net::inside() {
        if let Some(obstacle) = net::obstacle().await {
            bail!(obstacle);
        }
        // Of the gateway only the definitions are used.
        install::install(&install::of(Parts::GATEWAY))?;
        return net::enter().await;
    }
    let folder = PathBuf::from(net::folder()?);
    let leash = net::leash();
    let done = tokio::select! {
        done = on_a_bed(names, folder.clone()) => done,
        () = leash => Err(anyhow!("interrupted")),
    };
    if !matches!(done, Ok(ExitCode::SUCCESS)) {
        std::fs::write(folder.join(net::KEEP), "")?;
    }
    done
}

fn chosen(names: &[String]) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(folder().join("corpus"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if names.is_empty() || names.iter().any(|part| name.contains(part.as_str())) {
            all.insert(name);
        }
    }
    anyhow::ensure!(
        !all.is_empty(),
        "no scenario has this in its name; they are the folders of tests/conformance/corpus"
    );
    Ok(all)
}

async fn on_a_bed(names: &[String], folder: PathBuf) -> anyhow::Result<ExitCode> {
    let names = chosen(names)?;
    let begin = Instant::now();
    let bed = Bed::start(Parts::API, folder).await?;
    definitions(&bed).await.context("installing definitions")?;
    let cast = Cast { node: None, never: MISSING_IMAGE, starts: STARTS };
    let crowd = Crowd::start(bed.admin(), cast).await?;
    println!("bed ready in {:.1} s; playing {} scenarios", begin.elapsed().as_secs_f64(), names.len());
    let (mut equal, mut explained, mut unexplained) = (0, 0, Vec::new());
    let mut played = stream::iter(names).map(|name| one(&bed, name)).buffer_unordered(AT_ONCE);
    while let Some((name, outcome)) = played.next().await {
        match outcome {
            Outcome::Equal => {
                equal += 1;
                println!("{name} ... equal");
            }
            Outcome::Explained(by) => {
                explained += 1;
                println!("{name} ... explained: {}", by.join(", "));
            }
            Outcome::Unexplained(text) => {
                println!("{name} ... UNEXPLAINED\n{text}");
                unexplained.push(name);
            }
        }
    }
    drop(crowd);
    bed.stop().await;
    let took = begin.elapsed().as_secs_f64();
    println!("\n{equal} equal, {explained} explained, {} unexplained; {took:.0} s", unexplained.len());
    for name in &unexplained {
        println!("    {name}");
    }
    Ok(if unexplained.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// serin's own definitions, the real ones of Contour and the Gateway API, and for other kinds those of the sandbox.
async fn definitions(bed: &Bed) -> anyhow::Result<()> {
    Serin::install(bed).await?;
    bed.apply_files(&install::folder("contour")?.join("01-crds.yaml")).await?;
    bed.apply_files(&install::folder("gateway-api")?.join("experimental")).await?;
    let real = ["projectcontour.io", "gateway.networking.k8s.io"];
    for definition in serin::sandbox::definitions() {
        if !real.iter().any(|group| definition["spec"]["group"] == *group) {
            let object: DynamicObject = serde_json::from_value(definition)?;
            bed.apply_one(object).await?;
        }
    }
    Ok(())
}

async fn one(bed: &Arc<Bed>, name: String) -> (String, Outcome) {
    // A scenario that cannot be played panics, as the suite's do.
    let played = std::panic::AssertUnwindSafe(play(bed, &name)).catch_unwind().await;
    let outcome = match played {
        Ok(Ok(serin)) => judge(&name, serin).await,
        Ok(Err(error)) => Err(error),
        Err(_) => Err(anyhow!("it panicked, see above")),
    };
    (name, outcome.unwrap_or_else(|error| Outcome::Unexplained(format!("{error:#}"))))
}

async fn judge(name: &str, serin: Recording) -> anyhow::Result<Outcome> {
    let home = folder().join("corpus").join(name);
    let flagger = folded(Recording::read(&home));
    let Some(here) = compare::differences(&flagger, &folded(serin.clone())) else { return Ok(Outcome::Equal) };
    // On a runtime and a thread of its own.
    let sandbox = tokio::task::spawn_blocking(move || sim::play(&Scenario::read(&home))).await?;
    let there = compare::differences(&flagger, &folded(sandbox)).unwrap_or_default();
    if here == there {
        return Ok(Outcome::Explained(Differences::read(&folder()).of(name)));
    }
    let diff = TextDiff::from_lines(there.as_str(), here.as_str());
    let diff = diff.unified_diff().context_radius(2).header("on the sandbox", "here").to_string();
    Ok(Outcome::Unexplained(format!("{diff}\n== transcript\n{}", serin.transcript.join("\n"))))
}

/// Without repeats of one request to one hook: how often somebody asks who waits depends on how long things take.
fn folded(mut recording: Recording) -> Recording {
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    recording.webhooks.retain(|request| {
        let hook = request["hook"].as_str().unwrap_or_default().to_owned();
        last.insert(hook, request.clone()).as_ref() != Some(request)
    });
    recording
}

async fn play(bed: &Arc<Bed>, name: &str) -> anyhow::Result<Recording> {
    let scenario = Scenario::read(&folder().join("corpus").join(name));
    let log = Log::new(Arc::new(Wall));
    let pause = Arc::new(|time| tokio::time::sleep(time).boxed());
    let (answers, hooks) = (scenario.first_answers(), scenario.hooks.clone());
    let servers = Servers::start(log.clone(), pause, &scenario.name, answers, hooks).await;
    bed.namespace(&scenario.name).await?;
    let api = Api::new(bed.admin(), &scenario.name);
    let watches = api.watch_all(&log, &scenario.provider).await;
    let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
    let start = || start(bed, &scenario, &servers, port);
    let daemon = RefCell::new(start()?);
    let restart = || {
        let mut daemon = daemon.borrow_mut();
        bed.processes.forget(&daemon);
        daemon.signal(Signal::KILL);
        // It is killed and started as in a pod; what cannot be started is seen by what does not happen.
        if let Ok(next) = start() {
            *daemon = next;
        }
    };
    let stage = Stage {
        scenario: &scenario,
        clock: Arc::new(Wall),
        api,
        log: log.clone(),
        servers: &servers,
        restart: &restart,
    };
    ready(bed, port).await.with_context(|| daemon.borrow().tail(12))?;
    let problem = stage.play().await.err();
    let metrics = bed.http.get(format!("http://127.0.0.1:{port}/metrics")).send().await?.text().await?;
    let daemon = daemon.into_inner();
    bed.processes.forget(&daemon);
    daemon.stop(Duration::from_secs(5)).await;
    drop(watches);
    Ok(render(&log, &scenario, &servers, &metrics, problem))
}

async fn ready(bed: &Bed, port: u16) -> anyhow::Result<()> {
    eventually("serin being ready", Limit::START, async || {
        let asked = bed.http.get(format!("http://127.0.0.1:{port}/readyz")).send().await?;
        asked.error_for_status().map(drop).map_err(Into::into)
    })
    .await
}

/// serin in Flagger's place, with the flags of the scenario, for its namespace only: other scenarios run beside it.
fn start(bed: &Bed, scenario: &Scenario, servers: &Servers, port: u16) -> anyhow::Result<Arc<Process>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    command.arg("run").env("KUBECONFIG", bed.kubeconfig()).env("no_proxy", "*");
    command.arg(format!("-metrics-server=http://{}", servers.metrics)).arg(format!("-port={port}"));
    command.arg(format!("-namespace={}", scenario.name)).arg("-enable-leader-election=false");
    if scenario.flag("mesh-provider").is_none() {
        command.arg("-mesh-provider=contour");
    }
    let others = scenario.flags.iter().filter(|flag| !flag.starts_with("-namespace="));
    command.args(others.map(|flag| servers.addresses().fill(flag)));
    let log = bed.folder.join(format!("{}.log", scenario.name));
    Ok(bed.processes.keep(Process::start(&scenario.name, &log, command)?))
}
