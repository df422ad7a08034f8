//! Which commits brought a release in.

use std::collections::BTreeSet;

use super::identity::{Known, Standing, standing};
use super::{Evidence, Need, Render, Scope, is_ours};
use crate::domain::{CanaryKey, Digest, Sha};
use crate::ports::CommitInfo;

/// How many commits are walked; beyond that a release is attributed to the head.
pub const HISTORY_LIMIT: usize = 1000;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct AttributionQuestion<'a> {
    /// The canary.
    pub canary: &'a CanaryKey,
    /// Digests of the promoted release.
    pub promoted: &'a BTreeSet<Digest>,
    /// The commit it was promoted from.
    pub promoted_commit: &'a Sha,
    /// Digests of the running release.
    pub running: &'a BTreeSet<Digest>,
    /// The head.
    pub head: &'a Sha,
    /// The first-parent line from the head back to, not including, the promoted commit; newest first. `None`: the
    /// promoted commit is not on it (force push), or it is longer than [`HISTORY_LIMIT`].
    pub line: Option<&'a [CommitInfo]>,
    /// Files of the source.
    pub scope: &'a Scope,
}

/// Which commits brought a release in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The newest commit that produced the running digest. `None`: no commit on the line did.
    pub release: Option<Sha>,
    /// Commits that changed the digest on the way from the promoted release, newest first: the release commit and the
    /// included ones, without our own reverts.
    pub guilty: Vec<Sha>,
    /// All commits of the line that changed the digest, newest first, later and earlier ones too, ours left out.
    pub changed: Vec<Sha>,
    /// False when the line could not be walked and the head stands for all.
    pub exact: bool,
}

impl Attribution {
    /// The guilty commits other than the release commit.
    pub fn included(&self) -> Vec<Sha> {
        self.guilty.iter().filter(|sha| Some(*sha) != self.release.as_ref()).cloned().collect()
    }
}

/// Answer, or what is missing for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributionStep {
    /// Fetch this and ask again.
    Need(Need),
    /// The answer.
    Done(Attribution),
}

/// Attributes a running release. Trees are rendered only where a commit touched a file that can change the own objects.
pub fn attribute(question: &AttributionQuestion<'_>, evidence: &mut Evidence, render: &dyn Render) -> AttributionStep {
    match walk(question, evidence, render) {
        Ok(attribution) => AttributionStep::Done(attribution),
        Err(need) => AttributionStep::Need(need),
    }
}

/// How the own objects stand after a commit.
struct Fact {
    digest: Option<Digest>,
    watched: BTreeSet<String>,
    known: Known,
    any: bool,
}

impl Fact {
    fn touched_by(&self, commit: &CommitInfo, scope: &Scope) -> bool {
        commit
            .paths
            .iter()
            .filter(|path| scope.contains(path))
            .any(|path| self.any || self.watched.contains(path) || path.rsplit('/').next() == Some(".serinignore"))
    }

    fn absent() -> Self {
        Self { digest: None, watched: BTreeSet::new(), known: Known::default(), any: true }
    }
}

/// `Err`: something must be fetched; `Ok(None)`: the files that matter do not render.
fn fact_at(
    sha: &Sha,
    canary: &CanaryKey,
    known: &Known,
    evidence: &mut Evidence,
    render: &dyn Render,
) -> Result<Option<Fact>, Need> {
    let rendered = evidence.rendered(sha, render)?;
    Ok(match standing(&rendered, canary, known) {
        Standing::Present(own) => Some(Fact {
            digest: Some(own.digest()),
            known: Known::from(own.as_ref()),
            any: own.open,
            watched: own.watched,
        }),
        Standing::Gone => Some(Fact::absent()),
        Standing::Broken(_) => None,
    })
}

pub(crate) fn walk(
    question: &AttributionQuestion<'_>,
    evidence: &mut Evidence,
    render: &dyn Render,
) -> Result<Attribution, Need> {
    let Some(line) = question.line.filter(|line| line.len() <= HISTORY_LIMIT) else {
        let head = question.head.clone();
        return Ok(Attribution {
            release: Some(head.clone()),
            guilty: vec![head.clone()],
            changed: vec![head],
            exact: false,
        });
    };
    let mut fact = first_fact(question, evidence, render)?;
    let mut broken: Vec<&CommitInfo> = Vec::new();
    // Digest-changing commits, oldest first, each with the digest it led to.
    let mut changes: Vec<(&CommitInfo, Option<Digest>)> = Vec::new();
    for commit in line.iter().rev() {
        if broken.is_empty() && !fact.touched_by(commit, question.scope) {
            continue;
        }
        if !broken.is_empty() && !commit.paths.iter().any(|path| question.scope.contains(path)) {
            continue;
        }
        let Some(now) = fact_at(&commit.sha, question.canary, &fact.known, evidence, render)? else {
            broken.push(commit);
            continue;
        };
        if now.digest == fact.digest {
            broken.clear();
        } else {
            // What a commit did behind a broken file shows only when the file is mended: both changed the digest.
            changes.extend(broken.drain(..).map(|commit| (commit, None)));
            changes.push((commit, now.digest.clone()));
        }
        fact = now;
    }
    Ok(judge(question, &changes))
}

fn first_fact(q: &AttributionQuestion<'_>, evidence: &mut Evidence, render: &dyn Render) -> Result<Fact, Need> {
    let fallback = Fact { digest: q.promoted.first().cloned(), ..Fact::absent() };
    if evidence.is_missing(q.promoted_commit) {
        return Ok(fallback);
    }
    let fact = fact_at(q.promoted_commit, q.canary, &Known::default(), evidence, render)?;
    Ok(fact.unwrap_or(fallback))
}

fn judge(question: &AttributionQuestion<'_>, changes: &[(&CommitInfo, Option<Digest>)]) -> Attribution {
    let is_in = |digest: &Option<Digest>, set: &BTreeSet<Digest>| digest.as_ref().is_some_and(|d| set.contains(d));
    let sha_of = |(commit, _): &(&CommitInfo, Option<Digest>)| (!is_ours(&commit.message)).then(|| commit.sha.clone());
    let changed = changes.iter().rev().filter_map(sha_of).collect();
    let Some(last) = changes.iter().rposition(|(_, digest)| is_in(digest, question.running)) else {
        return Attribution { changed, exact: true, ..Attribution::default() };
    };
    let until = changes.get(..=last).unwrap_or_default();
    // Where the line came back to the promoted release, what lies before has been undone already.
    let start = until.iter().rposition(|(_, digest)| is_in(digest, question.promoted)).map_or(0, |at| at + 1);
    let guilty: Vec<Sha> = until.get(start..).unwrap_or_default().iter().rev().filter_map(sha_of).collect();
    Attribution { release: changes.get(last).map(|(commit, _)| commit.sha.clone()), guilty, changed, exact: true }
}

/// The newest commit of the line that led to the digest which the head renders; the head when none can be named.
pub(crate) fn last_change(
    canary: &CanaryKey,
    head: &Sha,
    line: Option<&[CommitInfo]>,
    scope: &Scope,
    evidence: &mut Evidence,
    render: &dyn Render,
) -> Result<Sha, Need> {
    let Some(mut fact) = fact_at(head, canary, &Known::default(), evidence, render)? else { return Ok(head.clone()) };
    for commit in line.unwrap_or_default() {
        let Some(parent) = commit.parent.as_ref().filter(|_| fact.touched_by(commit, scope)) else { continue };
        match fact_at(parent, canary, &fact.known, evidence, render)? {
            Some(before) if before.digest == fact.digest => fact = before,
            _ => return Ok(commit.sha.clone()),
        }
    }
    Ok(head.clone())
}
