//! `serin get`: canaries, releases and sources as lists.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::args::{GetArgs, GetKind, GetOutput};
use super::kube::{CANARIES, Direct};
use super::memory::Memory;
use super::output;
use crate::api::{CanaryView, Phase};
use crate::domain::{CanaryKey, Object, Sha};
use crate::manifest::encode;
use crate::release::{CaseState, Closed, Ledger};

/// A column: its heading, the key of the record, and whether only the wide form has it.
type Column = (&'static str, &'static str, bool);

const CANARY_COLUMNS: &[Column] = &[
    ("NAMESPACE", "namespace", false),
    ("NAME", "name", false),
    ("STATUS", "status", false),
    ("WEIGHT", "weight", false),
    ("FAILED", "failedChecks", false),
    ("SINCE", "since", false),
    ("SOURCE", "source", false),
    ("COMMIT", "commit", false),
    ("MESSAGE", "message", true),
];

const RELEASE_COLUMNS: &[Column] = &[
    ("NAMESPACE", "namespace", false),
    ("NAME", "name", false),
    ("VERDICT", "verdict", false),
    ("COMMIT", "commit", false),
    ("AT", "at", false),
    ("CONDEMNED", "condemned", false),
    ("REVERT", "revert", false),
    ("DIGEST", "digest", true),
    ("WHY", "why", true),
];

const SOURCE_COLUMNS: &[Column] = &[
    ("NAME", "name", false),
    ("OBJECTS", "objects", false),
    ("CANARIES", "canaries", false),
    ("OPEN CASES", "openCases", false),
    ("LAST REVERT", "lastRevert", true),
];

/// Lists what the cluster holds.
pub(super) fn run(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let records = runtime.block_on(records(args));
    runtime.shutdown_background();
    let (columns, records) = records?;
    match args.output {
        GetOutput::Json => output::line(&serde_json::to_string_pretty(&records).unwrap_or_default()),
        GetOutput::Yaml => output::line(encode(&Value::Array(records)).trim_end()),
        GetOutput::Table | GetOutput::Wide if records.is_empty() => {
            let place =
                args.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
            output::complain(&format!("there are no {}{place}", args.kind.noun()));
        }
        GetOutput::Table | GetOutput::Wide => {
            output::line(&table(columns, &records, args.output == GetOutput::Wide));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn records(args: &GetArgs) -> anyhow::Result<(&'static [Column], Vec<Value>)> {
    let direct = Direct::connect(&args.cluster).await?;
    let memories = Memory::all(&direct, &args.system_namespace).await;
    Ok(match args.kind {
        GetKind::Canaries => {
            let objects = direct.list(CANARIES, args.namespace.as_deref(), None).await?;
            let memories = memories.unwrap_or_else(|error| {
                // Who may read canaries may not be allowed to read the daemon's namespace.
                output::complain(&format!("sources and commits are not shown: {error:#}"));
                BTreeMap::new()
            });
            (CANARY_COLUMNS, objects.iter().map(|object| canary(object, &memories)).collect())
        }
        GetKind::Releases => (RELEASE_COLUMNS, all_releases(&memories?, args.namespace.as_deref())),
        GetKind::Sources => (SOURCE_COLUMNS, sources(&memories?)),
    })
}

/// One canary.
pub(super) fn canary(object: &Object, memories: &BTreeMap<String, Memory>) -> Value {
    let key = CanaryKey::new(object.namespace().unwrap_or_default(), object.name());
    let owner = memories.iter().find(|(_, memory)| memory.inventory.entries.contains(&key.object_key()));
    let record = owner.and_then(|(_, memory)| memory.ledger.canaries.get(&key));
    let commit = record.and_then(|record| {
        let run = record.run.as_ref().and_then(|run| run.commit.as_ref());
        run.or_else(|| record.applied.as_ref().map(|applied| &applied.commit))
    });
    let view = match CanaryView::from_object(object) {
        Ok(view) => view,
        Err(message) => {
            return json!({
                "namespace": key.namespace, "name": key.name, "status": "Unreadable", "message": message,
                "source": owner.map(|(name, _)| name),
            });
        }
    };
    let status = &view.status;
    let paused = view.setting("pause").is_some_and(|value| !value.is_empty() && value != "false");
    json!({
        "namespace": key.namespace,
        "name": key.name,
        "status": if status.phase == Phase::Unset { "New" } else { status.phase.as_str() },
        "paused": paused,
        "weight": status.canary_weight,
        "iterations": status.iterations,
        "failedChecks": status.failed_checks,
        "since": status.last_transition_time,
        "source": owner.map(|(name, _)| name),
        "commit": commit.map(|sha| sha.0.as_str()),
        "message": status.conditions.first().map(|condition| condition.message.as_str()),
    })
}

/// The releases of all canaries of a namespace, or of all.
pub(super) fn all_releases(memories: &BTreeMap<String, Memory>, namespace: Option<&str>) -> Vec<Value> {
    let ledgers = memories.iter().flat_map(|(source, memory)| {
        let wanted = |key: &&CanaryKey| namespace.is_none_or(|namespace| namespace == key.namespace);
        let canaries = memory.ledger.canaries.keys().filter(wanted);
        canaries.flat_map(move |key| releases(source, &memory.ledger, key))
    });
    ledgers.collect()
}

/// All sources.
pub(super) fn sources(memories: &BTreeMap<String, Memory>) -> Vec<Value> {
    memories.iter().map(|(name, memory)| source(name, memory)).collect()
}

/// The releases of a canary, newest first.
fn releases(source: &str, ledger: &Ledger, key: &CanaryKey) -> Vec<Value> {
    let Some(record) = ledger.canaries.get(key) else { return Vec::new() };
    let base = |digest: Option<&str>, commit: Option<&Sha>| {
        json!({
            "namespace": key.namespace, "name": key.name, "source": source,
            "digest": digest, "commit": commit.map(|sha| sha.0.as_str()), "condemned": false,
        })
    };
    let mut releases = Vec::new();
    if let Some(run) = &record.run {
        let mut release = base(run.digest.as_ref().map(|digest| digest.0.as_str()), run.commit.as_ref());
        release["verdict"] = json!("running");
        release["at"] = json!(run.started);
        releases.push(release);
    }
    for ended in record.history.iter().rev() {
        let mut release = base(ended.digest.as_ref().map(|digest| digest.0.as_str()), ended.commit.as_ref());
        release["verdict"] = json!(ended.verdict);
        release["at"] = json!(ended.at);
        release["why"] = json!(ended.why);
        let condemned = ended.digest.as_ref().filter(|_| ended.verdict == "failed");
        if let Some(condemned) = condemned.and_then(|digest| record.condemned.iter().rev().find(|c| c.is(digest))) {
            release["condemned"] = json!(condemned.lifted.is_none());
            release["why"] = json!(condemned.why);
            release["revert"] = json!(ledger.cases.get(&condemned.verdict).and_then(|case| match &case.state {
                CaseState::Closed(Closed::Reverted(sha) | Closed::RevertedBy(sha)) => Some(sha.0.as_str()),
                _ => None,
            }));
        }
        releases.push(release);
    }
    releases
}

fn source(name: &str, memory: &Memory) -> Value {
    json!({
        "name": name,
        "objects": memory.inventory.entries.len(),
        "canaries": memory.ledger.canaries.len(),
        "openCases": memory.ledger.open_cases().len(),
        "lastRevert": memory.ledger.reverts.last(),
    })
}

fn table(columns: &[Column], records: &[Value], wide: bool) -> String {
    let shown: Vec<&Column> = columns.iter().filter(|(_, _, only_wide)| wide || !only_wide).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(shown.iter().map(|(heading, ..)| *heading));
    for record in records {
        table.add_row(shown.iter().map(|(_, key, _)| cell(key, record.get(*key).unwrap_or(&Value::Null))));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn cell(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "-" }.to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) if matches!(key, "commit" | "revert") => Sha(text.clone()).short().to_owned(),
        Value::String(text) if matches!(key, "at" | "since" | "lastRevert") => {
            let time = text.parse::<jiff::Timestamp>();
            time.map_or_else(|_| text.clone(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        }
        // One record is one line.
        Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

impl GetKind {
    const fn noun(self) -> &'static str {
        match self {
            Self::Canaries => "canaries",
            Self::Releases => "releases",
            Self::Sources => "sources",
        }
    }
}
