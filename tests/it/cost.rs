//! What the daemon costs the API server, the Git server and the forge, counted by the sandbox. Counts only: time is
//! measured by `benches/cost.rs`.
#![expect(clippy::unwrap_used, reason = "a broken test bed stops the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serin::domain::{CanaryKey, Sha, Snapshot};
use serin::ports::{Clock as _, CommitInfo, FileChange, GitError, GitRemote, PushOutcome, Update};
use serin::sandbox::store::RequestCounts;
use serin::sandbox::traffic::Load;
use serin::sim::{Bed, BedOptions, SimClock, bed};

const HOUR: Duration = Duration::from_secs(3600);
/// Time between polls of the repository.
const POLL: Duration = Duration::from_secs(300);

/// Types that the daemon watches here: Canary, ConfigMap, Deployment, HTTPProxy, Namespace, Service.
const TYPES: u64 = 6;

/// Counts the rounds over the network.
struct Counted {
    git: Arc<dyn GitRemote>,
    fetches: AtomicUsize,
    pushes: AtomicUsize,
}

#[async_trait]
impl GitRemote for Counted {
    async fn fetch(&self, references: &[String]) -> Result<Vec<Option<Sha>>, GitError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.git.fetch(references).await
    }

    async fn snapshot(&self, sha: &Sha, prefixes: &[String]) -> Result<Snapshot, GitError> {
        self.git.snapshot(sha, prefixes).await
    }

    async fn history(&self, from: Option<&Sha>, to: &Sha, limit: usize) -> Result<Option<Vec<CommitInfo>>, GitError> {
        self.git.history(from, to, limit).await
    }

    async fn changes(&self, sha: &Sha) -> Result<Vec<FileChange>, GitError> {
        self.git.changes(sha).await
    }

    async fn commit_and_push(&self, update: Update) -> Result<PushOutcome, GitError> {
        self.pushes.fetch_add(1, Ordering::Relaxed);
        self.git.commit_and_push(update).await
    }

    async fn push_ref(&self, reference: &str, sha: &Sha, force: bool) -> Result<PushOutcome, GitError> {
        self.pushes.fetch_add(1, Ordering::Relaxed);
        self.git.push_ref(reference, sha, force).await
    }

    async fn push_refs(&self, refs: &[(String, Sha)], force: bool) -> Vec<Result<PushOutcome, GitError>> {
        self.pushes.fetch_add(1, Ordering::Relaxed);
        self.git.push_refs(refs, force).await
    }
}

/// Everything that was asked of anybody, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bill {
    /// `VERB RESOURCE` of the API, Events and watches apart.
    api: BTreeMap<String, u64>,
    events: u64,
    watches: u64,
    fetches: usize,
    pushes: usize,
    statuses: usize,
}

impl Bill {
    fn since(&self, before: &Self) -> Self {
        let less = |(kind, count): (&String, &u64)| {
            let count = count - before.api.get(kind).copied().unwrap_or(0);
            (count > 0).then(|| (kind.clone(), count))
        };
        Self {
            api: self.api.iter().filter_map(less).collect(),
            events: self.events - before.events,
            watches: self.watches - before.watches,
            fetches: self.fetches - before.fetches,
            pushes: self.pushes - before.pushes,
            statuses: self.statuses - before.statuses,
        }
    }

    /// Requests of the API besides Events and watches, in one line.
    fn api(&self) -> String {
        let all: Vec<String> = self.api.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        all.join(", ")
    }
}

/// A world with some canaries, all of them initialised and at rest.
struct Shop {
    bed: Bed,
    git: Arc<Counted>,
    /// What it cost to get there.
    start: Bill,
}

fn canary(index: usize) -> CanaryKey {
    CanaryKey::new("shop", &format!("app-{index}"))
}

/// The file of one application.
fn application(index: usize, version: &str) -> (String, String) {
    let name = canary(index).name;
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec: {{containers: [{{name: app, image: \"registry.example.com/app:{version}\"}}]}}\n---\n\
         apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         provider: contour\n  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}\n  \
         service: {{port: 80}}\n  analysis:\n    interval: 30s\n    threshold: 2\n    maxWeight: 60\n    stepWeight: 20\n    \
         metrics: [{{name: request-success-rate, thresholdRange: {{min: 99}}, interval: 1m}}]\n"
    );
    (format!("clusters/demo/{name}.yaml"), text)
}

impl Shop {
    async fn open(clock: Arc<SimClock>, canaries: usize) -> Self {
        let options = BedOptions { values: None, interval: POLL, ..BedOptions::default() };
        let bed = Bed::start(clock, options).await.unwrap();
        let mut files: Vec<_> = (0..canaries).map(|index| application(index, "1.0.0")).collect();
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        files.push(("clusters/demo/namespace.yaml".to_owned(), namespace.to_owned()));
        let git =
            Arc::new(Counted { git: bed.git().unwrap(), fetches: AtomicUsize::new(0), pushes: AtomicUsize::new(0) });
        let mut shop = Self { bed, git, start: Bill::default() };
        shop.commit("Start", &files);
        let before = shop.bill();
        shop.bed.daemon_with(shop.bed.ports(), shop.git.clone(), shop.bed.forge.clone());
        let ready = |bed: &Bed| (0..canaries).all(|index| bed.phase(&canary(index)) == "Initialized");
        assert!(shop.bed.wait(Duration::from_secs(300), ready).await);
        // Statuses are posted one in a second, files are published every five minutes.
        shop.bed.pass(Duration::from_secs(900)).await;
        shop.start = shop.bill().since(&before);
        shop
    }

    fn commit(&self, message: &str, files: &[(String, String)]) {
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        self.bed.remote.commit("main", message, &files, self.bed.clock.now()).unwrap();
    }

    /// Phase and weight of a canary.
    fn state(&self, index: usize) -> String {
        let object = self.bed.canary(&canary(index)).unwrap();
        format!("{} {}", object.str("/status/phase"), object.int("/status/canaryWeight").unwrap_or(0))
    }

    fn bill(&self) -> Bill {
        let RequestCounts { requests, events } = self.bed.sandbox.store.requests();
        let mut bill = Bill {
            events: events.values().sum(),
            fetches: self.git.fetches.load(Ordering::Relaxed),
            pushes: self.git.pushes.load(Ordering::Relaxed),
            statuses: self.bed.forge.posted().len(),
            ..Bill::default()
        };
        for (kind, count) in requests {
            if kind.verb == "watch" {
                bill.watches += count;
            } else {
                *bill.api.entry(format!("{} {}", kind.verb, kind.resource)).or_default() += count;
            }
        }
        bill
    }
}

fn played<F: Future<Output = ()>>(body: impl FnOnce(Arc<SimClock>) -> F) {
    let clock = Arc::new(bed::clock());
    clock.runtime().unwrap().block_on(body(clock));
}

#[test]
fn q10_s24_canaries_at_rest_cost_polls_and_renewals_of_watches_however_many_they_are() {
    for canaries in [1, 6] {
        played(|clock| async move {
            let shop = Shop::open(clock, canaries).await;
            let before = shop.bill();
            shop.bed.pass(HOUR).await;
            // One fetch for each poll; a watch for each type that is used, renewed every five minutes.
            let watches = TYPES * 12;
            assert_eq!(shop.bill().since(&before), Bill { watches, fetches: 12, ..Bill::default() });
        });
    }
}

#[test]
fn what_a_start_costs_grows_with_the_number_of_canaries_and_no_faster() {
    let cost = |canaries: usize| {
        let mut start = Bill::default();
        played(|clock| async {
            start = Shop::open(clock, canaries).await.start;
        });
        start
    };
    let (few, many) = (cost(2), cost(6));
    let for_one = |verb: &str| (many.api.get(verb).unwrap_or(&0) - few.api.get(verb).unwrap_or(&0)) / 4;
    let made = ["apply canaries.flagger.app", "apply deployments.apps", "apply httpproxies.projectcontour.io"];
    assert_eq!(made.map(for_one), [1, 3, 1], "Canary; target, its primary, its scale to zero; route");
    assert_eq!(for_one("apply services"), 3);
    assert_eq!(for_one("patch canaries.flagger.app/status"), 2, "Initializing, Initialized");
    assert!(for_one("apply configmaps") <= 1, "writes of the ledger for one canary more: {few:?}, {many:?}");
    assert_eq!(few.fetches, many.fetches);
    assert_eq!(many.pushes, few.pushes, "status files, and all refs that keep promoted commits at once");
    assert_eq!(many.statuses - few.statuses, 2 * 4, "queued, promoted");
    assert_eq!(reads(&many), 0, "{}", many.api());
}

/// Reads of the API besides watches.
fn reads(bill: &Bill) -> u64 {
    bill.api.iter().filter(|(kind, _)| kind.starts_with("get ") || kind.starts_with("list ")).map(|(_, n)| n).sum()
}

#[test]
fn a_step_costs_two_writes_and_no_read() {
    played(|clock| async move {
        let shop = Shop::open(clock, 3).await;
        let load = Load::constant("shop", "app-1", shop.bed.clock.now(), 50.0);
        shop.bed.sandbox.traffic.set_load(load);
        let begin = shop.bill();
        shop.commit("Release", &[application(1, "1.1.0")]);
        let (mut before, mut state, mut told) = (begin.clone(), shop.state(1), Vec::new());
        while state != "Succeeded 0" && told.len() < 20 {
            let old = state.clone();
            assert!(shop.bed.wait(Duration::from_secs(600), |_| shop.state(1) != old).await, "{old}");
            state = shop.state(1);
            let now = shop.bill();
            told.push(format!("{state}: {}", now.since(&before).api()));
            before = now;
        }
        let step = "1 apply httpproxies.projectcontour.io, 1 patch canaries.flagger.app/status";
        assert_eq!(
            told,
            [
                // Git's change, the target scaled up; run and phase of the Canary; the ledger explains the run. The old
                // primary is kept aside until the new version has proved itself.
                "Progressing 0: 1 apply configmaps, 2 apply deployments.apps, 1 apply secrets, \
                 1 patch canaries.flagger.app, 1 patch canaries.flagger.app/status",
                // The first pending status enters the ledger; later steps do not.
                &format!("Progressing 20: 1 apply configmaps, {step}"),
                &format!("Progressing 40: {step}"),
                &format!("Progressing 60: {step}"),
                "Promoting 60: 1 apply deployments.apps, 1 patch canaries.flagger.app/status",
                &format!("Finalising 0: {step}"),
                "Succeeded 0: 1 apply configmaps, 1 apply deployments.apps, 1 delete secrets, \
                 1 patch canaries.flagger.app, 1 patch canaries.flagger.app/status",
            ]
        );
        shop.bed.pass(Duration::from_secs(900)).await;
        let release = shop.bill().since(&begin);
        assert_eq!(reads(&release), 0, "{}", release.api());
        assert_eq!(release.api.get("apply configmaps"), Some(&4), "run, first statuses, verdict, last statuses");
        assert_eq!(
            release.pushes, 3,
            "status files when the release begins and when it ends, the ref of the promoted commit"
        );
    });
}
