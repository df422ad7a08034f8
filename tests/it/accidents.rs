//! What people and machines do to a cluster and a repository behind the daemon's back.
#![expect(clippy::unwrap_used, reason = "a world that cannot be made stops its test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use serin::controller::state_key;
use serin::domain::{FieldManager, Gvk, Object, ObjectKey};
use serin::ports::{
    Change, Clock as _, Cluster, ClusterError, CommitState, KubeEvent, MetricQuery, MetricSource, Reading,
};
use serin::sim::{Bed, BedOptions, SimClock, bed};
use tokio::sync::broadcast;

use crate::loops::{
    BAD, GOOD, STATUS, WEB, annotate, history, image, ledger, log, play, release, start, started, status, until, web,
    world,
};

fn deployment(name: &str) -> ObjectKey {
    ObjectKey::namespaced("apps/v1", "Deployment", "shop", name)
}

fn kept() -> ObjectKey {
    ObjectKey::namespaced("v1", "Secret", "shop", "web-primary-promoted")
}

fn edit(bed: &Bed, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
    let mut live = Object::clone(&bed.sandbox.store.get(key).unwrap());
    change(&mut live.0);
    bed.sandbox.store.write(live, "kubectl-edit").unwrap();
}

fn weight(bed: &Bed) -> Option<i64> {
    bed.canary(&web())?.int("/status/canaryWeight")
}

/// The image of the primary was never one of these.
fn watch_primary(bed: &Bed, never: &'static str) -> Arc<AtomicUsize> {
    let mut events = bed.sandbox.store.subscribe();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            if event.object.key() == deployment("web-primary") && event.object.0.to_string().contains(never) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    seen
}

#[test]
fn a_primary_that_is_deleted_in_a_run_comes_back_as_it_was() {
    for restarted in [false, true] {
        play(async |clock| {
            let (bed, daemon) = started(clock).await;
            let wrong = watch_primary(&bed, "web:1.1.0");
            let bad = release(&bed, "1.1.0", BAD);
            until(&bed, "it carries traffic", |bed| weight(bed) == Some(20)).await;
            if restarted {
                daemon.abort();
            }
            bed.sandbox.store.delete(&deployment("web-primary")).unwrap();
            let _daemon = restarted.then(|| bed.daemon().unwrap());
            until(&bed, "the primary is back", |bed| image(bed, "web-primary") == "1.0.0").await;
            until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
            bed.pass(Duration::from_secs(60)).await;
            assert_eq!((bed.phase(&web()).as_str(), wrong.load(Ordering::Relaxed)), ("Succeeded", 0));
            assert_eq!(status(&bed, &bad, WEB).0, CommitState::Failure);
            assert!(bed.sandbox.store.get(&kept()).is_none(), "nothing is kept when nothing is on trial");
        });
    }
}

#[test]
fn a_primary_of_which_nothing_is_kept_is_made_of_the_promoted_commit() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        let wrong = watch_primary(&bed, "web:1.1.0");
        let trial = release(&bed, "1.1.0", GOOD);
        until(&bed, "it carries traffic", |bed| weight(bed) == Some(20)).await;
        bed.sandbox.store.delete(&kept()).unwrap();
        bed.sandbox.store.delete(&deployment("web-primary")).unwrap();
        until(&bed, "the run ends", |bed| bed.phase(&web()) == "Failed").await;
        assert_eq!(weight(&bed), Some(100), "the only side that serves");
        until(&bed, "the primary is back", |bed| image(bed, "web-primary") == "1.0.0").await;
        until(&bed, "users have it", |bed| weight(bed) == Some(0)).await;
        bed.pass(Duration::from_secs(120)).await;
        assert_eq!((wrong.load(Ordering::Relaxed), log(&bed)[0].as_str()), (0, "Release 1.1.0"), "nobody judged it");
        let (state, words) = status(&bed, &trial, WEB);
        assert!(state == CommitState::Error && words.contains("nothing is kept"), "{words}");
        let next = release(&bed, "1.2.0", GOOD);
        until(&bed, "a later release goes through", |bed| image(bed, "web-primary") == "1.2.0").await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &next, WEB).0, CommitState::Success);
    });
}

#[test]
fn a_hand_that_is_corrected_does_not_hide_who_released_what() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        let bad = release(&bed, "1.1.0", BAD);
        until(&bed, "it runs", |bed| bed.phase(&web()) == "Progressing").await;
        // What Git says comes back within a second, and is a new run of what Git released.
        edit(&bed, &deployment("web"), |web| {
            web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example.com/web:9.9.9");
        });
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &bad, WEB).0, CommitState::Failure);
        assert_eq!(ledger(&bed).canaries[&web()].condemned.len(), 1);
    });
}

#[test]
fn what_is_changed_by_hand_is_judged_and_nobody_is_blamed() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        // As `kubectl rollout restart` does: a field that Git does not hold, so that it stays. One is good, one is not.
        let restart = |bed: &Bed, value: &str| {
            edit(bed, &deployment("web"), |web| {
                web["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = json!(value);
            });
        };
        restart(&bed, "now");
        until(&bed, "it begins", |bed| bed.phase(&web()) == "Progressing").await;
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        restart(&bed, "again");
        until(&bed, "it begins", |bed| bed.phase(&web()) == "Progressing").await;
        annotate(&bed, &web().object_key(), "serin.dev/rollback", "1");
        until(&bed, "it is rolled back", |bed| bed.phase(&web()) == "Failed").await;
        bed.pass(Duration::from_secs(120)).await;
        // The first restart brought the same release once more; the second was nobody's release.
        assert_eq!(history(&bed), ["promoted", "promoted"]);
        assert!(ledger(&bed).cases.is_empty() && log(&bed) == ["Start"], "{:?}", ledger(&bed).cases);
    });
}

#[test]
fn a_canary_that_somebody_deletes_comes_back() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        bed.sandbox.store.delete(&web().object_key()).unwrap();
        bed.pass(Duration::from_secs(3)).await;
        until(&bed, "it is back", |bed| bed.phase(&web()) == "Initialized").await;
        assert_eq!(image(&bed, "web-primary"), "1.0.0");
        // In a run: the primary is made of the promoted release first, and then the head is released again.
        let wrong = watch_primary(&bed, "web:1.1.0");
        let trial = release(&bed, "1.1.0", GOOD);
        until(&bed, "it carries traffic", |bed| weight(bed) == Some(20)).await;
        bed.sandbox.store.delete(&web().object_key()).unwrap();
        until(&bed, "it is told", |bed| status(bed, &trial, WEB).0 == CommitState::Error).await;
        until(&bed, "it is back", |bed| bed.phase(&web()) == "Initialized").await;
        assert_eq!((image(&bed, "web-primary").as_str(), wrong.load(Ordering::Relaxed)), ("1.0.0", 0));
        until(&bed, "it is promoted", |bed| image(bed, "web-primary") == "1.1.0").await;
        until(&bed, "it is over", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(status(&bed, &trial, WEB).0, CommitState::Success);
    });
}

#[test]
fn a_namespace_that_somebody_deletes_comes_back() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        release(&bed, "1.1.0", GOOD);
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(30)).await;
        bed.sandbox.store.delete(&ObjectKey::cluster("v1", "Namespace", "shop")).unwrap();
        bed.pass(Duration::from_secs(3)).await;
        until(&bed, "all is back", |bed| bed.phase(&web()) == "Initialized").await;
        assert_eq!((image(&bed, "web-primary"), image(&bed, "web")), ("1.1.0".to_owned(), "1.1.0".to_owned()));
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(log(&bed), ["Release 1.1.0", "Start"]);
    });
}

#[test]
fn a_status_branch_that_somebody_pushes_over_gets_its_files_back() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        bed.pass(Duration::from_secs(400)).await;
        let before = bed.remote.head(STATUS).unwrap();
        // A force push: another history, with a file of somebody's own.
        let theirs = [("notes.txt", Some("mine"))];
        let theirs = bed.remote.commit_on(STATUS, None, "Notes", &theirs, bed.clock.now()).unwrap();
        assert_eq!(bed.remote.head(STATUS), Some(theirs.clone()));
        release(&bed, "1.1.0", GOOD);
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(60)).await;
        let line: Vec<_> = bed.remote.log(STATUS).into_iter().map(|(sha, _)| sha).collect();
        assert!(line.contains(&theirs) && !line.contains(&before), "on top of theirs");
        assert!(bed.remote.text(STATUS, "shop/web.yaml").unwrap().contains("phase: Succeeded"));
        assert!(bed.remote.text(STATUS, "README.md").is_some());
        assert_eq!(bed.remote.text(STATUS, "notes.txt").as_deref(), Some("mine"));
    });
}

/// A cluster that fails a number of writes of the ledger.
struct Failing {
    inner: Arc<dyn Cluster>,
    left: AtomicUsize,
}

#[async_trait]
impl Cluster for Failing {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError> {
        self.inner.get(key).await
    }

    async fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, ClusterError> {
        self.inner.list(gvk, namespace).await
    }

    async fn is_namespaced(&self, gvk: &Gvk) -> Result<bool, ClusterError> {
        self.inner.is_namespaced(gvk).await
    }

    async fn apply(&self, object: &Object, manager: FieldManager) -> Result<Arc<Object>, ClusterError> {
        let less = |left: usize| left.checked_sub(1);
        if object.key() == state_key(bed::NAMESPACE, "apps")
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
        {
            let (doing, message) = ("writing the ledger".to_owned(), "etcd is full".to_owned());
            return Err(ClusterError::Unavailable { doing, message });
        }
        self.inner.apply(object, manager).await
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: &Value,
        manager: FieldManager,
    ) -> Result<Arc<Object>, ClusterError> {
        self.inner.patch(key, subresource, patch, manager).await
    }

    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), ClusterError> {
        self.inner.delete(key, uid).await
    }

    async fn publish(&self, event: KubeEvent) {
        self.inner.publish(event).await;
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes()
    }
}

/// A metrics server that is slow when something happens meanwhile.
struct Slow {
    inner: Arc<dyn MetricSource>,
    clock: Arc<SimClock>,
    meanwhile: Box<dyn Fn() -> bool + Send + Sync>,
}

#[async_trait]
impl MetricSource for Slow {
    async fn query(&self, query: MetricQuery) -> Reading {
        if (self.meanwhile)() {
            let later = self.clock.now().checked_add(Duration::from_secs(5)).unwrap();
            self.clock.sleep_until(later).await;
        }
        self.inner.query(query).await
    }

    async fn probe(&self, query: MetricQuery) -> Result<(), String> {
        self.inner.probe(query).await
    }
}

#[test]
fn what_another_writer_recorded_in_a_slow_tick_is_not_written_over() {
    play(async |clock| {
        let bed = world(clock.clone(), BedOptions::default()).await;
        start(&bed);
        let (store, once) = (bed.sandbox.store.clone(), AtomicUsize::new(0));
        let key = web().object_key();
        // A second replica, or one that was frozen, ends the run. The status is no part of the generation.
        let ends = move || {
            let live = store.get(&key).unwrap();
            if live.int("/status/canaryWeight") != Some(20) || once.fetch_add(1, Ordering::Relaxed) > 0 {
                return false;
            }
            let mut ended = live.at("/status").unwrap().clone();
            ended["phase"] = json!("Failed");
            ended["canaryWeight"] = json!(0);
            store.write_status(&key, ended, "serin-canary").unwrap();
            true
        };
        let mut ports = bed.ports();
        ports.metrics = Arc::new(Slow { inner: ports.metrics, clock, meanwhile: Box::new(ends) });
        let _daemon = bed.daemon_with(ports, bed.git().unwrap(), bed.forge.clone());
        until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
        release(&bed, "1.1.0", GOOD);
        until(&bed, "it carries traffic", |bed| weight(bed) == Some(20)).await;
        until(&bed, "it is ended", |bed| bed.phase(&web()) == "Failed").await;
        // What nobody judged may be tried again, from its start: the decision of the slow tick is not what follows.
        bed.wait(Duration::from_secs(120), |bed| bed.phase(&web()) != "Failed").await;
        assert_eq!(weight(&bed), Some(0), "the run went on: {}", bed.phase(&web()));
        assert_eq!(image(&bed, "web-primary"), "1.0.0");
    });
}

/// The CRD takes any number where only whole ones have a meaning, and the API server lets the edit in.
#[test]
fn a_fraction_that_is_edited_in_during_a_run_does_not_stop_it() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        release(&bed, "1.1.0", BAD);
        until(&bed, "it carries traffic", |bed| weight(bed) == Some(20)).await;
        // A field that Git does not hold, so that it stays.
        edit(&bed, &web().object_key(), |web| web["spec"]["analysis"]["stepWeightPromotion"] = json!(33.5));
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        let events = bed.sandbox.store.list(&Gvk::new("v1", "Event"), None);
        let told: Vec<_> = events.iter().filter(|event| event.str("/message").contains("33.5")).collect();
        assert!(told.len() == 1 && told[0].str("/type") == "Warning", "{told:?}");
    });
}

/// Another application with a canary, as one file.
fn application(name: &str) -> (String, String) {
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec: {{containers: [{{name: app, image: \"registry.example.com/{name}:1.0.0\"}}]}}\n---\n\
         apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         provider: contour\n  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}\n  \
         service: {{port: 80}}\n  analysis: {{interval: 30s, threshold: 2, maxWeight: 60, stepWeight: 20}}\n"
    );
    (format!("clusters/demo/{name}.yaml"), text)
}

#[test]
fn a_write_of_many_that_fails_loses_nothing_of_any() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        start(&bed);
        let more: Vec<_> = ["a", "b", "c", "d"].map(application).into();
        let more: Vec<_> = more.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        bed.remote.commit("main", "More", &more, bed.clock.now()).unwrap();
        let mut failing = None;
        let ports = bed.ports_over(|inner| {
            let cluster = Arc::new(Failing { inner, left: AtomicUsize::new(0) });
            failing = Some(cluster.clone());
            cluster
        });
        let failing = failing.unwrap();
        let _daemon = bed.daemon_with(ports, bed.git().unwrap(), bed.forge.clone());
        let names = ["a", "b", "c", "d", "web"].map(|name| serin::domain::CanaryKey::new("shop", name));
        let all = |bed: &Bed| names.iter().all(|name| bed.phase(name) == "Initialized");
        // They are initialized at the same time, and so their records are written together.
        until(&bed, "their primaries are made", |bed| bed.phase(&web()) == "Initializing").await;
        failing.left.store(3, Ordering::Relaxed);
        until(&bed, "initialized", all).await;
        bed.pass(Duration::from_secs(120)).await;
        assert_eq!(failing.left.load(Ordering::Relaxed), 0, "writes have failed");
        let ledger = ledger(&bed);
        for name in &names {
            let record = &ledger.canaries[name];
            let promoted = record.promoted.as_ref().map(|promoted| promoted.commit.clone());
            assert_eq!(promoted, bed.remote.head("main"), "{name}");
            assert_eq!(record.history.len(), 1, "{name}: {:?}", record.history);
            let mut told =
                bed.forge.posted().into_iter().filter(|posted| posted.context == format!("serin/demo/{name}"));
            assert_eq!(told.next_back().unwrap().state, CommitState::Success, "{name}");
        }
    });
}
