//! Cases: what is done in Git about releases that failed. Everything is computed from the present head, so that a replay
//! after a crash is harmless; the pure part is `release::next`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::source::{PassError, SourceContext, fetch_evidence};
use crate::api::canary::CanaryView;
use crate::api::{CanarySpec, Phase};
use crate::domain::{CanaryKey, Digest, Sha};
use crate::plan::timeline;
use crate::ports::{ClusterError, CommitInfo, PushOutcome, Update};
use crate::release::{
    Candidate, Case, CaseFacts, Closed, Evidence, HISTORY_LIMIT, Ledger, Next, Peer, PeerVerdict, Proposal, Record,
    Rendered, RevertPolicy, disturbed, next, release_digest, revert_branch, verdicts_of,
};
use crate::report::{Revert, RevertedCanary, RevertedCommit, revert_message};
use crate::rollout::{RUN_ANNOTATION, RunMemory};

/// Reverts that may be pushed to one repository within an hour; a person must look then.
const REVERTS_PER_HOUR: usize = 10;
/// How long other canaries of the same commit are waited for beyond their progress deadline.
const JOINT_GRACE: SignedDuration = SignedDuration::from_mins(60);

/// Whether the head must be fetched again before anything else is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Every case is where it can be for this head.
    Done,
    /// The branch moved, by us or by others.
    Moved,
}

/// Takes every open case as far as it goes at this head.
pub(crate) async fn settle(
    context: &SourceContext,
    evidence: &mut Evidence,
    head: &Sha,
    rendered: &Rendered,
) -> Result<Settled, PassError> {
    let open: Vec<Case> = context.state.view().ledger.open_cases().into_iter().cloned().collect();
    for case in open {
        // A joint revert of an earlier one may have moved the branch, or closed this one.
        if settle_one(context, evidence, (head, rendered), case.verdict).await? == Settled::Moved {
            return Ok(Settled::Moved);
        }
    }
    Ok(Settled::Done)
}

async fn settle_one(
    context: &SourceContext,
    evidence: &mut Evidence,
    (head, rendered): (&Sha, &Rendered),
    verdict: String,
) -> Result<Settled, PassError> {
    loop {
        let view = context.state.view();
        let Some(case) = view.ledger.cases.get(&verdict).filter(|case| case.is_open()) else {
            return Ok(Settled::Done);
        };
        let next = decide(context, evidence, (head, rendered), &view.ledger, case).await?;
        match sparing_others(context, evidence, head, case, next) {
            Next::Need(need) => fetch_evidence(context, evidence, need).await?,
            Next::Wait(why) => return Ok(note(context, case, Revert::Waiting(why))),
            Next::WaitJoint(with) => {
                let names: Vec<_> = with.iter().map(ToString::to_string).collect();
                return Ok(note(context, case, Revert::Waiting(format!("verdict of {}", names.join(", ")))));
            }
            Next::Close(how) => {
                close(context, case, how).await?;
                return Ok(Settled::Done);
            }
            Next::Push(candidate) => {
                if let Some(settled) = push(context, head, &candidate, std::slice::from_ref(case)).await? {
                    return Ok(settled);
                }
            }
            Next::PushJoint { candidate, with } => {
                let mut cases = vec![case.clone()];
                cases.extend(with.values().filter_map(|verdict| view.ledger.cases.get(verdict).cloned()));
                if let Some(settled) = push(context, head, &candidate, &cases).await? {
                    return Ok(settled);
                }
            }
            Next::Propose { candidate, branch, why } => return propose(context, case, &candidate, &branch, &why).await,
            Next::Nothing { why, diff } => {
                if case.told.as_ref() != Some(head) {
                    let secrets = case.restores.as_ref().map(|promoted| &promoted.commit);
                    if let Some(then) = secrets.and_then(|sha| evidence.rendered(sha, context.render.as_ref()).ok()) {
                        context.registry.learn(then.objects.values().map(|object| &*object.object));
                    }
                    let diff = context.registry.redact(&diff);
                    tracing::warn!(canary = %case.canary, verdict, ?why, "no revert: a person must act\n{diff}");
                    context
                        .state
                        .update(|state| with_case(&mut state.ledger, &verdict, |case| case.told = Some(head.clone())))
                        .await?;
                }
                return Ok(note(context, case, Revert::None(why)));
            }
        }
    }
}

fn with_case(ledger: &mut Ledger, verdict: &str, change: impl FnOnce(&mut Case)) {
    if let Some(case) = ledger.cases.get_mut(verdict) {
        change(case);
    }
}

/// Remembers what the statuses say about a case, until the next pass.
fn note(context: &SourceContext, case: &Case, revert: Revert) -> Settled {
    let mut notes = context.reverts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    notes.insert(case.verdict.clone(), revert);
    Settled::Done
}

async fn decide(
    context: &SourceContext,
    evidence: &mut Evidence,
    (head, rendered): (&Sha, &Rendered),
    ledger: &Ledger,
    case: &Case,
) -> Result<Next, PassError> {
    let line = match &case.restores {
        Some(promoted) => context.source.git.history(Some(&promoted.commit), head, HISTORY_LIMIT).await?,
        None => None,
    };
    let peers = peers(context, ledger, case, rendered).await?;
    let scope = context.render.scope();
    let now = context.ports.clock.now();
    let facts = CaseFacts {
        case,
        head,
        line: line.as_deref(),
        scope: &scope,
        policy: if context.source.settings.revert { RevertPolicy::Commit } else { RevertPolicy::Off },
        peers: &peers,
        reverts_in_last_hour: context.registry.reverts_in_last_hour(&context.state.repository, now),
        reverts_per_hour: REVERTS_PER_HOUR,
        primary_restored: primary_restored(context, &case.canary).await?,
        now,
    };
    Ok(next(&facts, evidence, context.render.as_ref()))
}

/// A commit that would change what another source of the branch renders is only proposed: nobody judged that bad.
fn sparing_others(context: &SourceContext, evidence: &Evidence, head: &Sha, case: &Case, next: Next) -> Next {
    let (Next::Push(candidate) | Next::PushJoint { candidate, .. }) = &next else { return next };
    let Some(head) = evidence.files(head) else { return next };
    let found = context.registry.beside(&context.source.settings).into_iter().find_map(|other| {
        let paths = candidate.changes.iter().map(|change| change.path.as_str());
        let why = disturbed(other.as_ref(), &other.scope(), paths, (head, &candidate.snapshot))?;
        Some(format!("source {}: {why}", other.name()))
    });
    match (found, case.digests.first()) {
        (Some(why), Some(digest)) => {
            Next::Propose { candidate: candidate.clone(), branch: revert_branch(&case.canary, digest), why }
        }
        _ => next,
    }
}

/// Whether the primary carries the promoted release: a failed canary whose primary is not being exchanged.
async fn primary_restored(context: &SourceContext, canary: &CanaryKey) -> Result<bool, ClusterError> {
    let Some(object) = context.ports.cluster.get(&canary.object_key()).await? else { return Ok(true) };
    let restoring = RunMemory::parse(object.annotation(RUN_ANNOTATION)).restoring;
    let phase = object.str("/status/phase");
    let exchanging = phase == Phase::Promoting.as_str() || phase == Phase::Finalising.as_str();
    Ok(!restoring && !exchanging)
}

async fn peers(
    context: &SourceContext,
    ledger: &Ledger,
    case: &Case,
    head: &Rendered,
) -> Result<BTreeMap<CanaryKey, Peer>, ClusterError> {
    let mut peers = BTreeMap::new();
    for (key, record) in ledger.canaries.iter().filter(|(key, _)| **key != case.canary) {
        let since = match standing(ledger, record, release_digest(head, key).as_ref(), case.opened) {
            Ok(verdict) => {
                peers.insert(key.clone(), Peer { promoted: record.promoted.clone(), verdict });
                continue;
            }
            Err(since) => since,
        };
        let object = context.ports.cluster.get(&key.object_key()).await?;
        let spec = object.and_then(|object| CanaryView::from_object(&object).ok()).map(|canary| canary.spec);
        let takes = spec.map_or(SignedDuration::ZERO, |spec| patience(&spec));
        let until = since.checked_add(takes).and_then(|time| time.checked_add(JOINT_GRACE));
        let verdict = PeerVerdict::Pending(until.unwrap_or(Timestamp::MAX));
        peers.insert(key.clone(), Peer { promoted: record.promoted.clone(), verdict });
    }
    Ok(peers)
}

/// How another canary of the head stands: its verdict, or since when one is waited for, because it is being released or
/// because its release at the head is still held back. `digest`: as the head renders it. A condemned release without an
/// open case is one that Git is to keep: nobody asked for a revert, or it has had its own.
fn standing(
    ledger: &Ledger,
    record: &Record,
    digest: Option<&Digest>,
    opened: Timestamp,
) -> Result<PeerVerdict, Timestamp> {
    if let Some(run) = &record.run {
        return Err(run.started);
    }
    let condemned = record.condemned.iter().rev().find(|condemned| condemned.lifted.is_none());
    let is_condemned = |digest: &Digest| condemned.is_some_and(|condemned| condemned.is(digest));
    let is_promoted = |digest: &Digest| record.promoted.as_ref().is_some_and(|promoted| promoted.is(digest));
    let is_applied = |digest: &Digest| record.applied.as_ref().is_some_and(|applied| applied.digest == *digest);
    if digest.is_some_and(|digest| !is_condemned(digest) && !is_promoted(digest) && !is_applied(digest)) {
        return Err(opened);
    }
    let open = condemned.filter(|condemned| ledger.cases.get(&condemned.verdict).is_some_and(Case::is_open));
    Ok(open.map_or(PeerVerdict::Other, |condemned| PeerVerdict::Condemned {
        digests: condemned.aliases.iter().chain([&condemned.digest]).cloned().collect::<BTreeSet<_>>(),
        verdict: condemned.verdict.clone(),
        guilty: condemned.commits.clone(),
    }))
}

/// How long a release may take: its steps when all goes well, and its progress deadline.
fn patience(spec: &CanarySpec) -> SignedDuration {
    let steps = timeline(spec).last().map(|(after, _)| *after).unwrap_or_default();
    let deadline = SignedDuration::from_secs(spec.progress_deadline_seconds.unwrap_or(600));
    SignedDuration::try_from(steps).unwrap_or(SignedDuration::MAX).saturating_add(deadline)
}

/// Pushes a revert to the branch. `None`: decide again. It was refused for good and will be proposed, or it would be one
/// too many.
async fn push(
    context: &SourceContext,
    head: &Sha,
    candidate: &Candidate,
    cases: &[Case],
) -> Result<Option<Settled>, PassError> {
    let turn = context.registry.reverting(&context.state.repository);
    let _turn = turn.lock().await;
    let pushed = context.registry.reverts_in_last_hour(&context.state.repository, context.ports.clock.now());
    if pushed >= REVERTS_PER_HOUR {
        return Ok(None); // another source was first
    }
    let update = Update {
        reference: context.branch(),
        expected: Some(head.clone()),
        ..revert_commit(context, candidate, cases).await?
    };
    let outcome = context.source.git.commit_and_push(update).await;
    context.pushed("revert", &outcome);
    match outcome? {
        PushOutcome::Pushed(sha) => {
            tracing::info!(source = context.source.settings.name, commit = %sha, "revert pushed");
            let now = context.ports.clock.now();
            context.state.update(|state| state.ledger.reverted(now)).await?;
            Ok(Some(Settled::Moved))
        }
        PushOutcome::Moved => Ok(Some(Settled::Moved)),
        PushOutcome::Refused(words) => {
            let words = context.registry.redact(&words);
            tracing::warn!(source = context.source.settings.name, words, "the revert was refused");
            let verdicts: Vec<_> = cases.iter().map(|case| case.verdict.clone()).collect();
            context
                .state
                .update(|state| {
                    for verdict in &verdicts {
                        with_case(&mut state.ledger, verdict, |case| case.refused = Some(words.clone()));
                    }
                })
                .await?;
            Ok(None)
        }
    }
}

/// The revert as a commit on the head that the candidate was made for; the caller fills in where it goes.
async fn revert_commit(context: &SourceContext, candidate: &Candidate, cases: &[Case]) -> Result<Update, PassError> {
    let mut commits = Vec::new();
    for sha in &candidate.reverses {
        let found = context.source.git.history(None, sha, 1).await?.unwrap_or_default();
        let subject = found.first().map(|commit| commit.subject().to_owned()).unwrap_or_default();
        commits.push(RevertedCommit { sha: sha.clone(), subject });
    }
    let canaries: Vec<RevertedCanary> = cases
        .iter()
        .filter_map(|case| {
            Some(RevertedCanary {
                canary: case.canary.clone(),
                digest: case.digests.first()?.clone(),
                restores: case.restores.as_ref()?.commit.clone(),
                verdict: case.verdict.clone(),
                why: case.why.clone(),
                step: case.step.clone(),
            })
        })
        .collect();
    Ok(Update {
        reference: String::new(),
        expected: None,
        parent: Some(candidate.base.clone()),
        changes: candidate.changes.clone(),
        message: context.registry.redact(&revert_message(&context.cluster_name, &canaries, &commits)),
        author: context.source.settings.author.clone(),
        time: context.ports.clock.now().as_second(),
        force: false,
    })
}

/// Pushes a revert to a branch of its own, for a person.
async fn propose(
    context: &SourceContext,
    case: &Case,
    candidate: &Candidate,
    branch: &str,
    why: &str,
) -> Result<Settled, PassError> {
    let reference = format!("refs/heads/{branch}");
    let expected = context.source.git.fetch(std::slice::from_ref(&reference)).await?.into_iter().next().flatten();
    if let Some(tip) = &expected {
        let found = context.source.git.history(None, tip, 1).await?.unwrap_or_default();
        if !found.first().is_some_and(|tip| is_free(&context.state.view().ledger, case, branch, tip)) {
            tracing::debug!(canary = %case.canary, branch, "the proposal is left as somebody made it");
            return Ok(note(context, case, Revert::Waiting(format!("somebody works on {branch}"))));
        }
    }
    let update = Update {
        reference,
        expected,
        force: true,
        ..revert_commit(context, candidate, std::slice::from_ref(case)).await?
    };
    let outcome = context.source.git.commit_and_push(update).await;
    context.pushed("revert", &outcome);
    match outcome? {
        PushOutcome::Pushed(commit) => {
            tracing::info!(canary = %case.canary, branch, why, "revert proposed");
            let proposal = Proposal { branch: branch.to_owned(), base: candidate.base.clone(), commit };
            context
                .state
                .update(|state| with_case(&mut state.ledger, &case.verdict, |case| case.proposal = Some(proposal)))
                .await?;
            Ok(Settled::Done)
        }
        PushOutcome::Moved => Ok(Settled::Moved),
        PushOutcome::Refused(words) => {
            Ok(note(context, case, Revert::Waiting(format!("{branch} was refused too: {words}"))))
        }
    }
}

/// Whether a branch still ends in a proposal of ours, whose place a newer one may take. People add to what they find
/// there, and amend it.
fn is_free(ledger: &Ledger, case: &Case, branch: &str, tip: &CommitInfo) -> bool {
    let recorded = |case: &Case| {
        let proposal = case.proposal.as_ref().filter(|proposal| proposal.branch == branch);
        proposal.map(|proposal| proposal.commit == tip.sha)
    };
    // A process that was killed right after its first push has not recorded it.
    let unrecorded = verdicts_of(&tip.message).contains(&case.verdict.as_str());
    recorded(case).unwrap_or(unrecorded || ledger.cases.values().any(|other| recorded(other) == Some(true)))
}

/// Ends a case. The Canary learns of it from the ledger, at its next tick.
async fn close(context: &SourceContext, case: &Case, how: Closed) -> Result<(), PassError> {
    tracing::info!(canary = %case.canary, verdict = case.verdict, ?how, "case closed");
    let now = context.ports.clock.now();
    context
        .state
        .update(|state| {
            // A process that was killed right after its push has not counted it.
            let counted = state.ledger.reverts.iter().any(|pushed| *pushed >= case.opened);
            if matches!(how, Closed::Reverted(_)) && !counted {
                state.ledger.reverted(now);
            }
            state.ledger.close(&case.verdict, how);
        })
        .await?;
    context.state.hurry();
    context.registry.look(&case.canary);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Applied, CaseState, Cause, Condemned, Promoted, Run};

    #[test]
    fn a_peer_whose_release_is_held_back_is_waited_for() {
        let digest = |name: &str| Digest(format!("v1:{name}"));
        let sha = Sha("a".repeat(40));
        let at = Timestamp::UNIX_EPOCH;
        let later = at + SignedDuration::from_secs(5);
        let promoted =
            Promoted { digest: digest("a"), aliases: Vec::new(), live: digest("a"), commit: sha.clone(), at };
        let applied = |name: &str| Applied {
            digest: digest(name),
            template: digest(name),
            live: digest(name),
            commit: sha.clone(),
            guilty: Vec::new(),
        };
        let condemned = Condemned {
            digest: digest("b"),
            aliases: Vec::new(),
            live: digest("b"),
            commits: Vec::new(),
            verdict: "v".to_owned(),
            at,
            why: String::new(),
            lifted: None,
            attempt: Some(1),
            step: "at weight 20".to_owned(),
            restores: None,
            keep_git: false,
            closed: None,
        };
        let run =
            Run { digest: None, live: digest("b"), commit: None, guilty: Vec::new(), started: later, restarts: 0 };
        let rests = Record { promoted: Some(promoted), applied: Some(applied("a")), ..Record::default() };
        let runs = Record { run: Some(run), ..rests.clone() };
        let failed = Record { condemned: vec![condemned], applied: Some(applied("b")), ..rests.clone() };
        let is_condemned = |standing| matches!(standing, Ok(PeerVerdict::Condemned { .. }));
        let mut ledger = Ledger::default();
        assert_eq!(standing(&ledger, &rests, Some(&digest("a")), at), Ok(PeerVerdict::Other));
        assert_eq!(standing(&ledger, &rests, Some(&digest("b")), at), Err(at), "held back");
        assert_eq!(standing(&ledger, &runs, Some(&digest("b")), at), Err(later));
        // What is condemned goes back as long as its own case asks for that.
        let keep_git = standing(&ledger, &failed, Some(&digest("b")), at);
        assert_eq!(keep_git, Ok(PeerVerdict::Other), "it has no case");
        ledger.cases.insert("v".to_owned(), case("v", None));
        assert!(is_condemned(standing(&ledger, &failed, Some(&digest("b")), at)));
        assert!(is_condemned(standing(&ledger, &failed, None, at)));
        assert_eq!(standing(&ledger, &failed, Some(&digest("c")), at), Err(at), "its fix has not begun");
        ledger.close("v", Closed::BroughtBack(sha));
        assert_eq!(standing(&ledger, &failed, Some(&digest("b")), at), Ok(PeerVerdict::Other), "a person wants it");
    }

    #[test]
    fn what_people_did_on_a_proposed_branch_stays() {
        let sha = |name: &str| Sha(name.repeat(40));
        let proposal = |commit| Proposal { branch: "serin/revert/x".to_owned(), base: sha("0"), commit: sha(commit) };
        let tip = |name, message: &str| CommitInfo {
            sha: sha(name),
            parent: Some(sha("0")),
            message: message.to_owned(),
            author: String::new(),
            time: 0,
            paths: BTreeSet::new(),
        };
        let ours = "Revert\n\nSerin-Verdict: v\n";
        let earlier = Case { state: CaseState::Closed(Closed::Retried), ..case("u", Some(proposal("1"))) };
        let ledger = Ledger { cases: BTreeMap::from([("u".to_owned(), earlier)]), ..Ledger::default() };
        for (recorded, tip, free) in [
            (Some("a"), tip("a", ours), true),
            (Some("a"), tip("b", "Leave the limits alone"), false),
            (Some("a"), tip("b", ours), false), // amended
            (None, tip("a", ours), true),       // the response was lost
            (None, tip("b", "Mine"), false),
            (None, tip("b", "Revert\n\nSerin-Verdict: another cluster's\n"), false),
            (None, tip("1", "Revert\n\nSerin-Verdict: u\n"), true), // of the attempt before
            (None, tip("2", "Revert\n\nSerin-Verdict: u\n"), false), // amended
        ] {
            let case = case("v", recorded.map(proposal));
            let told = format!("{recorded:?} {tip:?}");
            assert_eq!(is_free(&ledger, &case, "serin/revert/x", &tip), free, "{told}");
        }
    }

    fn case(verdict: &str, proposal: Option<Proposal>) -> Case {
        Case {
            verdict: verdict.to_owned(),
            canary: CanaryKey::new("shop", "web"),
            digests: Vec::new(),
            cause: Cause::Metric,
            why: String::new(),
            step: String::new(),
            commit: None,
            guilty: Vec::new(),
            restores: None,
            opened: Timestamp::UNIX_EPOCH,
            refused: None,
            proposal,
            told: None,
            state: CaseState::Open,
        }
    }
}
