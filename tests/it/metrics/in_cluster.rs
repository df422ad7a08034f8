//! Metrics that the cluster itself serves: Keptn, and the External Metrics API.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use serin::domain::{FieldManager, Gvk, Object, ObjectKey};
use serin::metrics::Metrics;
use serin::ports::{Change, Cluster, ClusterError, KubeEvent, MetricSource as _, Reading};
use tokio::sync::broadcast;

use super::StillClock;
use super::providers::query;

/// A cluster with one KeptnMetric and an Analysis that is completed after some looks.
struct Fake {
    metric: Value,
    status: Value,
    looks: Mutex<u32>,
    made: Mutex<Vec<Value>>,
    deleted: Mutex<Vec<String>>,
}

impl Fake {
    fn new(metric: Value, status: Value, looks: u32) -> Arc<Self> {
        Arc::new(Self { metric, status, looks: Mutex::new(looks), made: Mutex::default(), deleted: Mutex::default() })
    }
}

#[async_trait]
impl Cluster for Fake {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError> {
        assert_eq!(key.gvk.api_version(), "metrics.keptn.sh/v1beta1");
        match (key.gvk.kind.as_str(), key.name.as_str()) {
            ("KeptnMetric", "response-time") => Ok(Some(Arc::new(Object(json!({"status": self.metric}))))),
            ("Analysis", _) => {
                let mut looks = self.looks.lock().expect("no panic");
                *looks = looks.saturating_sub(1);
                let status = if *looks == 0 { self.status.clone() } else { json!({"state": "Progressing"}) };
                Ok(Some(Arc::new(Object(json!({"status": status})))))
            }
            _ => Ok(None),
        }
    }

    async fn apply(&self, object: &Object, _: FieldManager) -> Result<Arc<Object>, ClusterError> {
        self.made.lock().expect("no panic").push(object.0.clone());
        Ok(Arc::new(object.clone()))
    }

    async fn delete(&self, key: &ObjectKey, _: Option<&str>) -> Result<(), ClusterError> {
        self.deleted.lock().expect("no panic").push(key.name.clone());
        Ok(())
    }

    async fn raw(&self, path: &str) -> Result<Value, ClusterError> {
        match path {
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue?labelSelector=app%3Dweb" => {
                Ok(json!({"items": [{"value": "250m"}]}))
            }
            "/apis/external.metrics.k8s.io/v1beta1" => Ok(json!({"kind": "APIResourceList"})),
            _ => {
                Err(ClusterError::Unavailable { doing: "reading".to_owned(), message: format!("{path} is not there") })
            }
        }
    }

    async fn list(&self, _: &Gvk, _: Option<&str>) -> Result<Vec<Arc<Object>>, ClusterError> {
        unimplemented!()
    }

    async fn is_namespaced(&self, _: &Gvk) -> Result<bool, ClusterError> {
        unimplemented!()
    }

    async fn patch(
        &self,
        _: &ObjectKey,
        _: Option<&str>,
        _: &Value,
        _: FieldManager,
    ) -> Result<Arc<Object>, ClusterError> {
        unimplemented!()
    }

    async fn publish(&self, _: KubeEvent) {}

    fn changes(&self) -> broadcast::Receiver<Change> {
        unimplemented!()
    }
}

async fn ask(fake: &Arc<Fake>, text: &str) -> Reading {
    let mut query = query("keptn", "");
    query.headers.clear();
    query.query = text.to_owned();
    Metrics::new(Arc::new(StillClock::default())).with_cluster(fake.clone()).query(query).await
}

#[tokio::test]
async fn a_keptn_metric_is_read() {
    let metric = |value: &str| Fake::new(json!({"value": value}), json!({}), 0);
    for text in ["keptnmetric/shop/response-time", "KeptnMetrics/Shop/response-time/1m\n"] {
        assert_eq!(ask(&metric("12.5"), text).await, Reading::Value(12.5));
    }
    assert!(matches!(ask(&metric(""), "keptnmetric/shop/response-time").await, Reading::NoData(_)));
    assert!(matches!(ask(&metric("NaN"), "keptnmetric/shop/response-time").await, Reading::NoData(_)));
    for (text, want) in [
        ("keptnmetric/shop/other", "KeptnMetric shop/other not found"),
        ("keptnmetric/shop", "is not of the form"),
        ("pod/shop/a", "is not of the form"),
    ] {
        let reading = ask(&metric("1"), text).await;
        assert!(matches!(&reading, Reading::ProviderError(words) if words.contains(want)), "{text}: {reading:?}");
    }
    let wrong = ask(&metric("soon"), "keptnmetric/shop/response-time").await;
    assert!(matches!(&wrong, Reading::ProviderError(words) if words.contains("no number")), "{wrong:?}");
}

#[tokio::test]
async fn an_analysis_is_made_watched_and_deleted() {
    for (pass, want) in [(true, 1.0), (false, 0.0)] {
        let fake = Fake::new(Value::Null, json!({"state": "Completed", "pass": pass}), 3);
        let reading = ask(&fake, "analysis/shop/my-analysis/5m/project=podinfo;stage=dev").await;
        assert_eq!(reading, Reading::Value(want));
        let made = fake.made.lock().expect("no panic").remove(0);
        assert_eq!(made["spec"]["analysisDefinition"]["name"], "my-analysis");
        assert_eq!(made["spec"]["timeframe"]["recent"], "5m");
        assert_eq!(made["spec"]["args"], json!({"project": "podinfo", "stage": "dev"}));
        let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
        assert!(name.starts_with("my-analysis-"), "{name}");
        assert_eq!(*fake.deleted.lock().expect("no panic"), [name]);
    }
}

#[tokio::test]
async fn an_analysis_that_takes_too_long_is_no_verdict() {
    let fake = Fake::new(Value::Null, json!({"state": "Completed", "pass": true}), 99);
    let reading = ask(&fake, "analysis/shop/slow").await;
    assert!(matches!(&reading, Reading::ProviderError(words) if words.contains("within 10 s")), "{reading:?}");
    assert_eq!(fake.deleted.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn external_metrics_are_asked_as_ourselves() {
    let fake = Fake::new(Value::Null, Value::Null, 0);
    let mut query = query("externalmetrics", "");
    query.secret.clear();
    let reading = Metrics::new(Arc::new(StillClock::default())).with_cluster(fake).query(query).await;
    assert_eq!(reading, Reading::Value(0.25));
}

/// Discovery says whether the API is there; no metric of a known name need be.
#[tokio::test]
async fn what_the_cluster_serves_is_probed_by_its_discovery() {
    let metrics = Metrics::new(Arc::new(StillClock::default())).with_cluster(Fake::new(Value::Null, Value::Null, 0));
    let mut external = query("externalmetrics", "");
    external.secret.clear();
    assert_eq!(metrics.probe(external).await, Ok(()));
    let keptn = metrics.probe(query("keptn", "")).await.expect_err("Keptn is not installed");
    assert!(keptn.contains("/apis/metrics.keptn.sh/v1beta1 is not there"), "{keptn}");
}
