//! The loops under what happens from outside: killed processes, lost memory, people's hands, sources that overlap.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_types,
    reason = "a world that cannot be made stops its test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use serin::controller::{self, CONFIRM_PRUNE, Settings, Source, SourceSettings, state_key};
use serin::domain::{CanaryKey, Object, ObjectKey, Sha, Snapshot};
use serin::forge::LocalForge;
use serin::ports::{
    Clock as _, CommitInfo, CommitState, FileChange, Forge, GitError, GitRemote, Identity, PushOutcome, Update,
};
use serin::release::{CaseState, Closed, Ledger};
use serin::sandbox::prometheus::Availability;
use serin::sandbox::traffic::Load;
use serin::sim::{Bed, BedOptions, bed, example};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub(crate) const VALUES: &str = "values/demo.yaml";
pub(crate) const GOOD: &str = "errors=0.1%, latency=40ms±10";
pub(crate) const BAD: &str = "errors=8%, latency=45ms±10";
pub(crate) const STATUS: &str = "serin/status/demo";

/// Runs a story on a clock and a runtime of its own.
pub(crate) fn play<T>(story: impl AsyncFnOnce(Arc<serin::sim::SimClock>) -> T) -> T {
    let clock = Arc::new(bed::clock());
    let runtime = clock.runtime().unwrap();
    runtime.block_on(story(clock))
}

pub(crate) fn web() -> CanaryKey {
    CanaryKey::new("shop", "web")
}

pub(crate) async fn world(clock: Arc<serin::sim::SimClock>, options: BedOptions) -> Bed {
    let bed = Bed::start(clock, options).await.unwrap();
    bed.sandbox.traffic.set_load(Load::constant("shop", "web", bed.clock.now(), 50.0));
    bed
}

/// A world with the example's first commit and the daemon running, `shop/web` initialized.
pub(crate) async fn started(clock: Arc<serin::sim::SimClock>) -> (Bed, AbortHandle) {
    let bed = world(clock, BedOptions::default()).await;
    start(&bed);
    let daemon = bed.daemon().unwrap();
    until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
    (bed, daemon)
}

pub(crate) fn start(bed: &Bed) {
    let files: Vec<_> = example::FILES.iter().map(|(path, text)| (*path, Some(*text))).collect();
    bed.remote.commit("main", "Start", &files, bed.clock.now()).unwrap();
}

/// A person pushes a version that behaves as told.
pub(crate) fn release(bed: &Bed, version: &str, behaviour: &str) -> Sha {
    let text = example::FILES.iter().find(|(path, _)| *path == VALUES).unwrap().1;
    let text = text.replacen("1.0.0", version, 1).replacen(GOOD, behaviour, 1);
    bed.remote.commit("main", &format!("Release {version}"), &[(VALUES, Some(&text))], bed.clock.now()).unwrap()
}

pub(crate) async fn until(bed: &Bed, what: &str, holds: impl FnMut(&Bed) -> bool) {
    let came = bed.wait(Duration::from_secs(1200), holds).await;
    let phase = bed.phase(&web());
    assert!(came, "waited in vain until {what}: phase {phase}, log {:?}, {:#?}", log(bed), bed.forge.posted());
}

pub(crate) fn log(bed: &Bed) -> Vec<String> {
    let subjects = bed.remote.log("main").into_iter().map(|(_, text)| text.lines().next().unwrap_or("").to_owned());
    subjects.collect()
}

pub(crate) fn image(bed: &Bed, name: &str) -> String {
    let live = bed.sandbox.store.get(&ObjectKey::namespaced("apps/v1", "Deployment", "shop", name));
    let image = live.map(|live| live.str("/spec/template/spec/containers/0/image").to_owned()).unwrap_or_default();
    image.rsplit(':').next().unwrap_or_default().to_owned()
}

pub(crate) fn memory(bed: &Bed, source: &str) -> Option<Arc<Object>> {
    bed.sandbox.store.get(&state_key(bed::NAMESPACE, source))
}

pub(crate) fn ledger(bed: &Bed) -> Ledger {
    let object = memory(bed, "apps").expect("the memory");
    Ledger::from_json(object.at("/data").unwrap()["ledger.json"].as_str().unwrap()).unwrap().0
}

pub(crate) fn history(bed: &Bed) -> Vec<String> {
    ledger(bed).canaries[&web()].history.iter().map(|ended| ended.verdict.clone()).collect()
}

/// The status in force for a commit.
pub(crate) fn status(bed: &Bed, sha: &Sha, context: &str) -> (CommitState, String) {
    in_force(&bed.forge, sha, context)
}

pub(crate) fn in_force(forge: &LocalForge, sha: &Sha, context: &str) -> (CommitState, String) {
    let posted = forge.posted().into_iter().rev().find(|status| status.sha == *sha && status.context == context);
    let posted = posted.unwrap_or_else(|| panic!("no {context} on {}: {:#?}", sha.short(), forge.posted()));
    (posted.state, posted.description)
}

pub(crate) const WEB: &str = "serin/demo/shop/web";
pub(crate) const ALL: &str = "serin/demo";

#[test]
fn a_successor_is_judged_by_its_own_run() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        release(&bed, "1.1.0", GOOD);
        until(&bed, "it carries traffic", |bed| bed.canary(&web()).unwrap().int("/status/canaryWeight") == Some(20))
            .await;
        let bad = release(&bed, "1.2.0", BAD);
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(history(&bed), ["promoted", "superseded", "failed"]);
        assert_eq!(image(&bed, "web-primary"), "1.0.0");
        assert_eq!(status(&bed, &bad, WEB).0, CommitState::Failure);
        assert_eq!(image(&bed, "web"), "1.0.0", "both releases are undone");
    });
}

#[test]
fn a_head_that_waits_for_a_promotion_is_another_release() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        let first = release(&bed, "1.1.0", GOOD);
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Promoting").await;
        let second = release(&bed, "1.2.0", GOOD);
        until(&bed, "the second is promoted", |bed| {
            image(bed, "web-primary") == "1.2.0" && bed.phase(&web()) == "Succeeded"
        })
        .await;
        bed.pass(Duration::from_secs(60)).await;
        let record = ledger(&bed).canaries[&web()].clone();
        let commits: Vec<_> = record.history.iter().skip(1).map(|ended| ended.commit.clone().unwrap()).collect();
        assert_eq!(commits, [first.clone(), second.clone()]);
        let promoted = record.promoted.unwrap();
        assert_eq!((promoted.commit, promoted.aliases), (second.clone(), Vec::new()));
        assert_ne!(record.history[1].digest, record.history[2].digest);
        for sha in [&first, &second] {
            assert_eq!(status(&bed, sha, WEB).0, CommitState::Success);
            assert_eq!(status(&bed, sha, ALL).0, CommitState::Success);
        }
        let repository = git2::Repository::open_bare(bed.repository()).unwrap();
        let kept = repository.find_reference("refs/serin/demo/shop/web").unwrap().target().unwrap();
        assert_eq!(kept.to_string(), second.0, "the promoted commit stays fetchable");
    });
}

#[test]
fn a_release_that_never_began_ends() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        let start = bed.remote.head("main").unwrap();
        annotate(&bed, &web().object_key(), "serin.dev/pause", "true");
        let paused = release(&bed, "1.1.0", GOOD);
        bed.pass(Duration::from_secs(60)).await;
        let (state, words) = status(&bed, &paused, WEB);
        assert_eq!((state, words.contains("paused by an operator")), (CommitState::Pending, true), "{words}");
        let values = example::FILES.iter().find(|(path, _)| *path == VALUES).unwrap().1;
        bed.remote.commit("main", "Undo it", &[(VALUES, Some(values))], bed.clock.now()).unwrap();
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &paused, WEB).0, CommitState::Error);
        assert_eq!(history(&bed), ["promoted", "cancelled"]);
        assert_eq!(ledger(&bed).canaries[&web()].promoted.as_ref().unwrap().commit, start);
    });
}

#[test]
fn a_canary_that_leaves_git_in_its_run_is_cancelled() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        let running = release(&bed, "1.1.0", GOOD);
        until(&bed, "it runs", |bed| bed.phase(&web()) == "Progressing").await;
        let path = "clusters/demo/shop/canary.yaml";
        bed.remote.commit("main", "Drop the canary", &[(path, None)], bed.clock.now()).unwrap();
        bed.pass(Duration::from_secs(120)).await;
        assert!(bed.canary(&web()).is_none());
        assert_eq!(status(&bed, &running, WEB).0, CommitState::Error);
        assert_eq!(status(&bed, &running, ALL).0, CommitState::Error);
    });
}

#[test]
fn a_rebuilt_cluster_begins_with_what_was_promoted() {
    let (repository, url, untried, kept) = play(async |clock| {
        let (bed, daemon) = started(clock).await;
        release(&bed, "1.1.0", GOOD);
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(30)).await;
        daemon.abort();
        let untried = release(&bed, "1.2.0", BAD);
        (bed.repository(), bed.url(), untried, bed)
    });
    play(async |clock| {
        let options = BedOptions { remote: Some((repository, url)), ..BedOptions::default() };
        let bed = world(clock, options).await;
        let _daemon = bed.daemon().unwrap();
        // Its phase is `Initialized` for less than a second, if the head is applied in the same one.
        until(&bed, "the primary is there", |bed| image(bed, "web-primary") == "1.1.0").await;
        until(&bed, "the head is tried", |bed| image(bed, "web") == "1.2.0").await;
        until(&bed, "it is reverted", |bed| log(bed)[0] == "Revert \"Release 1.2.0\"").await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!((image(&bed, "web-primary"), bed.phase(&web())), ("1.1.0".to_owned(), "Succeeded".to_owned()));
        assert_eq!(
            ledger(&bed)
                .cases
                .values()
                .map(|case| matches!(case.state, CaseState::Closed(Closed::Reverted(_))))
                .collect::<Vec<_>>(),
            [true]
        );
        // Not green while its primary was made from another release.
        let posted = bed.forge.posted().into_iter().filter(|status| status.sha == untried);
        let ends: Vec<_> = posted.map(|status| status.state).filter(|state| *state != CommitState::Pending).collect();
        assert!(ends.len() >= 2 && ends.iter().all(|end| *end == CommitState::Failure), "{ends:?}");
    });
    drop(kept);
}

#[test]
fn a_memory_that_is_lost_or_broken_is_made_anew() {
    play(async |clock| {
        let (bed, daemon) = started(clock).await;
        release(&bed, "1.1.0", BAD);
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        bed.pass(Duration::from_secs(30)).await;
        let before = ledger(&bed).canaries[&web()].clone();
        // Deleted while the daemon runs.
        bed.sandbox.store.delete(&state_key(bed::NAMESPACE, "apps")).unwrap();
        bed.pass(Duration::from_secs(5)).await;
        assert_eq!(ledger(&bed).canaries[&web()], before);
        // Broken while it does not: promoted and condemned come from the status branch.
        daemon.abort();
        let mut broken = Object::clone(&memory(&bed, "apps").unwrap());
        broken.0["data"]["ledger.json"] = json!("{ what");
        broken.0["data"]["inventory.json"] = json!("what");
        bed.sandbox.store.write(broken, "kubectl").unwrap();
        let _daemon = bed.daemon().unwrap();
        bed.pass(Duration::from_secs(60)).await;
        let after = ledger(&bed).canaries[&web()].clone();
        assert_eq!(after.condemned, before.condemned);
        assert_eq!(after.promoted.map(|p| p.digest), before.promoted.map(|p| p.digest));
        // And the status branch itself, when somebody deletes it.
        let repository = git2::Repository::open_bare(bed.repository()).unwrap();
        repository.find_reference(&format!("refs/heads/{STATUS}")).unwrap().delete().unwrap();
        release(&bed, "1.2.0", GOOD);
        until(&bed, "it is promoted", |bed| image(bed, "web-primary") == "1.2.0").await;
        bed.pass(Duration::from_secs(60)).await;
        assert!(bed.remote.text(STATUS, "shop/web.yaml").unwrap().contains("phase: Succeeded"));
    });
}

#[test]
fn status_files_show_the_end_and_the_whole_journal_after_a_kill() {
    play(async |clock| {
        let (bed, daemon) = started(clock).await;
        release(&bed, "1.1.0", BAD);
        until(&bed, "it carries traffic", |bed| bed.canary(&web()).unwrap().int("/status/canaryWeight") == Some(20))
            .await;
        bed.pass(Duration::from_secs(2)).await;
        daemon.abort();
        bed.pass(Duration::from_secs(5)).await;
        annotate(&bed, &web().object_key(), "serin.dev/run", "{ what");
        let _daemon = bed.daemon().unwrap();
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        until(&bed, "the case is closed", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(10)).await;
        let record = bed.remote.text(STATUS, "shop/web.yaml").unwrap();
        assert!(record.contains("phase: Succeeded") && record.contains("verdict: failed"), "{record}");
        let files = bed.remote.files(STATUS);
        let journal = files.iter().find(|path| path.ends_with(".jsonl")).unwrap();
        let lines = bed.remote.text(STATUS, journal).unwrap();
        let times: Vec<&str> = lines.lines().filter_map(|line| line.get(9..29)).collect();
        assert!(times.windows(2).all(|two| two[0] < two[1]), "each tick once: {lines}");
        assert!(times[0] < "2026-01-05T08:00:20Z", "from before the kill: {lines}");
        assert!(lines.lines().last().unwrap().contains("\"phase\":\"Failed\""), "{lines}");
    });
}

#[test]
fn a_prune_that_was_stopped_is_confirmed_by_hand() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        let many: Vec<String> = (0..8)
            .map(|n| {
                format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}, namespace: shop}}\ndata: {{}}\n")
            })
            .collect();
        let path = "clusters/demo/many.yaml";
        bed.remote.commit("main", "Many", &[(path, Some(&many.join("---\n")))], bed.clock.now()).unwrap();
        start(&bed);
        let _daemon = bed.daemon().unwrap();
        let many = |bed: &Bed| bed.sandbox.store.get(&ObjectKey::namespaced("v1", "ConfigMap", "shop", "c3")).is_some();
        until(&bed, "all is there", many).await;
        bed.pass(Duration::from_secs(30)).await;
        let pruned = bed.remote.commit("main", "None", &[(path, None)], bed.clock.now()).unwrap();
        bed.pass(Duration::from_secs(120)).await;
        assert!(many(&bed));
        let (state, words) = status(&bed, &pruned, ALL);
        let command = format!("serin apply --confirm-prune apps@{}", pruned.short());
        assert!(state == CommitState::Failure && words.contains(&command), "{words}");
        annotate(&bed, &state_key(bed::NAMESPACE, "apps"), CONFIRM_PRUNE, pruned.short());
        bed.pass(Duration::from_secs(10)).await;
        assert!(!many(&bed));
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &pruned, ALL).0, CommitState::Success);
    });
}

#[test]
fn what_the_cluster_refuses_is_told_by_file_and_line() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        let bad =
            "\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad, namespace: shop}\nspec: {replicas: many}\n";
        let path = "clusters/demo/bad.yaml";
        let refused = bed.remote.commit("main", "Bad", &[(path, Some(bad))], bed.clock.now()).unwrap();
        bed.pass(Duration::from_secs(60)).await;
        let (state, words) = status(&bed, &refused, ALL);
        assert!(state == CommitState::Failure && words.starts_with("clusters/demo/bad.yaml:2: "), "{state:?} {words}");
        // A type that is not served yet is waited for, and is a failure when it does not come.
        let unknown = "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: a, namespace: shop}\n";
        let unknown = bed.remote.commit("main", "Thing", &[(path, Some(unknown))], bed.clock.now()).unwrap();
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &unknown, ALL).0, CommitState::Pending);
        bed.pass(Duration::from_secs(400)).await;
        assert_eq!(status(&bed, &unknown, ALL).0, CommitState::Failure);
    });
}

#[test]
fn canaries_wait_for_their_type() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        let key = ObjectKey::cluster("apiextensions.k8s.io/v1", "CustomResourceDefinition", "canaries.flagger.app");
        let definition = Object::clone(&bed.sandbox.store.get(&key).unwrap());
        bed.sandbox.store.delete(&key).unwrap();
        start(&bed);
        let head = bed.remote.head("main").unwrap();
        let _daemon = bed.daemon().unwrap();
        bed.pass(Duration::from_secs(60)).await;
        let mut definition = definition;
        if let Some(metadata) = definition.0["metadata"].as_object_mut() {
            metadata.retain(|name, _| name == "name");
        }
        bed.sandbox.store.write(definition, "kubectl").unwrap();
        until(&bed, "it is initialized", |bed| bed.phase(&web()) == "Initialized").await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &head, ALL).0, CommitState::Success);
    });
}

pub(crate) fn annotate(bed: &Bed, key: &ObjectKey, name: &str, value: &str) {
    let mut live = Object::clone(&bed.sandbox.store.get(key).expect("the object"));
    live.0["metadata"]["annotations"][name] = json!(value);
    bed.sandbox.store.write(live, "kubectl").unwrap();
}

/// A remote that can be taken down.
pub(crate) struct Cut(pub(crate) Arc<dyn GitRemote>, pub(crate) Arc<AtomicBool>);

impl Cut {
    fn up(&self) -> Result<&dyn GitRemote, GitError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(GitError::Unavailable { doing: "fetching".to_owned(), message: "no route to host".to_owned() });
        }
        Ok(self.0.as_ref())
    }
}

#[async_trait]
impl GitRemote for Cut {
    async fn fetch(&self, references: &[String]) -> Result<Vec<Option<Sha>>, GitError> {
        self.up()?.fetch(references).await
    }

    async fn snapshot(&self, sha: &Sha, prefixes: &[String]) -> Result<Snapshot, GitError> {
        self.0.snapshot(sha, prefixes).await
    }

    async fn history(&self, from: Option<&Sha>, to: &Sha, limit: usize) -> Result<Option<Vec<CommitInfo>>, GitError> {
        self.0.history(from, to, limit).await
    }

    async fn changes(&self, sha: &Sha) -> Result<Vec<FileChange>, GitError> {
        self.0.changes(sha).await
    }

    async fn commit_and_push(&self, update: Update) -> Result<PushOutcome, GitError> {
        self.up()?.commit_and_push(update).await
    }

    async fn push_ref(&self, reference: &str, sha: &Sha, force: bool) -> Result<PushOutcome, GitError> {
        self.up()?.push_ref(reference, sha, force).await
    }
}

#[test]
fn a_rollback_needs_no_git() {
    play(async |clock| {
        let (bed, daemon) = started(clock).await;
        let bad = release(&bed, "1.1.0", BAD);
        until(&bed, "it carries traffic", |bed| bed.canary(&web()).unwrap().int("/status/canaryWeight") == Some(20))
            .await;
        daemon.abort();
        let down = Arc::new(AtomicBool::new(true));
        let git = Arc::new(Cut(bed.git().unwrap(), down.clone()));
        let _daemon = bed.daemon_with(bed.ports(), git, bed.forge.clone());
        until(&bed, "it is rolled back", |bed| bed.phase(&web()) == "Failed").await;
        bed.sandbox.prometheus.set_availability(Availability::Refused);
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &bad, WEB).0, CommitState::Failure, "the forge is told");
        down.store(false, Ordering::Relaxed);
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
    });
}

pub(crate) fn source(bed: &Bed, name: &str, forge: &Arc<LocalForge>) -> (Source, mpsc::Receiver<()>) {
    let settings = SourceSettings {
        name: name.to_owned(),
        repository: bed.url(),
        branch: "main".to_owned(),
        path: "clusters/demo".to_owned(),
        values: Some(VALUES.to_owned()),
        interval: Duration::from_secs(30),
        namespaces: None,
        prune: true,
        suspend: false,
        status_branch: Some(STATUS.to_owned()),
        revert: true,
        author: Identity { name: "serin".to_owned(), email: "serin@example.com".to_owned() },
    };
    let forge: Arc<dyn Forge> = forge.clone();
    (Source { settings, git: bed.git().unwrap(), forge: Some(forge) }, mpsc::channel(1).1)
}

pub(crate) fn settings(bed: &Bed) -> Settings {
    Settings {
        cluster: bed::CLUSTER.to_owned(),
        namespace: bed::NAMESPACE.to_owned(),
        provider: Some("contour".to_owned()),
        metrics_server: bed.prometheus_url().to_owned(),
        only_namespace: None,
        all_canaries: false,
        selector_labels: ["app", "name", "app.kubernetes.io/name"].map(str::to_owned).to_vec(),
        include_label_prefix: Vec::new(),
        config_tracking: true,
        no_cross_namespace_refs: false,
        ingress_class: None,
        ingress_annotations_prefix: None,
        outgoing: serin::controller::Outgoing::default(),
    }
}

#[test]
fn of_two_sources_with_one_object_the_second_is_refused() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        start(&bed);
        let head = bed.remote.head("main").unwrap();
        let forges = [Arc::new(LocalForge::default()), Arc::new(LocalForge::default())];
        let sources = vec![source(&bed, "apps", &forges[0]), source(&bed, "zoo", &forges[1])];
        tokio::spawn(controller::run(settings(&bed), bed.ports(), sources));
        until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
        bed.pass(Duration::from_secs(120)).await;
        let mut told: Vec<_> = forges.iter().map(|forge| in_force(forge, &head, ALL)).collect();
        // Which of two that begin together is first is nobody's concern.
        told.sort_by_key(|(state, _)| *state == CommitState::Failure);
        assert_eq!((told[0].0, told[1].0), (CommitState::Success, CommitState::Failure), "{told:?}");
        assert!(told[1].1.contains("belongs to source "), "{told:?}");
        let writes = bed.sandbox.store.requests().writes();
        bed.pass(Duration::from_secs(600)).await;
        let more = bed.sandbox.store.requests().writes() - writes;
        assert!(more < 5, "they fight: {more} writes");
    });
}
