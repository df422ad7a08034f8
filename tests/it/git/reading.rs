//! Snapshots, history and changes.

use std::collections::BTreeSet;

use serin::git::Limits;
use serin::ports::GitError;

use super::git_server::{AUTHOR, Edit, Repo};
use super::{Client, client, client_with, limits, main_ref, sha};

#[expect(clippy::unwrap_used, reason = "a broken test bed stops the test")]
async fn fetched(repo: &Repo) -> (Client, String) {
    let client = client(&repo.url());
    let head = client.fetch(&main_ref()).await.unwrap().remove(0).unwrap();
    (client, head.0)
}

fn all() -> Vec<String> {
    vec![String::new()]
}

#[tokio::test]
async fn a_snapshot_holds_regular_files_below_the_prefixes() {
    let repo = Repo::new();
    repo.edit(
        "main",
        "one",
        &[
            Edit::Write("prod/web.yaml", "web"),
            Edit::Entry("prod/run.sh", "100755", b"run"),
            Edit::Write("prod2/no.yaml", "no"),
            Edit::Write("values/prod.yaml", "v"),
            Edit::Write("values/test.yaml", "no"),
            Edit::Entry("prod/bytes", "100644", &[0, 255, 1]),
            Edit::Write("prod/crlf", "a\r\nb\r\n"),
        ],
    );
    let (client, head) = fetched(&repo).await;
    let prefixes = ["prod/".to_owned(), "values/prod.yaml".to_owned(), "missing".to_owned()];
    let snapshot = client.snapshot(&sha(&head), &prefixes).await.unwrap();
    let paths: Vec<_> = snapshot.files.keys().map(String::as_str).collect();
    assert_eq!(paths, ["prod/bytes", "prod/crlf", "prod/run.sh", "prod/web.yaml", "values/prod.yaml"]);
    assert_eq!(snapshot.revision, Some(sha(&head)));
    assert_eq!(snapshot.text("prod/crlf"), Some("a\r\nb\r\n"), "no line ends are changed");
    assert_eq!(&*snapshot.files["prod/bytes"], [0, 255, 1]);
    assert!(snapshot.refused.is_empty());
    assert_eq!(client.snapshot(&sha(&head), &all()).await.unwrap().files.len(), 7);
    assert_eq!(client.snapshot(&sha(&head), &[]).await.unwrap().files.len(), 0);
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused_with_a_reason() {
    let repo = Repo::new();
    repo.edit(
        "main",
        "one",
        &[
            Edit::Entry("link", "120000", b"/etc/passwd"),
            Edit::Submodule("vendor"),
            Edit::Write("big", &"x".repeat(2000)),
            Edit::Write("lfs.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
            Edit::Write("dir/Same.yaml", "1"),
            Edit::Write("dir/same.yaml", "2"),
            Edit::Write("good.yaml", "ok"),
            Edit::Entry("away/link", "120000", b"x"),
        ],
    );
    let small = Limits { max_blob_bytes: 1000, ..limits() };
    let client = client_with(|options| options.limits = small, &repo.url()).unwrap();
    let head = client.fetch(&main_ref()).await.unwrap().remove(0).unwrap();
    let snapshot = client.snapshot(&head, &all()).await.unwrap();
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["good.yaml"]);
    for (path, why) in [
        ("link", "a symlink"),
        ("away/link", "a symlink"),
        ("vendor", "a submodule"),
        ("big", "2000 bytes; at most 1000 are read"),
        ("lfs.bin", "Git LFS pointer"),
        ("dir/Same.yaml", "differs only in case from dir/same.yaml"),
        ("dir/same.yaml", "differs only in case from dir/Same.yaml"),
    ] {
        assert!(snapshot.refused[path].contains(why), "{path}: {:?}", snapshot.refused);
    }
    assert_eq!(snapshot.refused.len(), 7);
    let below = client.snapshot(&head, &["dir".to_owned()]).await.unwrap();
    assert_eq!(below.refused.len(), 2, "only what was asked for");
}

#[tokio::test]
async fn odd_names_are_refused_and_shown_safely() {
    let repo = Repo::new();
    let inner = repo.raw_tree(&[("100644", b"config", b"[core]")]);
    let inner = inner.as_bytes();
    repo.commit_raw(
        "main",
        &[
            ("100644", b"a\\b", b"1"),
            ("100644", b"esc\x1b[31m", b"1"),
            ("100644", b"good", b"1"),
            ("100644", b"nl\n", b"1"),
            ("100644", b"\xff\xfe", b"1"),
            ("040000", b"..", inner),
            ("040000", b".Git", inner),
            ("040000", b"GIT~1", inner),
        ],
    );
    // git would not send such a tree to everybody, but a server can; read it where it lies.
    let (client, head) = fetched(&repo).await;
    let snapshot = client.snapshot(&sha(&head), &all()).await.unwrap();
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(snapshot.refused.len(), 7, "{:?}", snapshot.refused);
    for (path, why) in [
        ("a\\b", "backslash"),
        ("esc\\u{1b}[31m", "control"),
        ("nl\\n", "control"),
        ("\u{fffd}\u{fffd}", "UTF-8"),
        ("..", "out of its folder"),
        (".Git", "keeps for itself"),
        ("GIT~1", "keeps for itself"),
    ] {
        assert!(snapshot.refused.get(path).is_some_and(|text| text.contains(why)), "{path}: {:?}", snapshot.refused);
    }
}

#[tokio::test]
async fn totals_are_limited() {
    let repo = Repo::new();
    repo.commit("main", "one", &[("a", "1234"), ("b", "1234"), ("c/d", "1234")]);
    for (change, want) in [
        (Limits { max_files: 2, ..limits() }, "more than 2 files"),
        (Limits { max_snapshot_bytes: 10, ..limits() }, "more than 10 bytes"),
    ] {
        let client = client_with(|options| options.limits = change, &repo.url()).unwrap();
        let head = client.fetch(&main_ref()).await.unwrap().remove(0).unwrap();
        let error = client.snapshot(&head, &all()).await.unwrap_err();
        assert!(matches!(&error, GitError::Missing(text) if text.contains(want)), "{error:?}");
        assert_eq!(client.snapshot(&head, &["c".to_owned()]).await.unwrap().files.len(), 1);
        let error = client.changes(&head).await.unwrap_err();
        assert!(matches!(&error, GitError::Missing(text) if text.contains(want)), "{error:?}");
    }
    let deep = "d/".repeat(80) + "f";
    repo.commit("main", "deep", &[(&deep, "1")]);
    let (client, head) = fetched(&repo).await;
    let snapshot = client.snapshot(&sha(&head), &["d".to_owned()]).await.unwrap();
    assert!(snapshot.files.is_empty() && snapshot.refused.values().all(|why| why.contains("deeper than")));
    assert_eq!(snapshot.refused.len(), 1);
}

#[tokio::test]
async fn unknown_commits_are_missing() {
    let repo = Repo::new();
    repo.commit("main", "one", &[("a", "1")]);
    let (client, _) = fetched(&repo).await;
    for name in ["1".repeat(40), "main".to_owned(), String::new()] {
        let gone = sha(&name);
        assert!(matches!(client.snapshot(&gone, &all()).await, Err(GitError::Missing(_))), "{name}");
        assert!(matches!(client.history(None, &gone, 9).await, Err(GitError::Missing(_))), "{name}");
        assert!(matches!(client.changes(&gone).await, Err(GitError::Missing(_))), "{name}");
    }
}

#[tokio::test]
async fn history_follows_first_parents() {
    let repo = Repo::new();
    let root = repo.commit("main", "root", &[("a", "1"), ("keep", "1")]);
    let topic = repo.commit_on("topic", "topic", std::slice::from_ref(&root), &[Edit::Write("t", "1")]);
    let second = repo.commit("main", "second\n\nbody\n\nSerin-Verdict: 7\n", &[("a", "2")]);
    let merge = repo.commit_on("main", "merge", &[second.clone(), topic], &[Edit::Write("t", "1")]);
    let last = repo.edit("main", "rename", &[Edit::Rename("keep", "dir/kept"), Edit::Remove("t")]);
    let (client, head) = fetched(&repo).await;
    assert_eq!(head, last);
    let line = client.history(None, &sha(&head), 10).await.unwrap().unwrap();
    let told: Vec<_> =
        line.iter().map(|commit| (commit.subject(), commit.paths.iter().map(String::as_str).collect())).collect();
    let want: [(&str, Vec<&str>); 4] = [
        ("rename", vec!["dir/kept", "keep", "t"]),
        ("merge", vec!["t"]),
        ("second", vec!["a"]),
        ("root", vec!["a", "keep"]),
    ];
    assert_eq!(told, want);
    assert_eq!(line[2].trailer("serin-verdict"), Some("7"));
    assert_eq!(line[2].author, AUTHOR);
    assert_eq!(line[1].parent, Some(sha(&second)));
    assert_eq!((line[3].parent.clone(), line[3].time), (None, 1_700_000_000));

    let count = async |from: &str, limit| {
        client.history(Some(&sha(from)), &sha(&head), limit).await.unwrap().map(|line| line.len())
    };
    assert_eq!(count(&root, 10).await, Some(3));
    assert_eq!(count(&root, 3).await, Some(3));
    assert_eq!(count(&root, 2).await, None, "not within the limit");
    assert_eq!(count(&last, 0).await, Some(0), "nothing since");
    assert_eq!(count(&merge, 1).await, Some(1));
    assert_eq!(count(&"1".repeat(40), 10).await, None, "no ancestor");
    assert_eq!(client.history(None, &sha(&head), 2).await.unwrap().unwrap().len(), 2);
}

#[tokio::test]
async fn changes_carry_content_and_follow_renames() {
    let repo = Repo::new();
    let text: String = (0..40).map(|line| format!("line {line}\n")).collect();
    repo.commit("main", "root", &[("a", "1"), ("gone", "g"), ("old/name", &text)]);
    let edited = text.replace("line 7\n", "line seven\n");
    repo.edit(
        "main",
        "change",
        &[
            Edit::Write("a", "2"),
            Edit::Write("new", "n"),
            Edit::Remove("gone"),
            Edit::Rename("old/name", "new-name"),
            Edit::Write("new-name", &edited),
            Edit::Entry("link", "120000", b"a"),
            Edit::Submodule("sub"),
        ],
    );
    let (client, head) = fetched(&repo).await;
    let changes = client.changes(&sha(&head)).await.unwrap();
    let side = |side: &Option<(String, serin::domain::Blob)>| {
        side.as_ref().map(|(path, blob)| format!("{path}={}", String::from_utf8_lossy(blob).len()))
    };
    let told: BTreeSet<_> = changes.iter().map(|change| (side(&change.before), side(&change.after))).collect();
    let some = |text: String| Some(text);
    let want = BTreeSet::from([
        (some("a=1".to_owned()), some("a=1".to_owned())),
        (None, some("new=1".to_owned())),
        (some("gone=1".to_owned()), None),
        (some(format!("old/name={}", text.len())), some(format!("new-name={}", edited.len()))),
    ]);
    assert_eq!(told, want);
}
