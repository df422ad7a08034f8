//! Refs that keep promoted commits fetchable, `refs/serin/CLUSTER/NS/NAME`: after a force push the remote may drop what
//! no branch names any more, and a revert needs it.

use std::collections::BTreeMap;

use super::source::SourceContext;
use crate::domain::{CanaryKey, Sha};
use crate::ports::PushOutcome;

/// Name of a canary's ref.
pub(super) fn promoted_ref(cluster: &str, canary: &CanaryKey) -> String {
    format!("refs/serin/{cluster}/{}/{}", canary.namespace, canary.name)
}

/// Points the refs at the promoted commits. `known`: where they point as far as we know. Nothing depends on success: it
/// is tried again at the next pass, and what is refused is said once.
pub(super) async fn keep_promoted(context: &SourceContext, known: &mut Option<BTreeMap<CanaryKey, Sha>>) {
    let view = context.state.view();
    let records = view.ledger.canaries.iter();
    let wanted: BTreeMap<&CanaryKey, &Sha> =
        records.filter_map(|(key, record)| Some((key, &record.promoted.as_ref()?.commit))).collect();
    if wanted.is_empty() {
        return;
    }
    let name = |key: &CanaryKey| promoted_ref(&context.cluster_name, key);
    let known = match known {
        Some(known) => known,
        None => {
            let names: Vec<String> = wanted.keys().map(|key| name(key)).collect();
            match context.source.git.fetch(&names).await {
                Ok(found) => {
                    let found = wanted.keys().zip(found).filter_map(|(key, sha)| Some(((*key).clone(), sha?)));
                    known.insert(found.collect())
                }
                Err(error) => {
                    tracing::debug!(%error, "reading the refs of promoted commits");
                    return;
                }
            }
        }
    };
    known.retain(|key, _| wanted.contains_key(key));
    let due: Vec<(&CanaryKey, &Sha)> =
        wanted.into_iter().filter(|(key, commit)| known.get(*key) != Some(*commit)).collect();
    let refs: Vec<(String, Sha)> = due.iter().map(|(key, commit)| (name(key), (*commit).clone())).collect();
    let outcomes = match refs.as_slice() {
        [] => Vec::new(),
        [(reference, commit)] => vec![context.source.git.push_ref(reference, commit, true).await],
        refs => context.source.git.push_refs(refs, true).await,
    };
    for ((key, commit), outcome) in due.into_iter().zip(outcomes) {
        context.pushed("promoted", &outcome);
        match outcome {
            Ok(PushOutcome::Pushed(_)) => {
                known.insert(key.clone(), commit.clone());
            }
            Ok(PushOutcome::Refused(words)) => {
                known.insert(key.clone(), commit.clone());
                let note = "refs/serin cannot be written";
                let first = context.state.update(|state| state.ledger.say_once(note)).await;
                if matches!(first, Ok(true)) {
                    tracing::error!(
                        source = context.source.settings.name,
                        words,
                        "{note}: after a force push a promoted \
                        commit may be gone, and its release can then not be restored in Git"
                    );
                }
            }
            Ok(PushOutcome::Moved) => {}
            Err(error) => tracing::warn!(canary = %key, %error, "keeping the promoted commit"),
        }
    }
}
