//! Metric providers: one query, one reading.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

/// One query, ready to be sent.
#[derive(Debug, Clone)]
pub struct MetricQuery {
    /// Provider kind (`prometheus`, …).
    pub provider: String,
    /// Base URL.
    pub address: String,
    /// Query text, rendered.
    pub query: String,
    /// Extra request headers.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Keys of the referenced Secret.
    pub secret: BTreeMap<String, SecretString>,
    /// Region of the cloud.
    pub region: Option<String>,
    /// The metric's interval, for providers that do not know it from the query.
    pub window: Duration,
    /// Skip certificate verification.
    pub insecure_skip_verify: bool,
    /// Timeout of the request.
    pub timeout: Duration,
}

/// What a provider answered. Only a [`Reading::Value`] can pass a check.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// A finite number.
    Value(f64),
    /// Empty, missing or NaN; with detail.
    NoData(String),
    /// An answer that cannot be judged: several series, ±Inf; with detail.
    Inconclusive(String),
    /// Transport, 4xx/5xx, parse, secret or template failure; with detail, credentials redacted.
    ProviderError(String),
}

/// Asks metric providers.
#[async_trait]
pub trait MetricSource: Send + Sync {
    /// Sends one query. Never fails: every outcome is a reading.
    async fn query(&self, query: MetricQuery) -> Reading;

    /// Whether the provider answers and takes the credentials, by a cheap request that reads. The text of the query does not
    /// matter. An error says why not, credentials redacted.
    async fn probe(&self, query: MetricQuery) -> Result<(), String>;
}
