//! The ledger: what one source remembers of its canaries, as data. It lives in the ConfigMap `serin-SOURCE` and is
//! published on the status branch. How it changes stands in `transitions`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Cause;
use crate::domain::{CanaryKey, Digest, Sha};
use crate::ports::{CommitState, CommitStatus};

/// The version that this program writes and the newest that it reads.
const VERSION: u32 = 1;

/// Durable memory of one source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// What is known of each canary.
    pub canaries: BTreeMap<CanaryKey, Record>,
    /// Cases by verdict id; closed ones are kept for a while.
    pub cases: BTreeMap<String, Case>,
    /// The statuses that were posted last.
    pub posted: Vec<Posted>,
    /// When reverts were pushed, for the limit per hour.
    pub reverts: Vec<Timestamp>,
    /// Notes that are given once only, such as "no right to write the status branch".
    pub said: BTreeSet<String>,
    /// Entries that this version does not understand; written back as they are.
    pub unknown: Map<String, Value>,
}

/// What is known of one canary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The release that was promoted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Promoted>,
    /// What we applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The run under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Releases that are not released again until retried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub condemned: Vec<Condemned>,
    /// Attempts begun, by release digest; absent means the first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attempts: BTreeMap<Digest, u32>,
    /// Retry tokens that were handled, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<String>,
    /// How the last releases ended, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Ended>,
    /// Which release the primary carries; set before its template is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<Digest>,
}

/// A promoted release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promoted {
    /// Release digest.
    pub digest: Digest,
    /// Other release digests of the same release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Digest>,
    /// Live digest.
    pub live: Digest,
    /// The commit it was released from.
    pub commit: Sha,
    /// When.
    pub at: Timestamp,
}

impl Promoted {
    /// Whether a release digest names this release.
    pub fn is(&self, digest: &Digest) -> bool {
        self.digest == *digest || self.aliases.contains(digest)
    }

    /// All digests of this release.
    pub fn digests(&self) -> BTreeSet<Digest> {
        self.aliases.iter().chain([&self.digest]).cloned().collect()
    }
}

/// What our last apply did to the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Release digest that was applied.
    pub digest: Digest,
    /// Digest of the template alone as the API server returned it: another one means "changed by hand".
    pub template: Digest,
    /// Live digest after the apply.
    pub live: Digest,
    /// The head it was applied from.
    pub commit: Sha,
    /// The commits that brought the release in, newest first: what a retry of it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guilty: Vec<Sha>,
}

/// A run under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Release digest, `None` for an unattributed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Live digest.
    pub live: Digest,
    /// The release commit, `None` for an unattributed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Sha>,
    /// Guilty commits, newest first, the release commit among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guilty: Vec<Sha>,
    /// When it started.
    pub started: Timestamp,
    /// Restarts by newer releases since the last verdict.
    #[serde(default)]
    pub restarts: u32,
}

/// A condemned release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condemned {
    /// Release digest.
    pub digest: Digest,
    /// Other release digests of the same release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Digest>,
    /// Live digest.
    pub live: Digest,
    /// Guilty commits, newest first.
    #[serde(default)]
    pub commits: Vec<Sha>,
    /// Verdict id.
    pub verdict: String,
    /// When.
    pub at: Timestamp,
    /// For people: metric, value, threshold, step.
    pub why: String,
    /// The retry token that lifted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted: Option<String>,
    /// The attempt that it ended, from 1; older programs did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// For people: where it was stopped, such as `at weight 20`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// The commit of the release to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Sha>,
    /// A person wanted Git left as it is: there never was a case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_git: bool,
    /// How its case ended: cases are forgotten, what the commits were told is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
}

impl Condemned {
    /// Whether a release digest names this release.
    pub fn is(&self, digest: &Digest) -> bool {
        self.digest == *digest || self.aliases.contains(digest)
    }
}

/// One failed release and what is done about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// Verdict id.
    pub verdict: String,
    /// The canary.
    pub canary: CanaryKey,
    /// The condemned release digest, then its aliases.
    pub digests: Vec<Digest>,
    /// What it is judged by.
    pub cause: Cause,
    /// For people: metric, value, threshold.
    pub why: String,
    /// For people: where it was stopped, such as `at weight 20`.
    #[serde(default)]
    pub step: String,
    /// The release commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Sha>,
    /// Guilty commits, newest first.
    #[serde(default)]
    pub guilty: Vec<Sha>,
    /// The release to go back to; without one there is no revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Promoted>,
    /// When it was opened.
    pub opened: Timestamp,
    /// The remote's words when it refused the push for good: from then on the revert is only proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The proposal that was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Proposal>,
    /// The head for which a person was told what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Sha>,
    /// Open or closed.
    #[serde(default)]
    pub state: CaseState,
}

/// A revert that waits on a branch of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// Branch name, without `refs/heads/`.
    pub branch: String,
    /// The head it was computed for.
    pub base: Sha,
    /// The commit on it.
    pub commit: Sha,
}

/// Whether a case is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CaseState {
    /// Something remains to be done, by us or by a person.
    #[default]
    Open,
    /// Done.
    Closed(Closed),
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Closed {
    /// The Canary is gone.
    Cancelled,
    /// Somebody released something else.
    FixedForward(Sha),
    /// Somebody else went back to the promoted release.
    RevertedBy(Sha),
    /// Our revert landed.
    Reverted(Sha),
    /// Our revert landed, and somebody brought the condemned release back.
    BroughtBack(Sha),
    /// A retry lifted the condemnation.
    Retried,
    /// A later promotion or verdict of the canary made it moot.
    Moot,
}

/// How one release ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Release digest, `None` for an unattributed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The release commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Sha>,
    /// Commits that were included in the release, newest first: they share its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<Sha>,
    /// `promoted`, `failed`, `superseded`, `cancelled` or `no verdict`.
    pub verdict: String,
    /// The attempt that ended, from 1; older programs did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When.
    pub at: Timestamp,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A status that was posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    /// The status.
    #[serde(flatten)]
    pub status: CommitStatus,
    /// The attempt it belongs to, from 1.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
}

impl Posted {
    /// Whether the state ends its attempt.
    pub fn is_terminal(&self) -> bool {
        self.status.state != CommitState::Pending
    }
}

/// Why a ledger cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is no JSON object.
    #[error("reading the ledger: {0}")]
    Json(#[from] serde_json::Error),
    /// A newer program wrote it. Guessing would release condemned versions again.
    #[error("reading the ledger: it has version {0}, this program reads up to {VERSION}")]
    Version(u64),
}

impl Ledger {
    /// Writes the ledger as JSON.
    ///
    /// # Errors
    /// When the JSON writer fails, which it does for no value of these types.
    pub fn to_json(&self) -> Result<String, LedgerError> {
        let mut map = self.unknown.clone();
        map.insert("version".to_owned(), VERSION.into());
        merge(&mut map, "canaries", serde_json::to_value(&self.canaries)?);
        merge(&mut map, "cases", serde_json::to_value(&self.cases)?);
        map.insert("posted".to_owned(), serde_json::to_value(&self.posted)?);
        map.insert("reverts".to_owned(), serde_json::to_value(&self.reverts)?);
        map.insert("said".to_owned(), serde_json::to_value(&self.said)?);
        Ok(serde_json::to_string(&map)?)
    }

    /// Reads a ledger. One entry that cannot be read costs that entry only: it is kept as it is, and named in the list.
    ///
    /// # Errors
    /// When the text is no JSON object, or a newer program wrote it.
    pub fn from_json(text: &str) -> Result<(Self, Vec<String>), LedgerError> {
        let mut map: Map<String, Value> = serde_json::from_str(text)?;
        let version = map.remove("version").and_then(|v| v.as_u64()).unwrap_or_default();
        if version > u64::from(VERSION) {
            return Err(LedgerError::Version(version));
        }
        let mut warnings = Vec::new();
        let mut ledger = Self::default();
        for (key, value) in take_map(&mut map, "canaries") {
            match (CanaryKey::try_from(key.clone()), serde_json::from_value::<Record>(value.clone())) {
                (Ok(canary), Ok(record)) => {
                    ledger.canaries.insert(canary, record);
                }
                (_, Err(error)) => keep(&mut ledger.unknown, &mut warnings, "canaries", key, value, &error.to_string()),
                (Err(error), _) => keep(&mut ledger.unknown, &mut warnings, "canaries", key, value, &error),
            }
        }
        for (key, value) in take_map(&mut map, "cases") {
            match serde_json::from_value::<Case>(value.clone()) {
                Ok(case) => {
                    ledger.cases.insert(key, case);
                }
                Err(error) => keep(&mut ledger.unknown, &mut warnings, "cases", key, value, &error.to_string()),
            }
        }
        ledger.keep_ends();
        ledger.posted = take_list(&mut map, "posted");
        ledger.reverts = take_list(&mut map, "reverts");
        ledger.said = take_list(&mut map, "said").into_iter().collect();
        ledger.unknown.extend(map);
        Ok((ledger, warnings))
    }
}

/// Puts known entries beside the kept ones of the same part.
fn merge(map: &mut Map<String, Value>, part: &str, known: Value) {
    let entry = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
    if let (Value::Object(entry), Value::Object(known)) = (entry, known) {
        entry.extend(known);
    }
}

fn keep(
    unknown: &mut Map<String, Value>,
    warnings: &mut Vec<String>,
    part: &str,
    key: String,
    value: Value,
    why: &str,
) {
    warnings.push(format!("ledger: {part} `{key}` cannot be read and is kept as it is: {why}"));
    let entry = unknown.entry(part).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(entry) = entry {
        entry.insert(key, value);
    }
}

fn take_map(map: &mut Map<String, Value>, part: &str) -> Map<String, Value> {
    match map.remove(part) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    }
}

fn take_list<T: serde::de::DeserializeOwned>(map: &mut Map<String, Value>, part: &str) -> Vec<T> {
    let Some(Value::Array(items)) = map.remove(part) else { return Vec::new() };
    items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect()
}
