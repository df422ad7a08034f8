//! The Kubernetes External Metrics API (`external.metrics.k8s.io/v1beta1`): as this daemon in its own cluster, or at another
//! address with a token.

use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::Value;

use super::request::{Ask, judge, no_data, sensitive, several};
use crate::domain::parse_quantity;
use crate::ports::{Cluster, Reading};

const API: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// `ExternalMetricValueList`.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    /// A quantity, such as `1500m`.
    value: Value,
}

pub(super) async fn ask(ask: &Ask<'_>, cluster: Option<&dyn Cluster>) -> Result<Reading, String> {
    let (path, selector) = path(ask.query.query.trim())?;
    let list: Value = fetch(ask, cluster, &path, &selector).await?;
    let list: List = serde_json::from_value(list).map_err(|error| format!("reading the answer: {error}"))?;
    match list.items.as_slice() {
        [] => Ok(no_data()),
        [one] => {
            let text = one.value.as_str().map_or_else(|| one.value.to_string(), str::to_owned);
            let value = parse_quantity(&text).ok_or_else(|| format!("the value `{text}` is no quantity"))?;
            Ok(judge(value))
        }
        many => Ok(several(many.len(), "values", "select one by its labels")),
    }
}

/// What the API has (discovery): a metric of a known name need not be there.
pub(super) async fn probe(ask: &Ask<'_>, cluster: Option<&dyn Cluster>) -> Result<(), String> {
    fetch(ask, cluster, API, "").await.map(drop)
}

async fn fetch(ask: &Ask<'_>, cluster: Option<&dyn Cluster>, path: &str, selector: &str) -> Result<Value, String> {
    if ask.query.address.is_empty() && ask.query.secret.is_empty() {
        let cluster = cluster.ok_or("there is no cluster to ask: give an address")?;
        let selector: String = url::form_urlencoded::byte_serialize(selector.as_bytes()).collect();
        let query = if selector.is_empty() { String::new() } else { format!("?labelSelector={selector}") };
        cluster.raw(&format!("{path}{query}")).await.map_err(|error| error.to_string())
    } else {
        let mut url = ask.endpoint(Some("https://kubernetes.default.svc"), path)?;
        if !selector.is_empty() {
            url.query_pairs_mut().append_pair("labelSelector", selector);
        }
        let mut request = ask.client(&url)?.get(url).headers(ask.headers()?);
        if let Some(token) = ask.optional_secret("token") {
            request = request.header(AUTHORIZATION, sensitive(&format!("Bearer {token}"))?);
        }
        ask.json(request).await
    }
}

/// `[NAMESPACE/]METRIC[?labelSelector=…]` as a path of the API and a selector.
fn path(query: &str) -> Result<(String, String), String> {
    let (path, query) = query.split_once('?').unwrap_or((query, ""));
    let (namespace, metric) = path.split_once('/').unwrap_or(("", path));
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.|%".contains(c));
    if metric.is_empty() || !plain(namespace) || !plain(metric) {
        return Err(format!("the query `{path}` is not of the form NAMESPACE/METRIC?labelSelector=…"));
    }
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let selector = parameters.find(|(key, _)| key == "labelSelector").map(|(_, value)| value.into_owned());
    Ok((format!("{API}/namespaces/{namespace}/{metric}"), selector.unwrap_or_default()))
}
