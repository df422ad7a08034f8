//! Planted secrets, and a search for them in everything that the daemon says and writes.
#![expect(clippy::panic, reason = "a secret that shows stops the test")]

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use serde_json::Value;
use serin::domain::{CanaryKey, Object};
use serin::ports::{Clock as _, HookCall, HookReply, HookRunner};
use serin::sandbox::store::Store;
use serin::sandbox::traffic::Load;
use serin::sim::{Bed, BedOptions, bed, example};
use serin::telemetry::{LogSecrets, Redacting, Telemetry};
use tracing_subscriber::fmt::MakeWriter;

use super::world::{CANARY, DEPLOYMENT, World, wait};
use crate::git::git_server::{HttpServer, Repo, SshServer};

/// Each secret names its use, so that a find explains itself.
const GIT: &str = "PLANTED-git-token-5d41402a";
const FORGE: &str = "PLANTED-forge-token-7c3a1b9e";
const HOOK: &str = "PLANTED-webhook-secret-91bb02";
const DATA: &str = "PLANTED-secret-data-aa17ec04";
const PASSWORD: &str = "PLANTED-metric-password-3f0d";
const CALL: &str = "PLANTED-hook-url-password-b8e2";

/// All forms in which a secret would give itself away.
fn forms() -> Vec<String> {
    let mut forms: Vec<String> = [GIT, FORGE, HOOK, DATA, PASSWORD, CALL].map(str::to_owned).to_vec();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let plain = forms.clone();
    forms.extend(plain.iter().map(|secret| encode(secret)));
    forms.push(encode(&format!("x-access-token:{GIT}")));
    forms.push(encode(&format!("user:{PASSWORD}")));
    forms.push(encode(&format!("user:{CALL}")));
    let key = SshServer::private_key(3);
    forms.extend(key.lines().filter(|line| !line.starts_with("--") && line.len() > 20).map(str::to_owned));
    forms
}

fn search(place: &str, text: &str) {
    for form in forms() {
        if let Some((before, after)) = text.split_once(&form) {
            let before: String = before.chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
            let after: String = after.chars().take(50).collect();
            panic!("{place} shows `{form}`: …{before}{form}{after}…");
        }
    }
}

#[test]
#[should_panic(expected = "the test shows")]
fn the_search_is_not_blind() {
    search("the test", &format!("Authorization: Basic {}", forms()[12]));
}

/// Every version of every object, without the parts in which the user wrote the secrets.
fn record(store: &Store) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut events = store.subscribe();
    let into = seen.clone();
    std::thread::spawn(move || {
        while let Ok(event) = events.blocking_recv() {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(told(&event.object));
        }
    });
    seen
}

fn told(object: &Object) -> String {
    let mut value = object.0.clone();
    if let Some(map) = value.as_object_mut() {
        match map.get("kind").and_then(Value::as_str) {
            Some("Secret") => map.retain(|key, _| key != "data" && key != "stringData"),
            Some("Canary") => drop(map.remove("spec")),
            _ => {}
        }
    }
    value.to_string()
}

/// Everything that the daemon pushed: messages and files of every branch that is not the source's.
fn pushed(repository: &std::path::Path) -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(repository).args(arguments).output();
        String::from_utf8_lossy(&output.expect("git").stdout).into_owned()
    };
    let mut text = git(&["log", "--all", "--format=%H %an %ae%n%B"]);
    for reference in git(&["for-each-ref", "--format=%(refname)", "refs/heads/serin"]).lines() {
        text.push_str(&git(&["log", "-p", "--format=%B", reference]));
    }
    text
}

/// The example with a Secret in its manifests, a metric behind a password, and a hook whose address holds one.
fn files(prometheus: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> =
        example::FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let mut replace = |path: &str, from: &str, to: &str| {
        let (_, text) = files.iter_mut().find(|(name, _)| name.ends_with(path)).expect("the file");
        assert!(text.contains(from), "{path}");
        *text = text.replace(from, to);
    };
    replace("shop/deployment.yaml.hbs", "envFrom:", "envFrom:\n        - secretRef:\n            name: web-secret");
    replace(
        "shop/canary.yaml",
        "    metrics:\n",
        &format!(
            "    webhooks:\n    - name: told\n      type: event\n      url: http://user:{CALL}@127.0.0.1:9/told\n      \
             timeout: 1s\n    - name: checked\n      type: rollout\n      \
             url: http://user:{CALL}@127.0.0.1:9/checked\n      timeout: 1s\n    metrics:\n    - name: behind-a-password\n      templateRef: {{name: guarded}}\n      \
             thresholdRange: {{min: 0}}\n      interval: 1m\n"
        ),
    );
    let secret = |name: &str, data: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData: {{{data}}}\n")
    };
    files.push(("clusters/demo/shop/secret.yaml".to_owned(), secret("web-secret", &format!("KEY: {DATA}"))));
    let account = format!("username: user, password: {PASSWORD}");
    files.push(("clusters/demo/shop/account.yaml".to_owned(), secret("account", &account)));
    let template = format!(
        "apiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {{name: guarded, namespace: shop}}\nspec:\n  \
         provider: {{type: prometheus, address: '{prometheus}', secretRef: {{name: account}}}}\n  query: vector(1)\n"
    );
    files.push(("clusters/demo/shop/template.yaml".to_owned(), template));
    files
}

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

#[test]
fn the_binary_shows_no_secret_whatever_goes_wrong() {
    let world = World::new();
    let objects = record(&world.store);
    let repo = Repo::new();
    repo.commit("main", "Add the shop", &borrowed(&files(&world.prometheus)));
    let server = HttpServer::start(&repo);
    // It may read and not write: every push is refused, in words that repeat the token.
    server.require(&[(GIT, false)]);
    let ssh = SshServer::start(&repo, 2);
    for (name, text) in [
        ("git", GIT.to_owned()),
        ("hook", HOOK.to_owned()),
        ("key", SshServer::private_key(3)),
        ("hosts", ssh.known_hosts(1)),
    ] {
        world.write(name, &text);
    }
    world.write(
        "serin.yaml",
        &format!(
            "cluster: test\nlisten: 127.0.0.1:0\nmetricsServer: {}\nsources:\n- name: apps\n  url: {}\n  path: clusters/demo\n  \
             values: values/demo.yaml\n  auth: {{tokenFrom: {{file: git}}}}\n  webhook: {{secretFrom: {{file: hook}}}}\n  \
             forge: {{kind: github, api: 'http://127.0.0.1:9', repository: a/b, tokenFrom: {{env: FORGE}}}}\n\
             - name: other\n  url: {}\n  interval: 1s\n  auth: {{sshKeyFrom: {{file: key}}, knownHostsFrom: {{file: hosts}}}}\n",
            world.prometheus,
            server.url(),
            ssh.url(),
        ),
    );
    let mut daemon = world.daemon_with(&["--log-level", "trace"], |command| {
        command.env("FORGE", FORGE);
    });
    wait("the canary is looked at", || world.object(DEPLOYMENT, "shop", "web-primary").is_some());
    wait("the key is refused", || daemon.log().contains("source pass failed"));
    search("an answer", &daemon.http("POST", "/hooks/apps", &format!("x-gitlab-token: {HOOK}x\r\n"), HOOK).1);
    assert_eq!(daemon.http("POST", "/hooks/apps", &format!("x-gitlab-token: {HOOK}\r\n"), HOOK).0, 202);
    search("/metrics", &daemon.http("GET", "/metrics", "", "").1);
    for list in ["canaries", "releases", "sources"] {
        let path = format!("/api/{list}");
        search(&path, &daemon.http("GET", &path, "", "").1);
    }
    search("/readyz", &daemon.http("GET", "/readyz", "", "").1);
    for arguments in
        [&["get", "canaries", "-o", "json"][..], &["get", "sources", "-o", "yaml"], &["plan", "--source", "apps"]]
    {
        let output = world.command(arguments).env("FORGE", FORGE).output().expect("serin");
        search(arguments[0], &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
    daemon.terminate();
    let (code, log) = daemon.end();
    assert_eq!(code, 0);
    assert!(log.len() > 10_000, "the log is at its most detailed");
    search("the log", &log);
    let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(objects.iter().any(|object| object.contains("serin-apps")), "the ConfigMap was seen");
    objects.iter().for_each(|object| search("an object", object));
}

/// A place for the log.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Hooks that say no, and what they should not.
struct Talkative;

#[async_trait]
impl HookRunner for Talkative {
    async fn call(&self, call: HookCall) -> HookReply {
        match call.url.ends_with("/checked") {
            true => HookReply::Refused(format!("bad key {DATA} of {}", call.url)),
            false => HookReply::Unreachable(format!("connecting with {DATA} to {}", call.url)),
        }
    }
}

/// From the first release to the revert, in virtual time. A hook fails it, in words that repeat a secret: they reach run
/// memory, status, events, journal, ledger, the commit's statuses, the revert and the log.
#[test]
fn a_failed_release_is_told_without_secrets() {
    let sink = Sink::default();
    let secrets = LogSecrets::default();
    let writer = Redacting::new(sink.clone(), secrets.clone());
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(writer).finish();
    // With one subscriber in the process, tracing asks that of the thread that meets a log line first whether anybody
    // wants it, and remembers a no. Other tests' threads have none; with two subscribers it asks both of these.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _logging = tracing::subscriber::set_default(subscriber);
    let clock = Arc::new(bed::clock());
    let repo = Repo::new();
    let server = HttpServer::start(&repo);
    server.require(&[(GIT, true)]);
    let runtime = clock.runtime().expect("a runtime");
    let remote = Some((repo.path().to_owned(), server.url()));
    let (posted, objects) = runtime.block_on(async {
        let bed = Bed::start(clock.clone(), BedOptions { remote, ..BedOptions::default() }).await.expect("a bed");
        let objects = record(&bed.sandbox.store);
        bed.sandbox.traffic.set_load(Load::constant("shop", "web", clock.now(), 50.0));
        let cache = tempfile::tempdir().expect("a folder");
        let git = serin::git::open(
            serin::git::Options {
                url: server.url(),
                auth: serin::git::Auth::Token { user: None, token: GIT.to_owned().into() },
                write_auth: None,
                cache_dir: cache.path().to_owned(),
                limits: serin::git::Limits::default(),
            },
            clock.clone(),
        )
        .expect("a remote");
        let mut ports = bed.ports();
        ports.hooks = Arc::new(Talkative);
        ports.telemetry = Arc::new(Telemetry::new("0", "contour").with_log_secrets(secrets));
        let _daemon = bed.daemon_with(ports, git, bed.forge.clone());
        let web = CanaryKey::new("shop", "web");
        let commit = |message: &str, files: &[(String, String)]| {
            let files: Vec<_> = borrowed(files).into_iter().map(|(path, text)| (path, Some(text))).collect();
            bed.remote.commit("main", message, &files, clock.now()).expect("a commit")
        };
        let mut files = files(bed.prometheus_url());
        commit("Add the shop", &files);
        assert!(bed.wait(Duration::from_secs(600), |bed| bed.phase(&web) == "Initialized").await, "initialised");
        let (_, values) = files.iter_mut().find(|(path, _)| path == "values/demo.yaml").expect("the values");
        *values = values.replacen("errors=0.1%, latency=40ms±10", "errors=0.1%, latency=41ms±10", 1);
        let bad = commit("Release a bad one", &files);
        assert!(bed.wait(Duration::from_secs(1200), |bed| bed.phase(&web) == "Failed").await, "failed");
        let reverted =
            bed.wait(Duration::from_secs(600), |bed| bed.remote.head("main").is_some_and(|head| head != bad));
        assert!(reverted.await, "reverted");
        bed.pass(Duration::from_secs(400)).await;
        (bed.forge.posted(), objects)
    });
    for status in &posted {
        search("a status", &format!("{status:?}"));
    }
    assert!(!posted.is_empty());
    let pushed = pushed(repo.path());
    assert!(pushed.contains("Serin-Verdict") && pushed.contains("shop/web"), "{pushed}");
    search("the repository", &pushed);
    let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    for kind in [CANARY.1, "Event", "ConfigMap", "MetricTemplate"] {
        assert!(objects.iter().any(|object| object.contains(&format!("\"kind\":\"{kind}\""))), "{kind}");
    }
    objects.iter().for_each(|object| search("an object", object));
    let log = String::from_utf8_lossy(&sink.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    assert!(log.len() > 10_000, "only {} bytes of log", log.len());
    search("the log", &log);
    // The words themselves arrived everywhere.
    let said = "bad key [redacted]";
    for (place, text) in [("statuses", format!("{posted:?}")), ("repository", pushed), ("log", log)] {
        assert!(text.contains(said), "{place}: {text}");
    }
    for part in ["serin.dev/run", "\"kind\":\"Event\"", "ledger.json"] {
        assert!(objects.iter().any(|object| object.contains(part) && object.contains(said)), "{part}");
    }
}
