//! The part of a Canary that says how it is judged: steps, metrics, hooks, alerts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{number, schema};

/// How a canary is judged and how traffic moves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("oneOf" = [
    {"required": ["interval", "threshold", "iterations"]},
    {"required": ["interval", "threshold", "stepWeight"]},
    {"required": ["interval", "threshold", "stepWeights"]},
]))]
pub struct Analysis {
    /// Tick period, a Go duration; 60 s when unset, never below 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interval")]
    pub interval: Option<String>,
    /// Failed checks before rollback, at least 1.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub threshold: i64,
    /// Number of Blue/Green or A/B iterations.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub iterations: i64,
    /// Weight at which the canary is promoted, 100 when unset.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub max_weight: i64,
    /// Weight added at each step.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub step_weight: i64,
    /// Absolute weights of the steps.
    #[serde(deserialize_with = "number::ints", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::numbers")]
    pub step_weights: Vec<i64>,
    /// Weight given back to the primary at each promotion step, all at once when 0.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub step_weight_promotion: i64,
    /// Mirror traffic before shifting it.
    pub mirror: bool,
    /// Percent of mirrored traffic.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub mirror_weight: i64,
    /// Percent of the primary's updated replicas that must be available.
    #[serde(deserialize_with = "number::optional_int", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub primary_ready_threshold: Option<i64>,
    /// Percent of the canary's updated replicas that must be available.
    #[serde(deserialize_with = "number::optional_int", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub canary_ready_threshold: Option<i64>,
    /// A/B conditions.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::analysis_match")]
    pub matches: Vec<Value>,
    /// Metrics in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Hooks in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// Alerts in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<Alert>,
    /// Cookies that keep a user on one side.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::session_affinity")]
    pub session_affinity: Option<SessionAffinity>,
}

/// Cookies that keep a user on the side that answered first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinity {
    /// Name of the cookie that the canary's users get.
    pub cookie_name: String,
    /// Name of the cookie that the primary's users get until the next tick; none when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_cookie_name: Option<String>,
    /// Attribute `Domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Attribute `HttpOnly`.
    pub http_only: bool,
    /// Attribute `Max-Age` of the canary's cookie in seconds, a day when unset.
    #[serde(deserialize_with = "number::optional_int", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// Attribute `Partitioned`.
    pub partitioned: bool,
    /// Attribute `Path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Attribute `SameSite`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_site: Option<String>,
    /// Attribute `Secure`.
    pub secure: bool,
}

/// One metric of the analysis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["name"]))]
pub struct Metric {
    /// Name; `request-success-rate` and `request-duration` are built in.
    pub name: String,
    /// Query window, `1m` for built-in and inline queries when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interval")]
    pub interval: Option<String>,
    /// v1alpha3 form: minimum for the success rate, maximum for everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Allowed range; when present `threshold` is ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold_range: Option<ThresholdRange>,
    /// Inline PromQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Template of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<CrossNamespaceRef>,
    /// Variables of the template.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub template_variables: BTreeMap<String, String>,
}

/// Inclusive range of allowed values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare)]
pub struct ThresholdRange {
    /// Smallest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Reference to an object that may be in another namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["name"]))]
pub struct CrossNamespaceRef {
    /// Name of the object.
    pub name: String,
    /// Namespace of the object, the canary's when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Kind of a hook: when it is called and what its answer means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = schema::words)]
pub enum WebhookType {
    /// Unset, which means `rollout`.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Gate before the canary is scaled up.
    ConfirmRollout,
    /// Check before the first traffic.
    PreRollout,
    /// Check at every later tick.
    Rollout,
    /// Gate before promotion.
    ConfirmPromotion,
    /// Told after the end.
    PostRollout,
    /// Told of every event.
    Event,
    /// Asks for a rollback.
    Rollback,
    /// Gate before every weight increase.
    ConfirmTrafficIncrease,
}

/// One hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["name", "url"]))]
pub struct Webhook {
    /// Name, used in events.
    pub name: String,
    /// When it is called.
    #[serde(rename = "type")]
    pub type_: WebhookType,
    /// Where it is sent.
    #[schemars(extend("format" = "url"))]
    pub url: String,
    /// Timeout of an attempt, a Go duration, `10s` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interval")]
    pub timeout: Option<String>,
    /// Further attempts.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub retries: i64,
    /// Sent as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// No alert when it refuses.
    pub mute_alert: bool,
    /// Skip certificate verification.
    #[serde(rename = "disableTLS")]
    pub disable_tls: bool,
}

/// One alert target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["name", "providerRef"]))]
pub struct Alert {
    /// Name of the alert.
    pub name: String,
    /// Least severity that is sent: info, warn or error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["", "info", "warn", "error"]))]
    pub severity: Option<String>,
    /// The AlertProvider.
    pub provider_ref: CrossNamespaceRef,
}
