//! `serin promote`, `rollback`, `pause`, `resume`, `retry`, and `apply --confirm-prune`: what people ask for, written as
//! annotations that the daemon watches. Nothing is done here that `kubectl annotate` could not do.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::args::{ApplyArgs, ClusterArgs};
use super::clock::SystemClock;
use super::kube::{CANARIES, CONFIG_MAPS, Direct};
use super::output;
use crate::api::{CanaryView, Phase};
use crate::controller::{CONFIRM_PRUNE, KEEP_GIT, state_key};
use crate::domain::CanaryKey;
use crate::ports::Clock as _;

/// What may be asked of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Promote,
    Rollback { keep_git: bool },
    Pause,
    Resume,
    Retry,
}

/// Writes an intent on a canary. Exit code 1 when it would have no effect.
pub(super) fn run(key: &CanaryKey, cluster: &ClusterArgs, intent: Intent) -> anyhow::Result<ExitCode> {
    runtime(async {
        let direct = Direct::connect(cluster).await?;
        let Some(object) = direct.get(CANARIES, &key.namespace, &key.name).await? else {
            bail!("there is no canary {key}{}", nearest(&direct, key).await);
        };
        let canary = CanaryView::from_object(&object).map_err(|error| {
            anyhow::anyhow!("reading canary {key}: {error}: `serin check` on its manifest says more")
        })?;
        if let Some(why) = pointless(&canary, intent) {
            bail!("{why}");
        }
        let patch = json!({"metadata": {"annotations": annotations(intent, &token())}});
        direct.merge(CANARIES, &key.namespace, &key.name, &patch).await?;
        output::line(&format!("canary {key}: {}", done(intent)));
        Ok(ExitCode::SUCCESS)
    })
}

/// Confirms a prune that the guard has stopped.
pub(super) fn confirm_prune(args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let (source, sha) = (&args.confirm_prune.0, &args.confirm_prune.1);
    runtime(async {
        let direct = Direct::connect(&args.cluster).await?;
        let key = state_key(&args.system_namespace, source);
        if direct.get(CONFIG_MAPS, &args.system_namespace, &key.name).await?.is_none() {
            bail!(
                "there is no ConfigMap {} in namespace {}: `serin get sources` lists the sources, --system-namespace names \
                 the namespace (`leaderElection.namespace` in serin.yaml)",
                key.name,
                args.system_namespace
            );
        }
        let patch = json!({"metadata": {"annotations": {CONFIRM_PRUNE: sha}}});
        direct.merge(CONFIG_MAPS, &args.system_namespace, &key.name, &patch).await?;
        output::line(&format!("source {source}: the prune of {sha} is confirmed; it is done while {sha} is the head"));
        Ok(ExitCode::SUCCESS)
    })
}

fn runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let code = runtime.block_on(work);
    runtime.shutdown_background();
    code
}

/// A word that no intent before had: each is obeyed once.
fn token() -> String {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", SystemClock.now().strftime("%Y%m%dT%H%M%SZ"), unique.get(..8).unwrap_or(&unique))
}

fn annotations(intent: Intent, token: &str) -> Value {
    match intent {
        Intent::Promote => json!({"serin.dev/promote": token}),
        Intent::Rollback { keep_git: false } => json!({"serin.dev/rollback": token}),
        Intent::Rollback { keep_git: true } => json!({"serin.dev/rollback": format!("{token}{KEEP_GIT}")}),
        Intent::Pause => json!({"serin.dev/pause": "true"}),
        Intent::Resume => json!({"serin.dev/pause": null}),
        Intent::Retry => json!({"serin.dev/retry": token}),
    }
}

/// Why an intent would change nothing: better said than written and forgotten.
fn pointless(canary: &CanaryView, intent: Intent) -> Option<String> {
    let key = &canary.key;
    let phase = canary.status.phase;
    let paused = canary.setting("pause").is_some_and(|value| !value.is_empty() && value != "false");
    let state = if phase == Phase::Unset { "new" } else { phase.as_str() };
    match intent {
        Intent::Promote | Intent::Rollback { .. } if !phase.is_active() => {
            let hint =
                if phase == Phase::Failed { format!("; `serin retry {key}` releases it again") } else { String::new() };
            Some(format!("canary {key} is {state}: no release is under way{hint}"))
        }
        Intent::Retry if phase.is_active() => {
            Some(format!("canary {key} is {state}: its release is under way already"))
        }
        Intent::Retry if phase != Phase::Failed => Some(format!(
            "canary {key} is {state}: nothing has failed; to release a reverted version again, commit it first"
        )),
        Intent::Pause if paused => Some(format!("canary {key} is paused already: `serin resume {key}` lets it go on")),
        Intent::Resume if !paused => Some(format!("canary {key} is not paused")),
        _ => None,
    }
}

fn done(intent: Intent) -> &'static str {
    match intent {
        Intent::Promote => "gates are open; it is promoted after the next passed check",
        Intent::Rollback { keep_git: false } => "rolls back; the version is condemned and reverted in Git",
        Intent::Rollback { keep_git: true } => "rolls back; the version is condemned, Git stays as it is",
        Intent::Pause => "paused: nothing starts and no weight rises; checks and rollbacks go on",
        Intent::Resume => "goes on",
        Intent::Retry => "released again",
    }
}

/// A canary whose name is like the one that was asked for.
async fn nearest(direct: &Direct, key: &CanaryKey) -> String {
    let all = direct.list(CANARIES, None, None).await.unwrap_or_default();
    let names = all.iter().map(|object| format!("{}/{}", object.namespace().unwrap_or_default(), object.name()));
    let near = names.map(|name| (strsim::damerau_levenshtein(&name, &key.to_string()), name)).min();
    match near.filter(|(distance, name)| *distance <= 1 + name.len() / 4) {
        Some((_, name)) => format!(", did you mean {name}?"),
        None => ": `serin get canaries` lists them".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Object;

    fn canary(phase: &str, pause: &str) -> CanaryView {
        CanaryView::from_object(&Object(json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": "web", "namespace": "shop", "annotations": {"serin.dev/pause": pause}},
            "spec": {"targetRef": {"kind": "Deployment", "name": "web"}, "service": {"port": 80}},
            "status": {"phase": phase},
        })))
        .expect("a canary")
    }

    #[test]
    fn an_intent_without_effect_is_told() {
        let rollback = Intent::Rollback { keep_git: false };
        for (phase, pause, intent, want) in [
            ("Progressing", "", Intent::Promote, None),
            ("Waiting", "", rollback, None),
            ("Succeeded", "", Intent::Promote, Some("no release is under way")),
            ("Failed", "", rollback, Some("`serin retry shop/web`")),
            ("Failed", "", Intent::Retry, None),
            ("Progressing", "", Intent::Retry, Some("under way already")),
            ("Initialized", "", Intent::Retry, Some("nothing has failed")),
            ("", "", rollback, Some("canary shop/web is new")),
            ("Initialized", "", Intent::Pause, None),
            ("Initialized", "true", Intent::Pause, Some("paused already")),
            ("Initialized", "true", Intent::Resume, None),
            ("Initialized", "false", Intent::Resume, Some("not paused")),
        ] {
            let why = pointless(&canary(phase, pause), intent);
            match want {
                None => assert_eq!(why, None, "{phase} {intent:?}"),
                Some(want) => {
                    assert!(why.as_ref().is_some_and(|why| why.contains(want)), "{phase} {intent:?}: {why:?}")
                }
            }
        }
    }

    #[test]
    fn tokens_differ_and_keep_git_is_marked() {
        assert_ne!(token(), token());
        assert_eq!(annotations(Intent::Resume, "t"), json!({"serin.dev/pause": null}));
        assert_eq!(annotations(Intent::Rollback { keep_git: true }, "t"), json!({"serin.dev/rollback": "t-keep-git"}));
    }
}
