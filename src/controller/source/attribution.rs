//! Which commits brought a release in, and the evidence for it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::refs::promoted_ref;
use super::{Memory, PassError, SourceContext};
use crate::domain::{CanaryKey, Digest, Sha};
use crate::ports::GitError;
use crate::release::{
    AttributionQuestion, AttributionStep, Evidence, HISTORY_LIMIT, Need, Rendered, attribute, own_objects,
};

/// Which commits brought in the releases that this head changes: for each of the canaries whose release digest is not the
/// one that was applied last. Made before the apply, so that the run is explained when it starts.
pub(super) async fn attributions(
    context: &SourceContext,
    memory: &mut Memory,
    head: &Sha,
    rendered: &Rendered,
    canaries: impl Iterator<Item = &CanaryKey> + Send,
) -> Result<BTreeMap<CanaryKey, Attributed>, PassError> {
    let view = context.state.view();
    let mut answers = BTreeMap::new();
    for key in canaries {
        let Some(own) = own_objects(rendered, key) else { continue };
        let digest = own.digest();
        let record = view.ledger.canaries.get(key).cloned().unwrap_or_default();
        if record.applied.as_ref().is_some_and(|applied| applied.digest == digest) {
            continue;
        }
        let Some(promoted) = record.promoted else {
            // Nothing promoted yet: the head is as good a name as any, and there is nothing to go back to.
            answers.insert(key.clone(), Attributed { digest, commit: Some(head.clone()), guilty: vec![head.clone()] });
            continue;
        };
        let line = context.source.git.history(Some(&promoted.commit), head, HISTORY_LIMIT).await?;
        let digests = promoted.digests();
        let running = BTreeSet::from([digest.clone()]);
        let scope = context.render.scope();
        let question = AttributionQuestion {
            canary: key,
            promoted: &digests,
            promoted_commit: &promoted.commit,
            running: &running,
            head,
            line: line.as_deref(),
            scope: &scope,
        };
        let attribution = loop {
            match attribute(&question, &mut memory.evidence, context.render.as_ref()) {
                AttributionStep::Done(attribution) => break attribution,
                AttributionStep::Need(need) => fetch_evidence(context, &mut memory.evidence, need).await?,
            }
        };
        answers.insert(key.clone(), Attributed { digest, commit: attribution.release, guilty: attribution.guilty });
    }
    Ok(answers)
}

/// Who brought a release in.
pub(super) struct Attributed {
    pub(super) digest: Digest,
    pub(super) commit: Option<Sha>,
    pub(super) guilty: Vec<Sha>,
}

/// Fetches what an answer needs. A commit that the repository has lost is noted as missing.
pub(crate) async fn fetch_evidence(
    context: &SourceContext,
    evidence: &mut Evidence,
    need: Need,
) -> Result<(), GitError> {
    let git = &context.source.git;
    for sha in need.snapshots {
        let mut found = git.snapshot(&sha, &[String::new()]).await;
        if matches!(found, Err(GitError::Missing(_))) && fetch_promoted(context, &sha).await? {
            found = git.snapshot(&sha, &[String::new()]).await;
        }
        match found {
            Ok(snapshot) => evidence.add_snapshot(sha, snapshot),
            Err(GitError::Missing(_)) => evidence.add_missing(sha),
            Err(error) => return Err(error),
        }
    }
    for sha in need.changes {
        match git.changes(&sha).await {
            Ok(changes) => evidence.add_changes(sha, changes),
            Err(GitError::Missing(_)) => evidence.add_missing(sha),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fetches a promoted commit that no branch has any more by the ref that keeps it. False when there is none.
async fn fetch_promoted(context: &SourceContext, sha: &Sha) -> Result<bool, GitError> {
    let view = context.state.view();
    let promoted = view.ledger.canaries.iter().filter_map(|(key, record)| Some((key, record.promoted.as_ref()?)));
    let names: Vec<String> = promoted
        .filter(|(_, promoted)| promoted.commit == *sha)
        .map(|(key, _)| promoted_ref(&context.cluster_name, key))
        .collect();
    Ok(!names.is_empty() && context.source.git.fetch(&names).await?.contains(&Some(sha.clone())))
}
