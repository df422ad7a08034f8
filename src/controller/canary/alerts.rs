//! Alerts: which channels hear of a notice, and what they are told. They are sent in the background, once; nothing
//! depends on whether they arrive.
//!
//! Source: Flagger `pkg/controller/events.go`: a canary's own alerts take the place of the controller's.

use std::sync::PoisonError;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize as _;
use serde_json::Value;

use super::background::Line;
use super::{Context, measure};
use crate::api::AlertProviderSpec;
use crate::api::canary::{Alert, CanaryView};
use crate::domain::ObjectKey;
use crate::ports::{AlertCall, AlertMessage, EventType, KubeEvent};
use crate::rollout::{AlertText, Severity, alerts};

/// How long a channel may take (Flagger: 5 s).
const TIMEOUT: Duration = Duration::from_secs(5);

/// Hands an alert to the canary's channels, or to the controller's when it has none.
pub(super) fn send(context: &Context, canary: &CanaryView, alert: &AlertText) {
    let message = message(context, canary, alert);
    let own = canary.spec.analysis().map(|analysis| analysis.alerts.as_slice()).unwrap_or_default();
    if own.is_empty() {
        let Some(channel) = context.settings.outgoing.channel.clone() else { return };
        let call = AlertCall {
            type_: channel.type_,
            address: channel.address,
            token: channel.token,
            username: channel.username,
            channel: channel.channel,
            proxy: channel.proxy,
            message,
            timeout: TIMEOUT,
        };
        let context = context.clone();
        let about = call.message.about.clone();
        let line = Line { owner: String::new(), name: format!("{about} alerts") };
        context.background.clone().alert(line, async move {
            deliver(&context, "the controller's channel", call).await;
        });
        return;
    }
    for target in own.iter().filter(|target| is_wanted(target, alert.severity)) {
        let (context, canary, target, message) = (context.clone(), canary.clone(), target.clone(), message.clone());
        let line = Line { owner: canary.key.namespace.clone(), name: format!("{} alert {}", canary.key, target.name) };
        context.background.clone().alert(line, async move {
            match call(&context, &canary, &target, message).await {
                Ok(call) => deliver(&context, &target.name, call).await,
                Err(error) => tell(&context, &canary, &target.name, &error).await,
            }
        });
    }
}

/// Says why an alert cannot be sent, to those who look at the Canary: nobody reads of it in the channel. The same words are
/// one Event, however often.
async fn tell(context: &Context, canary: &CanaryView, name: &str, error: &str) {
    let error = context.registry.redact(error);
    tracing::warn!(canary = %canary.key, alert = name, error, "alert not sent");
    let event = KubeEvent {
        about: canary.key.object_key(),
        uid: canary.uid.clone(),
        type_: EventType::Warning,
        message: format!("Alert {name} not sent: {error}"),
    };
    if context
        .alerts_told
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert((canary.key.clone(), event.message.clone()))
    {
        context.ports.cluster.publish(event).await;
    }
}

async fn deliver(context: &Context, name: &str, call: AlertCall) {
    let canary = call.message.about.clone();
    if let Err(error) = context.ports.alerts.send(call).await {
        let error = context.registry.redact(&error);
        tracing::warn!(canary, alert = name, error, "alert not sent");
    }
}

/// Whether a channel hears of this severity. Q-08: one that says nothing about it means `info`, as Flagger's documents
/// have it.
fn is_wanted(target: &Alert, severity: Severity) -> bool {
    let least = match target.severity.as_deref().unwrap_or_default() {
        "error" => Severity::Error,
        "warn" => Severity::Warn,
        _ => Severity::Info,
    };
    severity >= least
}

fn message(context: &Context, canary: &CanaryView, alert: &AlertText) -> AlertMessage {
    let cluster = context.settings.outgoing.cluster_name.iter();
    let mut fields: Vec<_> = cluster.map(|name| ("Cluster".to_owned(), name.clone())).collect();
    if alert.metadata {
        fields.extend(alerts::fields(canary));
    }
    AlertMessage {
        about: format!("{}.{}", canary.key.name, canary.key.namespace),
        text: context.registry.redact(&alert.text),
        is_error: alert.severity == Severity::Error,
        fields,
    }
}

/// What to send to an alert's provider. References are checked at use.
async fn call(
    context: &Context,
    canary: &CanaryView,
    target: &Alert,
    message: AlertMessage,
) -> Result<AlertCall, String> {
    let reference = &target.provider_ref;
    let namespace = reference.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(&canary.key.namespace);
    if context.settings.no_cross_namespace_refs && namespace != canary.key.namespace {
        return Err(measure::blocked("alert provider", &reference.name, namespace));
    }
    let key = ObjectKey::namespaced(crate::api::API_VERSION, "AlertProvider", namespace, &reference.name);
    let object = context.ports.cluster.get(&key).await.map_err(|error| error.to_string())?;
    let object = object.ok_or_else(|| format!("alertprovider.flagger.app \"{}\" not found", reference.name))?;
    let spec = object.0.get("spec").unwrap_or(&Value::Null);
    let spec = AlertProviderSpec::deserialize(spec).map_err(|error| error.to_string())?;
    let mut address = spec.address.filter(|address| !address.is_empty()).map(SecretString::from);
    let mut token = None;
    if let Some(secret) = &spec.secret_ref {
        let mut data = measure::secret(context, namespace, &secret.name).await?;
        // The Secret's address counts, as the one in the provider would be readable by all.
        let found = data.remove("address");
        address = Some(found.ok_or_else(|| format!("secret {} has no key address", secret.name))?);
        token = data.remove("token");
    }
    Ok(AlertCall {
        type_: spec.type_,
        address: address.ok_or("it has neither address nor secretRef")?,
        token,
        username: spec.username.unwrap_or_default(),
        channel: spec.channel.unwrap_or_default(),
        proxy: spec.proxy,
        message,
        timeout: TIMEOUT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q08_an_alert_without_a_severity_hears_everything() {
        let wanted = |least: Option<&str>| {
            let target = Alert { severity: least.map(str::to_owned), ..Alert::default() };
            [Severity::Info, Severity::Warn, Severity::Error].map(|severity| is_wanted(&target, severity))
        };
        assert_eq!(wanted(None), [true, true, true]);
        assert_eq!(wanted(Some("")), [true, true, true]);
        assert_eq!(wanted(Some("info")), [true, true, true]);
        assert_eq!(wanted(Some("warn")), [false, true, true]);
        assert_eq!(wanted(Some("error")), [false, false, true]);
    }
}
