//! Amazon CloudWatch: `GetMetricData` of the Query API ("Making API requests"), signed with Signature Version 4.

mod credentials;
mod signature;

use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use roxmltree::Document;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::Environment;
use super::request::{Ask, http_url, judge, no_data, sensitive, several};
use crate::ports::Reading;

/// Points that are asked for (Flagger: the same). The newest comes first.
const POINTS: &str = "20";

/// One metric that need not be there: the answer has no values then. It needs exactly the right that a query needs.
pub(super) async fn probe(ask: &Ask<'_>, environment: &Environment) -> Result<(), String> {
    let metric = json!({"Namespace": "serin", "MetricName": "probe"});
    let query = json!([{"Id": "probe", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}]);
    send(ask, environment, &query).await.map(drop)
}

pub(super) async fn ask(ask: &Ask<'_>, environment: &Environment) -> Result<Reading, String> {
    let queries: Value = serde_json::from_str(&ask.query.query)
        .map_err(|error| format!("reading the query: {error}: it is a JSON list of MetricDataQuery"))?;
    let Value::Array(_) = queries else { return Err("the query is no JSON list of MetricDataQuery".to_owned()) };
    read(&send(ask, environment, &queries).await?)
}

async fn send(ask: &Ask<'_>, environment: &Environment, queries: &Value) -> Result<String, String> {
    let region = ask.query.region.as_deref().map(str::trim).filter(|region| is_region(region));
    let region = region.ok_or("the cloudwatch template has no `region`, or none such as eu-west-1")?;
    let (whose, vendors) = (credentials::whose(ask), format!("https://monitoring.{region}.{}", domain(region)));
    let url = http_url(&ask.site(environment("AWS_ENDPOINT_URL_CLOUDWATCH"), &vendors, whose)?)?;
    let credentials = credentials::find(ask, environment, region).await?;
    let body = form(ask.period(), queries);
    let signed = signature::sign(&credentials, region, "monitoring", &url, &body, ask.clock.now());
    let mut request = ask.site_client(&url, whose)?.post(url).header(CONTENT_TYPE, signature::FORM).body(body);
    for (name, value) in signed {
        request = request.header(name, sensitive(&value)?);
    }
    let (status, answer) = ask.send(request).await?;
    let text = String::from_utf8_lossy(&answer);
    if !status.is_success() {
        return Err(format!("querying cloudwatch: {} {}", status.as_u16(), refusal(&text)));
    }
    Ok(text.into_owned())
}

/// The parameters of the call.
fn form((from, to): (i64, i64), queries: &Value) -> String {
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default().to_string();
    let mut form = Serializer::new(String::new());
    form.append_pair("Action", "GetMetricData").append_pair("Version", "2010-08-01");
    form.append_pair("StartTime", &time(from)).append_pair("EndTime", &time(to)).append_pair("MaxDatapoints", POINTS);
    flatten("MetricDataQueries", queries, &mut form);
    form.finish()
}

/// A region becomes part of a host's name.
fn is_region(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The domain of a region's partition.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// Parameters of the Query API: `List.member.1.Key`.
fn flatten(name: &str, value: &Value, form: &mut Serializer<'_, String>) {
    match value {
        Value::Null => {}
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{name}.member.{}", at + 1), item, form);
            }
        }
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&format!("{name}.{key}"), value, form)),
        Value::String(text) => {
            form.append_pair(name, text);
        }
        other => {
            form.append_pair(name, &other.to_string());
        }
    }
}

/// The newest value of the one metric that is returned.
fn read(text: &str) -> Result<Reading, String> {
    let document = Document::parse(text).map_err(|error| format!("reading cloudwatch's answer: {error}"))?;
    let named = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name_local(name));
    let results: Vec<_> =
        named("MetricDataResults").flat_map(|list| list.children()).filter(|n| n.is_element()).collect();
    let values = |result: &roxmltree::Node<'_, '_>| {
        let list = result.children().find(|node| node.has_tag_name_local("Values"));
        list.and_then(|list| list.children().find(|node| node.is_element())?.text().map(str::to_owned))
    };
    Ok(match results.as_slice() {
        [] => no_data(),
        [one] => match values(one) {
            None => no_data(),
            Some(value) => judge(value.trim().parse().map_err(|_| format!("the value `{value}` is no number"))?),
        },
        many => several(many.len(), "metrics", "set `ReturnData: false` on all but one of the queries"),
    })
}

/// What a refusal says: `<ErrorResponse><Error><Code>…<Message>…`.
fn refusal(text: &str) -> String {
    let Ok(document) = Document::parse(text) else { return text.trim().to_owned() };
    let find = |name: &str| document.descendants().find(|node| node.has_tag_name_local(name)).and_then(|n| n.text());
    let words: Vec<&str> = [find("Code"), find("Message")].into_iter().flatten().collect();
    if words.is_empty() { text.trim().to_owned() } else { words.join(": ") }
}

/// Names without their namespace, which differs between operations.
trait LocalName {
    fn has_tag_name_local(&self, name: &str) -> bool;
}

impl LocalName for roxmltree::Node<'_, '_> {
    fn has_tag_name_local(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}
