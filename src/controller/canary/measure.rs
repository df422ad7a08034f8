//! Measure: answers to the questions that `rollout::decide` asks, through metric providers and hooks.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use futures::future::join_all;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{Context, workloads};
use crate::api::canary::{CanaryView, Metric, Webhook};
use crate::api::{MetricTemplateSpec, Phase};
use crate::domain::{Object, ObjectKey, format_float, parse_duration, sha256_hex};
use crate::ports::{self, HookCall, HookReply, MetricQuery};
use crate::rollout::analysis::{Check, Source, checks};
use crate::rollout::template::{Model, render};
use crate::rollout::{Answers, Fault, HookAnswer, Question, Reading, queries};
use serde::Deserialize as _;

/// How long a metric provider may take (Flagger: 5 s).
const METRIC_TIMEOUT: Duration = Duration::from_secs(5);
/// How far back providers look that want to know, for a metric without an interval. Flagger fails there; for built-in and
/// inline queries it takes the same.
const WINDOW: Duration = Duration::from_secs(60);
/// The setting of a Canary: how many samples a value must rest on.
const MIN_SAMPLES: &str = "min-samples";
/// How long a hook may take when it does not say (Flagger: 10 s).
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

impl Context {
    /// Whose built-in queries this canary's metrics are asked with.
    pub(super) fn measured_by<'a>(&'a self, canary: &'a CanaryView) -> &'a str {
        queries::measured_by(canary.spec.provider.as_deref(), self.settings.provider.as_deref().unwrap_or_default())
    }
}

/// Asks all questions and adds the replies to `answers`. Metrics are measured side by side; hooks one after another, up
/// to the first that does not pass, as Flagger calls them.
pub(super) async fn answer(context: &Context, canary: &CanaryView, questions: &[Question], answers: &mut Answers) {
    for question in questions {
        match question {
            Question::Metrics => {
                let (readings, notes) = measure(context, canary).await.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
                answers.metrics = Some(readings);
                answers.notes = notes.into_iter().flatten().collect();
            }
            Question::Providers => answers.providers = Some(probe(context, canary).await),
            Question::Hook { index, phase, .. } => {
                let Some(hook) = canary.spec.analysis().and_then(|analysis| analysis.webhooks.get(*index)) else {
                    continue;
                };
                let reply = call(context, canary, hook, *phase, None).await;
                answers.hooks.insert(*index, reply);
            }
        }
    }
}

/// Calls one hook; `event` is the metadata of an event hook.
pub(super) async fn call(
    context: &Context,
    canary: &CanaryView,
    hook: &Webhook,
    phase: Phase,
    event: Option<BTreeMap<String, String>>,
) -> HookAnswer {
    let timeout = match hook.timeout.as_deref().filter(|text| text.len() > 1) {
        None => HOOK_TIMEOUT,
        Some(text) => match parse_duration(text) {
            Some(timeout) => timeout,
            None => return HookAnswer::Refused(format!("timeout `{text}` is not a duration such as 10s")),
        },
    };
    let mut metadata = hook.metadata.clone();
    metadata.extend(event.into_iter().flatten());
    let mut body = json!({
        "name": canary.key.name,
        "namespace": canary.key.namespace,
        "phase": phase.as_str(),
        "checksum": checksum(canary),
    });
    if !metadata.is_empty() {
        body["metadata"] = json!(metadata);
    }
    let call = HookCall {
        url: hook.url.clone(),
        body,
        timeout,
        retries: u32::try_from(hook.retries).unwrap_or(0),
        disable_tls: hook.disable_tls,
    };
    match context.ports.hooks.call(call).await {
        HookReply::Passed => HookAnswer::Passed,
        HookReply::Refused(words) => HookAnswer::Refused(words),
        HookReply::Unreachable(words) => HookAnswer::Unreachable(words),
    }
}

/// Opaque to receivers: stable between ticks, another with each revision.
fn checksum(canary: &CanaryView) -> String {
    let status = &canary.status;
    let text = json!([status.tracked_configs, status.last_applied_spec]).to_string();
    sha256_hex(text.as_bytes()).chars().take(16).collect()
}

/// One reading for each check, with a note where there is something to tell about the way it was read.
async fn measure(context: &Context, canary: &CanaryView) -> Vec<(Reading, Option<String>)> {
    let Some(analysis) = canary.spec.analysis() else { return Vec::new() };
    let checks = checks(analysis);
    join_all(checks.iter().map(|check| async move {
        let Some(metric) = analysis.metrics.get(check.metric) else {
            return (Reading::NoData("the metric is gone".to_owned()), None);
        };
        let found = match query(context, canary, metric, check).await {
            Ok(query) => reading(context.ports.metrics.query(query).await),
            Err(reading) => reading,
        };
        match found {
            Reading::NoData(_) => exported(context, canary, metric, check).await.unwrap_or((found, None)),
            Reading::Value(value) => (with_samples(context, canary, metric, check, value).await, None),
            found => (found, None),
        }
    }))
    .await
}

/// A value, when it rests on as many samples as `serin.dev/min-samples` of the Canary asks for. They are counted where it is
/// known how: requests for the built-in metrics, `serin.dev/samples` of a MetricTemplate for others.
async fn with_samples(context: &Context, canary: &CanaryView, metric: &Metric, check: &Check, value: f64) -> Reading {
    let Some(text) = canary.setting(MIN_SAMPLES) else { return Reading::Value(value) };
    let Some(wanted) = text.trim().parse::<u32>().ok().map(f64::from) else {
        return Reading::Inconclusive(format!("serin.dev/{MIN_SAMPLES} `{text}` is no number such as 100"));
    };
    let query = match samples_query(context, canary, metric, check).await {
        Ok(Some(query)) => query,
        Ok(None) => return Reading::Value(value),
        Err(reading) => return reading,
    };
    let samples = match context.ports.metrics.query(query).await {
        ports::Reading::Value(samples) => samples,
        ports::Reading::NoData(_) => 0.0,
        other => return reading(other),
    };
    if samples >= wanted {
        return Reading::Value(value);
    }
    let (value, samples) = (format_float(value), format_float(samples.round()));
    Reading::Inconclusive(format!(
        "the value {value} rests on {samples} samples, and serin.dev/{MIN_SAMPLES} is {text}"
    ))
}

async fn samples_query(
    context: &Context,
    canary: &CanaryView,
    metric: &Metric,
    check: &Check,
) -> Result<Option<MetricQuery>, Reading> {
    let model = model(context, canary, metric, check).await?;
    match check.source {
        Source::SuccessRate | Source::Duration => {
            let text = queries::requests(context.measured_by(canary), check.source, &model);
            Ok(text.map(|text| prometheus(context.metrics_server(canary), text)))
        }
        Source::Template => {
            let found = template(context, canary, metric).await;
            let (_, template) = found.map_err(|detail| Reading::ProviderError(Fault::Template, detail))?;
            match template.samples {
                None => Ok(None),
                Some(text) => template_query(context, canary, metric, &model, Some(&text)).await.map(Some),
            }
        }
        Source::Inline | Source::Unusable => Ok(None),
    }
}

/// What a Prometheus has under the label that it renamed; only a value counts, anything else changes nothing.
async fn exported(
    context: &Context,
    canary: &CanaryView,
    metric: &Metric,
    check: &Check,
) -> Option<(Reading, Option<String>)> {
    let model = Model::new(canary, metric, "1m");
    let text = queries::exported(context.measured_by(canary), check.source, &model)?;
    match context.ports.metrics.query(prometheus(context.metrics_server(canary), text)).await {
        ports::Reading::Value(value) => Some((Reading::Value(value), Some(queries::exported_note(&metric.name)))),
        _ => None,
    }
}

fn reading(reading: ports::Reading) -> Reading {
    match reading {
        ports::Reading::Value(value) => Reading::Value(value),
        ports::Reading::NoData(detail) => Reading::NoData(detail),
        ports::Reading::Inconclusive(detail) => Reading::Inconclusive(detail),
        ports::Reading::ProviderError(detail) => Reading::ProviderError(Fault::Query, detail),
    }
}

/// The query of one check, or the reading that stands in for it.
async fn query(context: &Context, canary: &CanaryView, metric: &Metric, check: &Check) -> Result<MetricQuery, Reading> {
    let (server, provider) = (context.metrics_server(canary), context.measured_by(canary));
    let model = model(context, canary, metric, check).await?;
    match check.source {
        Source::SuccessRate | Source::Duration => {
            let text = queries::builtin(provider, check.source, &model).ok_or_else(|| {
                let detail = format!("provider {provider} has no built-in query {}", metric.name);
                Reading::ProviderError(Fault::Provider(provider.to_owned()), detail)
            })?;
            Ok(prometheus(server, text))
        }
        Source::Inline => {
            let text = metric.query.as_deref().unwrap_or_default();
            let text =
                render(text, &model).map_err(|error| Reading::ProviderError(Fault::Render, error.to_string()))?;
            Ok(prometheus(server, text))
        }
        Source::Template => template_query(context, canary, metric, &model, None).await,
        Source::Unusable => Err(Reading::NoData("no usable metrics template and query were configured".to_owned())),
    }
}

/// What a query is made with.
async fn model(context: &Context, canary: &CanaryView, metric: &Metric, check: &Check) -> Result<Model, Reading> {
    let window = if check.source == Source::Template { "" } else { "1m" };
    let mut model = Model::new(canary, metric, window);
    let provider = context.provider(canary);
    if provider == "knative" {
        let revision = workloads::latest_revision(context, canary).await;
        model.variables.entry("revision".to_owned()).or_insert(
            revision.map_err(|detail| Reading::ProviderError(Fault::Provider(provider.to_owned()), detail))?,
        );
    }
    Ok(model)
}

fn prometheus(address: &str, query: String) -> MetricQuery {
    MetricQuery {
        provider: "prometheus".to_owned(),
        address: address.to_owned(),
        query,
        headers: BTreeMap::new(),
        secret: BTreeMap::new(),
        region: None,
        window: WINDOW,
        insecure_skip_verify: false,
        timeout: METRIC_TIMEOUT,
    }
}

/// The query of a metric's template, or another text sent the same way.
async fn template_query(
    context: &Context,
    canary: &CanaryView,
    metric: &Metric,
    model: &Model,
    other: Option<&str>,
) -> Result<MetricQuery, Reading> {
    let (namespace, Template { spec: template, .. }) =
        template(context, canary, metric).await.map_err(|detail| Reading::ProviderError(Fault::Template, detail))?;
    let text = render(other.unwrap_or(&template.query), model)
        .map_err(|e| Reading::ProviderError(Fault::Render, e.to_string()))?;
    let window = match metric.interval.as_deref().filter(|interval| !interval.is_empty()) {
        None => WINDOW,
        Some(text) => parse_duration(text).filter(|window| !window.is_zero()).ok_or_else(|| {
            let detail = format!("interval `{text}` is not a duration such as 1m");
            Reading::ProviderError(Fault::Provider(template.provider.type_.clone()), detail)
        })?,
    };
    let mut query = template_request(context, &namespace, template, text).await?;
    query.window = window;
    Ok(query)
}

/// A rendered query of a template, with the credentials of its provider.
async fn template_request(
    context: &Context,
    namespace: &str,
    template: MetricTemplateSpec,
    query: String,
) -> Result<MetricQuery, Reading> {
    let provider = template.provider;
    let secret = match &provider.secret_ref {
        None => BTreeMap::new(),
        Some(reference) => secret(context, namespace, &reference.name)
            .await
            .map_err(|detail| Reading::ProviderError(Fault::Secret(reference.name.clone()), detail))?,
    };
    // An influx query reads more than one number (Flagger: 15 s).
    let timeout = if provider.type_ == "influxdb" { 3 * METRIC_TIMEOUT } else { METRIC_TIMEOUT };
    Ok(MetricQuery {
        provider: provider.type_,
        address: provider.address.unwrap_or_default(),
        query,
        headers: provider.headers,
        secret,
        region: provider.region,
        window: WINDOW,
        insecure_skip_verify: provider.insecure_skip_verify,
        timeout,
    })
}

/// A MetricTemplate, as far as it matters here.
struct Template {
    spec: MetricTemplateSpec,
    /// The query of its annotation `serin.dev/samples`: how many samples a value of it rests on.
    samples: Option<String>,
}

/// The metric's template and the namespace that it lives in. References are checked at use.
async fn template(context: &Context, canary: &CanaryView, metric: &Metric) -> Result<(String, Template), String> {
    let reference = metric.template_ref.as_ref().ok_or("the metric has no templateRef")?;
    let namespace = reference.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(&canary.key.namespace);
    if context.settings.no_cross_namespace_refs && namespace != canary.key.namespace {
        return Err(blocked("metric template", &reference.name, namespace));
    }
    let key = ObjectKey::namespaced(crate::api::API_VERSION, "MetricTemplate", namespace, &reference.name);
    let object = context.ports.cluster.get(&key).await.map_err(|error| error.to_string())?;
    let object = object.ok_or_else(|| format!("metrictemplate.flagger.app \"{}\" not found", reference.name))?;
    let spec = object.0.get("spec").unwrap_or(&Value::Null);
    let spec = MetricTemplateSpec::deserialize(spec).map_err(|error| error.to_string())?;
    let samples = object.annotation("serin.dev/samples").map(str::to_owned);
    Ok((namespace.to_owned(), Template { spec, samples }))
}

/// What is said of a reference to another namespace that the controller's flags forbid.
pub(super) fn blocked(what: &str, name: &str, namespace: &str) -> String {
    format!("can't access {what} {name}.{namespace}, cross-namespace references are blocked")
}

/// The values of a Secret, which are redacted from now on wherever they would leave the daemon.
pub(super) async fn secret(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, SecretString>, String> {
    let key = ObjectKey::namespaced("v1", "Secret", namespace, name);
    let object = context.ports.cluster.get(&key).await.map_err(|error| error.to_string())?;
    let object = object.ok_or_else(|| format!("secrets \"{name}\" not found"))?;
    context.registry.learn([object.as_ref()]);
    Ok(secret_data(&object))
}

fn secret_data(object: &Object) -> BTreeMap<String, SecretString> {
    let data = object.at("/data").and_then(Value::as_object).into_iter().flatten();
    data.filter_map(|(key, value)| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str()?).ok()?;
        Some((key.clone(), SecretString::from(String::from_utf8(bytes).ok()?)))
    })
    .collect()
}

/// Whether the metric providers of this canary answer, and take their credentials.
async fn probe(context: &Context, canary: &CanaryView) -> Result<(), String> {
    let metrics = canary.spec.analysis().map(|analysis| analysis.metrics.as_slice()).unwrap_or_default();
    for metric in metrics {
        let query = if let Some(reference) = &metric.template_ref {
            let namespace = reference.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(&canary.key.namespace);
            let which = format!("metric template {}.{namespace}", reference.name);
            let found = template(context, canary, metric).await;
            let (namespace, template) = found.map_err(|detail| format!("{which} error: {detail}"))?;
            match template_request(context, &namespace, template.spec, String::new()).await {
                Ok(query) => query,
                Err(Reading::ProviderError(Fault::Secret(name), detail)) => {
                    return Err(format!("{which} secret {name} error: {detail}"));
                }
                Err(Reading::ProviderError(_, detail)) => return Err(format!("{which} error: {detail}")),
                Err(_) => continue,
            }
        } else {
            prometheus(context.metrics_server(canary), String::new())
        };
        context.ports.metrics.probe(query).await?;
    }
    Ok(())
}
