#![expect(clippy::disallowed_types, reason = "shell: says how long the demo took")]
//! `serin demo`: the main job on the embedded sandbox. The daemon is the real one; what is shown is watched from the
//! outside: objects of the cluster, commits of the repository, statuses on the forge.

mod check;
mod show;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;

use super::args::{DemoArgs, DemoOutput};
use super::clock::SystemClock;
use crate::domain::{CanaryKey, Sha};
use crate::ports::Clock as _;
use crate::sandbox::traffic::Load;
use crate::sim::{Bed, BedOptions, Pace, SimClock, bed, example};
use show::Show;
use watch::Watch;

/// Requests per second that the demo's users send.
const RATE: f64 = 50.0;
/// The values file, whose change is a release.
const VALUES: &str = "values/demo.yaml";
/// What each part of the story may take at most, in virtual time.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the story takes, in virtual time: a little more, so that nothing happens in the future.
const STORY: Duration = Duration::from_secs(150);

/// The commits of the story.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) promoted: Sha,
    pub(super) condemned: Sha,
    pub(super) revert: Sha,
}

/// Runs the demo: exit code 0 only when cluster, branch, ledger and statuses all ended as they should.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let clock = Arc::new(if args.keep { SimClock::new(beginning(args.speed)) } else { bed::clock() });
    clock.set_pace(Pace::Speed(args.speed));
    let runtime = clock.runtime().context("starting the runtime")?;
    let show = Show::new(args.output);
    let started = Instant::now();
    runtime.block_on(async {
        let options = BedOptions { seed: args.seed, interval: Duration::from_secs(10), ..BedOptions::default() };
        let bed = Bed::start(clock.clone(), options).await?;
        show.begin(args.speed);
        let story = tell(&bed, &show).await;
        let ok = match &story {
            Ok(story) => {
                let findings = check::findings(&bed, story);
                show.result(&bed, story, &findings);
                let ok = findings.iter().all(|finding| finding.ok);
                show.summary(ok, story, started.elapsed());
                ok
            }
            Err(error) => {
                show.failed(error, started.elapsed());
                false
            }
        };
        if args.keep {
            keep(&bed, &show).await?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// When a world that is kept begins, so that its story ends about now: kubectl counts ages from the real time.
fn beginning(speed: f64) -> Timestamp {
    let ahead = STORY.mul_f64((1.0 - 1.0 / speed).max(0.0));
    let now = SystemClock.now();
    now.checked_sub(ahead).and_then(|start| start.round(jiff::Unit::Second)).unwrap_or(now)
}

/// The story itself.
async fn tell(bed: &Bed, show: &Show) -> anyhow::Result<Story> {
    let web = CanaryKey::new("shop", "web");
    bed.sandbox.traffic.set_load(Load {
        namespace: "shop".to_owned(),
        app: "web".to_owned(),
        steps: vec![(bed.clock.now(), RATE)],
        day: [1.0; 24],
        matching: 0.0,
    });
    let mut watch = Watch::new(web.clone());
    let files: Vec<_> = example::FILES.iter().map(|(path, text)| (*path, Some(*text))).collect();
    show.chapter(
        1,
        "The shop moves in",
        "Ada pushes a repository with two applications; serin applies it to an empty cluster.",
    );
    commit(bed, show, "Add the shop", &files)?;
    let _daemon = bed.daemon()?;
    wait(bed, show, &mut watch, "the canary to be initialised", |bed| bed.phase(&web) == "Initialized").await?;

    let story = "Ada changes one line of values/demo.yaml. serin moves users to the new version 20 % at a time.";
    show.chapter(2, "A good release is promoted", story);
    let good = release("1.1.0", "errors=0.1%, latency=45ms±10")?;
    let promoted = commit(bed, show, "Release web 1.1.0", &[(VALUES, Some(&good))])?;
    wait(bed, show, &mut watch, "the release to start", |bed| bed.phase(&web) == "Progressing").await?;
    wait(bed, show, &mut watch, "the promotion", |bed| bed.phase(&web) == "Succeeded").await?;

    let story = "Version 1.2.0 answers 8 % of its requests with errors; the Canary allows 1 %. Nobody is watching.";
    show.chapter(3, "A bad release is halted, rolled back and reverted in Git", story);
    let bad = release("1.2.0", "errors=8%, latency=120ms±40")?;
    let condemned = commit(bed, show, "Release web 1.2.0", &[(VALUES, Some(&bad))])?;
    wait(bed, show, &mut watch, "the rollback", |bed| bed.phase(&web) == "Failed").await?;
    let reverted = |bed: &Bed| bed.remote.head("main").filter(|head| *head != condemned);
    wait(bed, show, &mut watch, "the revert", |bed| reverted(bed).is_some()).await?;
    let revert = reverted(bed).context("the branch has no head")?;
    let story = Story { promoted, condemned, revert };
    wait(bed, show, &mut watch, "the last statuses", |bed| {
        check::findings(bed, &story).iter().all(|finding| finding.ok)
    })
    .await
    .ok();
    Ok(story)
}

/// The values file with another version of web.
fn release(version: &str, behaviour: &str) -> anyhow::Result<String> {
    let (_, text) = example::FILES.iter().find(|(path, _)| *path == VALUES).context("the example has no values")?;
    let changed = text.replacen("version: 1.0.0", &format!("version: {version}"), 1).replacen(
        "errors=0.1%, latency=40ms±10",
        behaviour,
        1,
    );
    if !changed.contains(version) || !changed.contains(behaviour) {
        bail!("{VALUES} does not hold the version that the demo changes");
    }
    Ok(changed)
}

fn commit(bed: &Bed, show: &Show, message: &str, files: &[(&str, Option<&str>)]) -> anyhow::Result<Sha> {
    let sha = bed.remote.commit("main", message, files, bed.clock.now()).context("committing")?;
    let data = json!({"event": "push", "sha": sha, "subject": message, "by": "Ada"});
    show.line(bed.clock.now(), "git", &format!("Ada pushes {} \"{message}\" to main", sha.short()), data);
    Ok(sha)
}

/// Lets time pass until a condition holds, showing what happens.
async fn wait(
    bed: &Bed,
    show: &Show,
    watch: &mut Watch,
    what: &str,
    holds: impl Fn(&Bed) -> bool,
) -> anyhow::Result<()> {
    let end = bed.clock.now().checked_add(PATIENCE).context("the end of time")?;
    show.waiting(bed.clock.now(), what);
    loop {
        watch.look(bed, show);
        show.progress(bed, watch.canary(), what);
        if holds(bed) {
            return Ok(());
        }
        if bed.clock.now() >= end {
            bail!("waited {PATIENCE:?} of the sandbox's time for {what}");
        }
        bed.pass(Duration::from_secs(1)).await;
    }
}

/// Serves the cluster until interrupted.
async fn keep(bed: &Bed, show: &Show) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("opening a port")?;
    let address = listener.local_addr().context("opening a port")?;
    let mut file = tempfile::Builder::new().prefix("serin-demo-").suffix(".kubeconfig").tempfile()?;
    std::io::Write::write_all(&mut file, crate::sandbox::api::kubeconfig(address).as_bytes())?;
    show.kept(file.path(), &bed.url());
    let store = bed.sandbox.store.clone();
    bed.clock.set_pace(Pace::Speed(1.0));
    tokio::select! {
        served = crate::sandbox::api::serve(store, listener) => served.context("serving the cluster"),
        stopped = tokio::signal::ctrl_c() => stopped.context("waiting for Ctrl-C"),
    }
}

impl DemoOutput {
    const fn is_json(self) -> bool {
        matches!(self, Self::Json)
    }
}
