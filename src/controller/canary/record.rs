//! Record: what a decision leaves behind: verdict, run memory, status, events, hooks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use secrecy::ExposeSecret as _;

use super::Context;
use super::background::Line;
use super::observe::Scene;
use super::{alerts, measure};
use crate::api::canary::{CanaryView, Webhook};
use crate::api::{CanaryStatus, WebhookType};
use crate::domain::{FieldManager, Object, sha256_hex};
use crate::ports::{ClusterError, EventType, KubeEvent};
use crate::rollout::{Answers, Decision, Level, Notice, Observation, RUN_ANNOTATION, hooks};

/// Writes run memory and status, each only when it differs. The resource version makes a decision from an older Canary fail
/// with a conflict (I5).
pub(super) async fn write(
    context: &Context,
    canary: &CanaryView,
    seen: &Observation,
    decision: &Decision,
) -> Result<(), ClusterError> {
    let key = canary.key.object_key();
    let cluster = &context.ports.cluster;
    let mut version = match cluster.get(&key).await? {
        Some(live) if is_current(canary, &live) => live.resource_version().to_owned(),
        _ => canary.resource_version.clone(),
    };
    if decision.run != seen.run {
        let patch = json!({"metadata": {
            "resourceVersion": version,
            "annotations": {RUN_ANNOTATION: decision.run.text()},
        }});
        version = cluster.patch(&key, None, &patch, FieldManager::Engine).await?.resource_version().to_owned();
    }
    if decision.status != canary.status {
        let patch = status_patch(canary, decision, &version);
        cluster.patch(&key, Some("status"), &patch, FieldManager::Engine).await?;
    }
    Ok(())
}

/// Whether a decision about `canary` holds for the live one: its spec, its status and its run memory are what was read.
/// Annotations of operators and finalizers, our own among them, may have changed meanwhile.
pub(super) fn is_current(canary: &CanaryView, live: &Object) -> bool {
    let run = |annotations: &BTreeMap<String, String>| annotations.get(RUN_ANNOTATION).cloned();
    CanaryView::from_object(live).is_ok_and(|live| {
        live.uid == canary.uid
            && live.generation == canary.generation
            && live.status == canary.status
            && run(&live.annotations) == run(&canary.annotations)
    })
}

/// The whole status as a merge patch: what is not said any more is set to null.
fn status_patch(canary: &CanaryView, decision: &Decision, version: &str) -> Value {
    let old = serde_json::to_value(&canary.status).unwrap_or_default();
    let mut new = serde_json::to_value(&decision.status).unwrap_or_default();
    nulls(&old, &mut new);
    json!({"metadata": {"resourceVersion": version}, "status": new})
}

fn nulls(old: &Value, new: &mut Value) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        for (key, old) in old {
            match new.get_mut(key) {
                Some(new) => nulls(old, new),
                None => {
                    new.insert(key.clone(), Value::Null);
                }
            }
        }
    }
}

/// Publishes notices as Events, and to the canary's event hooks in the background. `after` is the status that the tick
/// leaves: the checksum in a payload belongs to its phase.
pub(super) async fn tell(context: &Context, canary: &CanaryView, after: &CanaryStatus, notices: &[Notice]) {
    let after = CanaryView { status: after.clone(), ..canary.clone() };
    for notice in notices {
        let canary = if notice.phase == after.status.phase { &after } else { canary };
        let notice = &Notice { message: context.registry.redact(&notice.message), ..notice.clone() };
        let type_ = match notice.level {
            Level::Normal => EventType::Normal,
            Level::Warning => EventType::Warning,
        };
        tracing::info!(canary = %canary.key, phase = %notice.phase, "{}", notice.message);
        let event = KubeEvent {
            about: canary.key.object_key(),
            uid: canary.uid.clone(),
            type_,
            message: notice.message.clone(),
        };
        context.ports.cluster.publish(event).await;
        event_hooks(context, canary, notice, type_);
        if let Some(alert) = &notice.alert {
            alerts::send(context, canary, alert);
        }
    }
}

/// Hands a notice to the event hooks, or to the controller's own when the canary has none, without waiting for them: a
/// slow receiver must not slow a rollout.
fn event_hooks(context: &Context, canary: &CanaryView, notice: &Notice, type_: EventType) {
    let webhooks = canary.spec.analysis().map(|analysis| analysis.webhooks.as_slice()).unwrap_or_default();
    let timestamp = context.ports.clock.now().as_millisecond().to_string();
    let type_ = match type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let mut hooks: Vec<Webhook> = webhooks.iter().filter(|hook| hook.type_ == WebhookType::Event).cloned().collect();
    // The receivers of a team are its own, and those of the controller everybody's.
    let owner = if hooks.is_empty() { String::new() } else { canary.key.namespace.clone() };
    if hooks.is_empty() {
        let url = context.settings.outgoing.event_webhook.iter();
        hooks.extend(url.map(|url| Webhook {
            name: "event-webhook".to_owned(),
            type_: WebhookType::Event,
            url: url.expose_secret().to_owned(),
            ..Webhook::default()
        }));
    }
    for hook in hooks {
        let metadata = BTreeMap::from([
            ("eventMessage".to_owned(), notice.message.clone()),
            ("eventType".to_owned(), type_.to_owned()),
            ("timestamp".to_owned(), timestamp.clone()),
        ]);
        let (context, canary, hook, phase) = (context.clone(), canary.clone(), hook, notice.phase);
        // A URL may hold credentials, and a line is logged.
        let name = format!("{} event {}", canary.key, sha256_hex(hook.url.as_bytes()));
        context.background.clone().event(Line { owner: owner.clone(), name }, async move {
            let reply = measure::call(&context, &canary, &hook, phase, Some(metadata)).await;
            if reply != crate::rollout::HookAnswer::Passed {
                tracing::warn!(canary = %canary.key, hook = hook.name, ?reply, "event hook failed");
            }
        });
    }
}

/// The hooks that follow the status (post-rollout), what they answered, and the closing events.
pub(super) async fn close(context: &Context, scene: &Scene, decision: &Decision) {
    let canary = &scene.canary;
    let mut answers = Answers::default();
    for question in &decision.after {
        measure::answer(context, canary, std::slice::from_ref(question), &mut answers).await;
        if answers.hooks.values().any(|answer| *answer != crate::rollout::HookAnswer::Passed) {
            break;
        }
    }
    tell(context, canary, &decision.status, &hooks::told(canary, decision.status.phase, &answers.hooks)).await;
    tell(context, canary, &decision.status, &decision.closing).await;
}

/// Tells once that a Canary cannot be read, by a fingerprint that stays the same while it does not change.
pub(super) async fn unreadable(context: &Context, object: &Object, message: String) {
    let message = context.registry.redact(&message);
    let event = KubeEvent { about: object.key(), uid: object.uid().to_owned(), type_: EventType::Warning, message };
    context.ports.cluster.publish(event).await;
}
