//! `serin demo` as a machine runs it: the real binary, quick, its output as JSON.
#![expect(clippy::panic, reason = "output that is no JSON fails the test")]

use std::process::{Command, Output};

use serde_json::Value;

/// Virtual seconds in a real one: the story takes some two minutes.
const SPEED: &str = "200";

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
    command.arg("demo").args(["--speed", SPEED]).args(arguments).env_remove("RUST_LOG");
    command.output().expect("the binary runs")
}

fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The texts at `pointer` of all events of a kind.
fn of<'a>(events: &'a [Value], kind: &str, pointer: &str) -> Vec<&'a str> {
    events.iter().filter(|event| event["event"] == kind).map(|event| text(event, pointer)).collect()
}

#[test]
fn the_demo_tells_its_story_in_json() {
    let output = demo(&["--output", "json"]);
    let events = events(&output);
    let summary = events.last().expect("a summary");
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!((text(summary, "/event"), &summary["ok"]), ("summary", &Value::Bool(true)));
    assert!(summary["seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{summary}");
    let [promoted, condemned, revert] = ["/promoted", "/condemned", "/revert"].map(|part| text(summary, part));

    // What happened, as people and the cluster saw it.
    let pushed = of(&events, "push", "/subject");
    assert_eq!(pushed, ["Add the shop", "Release web 1.1.0", "Release web 1.2.0"]);
    assert_eq!(of(&events, "push", "/sha")[1..], [promoted, condemned]);
    assert_eq!(of(&events, "revert", "/sha"), [revert]);
    let mut phases = of(&events, "status", "/phase");
    phases.dedup();
    let released = ["Progressing", "Promoting", "Finalising", "Succeeded"];
    let failed = ["Progressing", "Failed", "Succeeded"];
    assert_eq!(phases, [&["Initializing", "Initialized"][..], &released, &failed].concat());
    let said = of(&events, "kubernetes", "/message");
    assert!(said.contains(&"Rolling back web.shop failed checks threshold reached 2"), "{said:?}");

    // What is left.
    let end = events.iter().find(|event| event["event"] == "end").expect("the end");
    let subject = |at: usize| text(end, &format!("/log/{at}/message")).lines().next().unwrap_or_default().to_owned();
    let log: Vec<String> = (0..4).map(subject).collect();
    assert_eq!(log, ["Revert \"Release web 1.2.0\"", "Release web 1.2.0", "Release web 1.1.0", "Add the shop"]);
    let message = text(end, "/log/0/message");
    for line in [
        format!("This reverts commit {condemned}."),
        "Serin-Canary: demo/shop/web".to_owned(),
        format!("Serin-Condemned: {condemned}"),
        format!("Serin-Restores: {promoted}"),
    ] {
        assert!(message.lines().any(|found| found == line), "{line} in {message}");
    }
    let changed = |sign: char| -> Vec<&str> {
        let lines = text(end, "/diff").lines().filter(|line| line.starts_with(sign));
        lines.filter(|line| !line.starts_with("---") && !line.starts_with("+++")).map(|line| line[1..].trim()).collect()
    };
    assert_eq!(changed('-'), ["version: 1.2.0", "behaviour: \"errors=8%, latency=120ms±40\""]);
    assert_eq!(changed('+'), ["version: 1.1.0", "behaviour: \"errors=0.1%, latency=45ms±10\""]);
    let files = end["statusFiles"].as_array().expect("files");
    assert_eq!(files.iter().filter(|file| file.as_str().is_some_and(|file| file.ends_with(".jsonl"))).count(), 2);
    let status = |sha: &str, context: &str| {
        let all = end["statuses"].as_array().into_iter().flatten();
        let one: Vec<_> = all.filter(|status| status["sha"] == sha && status["context"] == context).collect();
        assert_eq!(one.len(), 1, "{sha} {context}");
        text(one[0], "/state").to_owned()
    };
    for context in ["serin/demo/shop/web", "serin/demo"] {
        let states = [promoted, condemned, revert].map(|sha| status(sha, context));
        assert_eq!(states, ["success", "failure", "success"], "{context}");
    }
    let checks: Vec<_> = events.iter().filter(|event| event["event"] == "check").collect();
    assert!(checks.len() >= 10 && checks.iter().all(|check| check["ok"] == true), "{checks:?}");
}

#[test]
fn the_demo_is_readable_where_no_terminal_is() {
    let output = demo(&["--seed", "7"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains('\u{1b}'), "colours or bars in a file: {text}");
    let places = [
        "1. The shop moves in",
        "waiting for the canary to be initialised",
        "2. A good release is promoted",
        "Promotion completed!",
        "3. A bad release is halted, rolled back and reverted in Git",
        "Canary failed!",
        "serin pushes",
        "git log main",
        "-  version: 1.2.0",
        "+  version: 1.1.0",
        "commit statuses in force",
        "ended as they should",
    ];
    let mut from = 0;
    for place in places {
        let at = text[from..].find(place);
        from += at.unwrap_or_else(|| panic!("no {place:?} after byte {from} of\n{text}"));
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for arguments in [["--speed", "0"], ["--speed", "-1"], ["--output", "xml"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_serin")).arg("demo").args(arguments).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
