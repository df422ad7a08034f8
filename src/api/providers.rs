//! `MetricTemplate` and `AlertProvider`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// A query with its provider.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "MetricTemplate",
    namespaced,
    category = "all",
    schema = "disabled",
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".spec.provider.type"}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["provider", "query"]))]
pub struct MetricTemplateSpec {
    /// Where the query is sent.
    pub provider: MetricProvider,
    /// Query, a Go template.
    pub query: String,
}

/// Where a metric query is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["type"]))]
pub struct MetricProvider {
    /// Kind of the provider, such as `prometheus`.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["prometheus", "influxdb", "datadog", "externalmetrics", "stackdriver", "cloudwatch", "newrelic", "graphite", "dynatrace", "keptn", "splunk"]))]
    pub type_: String,
    /// Base URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Extra request headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Secret with credentials, in the template's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// AWS region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Skip certificate verification.
    pub insecure_skip_verify: bool,
}

/// Name of an object of the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(transform = schema::bare, extend("required" = ["name"]))]
pub struct LocalRef {
    /// Name of the object.
    pub name: String,
}

/// A chat channel.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "AlertProvider",
    namespaced,
    category = "all",
    schema = "disabled",
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("oneOf" = [{"required": ["type", "address"]}, {"required": ["type", "secretRef"]}]))]
pub struct AlertProviderSpec {
    /// slack, msteams, discord, rocket or gchat.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["slack", "msteams", "discord", "rocket", "gchat"]))]
    pub type_: String,
    /// Channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// User name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Webhook URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Proxy URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Secret with `address` and perhaps `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
}
