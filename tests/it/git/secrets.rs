//! Credentials must not be in any error, outcome or `Debug` output.

use serin::git::{Auth, Options, redact};
use serin::ports::PushOutcome;
use tempfile::TempDir;

use super::git_server::{Fault, HttpServer, On, Repo, SshServer};
use super::{change, client_with, main_ref, options, ssh, token, update};

const CANARY: &str = "CANARY-5d41402abc4b2a76";

#[tokio::test]
async fn canary_tokens_stay_hidden() {
    let repo = Repo::new();
    let head = repo.commit("main", "Bad", &[("a", "bad")]);
    let server = HttpServer::start(&repo);
    let cache = TempDir::new().unwrap();
    let both = |options: &mut Options| {
        options.auth = token(CANARY);
        options.write_auth = Some(token(CANARY));
    };
    let mut seen = Vec::new();
    let mut shown = options(&format!("https://{CANARY}@h/a?token={CANARY}"), token(CANARY), &cache);
    both(&mut shown);
    seen.push(format!("{shown:?} {:?} {:?}", shown.auth, shown.write_auth));
    seen.push(redact(&format!("cannot reach https://x:{CANARY}@h/a and https://h/?private_token={CANARY}")));
    let client = client_with(both, &server.url()).unwrap();
    client.fetch(&main_ref()).await.unwrap();
    // Servers and proxies that repeat what they were given.
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{CANARY}"));
    let echo = format!("bad credentials {CANARY}, Basic {basic}, https://x-access-token:{CANARY}@h/a");
    for status in [400, 401, 403, 500] {
        server.fault(On::Poll, Fault::Status(status, echo.clone()));
        server.fault(On::FetchRefs, Fault::Status(status, echo.clone()));
        let error = client.fetch(&main_ref()).await.unwrap_err();
        seen.push(format!("{error} {error:?}"));
        server.fault(On::PushRefs, Fault::Status(status, echo.clone()));
        let outcome = client.commit_and_push(update(&head, vec![change("a", Some("x"))])).await;
        seen.push(format!("{outcome:?}"));
    }
    server.fault(On::Push, Fault::RefuseRef(format!("hook declined {CANARY}"), echo.clone()));
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("x"))])).await.unwrap();
    assert!(matches!(outcome, PushOutcome::Refused(_)), "{outcome:?}");
    seen.push(format!("{outcome:?}"));
    server.require(&[(CANARY, false)]);
    let outcome = client.commit_and_push(update(&head, vec![change("a", Some("x"))])).await;
    seen.push(format!("{outcome:?}"));
    server.fault(On::Poll, Fault::WebPage);
    server.fault(On::FetchRefs, Fault::Redirect(format!("http://u:{CANARY}@127.0.0.1:1/x")));
    seen.push(format!("{:?}", client.fetch(&main_ref()).await));
    drop(server);
    seen.push(format!("{:?}", client.fetch(&main_ref()).await));
    seen.push(
        client_with(|_| {}, &format!("https://u:{CANARY}@h/a"))
            .err()
            .map(|error| format!("{error:?}"))
            .unwrap_or_default(),
    );
    for text in &seen {
        assert!(!text.is_empty() && !text.contains(CANARY) && !text.contains(&basic), "{text}");
    }
    assert!(seen.len() > 12);
    let files = std::process::Command::new("grep").args(["-rl", CANARY]).arg(client.cache.path()).output().unwrap();
    assert!(files.stdout.is_empty(), "nothing in the mirror: {files:?}");
}

#[tokio::test]
async fn ssh_keys_stay_hidden() {
    let repo = Repo::new();
    let server = SshServer::start(&repo, 2);
    let key = SshServer::private_key(3);
    let body: Vec<&str> = key.lines().filter(|line| !line.starts_with("--")).collect();
    let auth = ssh(&server, 3, server.known_hosts(1));
    let mut seen = vec![format!("{auth:?}")];
    let client = client_with(|options| options.auth = auth.clone(), &server.url()).unwrap();
    seen.push(format!("{:?}", client.fetch(&main_ref()).await));
    let cut: String = key.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| format!("{line}\n")).collect();
    let broken = Auth::Ssh { user: "git".to_owned(), key: cut.into(), known_hosts: server.known_hosts(1) };
    seen.push(
        client_with(|options| options.auth = broken, &server.url())
            .err()
            .map(|error| format!("{error:?}"))
            .unwrap_or_default(),
    );
    for text in &seen {
        assert!(!text.is_empty() && body.iter().all(|line| !text.contains(line)), "{text}");
    }
}
