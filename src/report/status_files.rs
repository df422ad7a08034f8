//! The files of the status branch: table, records, journals, and when they are committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::{CanaryKey, Digest, Sha};
use crate::release::{Condemned, Ended, Ledger, Promoted, Record};

/// How many journals are kept for each canary.
pub const JOURNALS_KEPT: usize = 20;

/// How many commits the status branch may have before it is replaced by one.
const COMMITS_KEPT: usize = 1000;

/// Least time between two commits to the status branch, unless a release ended.
const PACE: SignedDuration = SignedDuration::from_mins(5);

/// What follows from the end of a release (phase, revert, case) is written within this time.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);

/// One line of the table of all canaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryRow {
    /// The canary.
    pub canary: CanaryKey,
    /// Phase, or what happened last.
    pub state: String,
    /// What runs, such as a short commit id.
    pub version: String,
    /// Percent of traffic on the canary.
    pub weight: i64,
    /// Since when.
    pub since: Option<Timestamp>,
    /// For people.
    pub note: String,
}

/// `README.md`: the table of every canary of the cluster.
pub fn readme(cluster: &str, rows: &[CanaryRow]) -> String {
    let mut text = format!("# Canaries of {}\n\n", cell(cluster));
    text.push_str("Written by serin; changes made here are overwritten.\n\n");
    text.push_str("| canary | state | version | weight | since | |\n|---|---|---|---|---|---|\n");
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|a, b| a.canary.cmp(&b.canary));
    for row in rows {
        let link = record_path(&row.canary);
        let since = row.since.map(|time| time.to_string()).unwrap_or_default();
        let (state, version, note) = (cell(&row.state), cell(&row.version), cell(&row.note));
        writeln!(text, "| [{}]({link}) | {state} | {version} | {} | {since} | {note} |", row.canary, row.weight).ok();
    }
    text
}

/// Text that cannot break out of a cell of a Markdown table.
fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
}

/// `NS/NAME.yaml`: what is published of a canary, and read back when the ConfigMap is lost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusRecord {
    /// Phase of the Canary.
    pub phase: String,
    /// The release that runs or ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Sha>,
    /// The promoted release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Promoted>,
    /// Condemned releases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub condemned: Vec<Condemned>,
    /// How the last releases ended, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Ended>,
}

impl StatusRecord {
    /// What is published of a record.
    pub fn new(phase: &str, record: &Record) -> Self {
        let run = record.run.as_ref();
        let last = record.history.last();
        Self {
            phase: phase.to_owned(),
            digest: run.map_or_else(|| last.and_then(|ended| ended.digest.clone()), |run| run.digest.clone()),
            commit: run.map_or_else(|| last.and_then(|ended| ended.commit.clone()), |run| run.commit.clone()),
            promoted: record.promoted.clone(),
            condemned: record.condemned.clone(),
            history: record.history.clone(),
        }
    }

    /// Reads a published record.
    ///
    /// # Errors
    /// The YAML reader's message.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| format!("reading a status record: {error}"))
    }

    /// What a lost ledger is rebuilt from. The run under way is not in it: it starts anew.
    pub fn into_record(self) -> Record {
        let (promoted, condemned, history) = (self.promoted, self.condemned, self.history);
        let mut attempts = BTreeMap::new();
        let failed = condemned.iter().map(|condemned| (Some(&condemned.digest), condemned.attempt));
        for (digest, attempt) in failed.chain(history.iter().map(|ended| (ended.digest.as_ref(), ended.attempt))) {
            if let (Some(digest), Some(attempt @ 2..)) = (digest, attempt) {
                let known = attempts.entry(digest.clone()).or_insert(attempt);
                *known = attempt.max(*known);
            }
        }
        Record { promoted, condemned, attempts, history, ..Record::default() }
    }
}

/// The record as YAML.
///
/// # Errors
/// The YAML writer's message.
pub fn record_yaml(record: &StatusRecord) -> Result<String, String> {
    serde_saphyr::to_string(record).map_err(|error| format!("writing a status record: {error}"))
}

/// Path of a canary's record.
pub fn record_path(canary: &CanaryKey) -> String {
    format!("{}/{}.yaml", canary.namespace, canary.name)
}

/// The ledger that the files of a status branch make, with what could not be read.
pub fn published_ledger<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Ledger, Vec<String>) {
    let mut ledger = Ledger::default();
    let mut warnings = Vec::new();
    for (path, text) in files {
        let Some((namespace, name)) = path.strip_suffix(".yaml").and_then(|path| path.split_once('/')) else {
            continue;
        };
        if name.contains('/') {
            continue;
        }
        match StatusRecord::from_yaml(text) {
            Ok(record) => {
                ledger.canaries.insert(CanaryKey::new(namespace, name), record.into_record());
            }
            Err(error) => warnings.push(format!("{path}: {error}")),
        }
    }
    (ledger, warnings)
}

/// One tick of a release, one line of its journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalTick {
    /// When.
    pub time: Timestamp,
    /// Phase after the tick.
    pub phase: String,
    /// Percent of traffic on the canary after the tick.
    pub weight: i64,
    /// What was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<JournalMetric>,
    /// What hooks answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<JournalHook>,
    /// What was decided.
    pub decision: String,
}

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalMetric {
    /// Name of the metric.
    pub name: String,
    /// Value; none when there was no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Least allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// `pass`, `fail`, `no data`, `provider error` or `inconclusive`.
    pub verdict: String,
    /// Why, where it is not the value alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One hook's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalHook {
    /// Name of the hook.
    pub name: String,
    /// `yes`, `no` or `unreachable`.
    pub answer: String,
    /// What it said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One line of a journal, with its newline.
pub fn journal_line(tick: &JournalTick) -> String {
    serde_json::to_string(tick).map(|line| line + "\n").unwrap_or_default()
}

/// Path of a release's journal. Names sort by time.
pub fn journal_path(canary: &CanaryKey, started: Timestamp, digest: Option<&Digest>) -> String {
    let digest = digest.map_or("unattributed", Digest::short);
    let time = started.strftime("%Y%m%dT%H%M%SZ");
    format!("{}/{}/{time}-{digest}.jsonl", canary.namespace, canary.name)
}

/// The journals of one canary that are too many, given all there are.
pub fn journals_to_drop<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut paths: Vec<_> = paths.into_iter().collect();
    paths.sort_unstable();
    let excess = paths.len().saturating_sub(JOURNALS_KEPT);
    paths.into_iter().take(excess).map(str::to_owned).collect()
}

/// When the status branch may be written: some seconds after a release ended or a case was closed, so that what follows
/// from it is in the same commit; otherwise at most once in five minutes.
pub fn publish_at(now: Timestamp, last: Option<Timestamp>, urgent: Option<Timestamp>) -> Timestamp {
    let after = |time: Option<Timestamp>, wait: SignedDuration| time.and_then(|time| time.checked_add(wait).ok());
    after(urgent, SETTLED).or_else(|| after(last, PACE)).unwrap_or(now)
}

/// Whether the branch is replaced by one orphan commit with the same tree.
pub const fn should_squash(commits: usize) -> bool {
    commits > COMMITS_KEPT
}

/// Subject of a commit to the status branch.
pub fn status_subject(cluster: &str, what: &str) -> String {
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{cluster}: {what} [skip ci]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Closed;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn web() -> CanaryKey {
        CanaryKey::new("shop", "web")
    }

    fn record() -> Record {
        let digest = |name: &str| Digest(format!("v1:{name}"));
        let sha = |digit: &str| Sha(digit.repeat(40));
        Record {
            promoted: Some(Promoted {
                digest: digest("a"),
                aliases: Vec::new(),
                live: digest("la"),
                commit: sha("1"),
                at: at(0),
            }),
            condemned: vec![Condemned {
                digest: digest("b"),
                aliases: Vec::new(),
                live: digest("lb"),
                commits: vec![sha("2")],
                verdict: "0123".to_owned(),
                at: at(60),
                why: "request-success-rate 87.2 < 99".to_owned(),
                lifted: None,
                attempt: Some(1),
                step: "at weight 20".to_owned(),
                restores: Some(sha("1")),
                keep_git: false,
                closed: Some(Closed::Reverted(sha("4"))),
            }],
            history: vec![Ended {
                digest: Some(digest("b")),
                commit: Some(sha("2")),
                included: vec![sha("3")],
                verdict: "failed".to_owned(),
                attempt: Some(1),
                at: at(60),
                why: "yes: \"quoted\" # not a comment".to_owned(),
            }],
            ..Record::default()
        }
    }

    #[test]
    fn a_record_reads_back() {
        let text = record_yaml(&StatusRecord::new("Failed", &record())).unwrap();
        assert_eq!(StatusRecord::from_yaml(&text).unwrap().into_record(), record());
        let files = [("README.md", "#"), ("shop/web.yaml", &text), ("shop/web/a.yaml", "x"), ("shop/bad.yaml", "- 1")];
        let (ledger, warnings) = published_ledger(files);
        assert_eq!((ledger.canaries, warnings.len()), ([(web(), record())].into(), 1));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_table_lists_every_canary() {
        let row = |name: &str, state: &str, note: &str| CanaryRow {
            canary: CanaryKey::new("shop", name),
            state: state.to_owned(),
            version: "1111111".to_owned(),
            weight: 20,
            since: Some(at(0)),
            note: note.to_owned(),
        };
        let rows = [row("web", "Progressing", ""), row("api", "Failed", "a | b\n<img>")];
        insta::assert_snapshot!(readme("prod", &rows));
    }

    #[test]
    fn a_journal_has_one_line_a_tick() {
        let metric = |name: &str, value: Option<f64>, verdict: &str| JournalMetric {
            name: name.to_owned(),
            value,
            min: Some(99.0),
            verdict: verdict.to_owned(),
            ..JournalMetric::default()
        };
        let tick = JournalTick {
            time: at(0),
            phase: "Progressing".to_owned(),
            weight: 20,
            metrics: vec![metric("request-success-rate", Some(87.25), "fail"), metric("other", None, "no data")],
            hooks: vec![JournalHook { name: "gate".to_owned(), answer: "no".to_owned(), note: String::new() }],
            decision: "halt".to_owned(),
        };
        let line = journal_line(&tick);
        assert_eq!((line.matches('\n').count(), line.ends_with('\n')), (1, true));
        assert_eq!(serde_json::from_str::<JournalTick>(&line).unwrap(), tick);
        insta::assert_snapshot!(line);
        let path = journal_path(&web(), at(0), Some(&Digest("v1:0123456789".to_owned())));
        assert_eq!(path, "shop/web/20231114T221320Z-01234567.jsonl");
    }

    #[test]
    fn the_oldest_journals_go() {
        let paths: Vec<String> = (0..22).rev().map(|day| journal_path(&web(), at(day * 86_400), None)).collect();
        let dropped = journals_to_drop(paths.iter().map(String::as_str));
        assert_eq!(dropped, [paths[21].clone(), paths[20].clone()]);
        assert!(journals_to_drop(["a"]).is_empty());
    }

    #[test]
    fn commits_are_paced_unless_a_release_ended() {
        for (now, last, urgent, want) in
            [(0, None, None, 0), (60, Some(0), None, 300), (60, Some(0), Some(58), 63), (60, None, Some(60), 65)]
        {
            assert_eq!(publish_at(at(now), last.map(at), urgent.map(at)), at(want), "{now} {last:?} {urgent:?}");
        }
        assert!(!should_squash(1000) && should_squash(1001));
        assert_eq!(status_subject("prod", "shop/web\nfailed"), "prod: shop/web failed [skip ci]");
    }
}
