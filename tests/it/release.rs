//! Verdicts and reverts over literal histories.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serin::domain::{CanaryKey, Digest, Snapshot};
use serin::ports::CommitInfo;
use serin::release::*;

use world::*;

#[expect(clippy::panic, reason = "another answer is a failed test")]
fn pushed(next: Next) -> Candidate {
    match next {
        Next::Push(candidate) => candidate,
        other => panic!("no push: {other:#?}"),
    }
}

#[test]
fn the_release_is_reverted_and_all_else_stays() {
    let mut world = web();
    let before = world.files().clone();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2"), ("app/other.yaml", "level: x", "level: y")]);
    let case = world.condemn(&key("web"), 0, 1);
    assert_eq!(case.guilty, [sha(1)]);
    let candidate = pushed(world.next(&case));
    assert_eq!(candidate.how, How::OwnHunks);
    let after = world.with(&candidate);
    assert_eq!(after["app/web.yaml"], before["app/web.yaml"]);
    assert_eq!(after["app/other.yaml"], world.files()["app/other.yaml"]);
    assert_eq!(candidate.changes.len(), 1);
    // It landed: the case closes as ours, and a second question pushes nothing.
    let revert = world.land(&case, &candidate);
    assert_eq!(world.next(&case), Next::Close(Closed::Reverted(sha(revert))));
    let (attribution, _) = world.attribute(&key("web"), 0, 1);
    assert_eq!(attribution.guilty, [sha(1)], "our revert is not guilty");
}

#[test]
fn human_commits_on_top_stay() {
    for (path, from, to) in [
        ("app/web.yaml", "replicas: 2", "replicas: 3"),
        ("app/web.yaml", "name: app\n", "name: app\n        imagePullPolicy: Always\n"),
        ("app/other.yaml", "level: x", "level: z"),
        ("README.md", "hello", "hello there"),
    ] {
        let mut world = web();
        world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
        let case = world.condemn(&key("web"), 0, 1);
        world.edit("human", &[(path, from, to)]);
        let next = world.next(&case);
        if to.contains("imagePullPolicy") {
            // The human's commit is another release: it gets a chance of its own.
            assert_eq!(next, Next::Close(Closed::FixedForward(sha(2))));
            continue;
        }
        let after = world.with(&pushed(next));
        assert!(after["app/web.yaml"].contains("web:1"));
        assert!(after[path].contains(to), "{}", after[path]);
    }
}

#[test]
fn innocent_parts_of_the_guilty_commit_stay() {
    // A replicas change in the same file, side by side lines in values, and a change of the Canary itself.
    let mut world = web();
    let bad = [
        ("app/web.yaml", "web:1", "web:2"),
        ("app/web.yaml", "replicas: 2", "replicas: 5"),
        ("app/web-canary.yaml", "name: web\n  namespace", "name: web\n  labels: {team: a}\n  namespace"),
    ];
    world.edit("bad", &bad);
    let case = world.condemn(&key("web"), 0, 1);
    let after = world.with(&pushed(world.next(&case)));
    assert!(after["app/web.yaml"].contains("web:1") && after["app/web.yaml"].contains("replicas: 5"));
    assert_eq!(after["app/web-canary.yaml"], world.files()["app/web-canary.yaml"]);
}

#[test]
fn an_innocent_replicas_change_between_promoted_and_bad_stays() {
    let mut world = web();
    world.edit("scale", &[("app/web.yaml", "replicas: 2", "replicas: 4")]);
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 2);
    assert_eq!(case.guilty, [sha(2)], "replicas are not part of a release");
    let after = world.with(&pushed(world.next(&case)));
    assert!(after["app/web.yaml"].contains("web:1") && after["app/web.yaml"].contains("replicas: 4"));
}

#[test]
fn a_config_alone_can_be_bad() {
    let mut world = web();
    let before = world.files().clone();
    world.edit("bad", &[("app/web-config.yaml", "low", "high")]);
    let case = world.condemn(&key("web"), 0, 1);
    assert_eq!(case.commit, Some(sha(1)));
    let candidate = pushed(world.next(&case));
    assert_eq!(world.with(&candidate), before);
}

#[test]
fn a_new_config_goes_again_when_the_release_needs_it_gone() {
    let mut world = web();
    world.write("drop the config", "app/web-config.yaml", None);
    let case = world.condemn(&key("web"), 0, 1);
    let candidate = pushed(world.next(&case));
    assert!(world.with(&candidate).contains_key("app/web-config.yaml"));
}

#[test]
fn a_rename_with_a_bad_change_keeps_the_name() {
    let mut world = web();
    let before = world.files()["app/web.yaml"].clone();
    world.rename("move and break", "app/web.yaml", "app/deploy/web.yaml", &[("web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let after = world.with(&pushed(world.next(&case)));
    assert_eq!(after["app/deploy/web.yaml"], before);
    assert!(!after.contains_key("app/web.yaml"));
}

#[test]
fn a_rename_after_the_bad_change_is_followed() {
    let mut world = web();
    let before = world.files()["app/web.yaml"].clone();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    world.rename("move", "app/web.yaml", "app/moved.yaml", &[]);
    let after = world.with(&pushed(world.next(&case)));
    assert_eq!(after["app/moved.yaml"], before);
    assert!(!after.contains_key("app/web.yaml"));
}

#[test]
fn a_rename_that_is_the_fault_is_undone_whole() {
    let mut world = World::new([
        ("app/web.hbs", deployment("web", "web:{{tag}}")),
        ("app/web-canary.yaml", canary("web")),
        ("app/values.yaml", "tag: 1\n".to_owned()),
    ]);
    let before = world.files().clone();
    world.rename("no template any more", "app/web.hbs", "app/web.yaml", &[]);
    let case = world.condemn(&key("web"), 0, 1);
    let candidate = pushed(world.next(&case));
    assert_eq!((candidate.how, world.with(&candidate)), (How::Whole, before));
    // The same commit also wrote a file outside the source, which would go back too: a person decides.
    let outside = |commit: &mut Commit, text: &str| commit.set("README.md", text);
    outside(&mut world.commits[0], "old\n");
    outside(&mut world.commits[1], "new\n");
    let Next::Propose { why, .. } = world.next(&case) else { panic!("no proposal") };
    assert!(why.contains("README.md"), "{why}");
}

#[test]
fn history_rewritten_below_the_head_is_attributed_anew() {
    let mut world = web();
    let before = world.files().clone();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let mut case = world.condemn(&key("web"), 0, 1);
    // The bad commit was pushed again under another name.
    case.guilty = vec![sha(77)];
    case.commit = Some(sha(1));
    let candidate = pushed(world.next(&case));
    assert_eq!((world.with(&candidate), candidate.reverses), (before, vec![sha(1)]));
}

#[test]
fn of_two_clusters_the_second_finds_the_work_done() {
    let mut world = web();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let mut other = case.clone();
    other.verdict = verdict_id("test", &key("web"), &case.digests[0], at(11));
    let candidate = pushed(world.next(&other));
    let theirs = world.land(&other, &candidate);
    assert_eq!(world.next(&case), Next::Close(Closed::RevertedBy(sha(theirs))));
}

#[test]
fn a_superseded_commit_is_guilty_too() {
    let mut world = web();
    let before = world.files().clone();
    world.edit("bad part one", &[("app/web-config.yaml", "low", "high")]);
    world.edit("bad part two", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 2);
    assert_eq!(case.guilty, [sha(2), sha(1)]);
    let candidate = pushed(world.next(&case));
    assert_eq!(world.with(&candidate), before);
    assert_eq!(candidate.reverses, [sha(2), sha(1)]);
}

#[test]
fn the_same_line_changed_twice_goes_back_twice() {
    let mut world = web();
    let before = world.files().clone();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    world.edit("worse", &[("app/web.yaml", "web:2", "web:3")]);
    let case = world.condemn(&key("web"), 0, 2);
    assert_eq!(world.with(&pushed(world.next(&case))), before);
}

#[test]
fn a_bad_release_that_was_reverted_before_is_not_reverted_again() {
    let mut world = web();
    let before = world.files().clone();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let candidate = pushed(world.next(&case));
    world.land(&case, &candidate);
    world.edit("bad again, otherwise", &[("app/web.yaml", "web:1", "web:3")]);
    let case = world.condemn(&key("web"), 0, 3);
    assert_eq!(case.guilty, [sha(3)]);
    assert_eq!(world.with(&pushed(world.next(&case))), before);
}

#[test]
fn who_came_first_closes_the_case() {
    let mut world = web();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let before_human = world.commits.len();
    world.edit("human reverts", &[("app/web.yaml", "web:2", "web:1")]);
    world.edit("unrelated", &[("app/other.yaml", "level: x", "level: y")]);
    assert_eq!(world.next(&case), Next::Close(Closed::RevertedBy(sha(2))));
    // Not before the primary is back.
    assert!(matches!(world.next_with(&case, |facts| facts.primary_restored = false), Next::Wait(_)));
    world.commits.truncate(before_human);
    world.edit("fix", &[("app/web.yaml", "web:2", "web:3")]);
    assert_eq!(world.next(&case), Next::Close(Closed::FixedForward(sha(2))));
    world.commits.truncate(before_human);
    world.write("remove", "app/web-canary.yaml", None);
    assert_eq!(world.next(&case), Next::Close(Closed::Cancelled));
}

#[test]
fn bringing_the_condemned_back_is_not_reverted_twice() {
    let mut world = web();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let candidate = pushed(world.next(&case));
    let ours = world.land(&case, &candidate);
    world.edit("revert the revert", &[("app/web.yaml", "web:1", "web:2")]);
    assert_eq!(world.next(&case), Next::Close(Closed::BroughtBack(sha(ours))));
}

#[test]
fn broken_files_on_top_matter_only_where_they_do() {
    let mut world = web();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    world.edit("break another file", &[("app/other.yaml", "\ndata:", "\ndata: [")]);
    let after = world.with(&pushed(world.next(&case)));
    assert!(after["app/web.yaml"].contains("web:1"));
    world.edit("break the config", &[("app/web-config.yaml", "\ndata:", "\ndata: [")]);
    let Next::Wait(why) = world.next(&case) else { panic!("no wait") };
    assert!(why.contains("app/web-config.yaml:1:"), "{why}");
    world.edit("mend", &[("app/web-config.yaml", "data: [", "data:")]);
    pushed(world.next(&case));
}

#[test]
fn a_broken_commit_shares_the_guilt_of_the_one_that_mends_it() {
    let mut world = web();
    let before = world.files().clone();
    world.edit(
        "bad and broken",
        &[("app/web.yaml", "web:1", "web:2"), ("app/web.yaml", "spec:\n  replicas", "spec: [\n  replicas")],
    );
    world.edit("mended", &[("app/web.yaml", "spec: [\n", "spec:\n")]);
    let case = world.condemn(&key("web"), 0, 2);
    assert_eq!(case.guilty, [sha(2), sha(1)]);
    assert_eq!(world.with(&pushed(world.next(&case)))["app/web.yaml"], before["app/web.yaml"]);
}

/// Two canaries that take their tag from one values key.
fn shared() -> World {
    World::new([
        ("app/api.hbs", deployment("api", "api:{{tag}}")),
        ("app/web.hbs", deployment("web", "web:{{tag}}")),
        ("app/api-canary.yaml", canary("api")),
        ("app/web-canary.yaml", canary("web")),
        ("app/values.yaml", "tag: 1\nlogs: off\n".to_owned()),
    ])
}

fn peers(entries: &[(&str, Option<Promoted>, PeerVerdict)]) -> BTreeMap<CanaryKey, Peer> {
    let peer = |(name, promoted, verdict): &(&str, Option<Promoted>, PeerVerdict)| {
        (key(name), Peer { promoted: promoted.clone(), verdict: verdict.clone() })
    };
    entries.iter().map(peer).collect()
}

#[test]
fn both_bad_through_one_shared_key_get_one_revert() {
    let mut world = shared();
    let before = world.files().clone();
    world.edit("bad", &[("app/values.yaml", "tag: 1", "tag: 2"), ("app/api.hbs", "name: app", "name: main")]);
    let case = world.condemn(&key("web"), 0, 1);
    let other = world.condemn(&key("api"), 0, 1);
    let promoted = Some(world.promoted(&key("api"), 0));
    let pending = peers(&[("api", promoted.clone(), PeerVerdict::Pending(at(500)))]);
    let next = world.next_among(&case, &pending, |_| {});
    assert_eq!(next, Next::WaitJoint(BTreeSet::from([key("api")])));
    let verdict = PeerVerdict::Condemned {
        digests: other.digests.iter().cloned().collect(),
        verdict: other.verdict.clone(),
        guilty: other.guilty.clone(),
    };
    let condemned = peers(&[("api", promoted.clone(), verdict)]);
    let Next::PushJoint { candidate, with } = world.next_among(&case, &condemned, |_| {}) else {
        panic!("no joint revert")
    };
    assert_eq!(with, BTreeMap::from([(key("api"), other.verdict.clone())]));
    assert_eq!(world.with(&candidate), before);
    assert_eq!(candidate.restores.len(), 2);
    // The other one was promoted, or never came to a verdict: going back would drag it along, so a person decides.
    for verdict in [PeerVerdict::Other, PeerVerdict::Pending(at(50))] {
        let peers = peers(&[("api", promoted.clone(), verdict)]);
        let Next::Propose { branch, why, .. } = world.next_among(&case, &peers, |_| {}) else { panic!("no proposal") };
        assert!(why.contains("canary shop/api"), "{why}");
        assert_eq!(branch, revert_branch(&key("web"), &case.digests[0]));
    }
}

#[test]
fn of_two_canaries_in_one_commit_only_the_bad_one_goes_back() {
    let mut world = shared();
    world.edit("both", &[("app/web.hbs", "web:{{tag}}", "web:9"), ("app/api.hbs", "api:{{tag}}", "api:9")]);
    let case = world.condemn(&key("web"), 0, 1);
    let after = world.with(&pushed(world.next(&case)));
    assert!(after["app/web.hbs"].contains("web:{{tag}}") && after["app/api.hbs"].contains("api:9"));
}

#[test]
fn an_innocent_values_key_beside_the_bad_one_stays() {
    let mut world = World::new([
        ("app/web.hbs", deployment("web", "web:{{tag}}")),
        ("app/web-canary.yaml", canary("web")),
        ("app/logs.hbs", config("logs", "{{logs}}")),
        ("app/values.yaml", "tag: 1\nlogs: off\n".to_owned()),
    ]);
    world.edit("bad", &[("app/values.yaml", "tag: 1\nlogs: off", "tag: 2\nlogs: on")]);
    let case = world.condemn(&key("web"), 0, 1);
    let after = world.with(&pushed(world.next(&case)));
    assert_eq!(after["app/values.yaml"], "tag: 1\nlogs: on\n");
}

#[test]
fn a_partial_shared_with_a_plain_deployment_is_only_proposed() {
    let mut world = World::new([
        ("app/web.hbs", deployment("web", "{{> image}}")),
        ("app/web-canary.yaml", canary("web")),
        ("app/worker.hbs", deployment("worker", "{{> image}}")),
        ("app/partials/image", "app:1\n".to_owned()),
    ]);
    let before = world.files().clone();
    world.edit("bad", &[("app/partials/image", "app:1", "app:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let Next::Propose { candidate, why, .. } = world.next(&case) else { panic!("no proposal") };
    assert_eq!(world.with(&candidate), before);
    assert!(why.contains("Deployment shop/worker"), "{why}");
    // With a human change of the worker on top it would go back to neither: a person must act.
    world.edit("human", &[("app/worker.hbs", "name: app", "name: main")]);
    let Next::Nothing { why: NothingWhy::NothingFits(_), diff } = world.next(&case) else { panic!("not refused") };
    assert!(diff.contains("-app:2\n+app:1"), "{diff}");
}

#[test]
fn a_promoted_commit_that_was_pushed_away_is_only_proposed() {
    let mut world = web();
    let before = world.files().clone();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let next = world.next_with(&case, |facts| facts.line = None);
    let Next::Propose { candidate, why, .. } = next else { panic!("no proposal: {next:?}") };
    assert_eq!((candidate.how, world.with(&candidate)), (How::Content, before));
    assert!(why.contains("not an ancestor"), "{why}");
}

#[test]
fn commits_that_cannot_be_read_end_the_question() {
    let mut world = web();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    world.edit("human", &[("app/web.yaml", "replicas: 2", "replicas: 3")]);
    let case = world.condemn(&key("web"), 0, 1);
    // The promoted commit alone is not needed; without the bad one nothing can be done; without the head one waits.
    assert!(matches!(world.next_without(&case, &[0]), Next::Push(_)));
    assert!(matches!(world.next_without(&case, &[1]), Next::Nothing { .. } | Next::Propose { .. }));
    assert!(matches!(world.next_without(&case, &[0, 1]), Next::Nothing { .. }));
    assert!(matches!(world.next_without(&case, &[2]), Next::Wait(_)));
}

#[test]
fn guards_hold() {
    let mut world = web();
    world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    let case = world.condemn(&key("web"), 0, 1);
    let off = world.next_with(&case, |facts| facts.policy = RevertPolicy::Off);
    assert!(
        matches!(&off, Next::Nothing { why: NothingWhy::Off, diff } if diff.contains("+        image: web:1")),
        "{off:?}"
    );
    let many = world.next_with(&case, |facts| facts.reverts_in_last_hour = 5);
    assert!(matches!(many, Next::Nothing { why: NothingWhy::TooMany(5), .. }));
    assert!(matches!(world.next_with(&case, |facts| facts.policy = RevertPolicy::PullRequest), Next::Propose { .. }));
    let mut refused = case.clone();
    refused.refused = Some("protected branch".to_owned());
    let Next::Propose { why, .. } = world.next(&refused) else { panic!("no proposal") };
    assert!(why.contains("protected branch"), "{why}");
    refused.proposal = Some(Proposal { branch: "b".to_owned(), base: world.head(), commit: sha(9) });
    assert!(matches!(world.next(&refused), Next::Wait(_)));
    let mut unpromoted = case.clone();
    unpromoted.restores = None;
    let next = world.next(&unpromoted);
    assert!(matches!(next, Next::Nothing { why: NothingWhy::NoPromotedRecord, .. }));
    // A revert of ours that fails is reported, not reverted.
    world.commits[1].message = "Revert \"x\"\n\nbody\n\nSerin-Verdict: other\n".to_owned();
    assert!(matches!(world.next(&case), Next::Nothing { why: NothingWhy::OursFailed, .. }));
}

#[test]
fn attribution_renders_only_what_may_matter() {
    let mut world = web();
    for number in 0..50 {
        world.write("noise", "README.md", Some(&format!("{number}\n")));
        world.write("noise", "app/other.yaml", Some(&config("other", &number.to_string())));
    }
    let bad = world.edit("bad", &[("app/web.yaml", "web:1", "web:2")]);
    world.edit("scale", &[("app/web.yaml", "replicas: 2", "replicas: 3")]);
    let (attribution, rendered) = world.attribute(&key("web"), 0, bad);
    assert_eq!((attribution.release, attribution.guilty), (Some(sha(bad)), vec![sha(bad)]));
    assert!(rendered <= 3, "{rendered} commits were rendered");
}

#[test]
fn beyond_the_limit_the_head_stands_for_all() {
    let question_line = vec![web_info(); HISTORY_LIMIT + 1];
    let digests = BTreeSet::from([Digest("v1:a".to_owned())]);
    for line in [None, Some(question_line.as_slice())] {
        let question = AttributionQuestion {
            canary: &key("web"),
            promoted: &digests,
            promoted_commit: &sha(0),
            running: &digests,
            head: &sha(7),
            line,
            scope: &scope(),
        };
        let AttributionStep::Done(done) = attribute(&question, &mut Evidence::default(), &render) else { panic!() };
        assert_eq!((done.release, done.exact), (Some(sha(7)), false));
    }
}

fn web_info() -> CommitInfo {
    let mut world = web();
    world.edit("x", &[("README.md", "hello", "x")]);
    world.info(1)
}

#[test]
fn what_is_in_a_release_digest() {
    let world = web();
    let base = world.digest(0, &key("web"));
    for (path, from, to, same) in [
        ("app/web.yaml", "replicas: 2", "replicas: 9", true),
        ("app/web.yaml", "  name: web\n", "  name: web\n  labels: {a: b}\n", true),
        ("app/web.yaml", "        app: web\n", "        app: web\n      annotations: {serin.dev/x: y}\n", true),
        (
            "app/web.yaml",
            "        app: web\n",
            "        app: web\n      annotations: {sandbox.serin.dev/x: y}\n",
            false,
        ),
        ("app/web.yaml", "web:1", "web:2", false),
        ("app/web-config.yaml", "low", "high", false),
        ("app/web-config.yaml", "  name:", "  labels: {a: b}\n  name:", true),
        ("app/other.yaml", "level: x", "level: y", true),
    ] {
        let mut world = web();
        world.edit("x", &[(path, from, to)]);
        assert_eq!(world.digest(1, &key("web")) == base, same, "{path} {to}");
    }
    let mut opted_out = web();
    opted_out.edit(
        "x",
        &[("app/web-config.yaml", "  name:", "  annotations: {flagger.app/config-tracking: disabled}\n  name:")],
    );
    opted_out.edit("x", &[("app/web-config.yaml", "low", "high")]);
    assert_eq!(opted_out.digest(1, &key("web")), opted_out.digest(2, &key("web")));
}

#[test]
fn a_held_canary_is_at_its_promoted_release_and_all_else_at_the_head() {
    let mut world = web();
    world.edit(
        "bad",
        &[
            ("app/web.yaml", "web:1", "web:2"),
            ("app/web.yaml", "replicas: 2", "replicas: 3"),
            ("app/web-config.yaml", "low", "high"),
            ("app/other.yaml", "level: x", "level: y"),
        ],
    );
    let tree = |number: usize| {
        let mut snapshot = world.snapshot(&sha(number));
        snapshot.revision = None;
        render(&snapshot)
    };
    let (promoted, head) = (tree(0), tree(1));
    let held = hold(&head, &promoted, &key("web")).unwrap();
    assert_eq!(release_digest(&held, &key("web")), release_digest(&promoted, &key("web")));
    let differing: Vec<String> = held
        .objects
        .iter()
        .filter(|(key, held)| held.object != head.objects[*key].object)
        .map(|(key, _)| key.to_string())
        .collect();
    assert_eq!(
        differing,
        ["Deployment shop/web", "ConfigMap shop/web-config"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>()
    );
    let web = &held.objects[&serin::domain::ObjectKey::namespaced("apps/v1", "Deployment", "shop", "web")];
    assert_eq!(web.object.int("/spec/replicas"), Some(3));
    assert_eq!(hold(&head, &promoted, &key("api")), None);
}

fn any_edit() -> impl Strategy<Value = (usize, usize, String)> {
    (0usize..5, 0usize..30, "[a-z]{1,6}")
}

/// A random change by a human: a comment somewhere, a number of replicas, another object, a README line.
fn human(files: &mut Files, (kind, line, word): &(usize, usize, String)) {
    let comment = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.insert((*line).min(lines.len()), format!("# {word}"));
        lines.join("\n") + "\n"
    };
    match kind {
        0 => {
            let text = comment(&files["app/web.hbs"]);
            files.insert("app/web.hbs".to_owned(), text);
        }
        1 => {
            let text = files["app/web.hbs"].replace("replicas: 2", &format!("replicas: {}", line + 3));
            files.insert("app/web.hbs".to_owned(), text);
        }
        2 => {
            let text = format!("{}{word}: {line}\n", files["app/values.yaml"]);
            files.insert("app/values.yaml".to_owned(), text);
        }
        3 => {
            files.insert(format!("app/{word}.yaml"), config(word, "x"));
        }
        _ => {
            files.insert("README.md".to_owned(), word.clone());
        }
    }
}

/// As `human`, but also lines that the release is made of: replaced, doubled or removed.
fn rough(files: &mut Files, edit: &(usize, usize, String)) {
    let (kind, line, word) = edit;
    let path = match kind {
        0 => "app/web.hbs",
        1 => "app/values.yaml",
        2 => "app/web-config.yaml",
        _ => return human(files, edit),
    };
    let Some(text) = files.get(path) else { return };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = line % lines.len().max(1);
    match (word.len() % 3, lines.get(at).cloned()) {
        (0, Some(_)) => drop(lines.remove(at)),
        (1, Some(old)) => lines.insert(at, old),
        (_, Some(old)) => lines[at] = format!("{old}{word}"),
        (_, None) => {}
    }
    files.insert(path.to_owned(), lines.join("\n") + "\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever people commit around a bad release: what is pushed restores the promoted release exactly, and nothing
    /// else moves.
    #[test]
    fn a_pushed_candidate_restores_its_own_and_nothing_else(
        before in proptest::collection::vec(any_edit(), 0..3),
        within in proptest::collection::vec(any_edit(), 0..3),
        on_top in proptest::collection::vec(any_edit(), 0..4),
        bad in 1usize..8,
    ) {
        let mut world = World::new([
            ("app/web.hbs", deployment("web", "web:{{tag}}")),
            ("app/web-canary.yaml", canary("web")),
            ("app/web-config.yaml", config("web-config", "low")),
            ("app/worker.hbs", deployment("worker", "worker:{{worker}}")),
            ("app/values.yaml", "tag: 1\nworker: 1\n".to_owned()),
        ]);
        for edit in &before {
            let mut files = world.files().clone();
            human(&mut files, edit);
            world.push("human", files);
        }
        let mut files = world.files().clone();
        within.iter().for_each(|edit| human(&mut files, edit));
        let replace = |files: &mut Files, path: &str, from: &str, to: &str| {
            let text = files[path].replace(from, to);
            files.insert(path.to_owned(), text);
        };
        if bad & 1 != 0 { replace(&mut files, "app/values.yaml", "tag: 1\nworker: 1", "tag: 2\nworker: 2"); }
        if bad & 2 != 0 { replace(&mut files, "app/web-config.yaml", "low", "high"); }
        if bad & 4 != 0 { replace(&mut files, "app/web.hbs", "name: app", "name: main"); }
        let guilty = world.push("bad", files);
        let case = world.condemn(&key("web"), 0, guilty);
        for edit in &on_top {
            let mut files = world.files().clone();
            human(&mut files, edit);
            world.push("human", files);
        }
        let next = world.next(&case);
        let candidate = match next {
            Next::Push(candidate) => candidate,
            Next::Propose { why, .. } => panic!("people's changes never touched the bad lines, but: {why}"),
            other => panic!("people's changes never touched the bad lines, but: {other:?}"),
        };
        let after = world.with(&candidate);
        let tree = |files: &Files| render(&Snapshot::from_texts(files.iter().map(|(p, t)| (p.as_str(), t.as_str()))));
        let (head, result) = (tree(world.files()), tree(&after));
        prop_assert_eq!(release_digest(&result, &key("web")), Some(world.digest(0, &key("web"))));
        for (object, old) in &head.objects {
            let new = result.objects.get(object).map(|new| new.object.clone());
            match (object.gvk.kind.as_str(), object.name.as_str()) {
                ("Deployment", "web") => {
                    let new = new.unwrap();
                    prop_assert_eq!(new.at("/spec/replicas"), old.object.at("/spec/replicas"));
                }
                ("ConfigMap", "web-config") => {}
                _ => prop_assert_eq!(new, Some(old.object.clone())),
            }
        }
        // People's comments are still there.
        let comments = |files: &Files| files["app/web.hbs"].lines().filter(|l| l.starts_with('#')).count();
        prop_assert_eq!(comments(&after), comments(world.files()));
        let notes = |files: &Files| files.get("README.md").cloned();
        prop_assert_eq!(notes(&after), notes(world.files()));
    }

    /// Whatever people do to the very lines, and however broken their files are: nothing is pushed that does not restore
    /// the release, changes another object, or breaks a file.
    #[test]
    fn a_wrong_candidate_is_never_pushed(
        within in proptest::collection::vec(any_edit(), 0..3),
        on_top in proptest::collection::vec(any_edit(), 1..4),
    ) {
        let mut world = World::new([
            ("app/web.hbs", deployment("web", "web:{{tag}}")),
            ("app/web-canary.yaml", canary("web")),
            ("app/web-config.yaml", config("web-config", "low")),
            ("app/worker.hbs", deployment("worker", "worker:{{worker}}")),
            ("app/values.yaml", "tag: 1\nworker: 1\n".to_owned()),
        ]);
        world.edit("bad", &[("app/values.yaml", "tag: 1", "tag: 2"), ("app/web-config.yaml", "low", "high")]);
        let case = world.condemn(&key("web"), 0, 1);
        for edits in [&within, &on_top] {
            let mut files = world.files().clone();
            edits.iter().for_each(|edit| rough(&mut files, edit));
            world.push("human", files);
        }
        let tree = |files: &Files| render(&Snapshot::from_texts(files.iter().map(|(p, t)| (p.as_str(), t.as_str()))));
        match world.next(&case) {
            Next::Push(candidate) => {
                let (head, result) = (tree(world.files()), tree(&world.with(&candidate)));
                prop_assert_eq!(release_digest(&result, &key("web")), Some(world.digest(0, &key("web"))));
                prop_assert_eq!(&result.problems, &head.problems);
                for (object, old) in head.objects.iter().filter(|(key, _)| !key.name.starts_with("web")) {
                    prop_assert_eq!(result.objects.get(object).map(|new| &new.object), Some(&old.object));
                }
            }
            Next::Close(Closed::FixedForward(_) | Closed::RevertedBy(_) | Closed::Cancelled) => {
                let digest = release_digest(&tree(world.files()), &key("web"));
                prop_assert_ne!(digest.as_ref(), case.digests.first());
            }
            Next::Wait(_) | Next::Propose { .. } | Next::Nothing { .. } => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
