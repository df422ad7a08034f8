//! Metric providers: one query, one reading. [`Metrics`] is the registry: it sends each query to the provider that the
//! query names.
//!
//! Source: Flagger `pkg/metrics/providers`.

mod prometheus;

use std::sync::Arc;

use async_trait::async_trait;

use crate::outbound::Clients;
use crate::ports::{Clock, MetricQuery, MetricSource, Reading};

/// All metric providers.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    clients: Clients,
}

impl Metrics {
    /// Providers whose timeouts run on the given clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, clients: Clients::default() }
    }
}

#[async_trait]
impl MetricSource for Metrics {
    async fn query(&self, query: MetricQuery) -> Reading {
        // The one place where a new provider is entered: a name and its function.
        match query.provider.as_str() {
            "prometheus" => prometheus::query(&*self.clock, &self.clients, &query).await,
            other => Reading::ProviderError(format!(
                "provider {other} is not supported yet: only prometheus is, use a MetricTemplate of that type"
            )),
        }
    }
}
