//! The daemon in a process of its own, `serin run` as users start it, against a sandbox that lives in this process: what
//! is measured is the daemon alone. Time is the real one.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serin::domain::Gvk;
use serin::sim::{Bed, BedOptions, Pace, SimClock};

use crate::program::{Meter, Program, Usage, memory};
use crate::questions::{Questions, percentile};
use crate::{amount, canary_object, deployment, ingress_application, namespace, number, report};

/// Interval of the canaries' analysis.
const INTERVAL: Duration = Duration::from_secs(10);

/// A sandbox that is served on a port, and the daemon beside it.
struct World {
    bed: Bed,
    questions: Questions,
    folder: tempfile::TempDir,
    daemon: Program,
}

/// Runs a measurement on a runtime of its own.
fn in_real_time<F: Future<Output = ()>>(body: impl FnOnce(Arc<SimClock>) -> F) {
    let clock = Arc::new(SimClock::new(jiff::Timestamp::now()));
    clock.set_pace(Pace::Speed(1.0));
    let runtime = clock.runtime().expect("a runtime");
    runtime.block_on(body(clock));
}

impl World {
    /// Starts sandbox and daemon; `files` are the source's first commit.
    async fn start(clock: Arc<SimClock>, files: &[(String, String)]) -> Self {
        let options = BedOptions { values: None, ..BedOptions::default() };
        let bed = Bed::start(clock, options).await.expect("a bed");
        crate::commit(&bed, "Start", files);
        let (questions, metrics) = Questions::serve().await.expect("a port");
        let folder = tempfile::tempdir().expect("a folder");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serin::sandbox::api::serve(bed.sandbox.store.clone(), listener));
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("kubeconfig"), serin::sandbox::api::kubeconfig(address)).expect("a file");
        let source = format!(
            "- name: apps\n  url: {}\n  branch: main\n  path: clusters/demo\n  interval: 30s\n  forge: {{kind: none}}\n",
            bed.url()
        );
        std::fs::write(at("serin.yaml"), settings(&metrics, &source)).expect("a file");
        let daemon = Program::start(serin_run(folder.path()), &at("log")).expect("the daemon");
        Self { bed, questions, folder, daemon }
    }

    fn phases(&self, phase: &str) -> usize {
        let all = self.bed.sandbox.store.list(&Gvk::new("flagger.app/v1beta1", "Canary"), None);
        all.iter().filter(|canary| canary.str("/status/phase") == phase).count()
    }

    async fn until(&mut self, what: &str, limit: Duration, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let last = || log().lines().rev().take(5).collect::<Vec<_>>().join("\n");
            assert!(self.daemon.runs(), "the daemon ended:\n{}", last());
            assert!(began.elapsed() < limit, "waited {limit:?} for {what}:\n{}", last());
            self.bed.pass(Duration::from_millis(200)).await;
        }
    }

    fn counts(&self) -> Counts {
        let all = self.bed.sandbox.store.requests();
        let events = all.events.values().sum();
        Counts { reads: all.reads(), writes: all.writes(), watches: all.of(&["watch"], None), events }
    }

    /// Measures the daemon for some time.
    async fn over(&self, time: Duration) -> (Usage, Counts) {
        let (meter, before) = (Meter::start(self.daemon.id()), self.counts());
        self.bed.pass(time).await;
        (meter.stop(), self.counts().since(&before))
    }
}

#[derive(Clone, Copy)]
struct Counts {
    reads: u64,
    writes: u64,
    watches: u64,
    events: u64,
}

impl Counts {
    const fn since(&self, before: &Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            watches: self.watches - before.watches,
            events: self.events - before.events,
        }
    }
}

/// A `serin.yaml` with one source.
pub(crate) fn settings(metrics: &str, source: &str) -> String {
    format!(
        "cluster: cost\nlisten: 127.0.0.1:0\nprovider: contour\nmetricsServer: {metrics}\n\
         leaderElection: {{enabled: false}}\nsources:\n{source}"
    )
}

/// `serin run` with the files of a folder.
pub(crate) fn serin_run(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    command.arg("run").arg("-c").arg(folder.join("serin.yaml")).arg("--kubeconfig").arg(folder.join("kubeconfig"));
    command.arg("--cache-dir").arg(folder.join("cache"));
    command
}

fn usage(what: &str, usage: &Usage) {
    report(
        &format!("{what}: processor time"),
        format_args!("{:.2} s, {:.1} % of a core", usage.seconds, usage.percent),
    );
    report(
        &format!("{what}: memory"),
        format_args!("{:.0} MiB, highest {:.0} MiB", usage.memory.now, usage.memory.highest),
    );
}

fn requests(what: &str, counts: &Counts) {
    let Counts { reads, writes, watches, events } = counts;
    let text = format!("{reads} reads, {writes} writes, {events} of events, {watches} watches");
    report(&format!("{what}: requests"), text);
}

fn files(many: usize, version: &str) -> Vec<(String, String)> {
    let mut files = std::collections::BTreeMap::new();
    for index in 0..many {
        let (team, name) = (format!("team-{}", index % 20), format!("app-{index}"));
        let text: &mut String = files.entry(format!("clusters/demo/{team}.yaml")).or_insert(namespace(&team));
        let (deployment, canary) = (deployment(&team, &name, version), canary_object(&team, &name, "10s", 2));
        write!(text, "---\n{deployment}---\n{canary}").ok();
    }
    files.into_iter().collect()
}

/// A thousand canaries of one source: initialised, at rest, then all of them released together.
pub(crate) fn canaries() {
    in_real_time(|clock| async move {
        let many = number(1000);
        let mut world = World::start(clock, &files(many, "1.0.0")).await;
        let began = Instant::now();
        world
            .until("all to be initialised", Duration::from_secs(900), |world| world.phases("Initialized") == many)
            .await;
        report("time until all are initialised", format_args!("{:.1} s", began.elapsed().as_secs_f64()));
        report("memory then", format_args!("{:.0} MiB highest", memory(world.daemon.id()).highest));
        world.bed.pass(Duration::from_secs(40)).await;
        let (used, counts) = world.over(Duration::from_secs(60)).await;
        usage("a minute at rest", &used);
        requests("a minute at rest", &counts);
        crate::commit(&world.bed, "Release", &files(many, "1.1.0"));
        let began = Instant::now();
        let limit = Duration::from_secs(300);
        world.until("all to progress", limit, |world| world.phases("Progressing") == many).await;
        report("time until all progress", format_args!("{:.1} s", began.elapsed().as_secs_f64()));
        world.bed.pass(Duration::from_secs(30)).await;
        world.questions.clear();
        let (used, counts) = world.over(Duration::from_secs(180)).await;
        assert_eq!(world.phases("Progressing"), many, "a canary ended too early to be measured");
        usage("three minutes of progress", &used);
        requests("three minutes of progress", &counts);
        let mut late = world.questions.lateness(INTERVAL);
        report("ticks seen", late.len());
        let seen = late.len();
        late.extend(world.questions.overdue(INTERVAL));
        late.sort();
        let (p50, p99) = (percentile(&late, 50), percentile(&late, 99));
        report(
            "lateness of ticks, p50 and p99",
            format_args!("{:.3} s, {:.3} s", p50.as_secs_f64(), p99.as_secs_f64()),
        );
        let steps = amount(seen + many);
        report("writes for a step", format_args!("{:.2}", counts.writes as f64 / steps));
        let began = Instant::now();
        let done = |world: &World| world.phases("Succeeded") == many;
        world.until("all to be promoted", Duration::from_secs(1200), done).await;
        report("time until all are promoted", format_args!("{:.1} s", began.elapsed().as_secs_f64()));
        let end = memory(world.daemon.id());
        report("memory at the end", format_args!("{:.0} MiB, highest {:.0} MiB", end.now, end.highest));
    });
}

/// A thousand plain applications of one source.
pub(crate) fn applications() {
    in_real_time(|clock| async move {
        let many = number(1000);
        let mut files: Vec<_> = (0..many).map(|index| ingress_application(index, "1.0.0")).collect();
        files.extend(
            (0..20).map(|team| (format!("clusters/demo/team-{team}.yaml"), namespace(&format!("team-{team}")))),
        );
        let began = Instant::now();
        let mut world = World::start(clock, &files).await;
        let meter = Meter::start(world.daemon.id());
        let gvk = Gvk::new("networking.k8s.io/v1", "Ingress");
        let all = |world: &World| world.bed.sandbox.store.list(&gvk, None).len() == many;
        world.until("all to be applied", Duration::from_secs(600), all).await;
        report("time from the start until all are applied", format_args!("{:.1} s", began.elapsed().as_secs_f64()));
        usage("applying", &meter.stop());
        world.bed.pass(Duration::from_secs(45)).await;
        let (used, counts) = world.over(Duration::from_secs(60)).await;
        usage("a minute at rest", &used);
        requests("a minute at rest", &counts);
        crate::commit(&world.bed, "Change one", &[ingress_application(7, "1.0.1")]);
        let seven = crate::key("apps/v1", "Deployment", "team-7", "app-7");
        let changed = |world: &World| {
            let live = world.bed.sandbox.store.get(&seven);
            live.is_some_and(|live| live.str("/spec/template/spec/containers/0/image").ends_with(":1.0.1"))
        };
        let meter = Meter::start(world.daemon.id());
        world.until("one to be changed", Duration::from_secs(60), changed).await;
        usage("changing one", &meter.stop());
    });
}
