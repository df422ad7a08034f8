//! What one user asked of the API server, from the server's own audit log: one line of JSON for each request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a request is to whoever pays for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// `get` and `list` of objects.
    Read,
    /// Whatever changes an object that is no Event.
    Write,
    /// Words for people.
    Event,
    /// A watch that begins, or begins again.
    Watch,
    /// Paths that are no objects: versions, groups and their types.
    Discovery,
}

/// One request that was answered, or one watch that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    /// Verb, and resource with its subresource, as RBAC names them: `patch canaries/status`.
    pub(crate) what: String,
    /// The HTTP status of the answer.
    pub(crate) code: u16,
}

/// A line of `audit.k8s.io/v1`, as far as it is of interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<Reference>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    resource: String,
    subresource: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// The request of a line; `None` for another user's, and for stages that would count a request twice.
pub(crate) fn request(line: &str, user: &str) -> Option<Request> {
    let line: Line = serde_json::from_str(line).ok()?;
    if line.user.username != user {
        return None;
    }
    // A watch is told of when it begins and again when it ends; everything else when it is answered.
    let stage = if line.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    if line.stage != stage && line.stage != "Panic" {
        return None;
    }
    let code = line.response_status.map(|status| status.code).unwrap_or_default();
    let Some(object) = line.object_ref.filter(|object| !object.resource.is_empty()) else {
        return Some(Request { kind: Kind::Discovery, what: "discovery".to_owned(), code });
    };
    let kind = match line.verb.as_str() {
        "watch" => Kind::Watch,
        "get" | "list" => Kind::Read,
        _ if object.resource == "events" => Kind::Event,
        _ => Kind::Write,
    };
    let resource = match object.subresource {
        Some(part) => format!("{}/{part}", object.resource),
        None => object.resource,
    };
    Some(Request { kind, what: format!("{} {resource}", line.verb), code })
}

/// Requests, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// By kind, and by verb and resource.
    by: BTreeMap<Kind, BTreeMap<String, u64>>,
    /// Those that were answered with an error: conflicts, mostly.
    pub(crate) refused: u64,
}

impl Tally {
    /// Counts a user's requests in a piece of the log.
    pub(crate) fn of(log: &str, user: &str) -> Self {
        let mut tally = Self::default();
        for request in log.lines().filter_map(|line| request(line, user)) {
            *tally.by.entry(request.kind).or_default().entry(request.what).or_default() += 1;
            tally.refused += u64::from(request.code >= 400);
        }
        tally
    }

    /// How many of a kind.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.by.get(&kind).map(|all| all.values().sum()).unwrap_or_default()
    }

    /// What was read and written, the most frequent first.
    pub(crate) fn frequent(&self) -> Vec<(&str, u64)> {
        let kinds = [Kind::Read, Kind::Write].into_iter().filter_map(|kind| self.by.get(&kind));
        let mut all: Vec<(&str, u64)> = kinds.flatten().map(|(what, count)| (what.as_str(), *count)).collect();
        all.sort_by_key(|(what, count)| (std::cmp::Reverse(*count), *what));
        all
    }
}
