//! The way from an open case to its next step: is it still needed, what would put it right, is that allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attribution::{AttributionQuestion, last_change, walk};
use super::candidates::{Builder, Candidate, Goals, How, content_reversals, reversals_of, unified};
use super::case::{CaseFacts, Next, NothingWhy, PeerVerdict, RevertPolicy, revert_branch};
use super::evidence::{Evidence, Need};
use super::identity::{Known, Standing, own_objects, release_digest, standing};
use super::ledger::{Case, Closed, Promoted};
use super::verify::{Fit, compare, fit, wide};
use super::{Attribution, Render, Rendered, is_ours, verdicts_of};
use crate::domain::{CanaryKey, Digest, Sha, Snapshot};
use crate::ports::CommitInfo;

/// One question about one case.
pub(super) struct Machine<'a> {
    facts: &'a CaseFacts<'a>,
    case: &'a Case,
    evidence: &'a mut Evidence,
    render: &'a dyn Render,
}

/// The tree under repair.
struct Head {
    snapshot: Snapshot,
    rendered: Arc<Rendered>,
    inputs: BTreeSet<String>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(facts: &'a CaseFacts<'a>, evidence: &'a mut Evidence, render: &'a dyn Render) -> Self {
        Self { facts, case: facts.case, evidence, render }
    }

    /// `Err`: something must be fetched first.
    pub(super) fn run(&mut self) -> Result<Next, Need> {
        let rendered = self.evidence.rendered(self.facts.head, self.render)?;
        if self.evidence.is_missing(self.facts.head) && self.evidence.snapshot(self.facts.head)?.files.is_empty() {
            return Ok(Next::Wait(format!("{} cannot be read", self.facts.head.short())));
        }
        let own = match standing(&rendered, &self.case.canary, &self.known()?) {
            Standing::Broken(problems) => {
                let problem = problems.into_iter().next().unwrap_or_default();
                return Ok(Next::Wait(format!("{} does not render: {problem}", self.facts.head.short())));
            }
            Standing::Gone => return Ok(Next::Close(Closed::Cancelled)),
            Standing::Present(own) => own,
        };
        let digest = own.digest();
        if !self.case.digests.contains(&digest) {
            return self.close(&digest);
        }
        if let Some(ours) = self.find_ours() {
            return Ok(self.gate(Closed::BroughtBack(ours)));
        }
        let Some(promoted) = self.case.restores.as_ref() else {
            return Ok(Next::Nothing { why: NothingWhy::NoPromotedRecord, diff: String::new() });
        };
        if self.case.proposal.as_ref().is_some_and(|proposal| proposal.base == *self.facts.head) {
            return Ok(Next::Wait("the revert is proposed and waits for a person".to_owned()));
        }
        let snapshot = self.evidence.snapshot(self.facts.head)?.clone();
        let head = Head { snapshot, rendered, inputs: own.inputs };
        if self.release_is_ours() {
            return self.nothing(NothingWhy::OursFailed, promoted, &head);
        }
        match self.facts.line {
            Some(line) => self.repair(line, promoted, &head),
            None => self.repair_by_content(promoted, &head),
        }
    }

    /// What the failed release was made of, so that a broken file on top of it is told from an unrelated one.
    fn known(&mut self) -> Result<Known, Need> {
        let Some(commit) = self.case.commit.as_ref().filter(|sha| !self.evidence.is_missing(sha)) else {
            return Ok(Known::default());
        };
        let rendered = self.evidence.rendered(commit, self.render)?;
        Ok(own_objects(&rendered, &self.case.canary).as_ref().map(Known::from).unwrap_or_default())
    }

    fn close(&mut self, digest: &Digest) -> Result<Next, Need> {
        let facts = self.facts;
        let back = self.case.restores.as_ref().is_some_and(|promoted| promoted.is(digest));
        let by = last_change(&self.case.canary, facts.head, facts.line, facts.scope, self.evidence, self.render)?;
        let message = facts.line.unwrap_or_default().iter().find(|commit| commit.sha == by).map(|c| c.message.as_str());
        let ours = message.is_some_and(|message| verdicts_of(message).contains(&self.case.verdict.as_str()));
        Ok(self.gate(match (back, ours) {
            (true, true) => Closed::Reverted(by),
            (true, false) => Closed::RevertedBy(by),
            (false, _) => Closed::FixedForward(by),
        }))
    }

    /// No case closes before the primary carries the promoted release again.
    fn gate(&self, how: Closed) -> Next {
        if self.facts.primary_restored {
            Next::Close(how)
        } else {
            Next::Wait("the primary does not carry the promoted release yet".to_owned())
        }
    }

    fn find_ours(&self) -> Option<Sha> {
        let ours = |commit: &&CommitInfo| verdicts_of(&commit.message).contains(&self.case.verdict.as_str());
        self.facts.line.unwrap_or_default().iter().find(ours).map(|commit| commit.sha.clone())
    }

    fn release_is_ours(&self) -> bool {
        let release = |commit: &&CommitInfo| Some(&commit.sha) == self.case.commit.as_ref();
        self.facts.line.unwrap_or_default().iter().find(release).is_some_and(|commit| is_ours(&commit.message))
    }

    fn repair(&mut self, line: &[CommitInfo], promoted: &Promoted, head: &Head) -> Result<Next, Need> {
        let guilty = self.guilty(line, promoted)?;
        let before = self.before(line, &guilty)?;
        let shared = self.shared(line, &guilty, head)?;
        let goals = Goals::from([(self.case.canary.clone(), promoted.digests())]);
        let mut reasons = Vec::new();
        let mut joint = BTreeSet::new();
        let mut proposals = Vec::new();
        for how in [How::OwnHunks, How::Whole] {
            let made = self.build(how, line, &guilty, &goals, promoted, head, before.as_deref())?;
            let Some(candidate) = made else {
                reasons.push(format!("{}: conflicts, or does not lead back to the promoted release", words(how)));
                continue;
            };
            let rendered = self.render.render(&candidate.snapshot);
            let found =
                compare(&goals, (&head.snapshot, &head.rendered), (&candidate.snapshot, &rendered), self.facts.scope);
            match fit(&found, &shared, &rendered, before.as_deref()) {
                Fit::Narrow => return Ok(self.permit(Next::Push(candidate), head)),
                Fit::Joint(with) => {
                    joint.extend(with);
                    if let Fit::Wide(what) = wide(&found, &rendered, before.as_deref()) {
                        proposals.push((candidate, what));
                    }
                }
                Fit::Wide(what) => proposals.push((candidate, what)),
                Fit::No(why) => reasons.push(format!("{}: {why}", words(how))),
            }
        }
        if !joint.is_empty()
            && let Some(next) = self.joint(&joint, line, &guilty, goals, promoted, head)?
        {
            return Ok(next);
        }
        match proposals.into_iter().next() {
            Some((candidate, what)) => {
                let why = format!("it would also change {}", what.join(", "));
                Ok(self.permit(self.propose(candidate, why), head))
            }
            None => self.nothing(NothingWhy::NothingFits(reasons), promoted, head),
        }
    }

    /// The guilty commits on the present line; asked anew when history was rewritten below the head.
    fn guilty(&mut self, line: &[CommitInfo], promoted: &Promoted) -> Result<Vec<Sha>, Need> {
        let on_line = |sha: &&Sha| line.iter().any(|commit| commit.sha == **sha && !is_ours(&commit.message));
        let guilty: Vec<Sha> = self.case.guilty.iter().filter(on_line).cloned().collect();
        if !guilty.is_empty() && guilty.len() == self.case.guilty.len() {
            return Ok(guilty);
        }
        Ok(self.attribution(line, promoted)?.guilty)
    }

    fn attribution(&mut self, line: &[CommitInfo], promoted: &Promoted) -> Result<Attribution, Need> {
        let question = AttributionQuestion {
            canary: &self.case.canary,
            promoted: &promoted.digests(),
            promoted_commit: &promoted.commit,
            running: &self.case.digests.iter().cloned().collect(),
            head: self.facts.head,
            line: Some(line),
            scope: self.facts.scope,
        };
        walk(&question, self.evidence, self.render)
    }

    /// The source as it was before the oldest guilty commit.
    fn before(&mut self, line: &[CommitInfo], guilty: &[Sha]) -> Result<Option<Arc<Rendered>>, Need> {
        let oldest = guilty.last().and_then(|sha| line.iter().find(|commit| commit.sha == *sha));
        match oldest.and_then(|commit| commit.parent.as_ref()).filter(|parent| !self.evidence.is_missing(parent)) {
            Some(parent) => self.evidence.rendered(parent, self.render).map(Some),
            None => Ok(None),
        }
    }

    /// Other canaries that the guilty commits changed.
    fn shared(&mut self, line: &[CommitInfo], guilty: &[Sha], head: &Head) -> Result<BTreeSet<CanaryKey>, Need> {
        let mut shared = BTreeSet::new();
        let keys = super::canaries(&head.rendered);
        if keys.len() < 2 {
            return Ok(shared);
        }
        for commit in line.iter().filter(|commit| guilty.contains(&commit.sha)) {
            let Some(parent) = &commit.parent else { continue };
            let (old, new) =
                (self.evidence.rendered(parent, self.render)?, self.evidence.rendered(&commit.sha, self.render)?);
            shared.extend(keys.iter().filter(|key| release_digest(&old, key) != release_digest(&new, key)).cloned());
        }
        shared.remove(&self.case.canary);
        Ok(shared)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one computation, all computed by the caller")]
    fn build(
        &mut self,
        how: How,
        line: &[CommitInfo],
        guilty: &[Sha],
        goals: &Goals,
        promoted: &Promoted,
        head: &Head,
        before: Option<&Rendered>,
    ) -> Result<Option<Candidate>, Need> {
        let builder = Builder {
            head: self.facts.head,
            snapshot: &head.snapshot,
            rendered: &head.rendered,
            render: self.render,
            goals,
            scope: self.facts.scope,
        };
        if how == How::Whole {
            let mut commits = Vec::new();
            for sha in guilty {
                commits.push((sha.clone(), self.evidence.changes(sha)?.to_vec()));
            }
            return Ok(builder.whole(&commits));
        }
        let mut inputs = head.inputs.clone();
        for canary in goals.keys() {
            let sides = before.into_iter().chain([&*head.rendered]);
            inputs.extend(sides.filter_map(|side| own_objects(side, canary)).flat_map(|own| own.inputs));
        }
        let wanted = |path: &str| inputs.contains(path);
        let reversals = reversals_of(guilty, line, &head.snapshot, self.evidence, &wanted)?;
        if let Some(candidate) = builder.own_hunks(&reversals, how, guilty) {
            return Ok(Some(candidate));
        }
        // The promoted release is not reached: other commits since then have a part in it.
        let all: Vec<Sha> = {
            let changed = self.attribution(line, promoted)?.changed;
            let named = |commit: &&CommitInfo| changed.contains(&commit.sha) || guilty.contains(&commit.sha);
            line.iter().filter(named).map(|commit| commit.sha.clone()).collect()
        };
        if all.len() == guilty.len() {
            return Ok(None);
        }
        let reversals = reversals_of(&all, line, &head.snapshot, self.evidence, &wanted)?;
        Ok(builder.own_hunks(&reversals, how, &all))
    }

    /// `None`: there will be no joint revert.
    fn joint(
        &mut self,
        with: &BTreeSet<CanaryKey>,
        line: &[CommitInfo],
        guilty: &[Sha],
        mut goals: Goals,
        promoted: &Promoted,
        head: &Head,
    ) -> Result<Option<Next>, Need> {
        let mut pending = BTreeSet::new();
        let mut verdicts = BTreeMap::new();
        let mut commits: BTreeSet<&Sha> = guilty.iter().collect();
        for key in with {
            let Some(peer) = self.facts.peers.get(key) else { return Ok(None) };
            match (&peer.verdict, &peer.promoted) {
                (PeerVerdict::Pending(until), _) if self.facts.now < *until => {
                    pending.insert(key.clone());
                }
                (PeerVerdict::Condemned { digests, verdict, guilty }, Some(promoted))
                    if release_digest(&head.rendered, key).is_some_and(|digest| digests.contains(&digest)) =>
                {
                    verdicts.insert(key.clone(), verdict.clone());
                    goals.insert(key.clone(), promoted.digests());
                    commits.extend(guilty);
                }
                _ => return Ok(None),
            }
        }
        if !pending.is_empty() {
            return Ok(Some(Next::WaitJoint(pending)));
        }
        let named = |commit: &&CommitInfo| commits.contains(&commit.sha) && !is_ours(&commit.message);
        let guilty: Vec<Sha> = line.iter().filter(named).map(|commit| commit.sha.clone()).collect();
        let before = self.before(line, &guilty)?;
        for how in [How::OwnHunks, How::Whole] {
            let Some(candidate) = self.build(how, line, &guilty, &goals, promoted, head, before.as_deref())? else {
                continue;
            };
            let rendered = self.render.render(&candidate.snapshot);
            let found =
                compare(&goals, (&head.snapshot, &head.rendered), (&candidate.snapshot, &rendered), self.facts.scope);
            if fit(&found, &BTreeSet::new(), &rendered, None) == Fit::Narrow {
                let push = Next::PushJoint { candidate, with: verdicts };
                return Ok(Some(self.permit(push, head)));
            }
        }
        Ok(None)
    }

    /// The promoted commit is no longer below the head: its content may only be proposed.
    fn repair_by_content(&mut self, promoted: &Promoted, head: &Head) -> Result<Next, Need> {
        if self.evidence.is_missing(&promoted.commit) {
            let why = format!("{} is not in the repository any more", promoted.commit.short());
            return Ok(Next::Nothing { why: NothingWhy::NothingFits(vec![why]), diff: String::new() });
        }
        let then = self.evidence.rendered(&promoted.commit, self.render)?;
        let content = self.evidence.snapshot(&promoted.commit)?;
        let mut inputs = head.inputs.clone();
        inputs.extend(own_objects(&then, &self.case.canary).into_iter().flat_map(|own| own.inputs));
        let reversals = content_reversals(content, &head.snapshot, &|path| inputs.contains(path));
        let goals = Goals::from([(self.case.canary.clone(), promoted.digests())]);
        let builder = Builder {
            head: self.facts.head,
            snapshot: &head.snapshot,
            rendered: &head.rendered,
            render: self.render,
            goals: &goals,
            scope: self.facts.scope,
        };
        let Some(candidate) = builder.own_hunks(&reversals, How::Content, &self.case.guilty) else {
            let why = "the promoted content does not lead back to the promoted release".to_owned();
            return self.nothing(NothingWhy::NothingFits(vec![why]), promoted, head);
        };
        let rendered = self.render.render(&candidate.snapshot);
        let found =
            compare(&goals, (&head.snapshot, &head.rendered), (&candidate.snapshot, &rendered), self.facts.scope);
        match fit(&found, &BTreeSet::new(), &rendered, Some(&then)) {
            Fit::No(why) => self.nothing(NothingWhy::NothingFits(vec![why]), promoted, head),
            _ => {
                let why = format!("{} is not an ancestor of the branch any more", promoted.commit.short());
                Ok(self.permit(self.propose(candidate, why), head))
            }
        }
    }

    fn propose(&self, candidate: Candidate, why: String) -> Next {
        let digest = self.case.digests.first().cloned().unwrap_or_else(|| Digest(String::new()));
        Next::Propose { candidate, branch: revert_branch(&self.case.canary, &digest), why }
    }

    /// What the source allows of a commit that would be right.
    fn permit(&self, next: Next, head: &Head) -> Next {
        let candidate = match &next {
            Next::Push(candidate) | Next::PushJoint { candidate, .. } | Next::Propose { candidate, .. } => candidate,
            _ => return next,
        };
        let to_branch = !matches!(next, Next::Propose { .. });
        let nothing = |why| {
            let diff = unified(&head.snapshot.files, &candidate.snapshot.files, &|_| true);
            Next::Nothing { why, diff }
        };
        if self.facts.policy == RevertPolicy::Off {
            return nothing(NothingWhy::Off);
        }
        if to_branch && self.facts.policy == RevertPolicy::PullRequest {
            return self.propose(candidate.clone(), "the source asks for pull requests".to_owned());
        }
        if let Some(words) = self.case.refused.as_ref().filter(|_| to_branch) {
            return self.propose(candidate.clone(), format!("the push was refused: {words}"));
        }
        if to_branch && self.facts.reverts_in_last_hour >= self.facts.reverts_per_hour {
            return nothing(NothingWhy::TooMany(self.facts.reverts_in_last_hour));
        }
        next
    }

    /// No commit; the diff that a person needs is the one back to the promoted content.
    fn nothing(&mut self, why: NothingWhy, promoted: &Promoted, head: &Head) -> Result<Next, Need> {
        if self.evidence.is_missing(&promoted.commit) {
            return Ok(Next::Nothing { why, diff: String::new() });
        }
        let then = self.evidence.rendered(&promoted.commit, self.render)?;
        let content = self.evidence.snapshot(&promoted.commit)?;
        let mut inputs = head.inputs.clone();
        inputs.extend(own_objects(&then, &self.case.canary).into_iter().flat_map(|own| own.inputs));
        let diff = unified(&head.snapshot.files, &content.files, &|path| inputs.contains(path));
        Ok(Next::Nothing { why, diff })
    }
}

const fn words(how: How) -> &'static str {
    match how {
        How::OwnHunks => "reversing its own hunks",
        How::Whole => "reversing the whole commits",
        How::Content => "putting the promoted content back",
    }
}
