//! Refs in every state, and what goes wrong on the way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serin::git::{Auth, Limits, open};
use serin::ports::GitError;
use tempfile::TempDir;

use super::git_server::{Edit, Fault, HttpServer, On, Repo, SshServer};
use super::{StillClock, client, client_with, every_way, limits, main_ref, options, sha, ssh, token};

fn text(error: Result<impl Sized, GitError>) -> String {
    error.err().map_or_else(|| "no error".to_owned(), |error| error.to_string())
}

#[tokio::test]
async fn a_branch_is_followed_through_all_its_states() {
    let repo = Repo::new();
    let (ways, _servers) = every_way(&repo);
    for (way, client) in &ways {
        assert_eq!(client.fetch(&main_ref()).await.unwrap(), [None], "{way}: unborn, in an empty repository");
    }
    let first = repo.commit("main", "one", &[("a", "1")]);
    for (way, client) in &ways {
        assert_eq!(client.fetch(&main_ref()).await.unwrap(), [Some(sha(&first))], "{way}: born");
    }
    let second = repo.commit("main", "two", &[("a", "2")]);
    for (way, client) in &ways {
        assert_eq!(client.fetch(&main_ref()).await.unwrap(), [Some(sha(&second))], "{way}: moved");
    }
    let forced = repo.commit_on("main", "other", &[first], &[Edit::Write("a", "3")]);
    for (way, client) in &ways {
        assert_eq!(client.fetch(&main_ref()).await.unwrap(), [Some(sha(&forced))], "{way}: forced");
        assert!(client.snapshot(&sha(&second), &[String::new()]).await.is_ok(), "{way}: the old one is still here");
    }
    let orphan = repo.commit_on("main", "root", &[], &[Edit::Write("b", "1")]);
    for (way, client) in &ways {
        assert_eq!(client.fetch(&main_ref()).await.unwrap(), [Some(sha(&orphan))], "{way}: unrelated history");
        let snapshot = client.snapshot(&sha(&orphan), &[String::new()]).await.unwrap();
        assert_eq!(snapshot.text("b"), Some("1"), "{way}");
    }
    repo.delete("main");
    for (way, client) in &ways {
        assert_eq!(client.fetch(&main_ref()).await.unwrap(), [None], "{way}: deleted");
    }
    // A folder takes the branch's name.
    let below = repo.commit("main/next", "below", &[("a", "4")]);
    let names = ["refs/heads/main".to_owned(), "refs/heads/main/next".to_owned()];
    for (way, client) in &ways {
        assert_eq!(client.fetch(&names).await.unwrap(), [None, Some(sha(&below))], "{way}: replaced");
    }
}

#[tokio::test]
async fn several_refs_take_one_round_and_an_unchanged_one_no_download() {
    let repo = Repo::new();
    let main = repo.commit("main", "one", &[("a", "1")]);
    let status = repo.commit("serin/status/prod", "s", &[("README.md", "x")]);
    repo.set("refs/serin/prod/shop/web", &main);
    repo.git(&["tag", "-a", "-m", "tag", "v1", &main]);
    let server = HttpServer::start(&repo);
    let client = client(&server.url());
    let names: Vec<String> = ["heads/main", "heads/serin/status/prod", "heads/none", "serin/prod/shop/web", "tags/v1"]
        .iter()
        .map(|name| format!("refs/{name}"))
        .collect();
    let want = [Some(sha(&main)), Some(sha(&status)), None, Some(sha(&main)), Some(sha(&main))];
    assert_eq!(client.fetch(&names).await.unwrap(), want);
    let kinds = |server: &HttpServer| server.asked().iter().map(|asked| asked.on).collect::<Vec<_>>();
    let first = kinds(&server);
    assert_eq!(first.iter().filter(|on| **on == On::FetchRefs).count(), 1, "{first:?}");
    assert_eq!(client.fetch(&names[..4]).await.unwrap(), want[..4]);
    assert_eq!(kinds(&server), [On::Poll], "nothing new: one short question");
    let next = repo.commit("main", "two", &[("a", "2")]);
    assert_eq!(client.fetch(&main_ref()).await.unwrap(), [Some(sha(&next))]);
    let seen = kinds(&server);
    assert_eq!(seen[..2], [On::Poll, On::FetchRefs], "{seen:?}");
    repo.delete("main");
    assert_eq!(client.fetch(&main_ref()).await.unwrap(), [None]);
    assert_eq!(kinds(&server), [On::Poll], "a deleted branch needs no download");
}

#[tokio::test]
async fn a_server_without_the_short_question_is_asked_the_long_way() {
    let repo = Repo::new();
    let head = repo.commit("main", "one", &[("a", "1")]);
    let server = HttpServer::start(&repo);
    let client = client(&server.url());
    let want = [Some(sha(&head))];
    let mut kinds = Vec::new();
    // A failure of both ways says nothing about the short one, and says what is wrong.
    client.fetch(&main_ref()).await.unwrap();
    server.asked();
    server.fault(On::Poll, Fault::Status(500, "short".to_owned()));
    server.fault(On::FetchRefs, Fault::Status(500, "long".to_owned()));
    assert!(text(client.fetch(&main_ref()).await).contains("500 Internal Server Error: long"));
    server.fault(On::Poll, Fault::WebPage);
    for _ in 0..3 {
        assert_eq!(client.fetch(&main_ref()).await.unwrap(), want);
        kinds.extend(server.asked().iter().map(|asked| asked.on));
    }
    let want = [On::Poll, On::FetchRefs, On::Poll, On::FetchRefs, On::FetchRefs, On::FetchRefs];
    assert_eq!(kinds, want);
}

#[tokio::test]
async fn names_that_are_no_full_refs_are_refused() {
    let repo = Repo::new();
    let client = client(&repo.url());
    for name in ["main", "refs/heads/a..b", "refs/heads/a b", "HEAD", "refs/heads/*", "+refs/heads/a"] {
        let error = text(client.fetch(&[name.to_owned()]).await);
        assert!(error.contains("not a full ref name"), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_sha256_repository_is_refused_cleanly() {
    let repo = Repo::with_format("sha256");
    repo.commit("main", "one", &[("a", "1")]);
    let (ways, _servers) = every_way(&repo);
    for (way, client) in &ways {
        let error = client.fetch(&main_ref()).await.unwrap_err();
        assert!(matches!(error, GitError::Unsupported(_)), "{way}: {error:?}");
        assert!(error.to_string().contains("SHA-256"), "{way}: {error}");
    }
}

#[tokio::test]
async fn a_shallow_remote_is_refused() {
    let full = Repo::new();
    full.commit("main", "one", &[("a", "1")]);
    full.commit("main", "two", &[("a", "2")]);
    full.commit("main", "three", &[("a", "3")]);
    let repo = Repo::new();
    repo.git(&["fetch", "--quiet", "--depth=2", &full.url(), "+refs/heads/main:refs/heads/main"]);
    let (ways, _servers) = every_way(&repo);
    for (way, client) in &ways {
        let error = client.fetch(&main_ref()).await.unwrap_err();
        assert!(matches!(error, GitError::Unsupported(_)), "{way}: {error:?}");
        assert!(error.to_string().contains("shallow"), "{way}: {error}");
    }
}

#[tokio::test]
async fn faults_of_the_server_are_named_and_pass() {
    let repo = Repo::new();
    let head = repo.commit("main", "one", &[("a", "1")]);
    let server = HttpServer::start(&repo);
    let client = client(&server.url());
    for (on, fault, want) in [
        (On::FetchRefs, Fault::Status(500, "boom".to_owned()), "500 Internal Server Error: boom"),
        (On::FetchRefs, Fault::Status(503, String::new()), "503"),
        (On::FetchRefs, Fault::Status(404, String::new()), "no such repository (404)"),
        (On::FetchRefs, Fault::Status(403, String::new()), "may not read the repository (403)"),
        (On::FetchRefs, Fault::WebPage, "not Git's smart HTTP protocol"),
        (On::Fetch, Fault::Status(502, String::new()), "502"),
        (On::FetchRefs, Fault::LoseAnswer, "fetching from"),
        (On::Fetch, Fault::LoseAnswer, "fetching from"),
        (On::Fetch, Fault::Truncate, "fetching from"),
        (On::FetchRefs, Fault::Redirect("ftp://127.0.0.1/x".to_owned()), "cannot follow a redirect"),
    ] {
        server.fault(on, fault.clone());
        let error = client.fetch(&main_ref()).await.unwrap_err();
        assert!(matches!(error, GitError::Unavailable { .. }), "{fault:?}: {error:?}");
        assert!(error.to_string().contains(want), "{fault:?}: {error}");
    }
    assert_eq!(client.fetch(&main_ref()).await.unwrap(), [Some(sha(&head))]);
}

#[tokio::test]
async fn a_server_that_hangs_or_floods_is_left() {
    let repo = Repo::new();
    repo.commit("main", "one", &[("a", &"0123456789abcdef".repeat(4000))]);
    let server = HttpServer::start(&repo);
    let hasty = Limits { timeout: Duration::from_millis(150), ..limits() };
    let hurried = client_with(|options| options.limits = hasty, &server.url()).unwrap();
    server.fault(On::FetchRefs, Fault::Hang);
    let error = text(hurried.fetch(&main_ref()).await);
    assert!(error.contains("took longer than 150ms"), "{error}");
    let small = Limits { max_transfer_bytes: 200, ..limits() };
    let thrifty = client_with(|options| options.limits = small, &server.url()).unwrap();
    let error = text(thrifty.fetch(&main_ref()).await);
    assert!(error.contains("more than 200 bytes"), "{error}");
}

#[tokio::test]
async fn an_address_nobody_listens_at_is_unavailable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lonely = client(&format!("http://{free}/a.git"));
    let error = lonely.fetch(&main_ref()).await.unwrap_err();
    assert!(matches!(error, GitError::Unavailable { .. }) && error.to_string().contains("refused"), "{error}");
    // TLS is spoken on https, and there only.
    let repo = Repo::new();
    let server = HttpServer::start(&repo);
    let plain = client(&server.url().replace("http://", "https://"));
    let error = plain.fetch(&main_ref()).await.unwrap_err();
    assert!(matches!(error, GitError::Unavailable { .. }), "{error:?}");
    assert!(server.asked().is_empty(), "nothing is sent in the clear");
    let nowhere = client("file:///nonexistent/serin/repo.git");
    assert!(matches!(nowhere.fetch(&main_ref()).await, Err(GitError::Unavailable { .. })));
}

#[tokio::test]
async fn redirects_are_followed_and_credentials_stay_home() {
    let repo = Repo::new();
    let head = repo.commit("main", "one", &[("a", "1")]);
    let (old, new) = (HttpServer::start(&repo), HttpServer::start(&repo));
    let visitor = || client_with(|options| options.auth = token("CANARY-token"), &old.url()).unwrap();
    old.require(&[("CANARY-token", true)]);
    old.fault(On::FetchRefs, Fault::Redirect(new.url()));
    assert_eq!(visitor().fetch(&main_ref()).await.unwrap(), [Some(sha(&head))]);
    let seen = new.asked();
    assert_eq!(seen.len(), 2, "refs and pack come from the other host: {seen:?}");
    assert!(seen.iter().all(|asked| asked.credentials.is_none()), "{seen:?}");
    // On the same host they go along.
    old.asked();
    old.fault(On::FetchRefs, Fault::Redirect(old.url().replace("apps", "moved")));
    visitor().fetch(&main_ref()).await.unwrap();
    let seen = old.asked();
    assert_eq!(seen.iter().map(|asked| asked.status).collect::<Vec<_>>(), [302, 200, 200]);
    assert!(seen.iter().all(|asked| asked.credentials.is_some()), "{seen:?}");
    // A circle ends.
    old.faults(On::FetchRefs, Fault::Redirect(old.url()), 50);
    assert!(text(visitor().fetch(&main_ref()).await).contains("more than 5 redirects"));
}

#[tokio::test]
async fn two_repositories_with_two_tokens_do_not_mix() {
    let (one, two) = (Repo::new(), Repo::new());
    let heads = [one.commit("main", "one", &[("a", "1")]), two.commit("main", "two", &[("a", "2")])];
    let servers = [HttpServer::start(&one), HttpServer::start(&two)];
    let tokens = ["token-one", "token-two"];
    let mut clients = Vec::new();
    for (server, secret) in servers.iter().zip(tokens) {
        server.require(&[(secret, true)]);
        clients.push(client_with(|options| options.auth = token(secret), &server.url()).unwrap());
    }
    for _ in 0..5 {
        let refs = main_ref();
        let (first, second) = tokio::join!(clients[0].fetch(&refs), clients[1].fetch(&refs));
        assert_eq!([first.unwrap(), second.unwrap()], heads.clone().map(|head| vec![Some(sha(&head))]));
    }
    for (server, secret) in servers.iter().zip(tokens) {
        let asked = server.asked();
        let want = Some(("x-access-token".to_owned(), secret.to_owned()));
        assert!(!asked.is_empty() && asked.iter().all(|asked| asked.credentials == want), "{asked:?}");
    }
}

#[tokio::test]
async fn rotated_credentials_stop_and_new_ones_go_on() {
    let repo = Repo::new();
    let head = repo.commit("main", "one", &[("a", "1")]);
    let server = HttpServer::start(&repo);
    server.require(&[("old", true)]);
    let stale = client_with(|options| options.auth = token("old"), &server.url()).unwrap();
    stale.fetch(&main_ref()).await.unwrap();
    server.require(&[("new", true)]);
    let error = stale.fetch(&main_ref()).await.unwrap_err();
    assert!(matches!(error, GitError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("does not accept our credentials (401)"), "{error}");
    // The daemon opens the repository again with what the file says now; the mirror is used on.
    let fresh = open(options(&server.url(), token("new"), &stale.cache), Arc::new(StillClock::default())).unwrap();
    server.asked();
    assert_eq!(fresh.fetch(&main_ref()).await.unwrap(), [Some(sha(&head))]);
    assert_eq!(server.asked().len(), 1, "no second clone");
}

#[tokio::test]
async fn ssh_checks_the_server_and_the_server_checks_us() {
    let repo = Repo::new();
    let head = repo.commit("main", "one", &[("a", "1")]);
    let server = SshServer::start(&repo, 2);
    let strange = server.known_hosts(1).replace("[127.0.0.1]", "[127.0.0.2]");
    for (key, hosts, want, permanent) in [
        (2, server.known_hosts(9), "is not the one in the known hosts", true),
        (2, strange, "is not among the known hosts", true),
        (2, format!("{}@revoked * {}\n", server.known_hosts(1), SshServer::public_key(1)), "is revoked", true),
        (3, server.known_hosts(1), "does not accept our SSH key for user git", false),
    ] {
        let auth = ssh(&server, key, hosts);
        let wrong = client_with(|options| options.auth = auth, &server.url()).unwrap();
        let error = wrong.fetch(&main_ref()).await.unwrap_err();
        assert_eq!(matches!(error, GitError::Unsupported(_)), permanent, "{error:?}");
        assert!(error.to_string().contains(want), "{error}");
    }
    let both = format!("{}{}", server.known_hosts(9), server.known_hosts(1));
    let auth = ssh(&server, 2, both);
    let right = client_with(|options| options.auth = auth, &server.url()).unwrap();
    assert_eq!(right.fetch(&main_ref()).await.unwrap(), [Some(sha(&head))]);
    assert_eq!(server.commands(), ["git-upload-pack '/acme/apps.git'"]);
    server.accept_only(3);
    assert!(text(right.fetch(&main_ref()).await).contains("does not accept our SSH key"));
    server.accept_only(2);
    let auth = ssh(&server, 2, server.known_hosts(1));
    let elsewhere = client_with(|options| options.auth = auth, &server.url().replace("apps", "it's")).unwrap();
    let error = text(elsewhere.fetch(&main_ref()).await);
    assert!(error.contains("does not appear to be a git repository"), "{error}");
    assert_eq!(server.commands().last().unwrap(), r"git-upload-pack '/acme/it'\''s.git'");
}

#[test]
fn settings_that_cannot_work_are_refused_when_opening() {
    let repo = Repo::new();
    let server = SshServer::start(&repo, 2);
    let locked = "-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n-----END OPENSSH PRIVATE KEY-----\n";
    let garbled =
        Auth::Ssh { user: "git".to_owned(), key: locked.to_owned().into(), known_hosts: server.known_hosts(1) };
    let nobody =
        Auth::Ssh { user: "git".to_owned(), key: SshServer::private_key(2).into(), known_hosts: String::new() };
    for (url, auth, want) in [
        (server.url(), Auth::None, "takes an SSH key"),
        (server.url(), token("t"), "takes an SSH key"),
        (server.url(), garbled, "the SSH key cannot be read"),
        (server.url(), nobody, "list no server key"),
        ("https://h/a".to_owned(), ssh(&server, 2, server.known_hosts(1)), "takes a token"),
        ("https://u:p@h/a".to_owned(), Auth::None, "holds a password"),
    ] {
        let error = client_with(|options| options.auth = auth, &url).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(want)), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn a_damaged_mirror_is_made_again() {
    let repo = Repo::new();
    let head = repo.commit("main", "one", &[("a", "1")]);
    let server = HttpServer::start(&repo);
    let cache = TempDir::new().unwrap();
    let mirror = || std::fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let reopen = || open(options(&server.url(), Auth::None, &cache), Arc::new(StillClock::default())).unwrap();
    let want = [Some(sha(&head))];
    assert_eq!(reopen().fetch(&main_ref()).await.unwrap(), want);
    // The repository's frame is gone.
    std::fs::remove_file(mirror().join("HEAD")).unwrap();
    assert_eq!(reopen().fetch(&main_ref()).await.unwrap(), want);
    // Its objects are gone.
    std::fs::remove_dir_all(mirror().join("objects")).unwrap();
    std::fs::create_dir_all(mirror().join("objects/pack")).unwrap();
    let client = reopen();
    assert_eq!(client.fetch(&main_ref()).await.unwrap(), want);
    assert_eq!(client.snapshot(&sha(&head), &[String::new()]).await.unwrap().text("a"), Some("1"));
    // A file stands where the folder should be.
    std::fs::remove_dir_all(mirror()).unwrap();
    let place = mirror_name(&cache, &server.url());
    std::fs::write(&place, "x").unwrap();
    assert!(reopen().fetch(&main_ref()).await.is_ok());
}

fn mirror_name(cache: &TempDir, url: &str) -> std::path::PathBuf {
    let digest = serin::domain::sha256_hex(url.as_bytes());
    cache.path().join(format!("{}.git", &digest[..24]))
}

#[tokio::test]
async fn the_clock_is_told_of_every_call() {
    let repo = Repo::new();
    repo.commit("main", "one", &[("a", "1")]);
    let cache = TempDir::new().unwrap();
    let clock = Arc::new(StillClock::default());
    let remote = open(options(&repo.url(), Auth::None, &cache), clock.clone()).unwrap();
    remote.fetch(&main_ref()).await.unwrap();
    assert!(clock.started.load(Ordering::SeqCst) >= 1);
    // The job's own guard may go a moment after the answer.
    while clock.under_way.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
}
