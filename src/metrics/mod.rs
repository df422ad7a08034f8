//! Metric providers: one query, one reading. [`Metrics`] is the registry: it sends each query to the provider that the
//! query names.
//!
//! Source: Flagger `pkg/metrics/providers`, and each vendor's documented API. All agree on this: one finite number is a
//! value; nothing, `null` and NaN are no data; several numbers, of which chance would pick one, are inconclusive.

#![expect(clippy::disallowed_types, reason = "shell")]

mod cloudwatch;
mod datadog;
mod dynatrace;
mod externalmetrics;
mod google;
mod graphite;
mod influxdb;
mod keptn;
mod newrelic;
mod prometheus;
mod request;
mod splunk;
mod stackdriver;

use std::sync::Arc;

use async_trait::async_trait;

use crate::outbound::Clients;
use crate::ports::{Clock, Cluster, MetricQuery, MetricSource, Reading, timeout};
use request::Ask;

/// Looks up a variable of the environment, where clouds put credentials.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// All metric providers.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    clients: Clients,
    cluster: Option<Arc<dyn Cluster>>,
    environment: Environment,
}

impl Metrics {
    /// Providers whose timeouts run on the given clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, clients: Clients::default(), cluster: None, environment: Arc::new(|_| None) }
    }

    /// With the cluster, whose API some metrics come from.
    #[must_use]
    pub fn with_cluster(self, cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// With the environment, which says what this machine may do in its cloud.
    #[must_use]
    pub fn with_environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    /// The one place where a new provider is entered: a name and its function.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Reading, String> {
        match ask.query.provider.as_str() {
            "prometheus" => prometheus::ask(ask).await,
            "datadog" => datadog::ask(ask).await,
            "newrelic" => newrelic::ask(ask).await,
            "graphite" => graphite::ask(ask).await,
            "influxdb" => influxdb::ask(ask).await,
            "dynatrace" => dynatrace::ask(ask).await,
            "splunk" => splunk::ask(ask).await,
            "stackdriver" => stackdriver::ask(ask, &self.environment).await,
            "cloudwatch" => cloudwatch::ask(ask, &self.environment).await,
            "externalmetrics" => externalmetrics::ask(ask, self.cluster.as_deref()).await,
            other => Err(format!("provider type {other} is not known")),
        }
    }

    /// The same for the question whether a provider answers at all.
    async fn look(&self, ask: &Ask<'_>) -> Result<(), String> {
        match ask.query.provider.as_str() {
            "prometheus" => prometheus::probe(ask).await,
            "datadog" => datadog::probe(ask).await,
            "newrelic" => newrelic::probe(ask).await,
            "graphite" => graphite::probe(ask).await,
            "influxdb" => influxdb::probe(ask).await,
            "dynatrace" => dynatrace::probe(ask).await,
            "splunk" => splunk::probe(ask).await,
            "stackdriver" => stackdriver::probe(ask, &self.environment).await,
            "cloudwatch" => cloudwatch::probe(ask, &self.environment).await,
            "keptn" => keptn::probe(self.cluster.as_deref()).await,
            "externalmetrics" => externalmetrics::probe(ask, self.cluster.as_deref()).await,
            other => Err(format!("provider type {other} is not known")),
        }
    }
}

#[async_trait]
impl MetricSource for Metrics {
    async fn probe(&self, query: MetricQuery) -> Result<(), String> {
        let ask = Ask { clock: &*self.clock, clients: &self.clients, query: &query };
        let guard = self.clock.in_flight();
        let answer = timeout(&*self.clock, query.timeout, self.look(&ask)).await;
        drop(guard);
        let answer = answer.unwrap_or_else(|elapsed| Err(format!("querying {}: {elapsed}", ask.place())));
        answer.map_err(|message| ask.redacted(message))
    }

    async fn query(&self, query: MetricQuery) -> Reading {
        let ask = Ask { clock: &*self.clock, clients: &self.clients, query: &query };
        // It waits for others, on the clock, so it is no call that time stands still for.
        if query.provider == "keptn" {
            let answer = keptn::ask(&ask, self.cluster.as_deref()).await;
            return ask.clean(answer.unwrap_or_else(Reading::ProviderError));
        }
        let guard = self.clock.in_flight();
        let answer = timeout(&*self.clock, query.timeout, self.ask(&ask)).await;
        drop(guard);
        let answer = answer.unwrap_or_else(|elapsed| Err(format!("querying {}: {elapsed}", ask.place())));
        ask.clean(answer.unwrap_or_else(Reading::ProviderError))
    }
}
