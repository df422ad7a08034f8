//! Commits and pushes: compare-and-swap, refusals, lost answers.

use serin::ports::{GitError, PushOutcome};

use super::git_server::{Edit, Fault, HttpServer, On, Repo, SshServer};
use super::{Client, change, client, client_with, every_way, main_ref, sha, ssh, token, update};

fn pushed(outcome: Result<PushOutcome, GitError>) -> String {
    match outcome {
        Ok(PushOutcome::Pushed(sha)) => sha.0,
        other => format!("{other:?}"),
    }
}

/// A repository with one commit, a server in front, and a client that has fetched.
#[expect(clippy::unwrap_used, reason = "a broken test bed stops the test")]
async fn bed() -> (Repo, HttpServer, Client, String) {
    let repo = Repo::new();
    let head = repo.commit("main", "Bad", &[("a", "bad"), ("b", "1")]);
    let server = HttpServer::start(&repo);
    let client = client(&server.url());
    client.fetch(&main_ref()).await.unwrap();
    (repo, server, client, head)
}

#[tokio::test]
async fn a_commit_is_made_and_pushed_every_way() {
    let repo = Repo::new();
    let mut head = repo.edit(
        "main",
        "Bad",
        &[Edit::Write("dir/sub/a", "1"), Edit::Entry("dir/run", "100755", b"1"), Edit::Write("b", "1")],
    );
    let (ways, _servers) = every_way(&repo);
    for (way, client) in &ways {
        client.fetch(&main_ref()).await.unwrap();
        let text = format!("good over {way}");
        let changes = vec![
            change("dir/run", Some(&text)),
            change(&format!("new/{way}/deep"), Some("x")),
            change("b", Some(&text)),
        ];
        let new = pushed(client.commit_and_push(update(&head, changes)).await);
        assert_eq!(repo.head("main"), Some(new.clone()), "{way}: {new}");
        assert_eq!(repo.git(&["rev-parse", "main^"]), head, "{way}");
        assert_eq!(repo.show("main:b"), text, "{way}");
        assert!(repo.git(&["ls-tree", "main", "dir/run"]).starts_with("100755"), "{way}: the mode is kept");
        assert_eq!(repo.show("main:dir/sub/a"), "1", "{way}: the rest is kept");
        assert!(repo.git(&["log", "-1", "--format=%B", "main"]).contains("Serin-Verdict: v1"), "{way}");
        assert_eq!(
            repo.git(&["log", "-1", "--format=%an %ae %at %cn %ct", "main"]),
            "serin serin@example.com 1800000000 serin 1800000000"
        );
        repo.git(&["fsck", "--strict"]);
        // The new commit can be read at once, and pushing it again is no second commit.
        let snapshot = client.snapshot(&sha(&new), &["b".to_owned()]).await.unwrap();
        assert_eq!(snapshot.text("b"), Some(text.as_str()), "{way}");
        head = new;
    }
    assert_eq!(repo.log("main").len(), 4);
}

#[tokio::test]
async fn trees_change_as_told() {
    let repo = Repo::new();
    let head = repo.edit(
        "main",
        "Bad",
        &[Edit::Write("d/e/f", "1"), Edit::Write("d/g", "1"), Edit::Write("h", "1"), Edit::Entry("l", "120000", b"h")],
    );
    let client = client(&repo.url());
    client.fetch(&main_ref()).await.unwrap();
    let tree = async |changes| {
        repo.set("refs/heads/main", &head);
        let new = pushed(client.commit_and_push(update(&head, changes)).await);
        repo.git(&["ls-tree", "-r", "-t", "--name-only", &new]).replace('\n', " ")
    };
    for (changes, want) in [
        (vec![change("d/e/f", None)], "d d/g h l"),
        (vec![change("d/e/f", None), change("d/g", None)], "h l"),
        (vec![change("h", None), change("h/x/y", Some("1"))], "d d/e d/e/f d/g h h/x h/x/y l"),
        (vec![change("d/e/f", None), change("d/g", None), change("d", Some("1"))], "d h l"),
        (vec![change("gone/long/ago", None)], "d d/e d/e/f d/g h l"),
        (vec![change("l", Some("now a file"))], "d d/e d/e/f d/g h l"),
    ] {
        assert_eq!(tree(changes.clone()).await, want, "{changes:?}");
    }
    for (changes, want) in [
        (vec![change("../x", Some("1"))], "out of its folder"),
        (vec![change(".git/config", Some("1"))], "keeps for itself"),
        (vec![change("/abs", Some("1"))], "an empty name"),
        (vec![change("a//b", Some("1"))], "an empty name"),
        (vec![change("h/x", Some("1"))], "is a file, not a folder"),
        (vec![change("d", Some("1"))], "is a folder, not a file"),
        (vec![change("h", Some("1")), change("h", Some("2"))], "changed twice"),
    ] {
        let error = client.commit_and_push(update(&head, changes)).await.unwrap_err();
        assert!(matches!(&error, GitError::Unsupported(text) if text.contains(want)), "{error:?}");
    }
    let mut anonymous = update(&head, vec![]);
    anonymous.author.name = "<>".to_owned();
    assert!(matches!(client.commit_and_push(anonymous).await, Err(GitError::Unsupported(_))));
    let mut rootless = update(&head, vec![]);
    rootless.parent = Some(sha(&"1".repeat(40)));
    assert!(matches!(client.commit_and_push(rootless).await, Err(GitError::Missing(_))));
}

#[tokio::test]
async fn orphans_and_new_branches() {
    let repo = Repo::new();
    let head = repo.commit("main", "one", &[("a", "1")]);
    let (ways, _servers) = every_way(&repo);
    for (way, client) in &ways {
        client.fetch(&main_ref()).await.unwrap();
        let mut first = update(&head, vec![change("README.md", Some(way))]);
        first.reference = format!("refs/heads/serin/status/{way}");
        (first.expected, first.parent) = (None, None);
        let one = pushed(client.commit_and_push(first.clone()).await);
        assert_eq!(repo.head(&format!("serin/status/{way}")), Some(one.clone()), "{way}: {one}");
        assert_eq!(repo.git(&["rev-list", "--count", &one]), "1", "{way}");
        // The same commit again is there already; another one finds the name taken.
        assert_eq!(pushed(client.commit_and_push(first.clone()).await), one, "{way}");
        first.changes = vec![change("README.md", Some("other"))];
        assert_eq!(client.commit_and_push(first.clone()).await.unwrap(), PushOutcome::Moved, "{way}");
        // A shorter history in its place needs force, and what it replaces must be as expected.
        first.expected = Some(sha(&one));
        let error = client.commit_and_push(first.clone()).await.unwrap_err();
        assert!(error.to_string().contains("force is not set"), "{way}: {error}");
        first.force = true;
        let two = pushed(client.commit_and_push(first.clone()).await);
        assert_eq!(repo.head(&format!("serin/status/{way}")), Some(two), "{way}");
        first.changes = vec![];
        assert_eq!(client.commit_and_push(first).await.unwrap(), PushOutcome::Moved, "{way}: expected the first");
    }
    let error = client(&repo.url()).commit_and_push(update(&head, vec![])).await.unwrap_err();
    assert!(matches!(error, GitError::Missing(_)), "nothing was fetched: {error:?}");
}

#[tokio::test]
async fn an_empty_repository_takes_its_first_commit() {
    for way in 0..3 {
        let repo = Repo::new();
        let (ways, _servers) = every_way(&repo);
        let (name, client) = &ways[way];
        let mut first = update("", vec![change("a", Some("1"))]);
        (first.expected, first.parent) = (None, None);
        let new = pushed(client.commit_and_push(first).await);
        assert_eq!(repo.head("main"), Some(new.clone()), "{name}: {new}");
    }
}

#[tokio::test]
async fn a_human_push_in_between_wins() {
    for on in [On::PushRefs, On::Push] {
        let (repo, server, client, head) = bed().await;
        server.before(on, |repo| drop(repo.commit("main", "human", &[("b", "2")])));
        let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
        assert_eq!(outcome.unwrap(), PushOutcome::Moved, "{on:?}");
        assert_eq!(repo.log("main"), ["human", "Bad"], "{on:?}");
        // Fetch and decide again: now it fits.
        let human = client.fetch(&main_ref()).await.unwrap().remove(0).unwrap();
        let new = pushed(client.commit_and_push(update(&human.0, vec![change("a", Some("good"))])).await);
        assert_eq!(repo.head("main"), Some(new));
        assert_eq!(repo.show("main:b"), "2");
    }
}

#[tokio::test]
async fn a_forced_push_is_compared_too() {
    let (repo, server, client, head) = bed().await;
    server.before(On::Push, |repo| drop(repo.commit("main", "human", &[("b", "2")])));
    let mut orphan = update(&head, vec![change("a", Some("good"))]);
    (orphan.parent, orphan.force) = (None, true);
    assert_eq!(client.commit_and_push(orphan.clone()).await.unwrap(), PushOutcome::Moved);
    assert_eq!(repo.log("main"), ["human", "Bad"], "nothing of a person's is lost");
    // Deleted or rewritten meanwhile.
    repo.set("refs/heads/main", &head);
    server.before(On::Push, |repo| repo.delete("main"));
    assert_eq!(client.commit_and_push(orphan).await.unwrap(), PushOutcome::Moved);
    assert_eq!(repo.head("main"), None);
}

#[tokio::test]
async fn a_rewritten_branch_is_no_fast_forward() {
    let (repo, _server, client, head) = bed().await;
    repo.commit_on("main", "rewritten", &[], &[Edit::Write("a", "x")]);
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
    assert_eq!(outcome.unwrap(), PushOutcome::Moved);
    assert_eq!(client.push_ref("refs/heads/main", &sha(&head), false).await.unwrap(), PushOutcome::Moved);
    assert_eq!(repo.log("main"), ["rewritten"]);
}

#[tokio::test]
async fn commits_from_the_future_are_parents_like_others() {
    let repo = Repo::new();
    let head = repo.commit("main", "Bad", &[("a", "bad")]);
    let (ways, _servers) = every_way(&repo);
    for (way, client) in &ways {
        repo.set("refs/heads/main", &head);
        client.fetch(&main_ref()).await.unwrap();
        let mut early = update(&head, vec![change("a", Some(way))]);
        early.time = 0;
        let first = pushed(client.commit_and_push(early).await);
        let mut later = update(&first, vec![change("a", Some("good"))]);
        later.time = 4_000_000_000;
        assert_eq!(repo.head("main"), Some(first), "{way}");
        let second = pushed(client.commit_and_push(later).await);
        assert_eq!(repo.head("main"), Some(second.clone()), "{way}");
        let line = client.history(Some(&sha(&head)), &sha(&second), 9).await.unwrap().unwrap();
        assert_eq!(line.iter().map(|commit| commit.time).collect::<Vec<_>>(), [4_000_000_000, 0], "{way}");
    }
}

#[tokio::test]
async fn a_file_remote_is_compared_and_swapped() {
    let repo = Repo::new();
    let head = repo.commit("main", "Bad", &[("a", "bad")]);
    let client = client(&repo.url());
    client.fetch(&main_ref()).await.unwrap();
    repo.commit("main", "human", &[("b", "2")]);
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
    assert_eq!(outcome.unwrap(), PushOutcome::Moved);
    assert_eq!(repo.log("main"), ["human", "Bad"]);
    // Another process holds git's lock on the ref.
    let human = client.fetch(&main_ref()).await.unwrap().remove(0).unwrap();
    let lock = repo.path().join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let again = update(&human.0, vec![change("a", Some("good"))]);
    assert_eq!(client.commit_and_push(again.clone()).await.unwrap(), PushOutcome::Moved);
    std::fs::remove_file(lock).unwrap();
    let new = pushed(client.commit_and_push(again).await);
    assert_eq!(repo.head("main"), Some(new));
}

#[tokio::test]
async fn hooks_never_run_on_a_file_remote_and_are_not_passed_over() {
    let repo = Repo::new();
    let head = repo.commit("main", "Bad", &[("a", "bad")]);
    let client = client(&repo.url());
    client.fetch(&main_ref()).await.unwrap();
    let trace = repo.path().join("trace");
    for hook in ["pre-receive", "update"] {
        repo.hook(hook, &format!("touch {}", trace.display()));
        let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await.unwrap();
        assert!(matches!(&outcome, PushOutcome::Refused(why) if why.contains(hook)), "{outcome:?}");
        std::fs::remove_file(repo.path().join("hooks").join(hook)).unwrap();
    }
    repo.hook("post-receive", &format!("touch {}", trace.display()));
    let new = pushed(client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await);
    assert_eq!(repo.head("main"), Some(new));
    assert!(!trace.exists());
}

#[tokio::test]
async fn refusals_are_told_in_the_servers_words() {
    let (repo, server, client, head) = bed().await;
    let push = async || client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await.unwrap();
    let refused = |outcome: PushOutcome, want: &[&str]| {
        let PushOutcome::Refused(words) = &outcome else { unreachable!("{outcome:?}") };
        assert!(want.iter().all(|want| words.contains(want)), "{words}");
    };
    repo.hook("pre-receive", "echo 'only through merge requests' >&2; exit 1");
    refused(push().await, &["pre-receive hook declined", "only through merge requests"]);
    std::fs::remove_file(repo.path().join("hooks/pre-receive")).unwrap();
    repo.hook("update", "echo 'not you' >&2; exit 1");
    refused(push().await, &["hook declined", "not you"]);
    std::fs::remove_file(repo.path().join("hooks/update")).unwrap();
    let gh006 = "error: GH006: Protected branch update failed for refs/heads/main.";
    server.fault(On::Push, Fault::RefuseRef("protected branch hook declined".to_owned(), gh006.to_owned()));
    refused(push().await, &["protected branch hook declined", "GH006"]);
    server.fault(On::PushRefs, Fault::Status(403, "archived repository".to_owned()));
    refused(push().await, &["forbids the push (403)", "archived repository"]);
    server.fault(On::Push, Fault::Status(403, "no".to_owned()));
    refused(push().await, &["forbids the push (403)"]);
    server.fault(On::Push, Fault::Status(413, String::new()));
    refused(push().await, &["413"]);
    // A server's rule against forced pushes is no race.
    repo.configure("receive.denyNonFastForwards", "true");
    let mut orphan = update(&head, vec![]);
    (orphan.parent, orphan.force) = (None, true);
    refused(client.commit_and_push(orphan).await.unwrap(), &["non-fast-forward"]);
    // A branch whose name is a folder of ours.
    repo.set("refs/heads/serin", &head);
    refused(client.push_ref("refs/heads/serin/revert/x", &sha(&head), false).await.unwrap(), &["failed to update ref"]);
    assert_eq!(repo.log("main"), ["Bad"]);
    let new = pushed(Ok(push().await));
    assert_eq!(repo.head("main"), Some(new));
}

#[tokio::test]
async fn refusals_over_ssh_are_told_too() {
    let repo = Repo::new();
    let head = repo.commit("main", "Bad", &[("a", "bad")]);
    let server = SshServer::start(&repo, 2);
    let auth = ssh(&server, 2, server.known_hosts(1));
    let client = client_with(|options| options.auth = auth, &server.url()).unwrap();
    client.fetch(&main_ref()).await.unwrap();
    repo.hook("update", "echo 'not you' >&2; exit 1");
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await.unwrap();
    let PushOutcome::Refused(words) = &outcome else { unreachable!("{outcome:?}") };
    assert!(words.contains("hook declined") && words.contains("not you"), "{words}");
    // A hook that hangs up in the middle is no answer.
    repo.hook("update", "kill -9 $PPID");
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
    assert!(matches!(outcome, Err(GitError::Unavailable { .. })), "{outcome:?}");
    std::fs::remove_file(repo.path().join("hooks/update")).unwrap();
    repo.commit("main", "human", &[("b", "1")]);
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
    assert_eq!(outcome.unwrap(), PushOutcome::Moved);
    assert_eq!(repo.log("main"), ["human", "Bad"]);
}

#[tokio::test]
async fn words_for_a_race_mean_a_race() {
    let (repo, server, client, head) = bed().await;
    for words in ["non-fast-forward", "fetch first", "stale info", "cannot lock ref 'refs/heads/main'"] {
        server.fault(On::Push, Fault::RefuseRef(words.to_owned(), String::new()));
        let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
        assert_eq!(outcome.unwrap(), PushOutcome::Moved, "{words}");
    }
    server.fault(On::Push, Fault::RefuseRef("unpacker error".to_owned(), String::new()));
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
    assert!(matches!(outcome, Err(GitError::Unavailable { .. })), "{outcome:?}");
    assert_eq!(repo.log("main"), ["Bad"]);
}

#[tokio::test]
async fn a_lost_answer_is_looked_up() {
    let (repo, server, client, head) = bed().await;
    let good = update(&head, vec![change("a", Some("good"))]);
    // It never arrived.
    server.fault(On::Push, Fault::Status(502, String::new()));
    let error = client.commit_and_push(good.clone()).await.unwrap_err();
    assert!(matches!(&error, GitError::Unavailable { .. }) && error.to_string().contains("502"), "{error:?}");
    assert_eq!(repo.log("main"), ["Bad"]);
    // It arrived, and the second look fails too: we cannot know.
    server.fault(On::Push, Fault::LoseAnswer);
    server.fault_later(On::PushRefs, 1, Fault::Status(500, String::new()));
    let error = client.commit_and_push(good.clone()).await.unwrap_err();
    assert!(matches!(error, GitError::Unavailable { .. }), "{error:?}");
    let landed = repo.head("main").unwrap();
    assert_ne!(landed, head);
    // Asked again, the same commit is found there, without a second one.
    assert_eq!(pushed(client.commit_and_push(good.clone()).await), landed);
    assert_eq!(repo.log("main").len(), 2);
    // It arrived, and the second look tells.
    for fault in [Fault::LoseAnswer, Fault::Truncate] {
        repo.set("refs/heads/main", &head);
        server.fault(On::Push, fault);
        assert_eq!(pushed(client.commit_and_push(good.clone()).await), landed);
    }
    // It was lost on the way there, and somebody else pushed meanwhile.
    repo.set("refs/heads/main", &head);
    server.fault(On::Push, Fault::Status(500, String::new()));
    server.before_later(On::PushRefs, 1, |repo| drop(repo.commit("main", "human", &[("b", "2")])));
    assert_eq!(client.commit_and_push(good).await.unwrap(), PushOutcome::Moved);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_for_a_push_is_unavailable() {
    let (repo, server, client, head) = bed().await;
    for (on, fault) in [
        (On::PushRefs, Fault::Status(500, String::new())),
        (On::PushRefs, Fault::Status(401, String::new())),
        (On::PushRefs, Fault::WebPage),
        (On::PushRefs, Fault::LoseAnswer),
        (On::Push, Fault::Status(429, String::new())),
    ] {
        server.fault(on, fault.clone());
        let outcome = client.commit_and_push(update(&head, vec![change("a", Some("good"))])).await;
        assert!(matches!(outcome, Err(GitError::Unavailable { .. })), "{fault:?}: {outcome:?}");
    }
    assert_eq!(repo.log("main"), ["Bad"]);
}

#[tokio::test]
async fn refs_are_pushed_to_commits_that_are_there() {
    let repo = Repo::new();
    let first = repo.commit("main", "one", &[("a", "1")]);
    let second = repo.commit("main", "two", &[("a", "2")]);
    let (ways, _servers) = every_way(&repo);
    for (way, client) in &ways {
        client.fetch(&main_ref()).await.unwrap();
        let name = format!("refs/serin/prod/shop/{way}");
        let push = async |target: &str, force| client.push_ref(&name, &sha(target), force).await.unwrap();
        assert_eq!(push(&first, false).await, PushOutcome::Pushed(sha(&first)), "{way}: new");
        assert_eq!(push(&first, false).await, PushOutcome::Pushed(sha(&first)), "{way}: again");
        assert_eq!(push(&second, false).await, PushOutcome::Pushed(sha(&second)), "{way}: forward");
        assert_eq!(push(&first, false).await, PushOutcome::Moved, "{way}: backward");
        assert_eq!(push(&first, true).await, PushOutcome::Pushed(sha(&first)), "{way}: backward by force");
        assert_eq!(repo.target(&name), Some(first.clone()), "{way}");
        assert!(matches!(client.push_ref(&name, &sha(&"1".repeat(40)), true).await, Err(GitError::Missing(_))));
    }
}

#[tokio::test]
async fn writing_takes_its_own_credentials() {
    let repo = Repo::new();
    let head = repo.commit("main", "Bad", &[("a", "bad")]);
    let server = HttpServer::start(&repo);
    server.require(&[("reader", false), ("writer", true)]);
    let reader = client_with(|options| options.auth = token("reader"), &server.url()).unwrap();
    reader.fetch(&main_ref()).await.unwrap();
    let outcome = reader.commit_and_push(update(&head, vec![change("a", Some("good"))])).await.unwrap();
    assert!(matches!(&outcome, PushOutcome::Refused(why) if why.contains("403")), "{outcome:?}");
    let both = client_with(
        |options| {
            options.auth = token("reader");
            options.write_auth = Some(token("writer"));
        },
        &server.url(),
    )
    .unwrap();
    both.fetch(&main_ref()).await.unwrap();
    server.asked();
    let new = pushed(both.commit_and_push(update(&head, vec![change("a", Some("good"))])).await);
    assert_eq!(repo.head("main"), Some(new));
    for asked in server.asked() {
        let want = if matches!(asked.on, On::PushRefs | On::Push) { "writer" } else { "reader" };
        assert_eq!(asked.credentials.as_ref().map(|(_, token)| token.as_str()), Some(want), "{asked:?}");
    }
}
