//! What serin costs, measured: `cargo bench --bench cost`, or with the names of some measurements after `--`.
//!
//! Each measurement runs in a process of its own, so that its memory is its own.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench measures time of the real world and prints what it measured"
)]

mod process;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use serin::api::canary::CanaryView;
use serin::domain::{CanaryKey, Gvk, Object, ObjectKey, Weights};
use serin::ports::Clock as _;
use serin::rollout::{
    Action, Answers, Condition, Intent, Observation, Question, Read, Reading, ReleaseInfo, RouteState, RunMemory,
    Settings, Step, Version, Workload, analysis, decide,
};
use serin::sandbox::traffic::Load;
use serin::sim::{Bed, BedOptions, SimClock, bed};

type Measurement = (&'static str, &'static str, fn());

const ALL: &[Measurement] = &[
    ("decide", "a day of decisions, every 10 s, no shell", decide_day),
    ("day", "a day-long canary through the whole daemon", canary_day),
    ("canaries", "1,000 idle canaries in the sandbox", idle_canaries),
    ("applications", "1,000 applications of four objects from one repository", applications),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [one, name] = words.as_slice()
        && one == "in-process"
    {
        for (_, _, run) in ALL.iter().filter(|(known, _, _)| known == name) {
            run();
        }
        return ExitCode::SUCCESS;
    }
    for (name, title, _) in ALL.iter().filter(|(name, _, _)| words.is_empty() || words.iter().any(|w| w == name)) {
        println!("{name}: {title}");
        let program = std::env::current_exe().expect("the path of this program");
        let status = Command::new(program).args(["in-process", name]).status().expect("a process");
        if !status.success() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn report(what: &str, value: impl std::fmt::Display) {
    println!("  {what:<52} {value}");
}

fn report_memory(what: &str) -> f64 {
    let process::Memory { now, highest } = process::memory(std::process::id());
    report(&format!("memory, {what}"), format_args!("{now:.0} MiB (highest so far {highest:.0} MiB)"));
    now
}

/// Seconds of processor time of this process.
fn processor() -> f64 {
    process::processor(std::process::id())
}

fn canary_object(namespace: &str, name: &str, interval: &str, step: u32) -> String {
    format!(
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n  \
         provider: contour\n  targetRef:\n    apiVersion: apps/v1\n    kind: Deployment\n    name: {name}\n  \
         service:\n    port: 80\n    targetPort: 8080\n  analysis:\n    interval: {interval}\n    threshold: 2\n    \
         maxWeight: 96\n    stepWeight: {step}\n    metrics:\n    - name: request-success-rate\n      thresholdRange:\n        \
         min: 99\n      interval: 1m\n    - name: request-duration\n      thresholdRange:\n        max: 500\n      \
         interval: 1m\n"
    )
}

fn deployment(namespace: &str, name: &str, version: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels:\n    \
         app: {name}\nspec:\n  replicas: 1\n  selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      \
         labels:\n        app: {name}\n    spec:\n      containers:\n      - name: app\n        image: \
         registry.example.com/{name}:{version}\n        ports:\n        - name: http\n          containerPort: 8080\n        \
         resources:\n          requests:\n            cpu: 100m\n            memory: 64Mi\n"
    )
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn key(version: &str, kind: &str, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::namespaced(version, kind, namespace, name)
}

fn on_a_bed<F: Future<Output = ()>>(body: impl FnOnce(Arc<SimClock>) -> F) {
    let clock = Arc::new(bed::clock());
    let runtime = clock.runtime().expect("a runtime");
    runtime.block_on(body(clock));
}

fn options() -> BedOptions {
    BedOptions { values: None, interval: Duration::from_secs(300), ..BedOptions::default() }
}

fn commit(bed: &Bed, message: &str, files: &[(String, String)]) {
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    bed.remote.commit("main", message, &files, bed.clock.now()).expect("a commit");
}

/// A day-long canary: 48 steps of half an hour, then the promotion.
fn canary_day() {
    on_a_bed(|clock| async move {
        let bed = Bed::start(clock.clone(), options()).await.expect("a bed");
        bed.sandbox.traffic.set_load(Load::constant("shop", "web", clock.now(), 50.0));
        let file = |version: &str| {
            let all = [namespace("shop"), deployment("shop", "web", version), canary_object("shop", "web", "30m", 2)];
            [("clusters/demo/web.yaml".to_owned(), all.join("---\n"))]
        };
        commit(&bed, "Start", &file("1.0.0"));
        let _daemon = bed.daemon().expect("a daemon");
        let web = CanaryKey::new("shop", "web");
        assert!(bed.wait(Duration::from_secs(7200), |bed| bed.phase(&web) == "Initialized").await);
        commit(&bed, "Release", &file("1.1.0"));
        let (began, busy, from) = (Instant::now(), processor(), clock.now());
        let requests = bed.sandbox.store.requests();
        let mut hours = 0;
        while bed.phase(&web) != "Succeeded" && hours < 40 {
            bed.pass(Duration::from_secs(3600)).await;
            hours += 1;
        }
        assert_eq!(bed.phase(&web), "Succeeded");
        let after = bed.sandbox.store.requests();
        report("virtual time", format_args!("{}", clock.now().duration_since(from)));
        report("time", format_args!("{:.3} s", began.elapsed().as_secs_f64()));
        report("processor time", format_args!("{:.2} s", processor() - busy));
        report("reads of the API besides watches", after.reads() - requests.reads());
        report("writes to the API (Events apart)", after.writes() - requests.writes());
        report("watch renewals", after.of(&["watch"], None) - requests.of(&["watch"], None));
        report_memory("at the end");
    });
}

/// A thousand canaries that have been initialised and rest.
fn idle_canaries() {
    on_a_bed(|clock| async move {
        let many = number(1000);
        let bed = Bed::start(clock.clone(), options()).await.expect("a bed");
        let empty = report_memory("of the empty sandbox");
        let mut files = BTreeMap::new();
        for index in 0..many {
            let (team, name) = (format!("team-{}", index % 20), format!("app-{index}"));
            let text: &mut String = files.entry(format!("clusters/demo/{team}.yaml")).or_insert(namespace(&team));
            let (deployment, canary) = (deployment(&team, &name, "1.0.0"), canary_object(&team, &name, "1m", 10));
            write!(text, "---\n{deployment}---\n{canary}").ok();
        }
        commit(&bed, "Start", &files.into_iter().collect::<Vec<_>>());
        let (began, busy, from) = (Instant::now(), processor(), clock.now());
        let _daemon = bed.daemon().expect("a daemon");
        let gvk = Gvk::new("flagger.app/v1beta1", "Canary");
        let at_rest = |bed: &Bed| {
            let all = bed.sandbox.store.list(&gvk, None);
            all.iter().filter(|canary| canary.str("/status/phase") == "Initialized").count()
        };
        while at_rest(&bed) < many && clock.now().duration_since(from).as_hours() < 3 {
            bed.pass(Duration::from_secs(10)).await;
        }
        assert_eq!(at_rest(&bed), many);
        report("virtual time until all are initialised", clock.now().duration_since(from));
        report("time until all are initialised", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        report("processor time", format_args!("{:.2} s", processor() - busy));
        let counts = bed.sandbox.store.requests();
        let maps = counts.of(&["apply"], Some("configmaps"));
        report("writes to the API, of them of ConfigMaps", format_args!("{} {maps}", counts.writes()));
        report_memory("when all are initialised");
        let (began, busy) = (Instant::now(), processor());
        bed.pass(Duration::from_secs(3600)).await;
        report("time of the hour after", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        report("processor time of the hour after", format_args!("{:.2} s", processor() - busy));
        let (began, busy, before) = (Instant::now(), processor(), bed.sandbox.store.requests());
        bed.pass(Duration::from_secs(3600)).await;
        let after = bed.sandbox.store.requests();
        report("time of an idle hour", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        report("processor time of an idle hour", format_args!("{:.2} s", processor() - busy));
        report("reads and writes in an idle hour", after.reads() - before.reads() + after.writes() - before.writes());
        report("watch renewals in an idle hour", after.of(&["watch"], None) - before.of(&["watch"], None));
        let all = report_memory("of sandbox and daemon at rest");
        report("memory for each", format_args!("{:.0} KiB", (all - empty) * 1024.0 / amount(many)));
    });
}

/// The file of one application: four objects.
fn ingress_application(index: usize, version: &str) -> (String, String) {
    let (team, name) = (format!("team-{}", index % 20), format!("app-{index}"));
    let account = format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: {team}\n");
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {team}\nspec:\n  selector:\n    \
         app: {name}\n  ports:\n  - port: 80\n    targetPort: 8080\n"
    );
    let ingress = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: {team}\nspec:\n  \
         rules:\n  - host: {name}.example.com\n    http:\n      paths:\n      - path: /\n        pathType: Prefix\n        \
         backend:\n          service:\n            name: {name}\n            port:\n              number: 80\n"
    );
    let text = [account, service, deployment(&team, &name, version), ingress].join("---\n");
    (format!("clusters/demo/{team}/{name}.yaml"), text)
}

/// A thousand plain applications from one repository.
fn applications() {
    on_a_bed(|clock| async move {
        let many = number(1000);
        let bed = Bed::start(clock.clone(), options()).await.expect("a bed");
        let empty = report_memory("of the empty sandbox");
        let mut files: Vec<_> = (0..many).map(|index| ingress_application(index, "1.0.0")).collect();
        files.extend(
            (0..20).map(|team| (format!("clusters/demo/team-{team}.yaml"), namespace(&format!("team-{team}")))),
        );
        commit(&bed, "Start", &files);
        let (began, busy, from) = (Instant::now(), processor(), clock.now());
        let _daemon = bed.daemon().expect("a daemon");
        let gvk = Gvk::new("networking.k8s.io/v1", "Ingress");
        while bed.sandbox.store.list(&gvk, None).len() < many && clock.now().duration_since(from).as_hours() < 1 {
            bed.pass(Duration::from_millis(100)).await;
        }
        assert_eq!(bed.sandbox.store.list(&gvk, None).len(), many);
        report("time until all are applied", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        bed.pass(Duration::from_secs(600)).await;
        report("time until all is at rest", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        report("processor time", format_args!("{:.2} s", processor() - busy));
        report("writes to the API", bed.sandbox.store.requests().writes());
        report_memory("when all is applied");
        let (began, before) = (Instant::now(), bed.sandbox.store.requests());
        commit(&bed, "Change one", &[ingress_application(7, "1.0.1")]);
        bed.pass(Duration::from_secs(400)).await;
        let image = "/spec/template/spec/containers/0/image";
        let seven = bed.sandbox.store.get(&key("apps/v1", "Deployment", "team-7", "app-7")).expect("a Deployment");
        assert!(seven.str(image).ends_with(":1.0.1"));
        report("time of a commit that changes one", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        report("writes for it", bed.sandbox.store.requests().writes() - before.writes());
        let (began, before) = (Instant::now(), bed.sandbox.store.requests());
        let drifted = Object(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "app-9", "namespace": "team-9"},
            "spec": {"selector": {"app": "nothing"}, "ports": [{"port": 80, "targetPort": 8080}]}}));
        bed.sandbox.store.write(drifted, "kubectl").expect("a change by hand");
        bed.pass(Duration::from_secs(5)).await;
        let nine = bed.sandbox.store.get(&key("v1", "Service", "team-9", "app-9")).expect("a Service");
        assert_eq!(nine.str("/spec/selector/app"), "app-9");
        report("time of correcting one drift", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        report("writes for it", bed.sandbox.store.requests().writes() - before.writes());
        let began = Instant::now();
        bed.pass(Duration::from_secs(3600)).await;
        report("time of an idle hour", format_args!("{:.2} s", began.elapsed().as_secs_f64()));
        let all = report_memory("of sandbox and daemon at rest");
        report("memory for each", format_args!("{:.0} KiB", (all - empty) * 1024.0 / amount(many)));
    });
}

fn amount(many: usize) -> f64 {
    u32::try_from(many).map_or(f64::INFINITY, f64::from)
}

/// How many, when `SERIN_BENCH_MANY` says so.
fn number(usual: usize) -> usize {
    std::env::var("SERIN_BENCH_MANY").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The pure part alone: a canary that takes a day in steps of ten seconds.
fn decide_day() {
    let object = Object(json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "1", "generation": 1},
        "spec": {
            "provider": "contour",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80},
            "analysis": {
                "interval": "10s", "threshold": 2, "iterations": 8640,
                "metrics": [
                    {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                    {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "1m"},
                ],
            },
        },
    }));
    let mut canary = CanaryView::from_object(&object).expect("a canary");
    let version = |digest: &str| Version { digest: digest.to_owned(), configs: None };
    let workload = |version: Version| Workload {
        version: Some(version),
        revision: String::new(),
        replicas: 1,
        generation: 1,
        observed_generation: 1,
        total: 1,
        updated: 1,
        ready: 1,
        available: 1,
        conditions: vec![Condition { type_: "Available".into(), status: "True".into(), ..Condition::default() }],
    };
    let start: Timestamp = "2026-01-05T08:00:00Z".parse().expect("a time");
    let (mut now, mut target, mut primary) = (start, version("v1:blue"), None);
    let (mut weights, mut run) = (Read::Absent, RunMemory::default());
    let (mut ticks, mut began, mut released) = (0, Instant::now(), false);
    while ticks < 20_000 {
        let mut seen = Observation {
            now,
            settings: Settings { provider: "contour".into() },
            target: Read::Present(workload(target.clone())),
            primary: primary.clone().map_or(Read::Absent, |primary| Read::Present(workload(primary))),
            objects: Ok(()),
            unsupported: Vec::new(),
            weights: weights.clone(),
            route: RouteState::Accepted,
            writers: serin::rollout::StatusWriters::default(),
            intent: Intent::default(),
            release: ReleaseInfo::default(),
            run: run.clone(),
            kept: Read::Absent,
            answers: Answers::default(),
        };
        let decision = loop {
            match decide(&canary, &seen) {
                Step::Do(decision) => break decision,
                Step::Ask(questions) => {
                    for question in questions {
                        match question {
                            Question::Metrics => {
                                let checks = canary.spec.analysis().map(analysis::checks).unwrap_or_default();
                                seen.answers.metrics = Some(checks.iter().map(|_| Reading::Value(99.9)).collect());
                            }
                            Question::Providers => seen.answers.providers = Some(Ok(())),
                            Question::Hook { .. } => {}
                        }
                    }
                }
            }
        };
        for action in &decision.actions {
            match action {
                Action::CreatePrimary => primary = Some(target.clone()),
                Action::EnsureRoute if weights == Read::Absent => weights = Read::Present(Weights::PRIMARY),
                Action::SetWeights(new) => weights = Read::Present(*new),
                Action::Promote(version) => primary = Some(version.clone()),
                _ => {}
            }
        }
        run = decision.run;
        canary.status = decision.status;
        match (canary.status.phase, released) {
            (serin::api::Phase::Initialized, false) => {
                target = version("v1:green");
                released = true;
                began = Instant::now();
                ticks = 0;
            }
            (serin::api::Phase::Succeeded, true) => break,
            _ => {}
        }
        ticks += 1;
        now += jiff::SignedDuration::from_secs(10);
    }
    assert_eq!(canary.status.phase, serin::api::Phase::Succeeded, "after {ticks} ticks: {:?}", canary.status);
    report("decisions", ticks);
    report("time", format_args!("{:.3} s", began.elapsed().as_secs_f64()));
}
