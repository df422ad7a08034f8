#![expect(clippy::disallowed_methods, reason = "the environment narrows the suite")]
//! The sandbox answers as a real API server does: `tests/fidelity`.

#[path = "../fidelity/mod.rs"]
mod suite;

use std::sync::Arc;

use serin::domain::Object;
use serin::sandbox::{Sandbox, api};
use serin::sim::clock::SimClock;

use suite::{Server, differences};

/// Holds a conversation with a new sandbox.
fn answers(name: &str) -> anyhow::Result<String> {
    let clock = Arc::new(SimClock::new("2026-01-05T08:00:00Z".parse()?));
    clock.runtime()?.block_on(async {
        let sandbox = Sandbox::new(clock.clone(), 1);
        for definition in serin::api::crd::all() {
            sandbox.store.write(Object(definition), "kubectl")?;
        }
        let store = sandbox.store.clone();
        let server = Server {
            client: api::client(&store, "default"),
            clock: clock.clone(),
            compact: Box::new(move || {
                store.compact();
                Box::pin(std::future::ready(Ok(())))
            }),
            suffix: String::new(),
        };
        let store = sandbox.store.clone();
        tokio::select! {
            answers = suite::hold(&server, name) => answers,
            () = sandbox.run() => anyhow::bail!("the sandbox stopped"),
            () = clock.run(|| store.pending_watch_events() == 0) => anyhow::bail!("the clock stopped"),
        }
    })
}

/// What every conversation is expected to be, and what the sandbox answers.
fn all() -> anyhow::Result<Vec<(String, String, String)>> {
    suite::names()?.into_iter().map(|name| Ok((name.clone(), suite::expected(&name)?, answers(&name)?))).collect()
}

#[test]
fn the_sandbox_answers_as_a_real_server() {
    let wanted = std::env::var("FIDELITY").unwrap_or_default();
    let mut problems = String::new();
    for name in suite::names().unwrap().iter().filter(|name| name.contains(&wanted)) {
        let compared = answers(name).and_then(|answered| {
            let changes = differences::compare(name, &suite::expected(name)?, &answered, differences::DIFFERENCES);
            anyhow::ensure!(changes.is_empty(), "- real server, + sandbox\n{changes}");
            Ok(())
        });
        if let Err(error) = compared {
            problems.push_str(&format!("{name}: {error:#}\n"));
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn every_listed_difference_is_one() {
    assert_eq!(differences::idle(&all().unwrap()), Vec::<&str>::new());
}

#[test]
fn generated_list_of_differences_is_in_the_page() {
    const MARKS: (&str, &str) = ("<!-- differences: generated -->\n", "<!-- end -->");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandbox.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(MARKS.0).unwrap();
    let (_, tail) = rest.split_once(MARKS.1).unwrap();
    let wanted = format!("{head}{}{}{}{tail}", MARKS.0, differences::page(), MARKS.1);
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(page == wanted, "the list in docs/sandbox.md is old: run with INSTA_UPDATE=always");
}

/// Needs a real API server and controller manager, and its etcd: `FIDELITY_KUBECONFIG`, `FIDELITY_ETCD`.
#[tokio::test]
#[ignore = "talks to a real cluster; the test bed runs it"]
async fn a_real_server_answers_as_recorded() {
    let setting = |name: &str| std::env::var(name).unwrap();
    let client = suite::client(&setting("FIDELITY_KUBECONFIG")).await.unwrap();
    suite::real(client, &setting("FIDELITY_ETCD")).await.unwrap();
}
