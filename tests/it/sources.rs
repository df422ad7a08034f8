//! Sources that share a repository: one fetch, one roll-up, one limit of reverts.
#![expect(clippy::unwrap_used, reason = "a world that cannot be made stops its test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use serin::controller::{self, Source, state_key};
use serin::domain::{Object, ObjectKey, Sha};
use serin::forge::LocalForge;
use serin::ports::{Clock as _, CommitState, Forge, GitRemote};
use serin::release::Ledger;
use serin::sim::{Bed, BedOptions, bed};
use tokio::sync::mpsc;

use crate::git::git_server::{HttpServer, On, Repo};
use crate::loops::{
    ALL, BAD, Cut, STATUS, WEB, in_force, log, play, release, settings, source, start, until, web, world,
};

/// A second source of the bed's repository, for another folder.
const OTHER: &str = "clusters/other";

/// Two sources of one repository, branch and forge.
struct Two {
    forge: Arc<LocalForge>,
    triggers: Vec<mpsc::Sender<()>>,
}

fn two(bed: &Bed, git: &Arc<dyn GitRemote>, intervals: [u64; 2]) -> Two {
    let forge = Arc::new(LocalForge::default());
    let shared: Arc<dyn Forge> = forge.clone();
    let (mut triggers, mut sources) = (Vec::new(), Vec::new());
    for (name, interval) in ["apps", "other"].into_iter().zip(intervals) {
        let (mut made, _) = source(bed, name, &forge);
        made.settings.interval = Duration::from_secs(interval);
        if name == "other" {
            made.settings.path = OTHER.to_owned();
        }
        let (sender, receiver) = mpsc::channel(1);
        triggers.push(sender);
        let made = Source { git: git.clone(), forge: Some(shared.clone()), ..made };
        sources.push((made, receiver));
    }
    tokio::spawn(controller::run(settings(bed), bed.ports(), sources));
    Two { forge, triggers }
}

fn config(name: &str, text: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{text: '{text}'}}\n")
}

fn found(bed: &Bed, name: &str) -> Option<String> {
    let object = bed.sandbox.store.get(&ObjectKey::namespaced("v1", "ConfigMap", "shop", name))?;
    Some(object.str("/data/text").to_owned())
}

fn commit(bed: &Bed, subject: &str, files: &[(&str, Option<&str>)]) -> Sha {
    bed.remote.commit("main", subject, files, bed.clock.now()).unwrap()
}

#[test]
fn one_fetch_for_all_sources_of_a_branch() {
    play(async |clock| {
        let repo = Repo::new();
        let server = HttpServer::start(&repo);
        let remote = Some((repo.path().to_owned(), server.url()));
        let bed = world(clock, BedOptions { remote, ..BedOptions::default() }).await;
        start(&bed);
        commit(&bed, "Other", &[("clusters/other/a.yaml", Some(&config("a", "one")))]);
        let down = Arc::new(AtomicBool::new(false));
        let git: Arc<dyn GitRemote> = Arc::new(Cut(bed.git().unwrap(), down.clone()));
        let two = two(&bed, &git, [30, 60]);
        until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
        // The status branch, the refs of promoted commits and their push are asked for at the beginning.
        bed.pass(Duration::from_secs(600)).await;
        let asked = || {
            let asked = server.asked();
            asked.iter().filter(|asked| matches!(asked.on, On::Poll | On::FetchRefs)).count()
        };
        asked();
        bed.pass(Duration::from_secs(3600)).await;
        assert_eq!(asked(), 120, "the smaller interval, once");
        // A webhook for one of them: one fetch, and both look.
        commit(&bed, "Both", &[("clusters/other/a.yaml", Some(&config("a", "two")))]);
        two.triggers[0].try_send(()).unwrap();
        bed.pass(Duration::from_secs(2)).await;
        assert_eq!(found(&bed, "a").as_deref(), Some("two"));
        assert_eq!(asked(), 2, "the webhook's short question, and what is new");
        // What one of them cannot reach, both say, and both come back.
        down.store(true, Ordering::Relaxed);
        bed.pass(Duration::from_secs(120)).await;
        down.store(false, Ordering::Relaxed);
        commit(&bed, "Again", &[("clusters/other/a.yaml", Some(&config("a", "three")))]);
        bed.pass(Duration::from_secs(11)).await;
        assert_eq!(found(&bed, "a").as_deref(), Some("three"));
    });
}

#[test]
fn a_commit_has_one_rollup_whatever_the_number_of_sources() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        start(&bed);
        commit(&bed, "Other", &[("clusters/other/a.yaml", Some(&config("a", "one")))]);
        let git = bed.git().unwrap();
        let two = two(&bed, &git, [30, 30]);
        until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
        bed.pass(Duration::from_secs(120)).await;
        let head = bed.remote.head("main").unwrap();
        assert_eq!(in_force(&two.forge, &head, ALL).0, CommitState::Success);
        // The second source's part is refused while the first one's is well, and takes its time.
        let bad =
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad, namespace: shop}\nspec: {replicas: many}\n";
        let broken = commit(&bed, "Broken", &[("clusters/other/bad.yaml", Some(bad))]);
        bed.pass(Duration::from_secs(60)).await;
        let (state, words) = in_force(&two.forge, &broken, ALL);
        assert!(state == CommitState::Failure && words.starts_with("clusters/other/bad.yaml:1: "), "{state:?} {words}");
        commit(&bed, "Mended", &[("clusters/other/bad.yaml", None)]);
        bed.pass(Duration::from_secs(60)).await;
        let good = release(&bed, "1.1.0", crate::loops::GOOD);
        until(&bed, "promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(in_force(&two.forge, &good, WEB).0, CommitState::Success);
        assert_eq!(in_force(&two.forge, &good, ALL).1, "shop/web: promoted");
        // Nobody overwrote what another had said: each commit is told one end.
        for sha in [&head, &broken, &good] {
            let all = two.forge.posted();
            let told = all.iter().filter(|status| status.sha == *sha && status.context == ALL);
            let ends: Vec<_> = told.filter(|status| status.state != CommitState::Pending).collect();
            assert_eq!(ends.len(), 1, "{ends:?}");
        }
    });
}

#[test]
fn the_limit_of_reverts_is_one_for_a_repository() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        // What another source of the repository did before the restart is in its memory.
        let now = bed.clock.now();
        let pushed: Vec<_> = (1..=10).map(|minutes| now - SignedDuration::from_mins(minutes)).collect();
        let ledger = Ledger { reverts: pushed, ..Ledger::default() };
        let state = state_key(bed::NAMESPACE, "other");
        let object = Object(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": state.name, "namespace": bed::NAMESPACE},
            "data": {"ledger.json": ledger.to_json().unwrap(), "inventory.json": "{}"},
        }));
        bed.sandbox.store.write(object, "kubectl").unwrap();
        start(&bed);
        let git = bed.git().unwrap();
        let two = two(&bed, &git, [30, 30]);
        until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
        let bad = release(&bed, "1.1.0", BAD);
        until(&bed, "failed", |bed| bed.phase(&web()) == "Failed").await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(log(&bed)[0], "Release 1.1.0");
        let (state, words) = in_force(&two.forge, &bad, WEB);
        assert!(state == CommitState::Failure && words.contains("10 reverts within the hour"), "{words}");
        // An hour after the first of them there is room again.
        bed.pass(Duration::from_secs(2400)).await;
        assert_eq!(log(&bed)[0], "Release 1.1.0");
        until(&bed, "reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        bed.pass(Duration::from_secs(1200)).await;
        assert!(bed.remote.text(STATUS, "shop/web.yaml").is_some());
    });
}

#[test]
fn a_revert_leaves_alone_what_another_source_makes_of_shared_values() {
    for (shown, pushed) in [("catalog", true), ("web", false)] {
        play(async |clock| {
            let bed = world(clock, BedOptions::default()).await;
            start(&bed);
            let text = config("a", &format!("{{{{{shown}.version}}}}"));
            commit(&bed, "Other", &[("clusters/other/a.yaml.hbs", Some(&text))]);
            let git = bed.git().unwrap();
            let two = two(&bed, &git, [30, 30]);
            until(&bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
            let bad = release(&bed, "1.1.0", BAD);
            let ended = |bed: &Bed| bed.phase(&web()) == "Failed" || log(bed)[0].starts_with("Revert");
            until(&bed, "failed", ended).await;
            bed.pass(Duration::from_secs(120)).await;
            assert_eq!(log(&bed)[0].starts_with("Revert"), pushed, "{shown}: {:?}", log(&bed));
            let (state, words) = in_force(&two.forge, &bad, WEB);
            assert_eq!(state, CommitState::Failure);
            let proposed: Vec<_> = bed.remote.branches().into_iter().filter(|name| name.contains("revert/")).collect();
            assert_eq!(proposed.is_empty(), pushed, "{proposed:?}");
            if pushed {
                assert!(words.contains("reverted in"), "{words}");
            } else {
                assert!(words.contains("revert proposed on serin/revert/shop-web-"), "{words}");
                assert_eq!(found(&bed, "a").as_deref(), Some("1.1.0"));
            }
        });
    }
}
