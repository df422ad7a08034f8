//! What the providers share: addresses, keys of Secrets, requests with bounded answers, and the judgement of a number.

use base64::Engine as _;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::RequestBuilder;
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use url::Url;

use crate::domain::{format_float, redact, truncate, with_causes};
use crate::outbound::Clients;
use crate::ports::{Clock, MetricQuery, Reading};

/// Longest message of a reading, in characters.
const MESSAGE_LIMIT: usize = 500;
/// Largest answer that is read. A query that can be judged answers in a few hundred bytes.
const BODY_LIMIT: usize = 1 << 20;
/// How many windows back providers look that do not know the window from the query, as Flagger has it.
const WINDOWS: u32 = 10;

/// Whose credentials a cloud is asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The template's, of its Secret.
    Template,
    /// This daemon's own, of the machine that it runs on.
    Machine,
}

/// One query on its way.
pub(super) struct Ask<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) clients: &'a Clients,
    pub(super) query: &'a MetricQuery,
}

impl Ask<'_> {
    /// Where the query goes, for people.
    pub(super) fn place(&self) -> &str {
        if self.query.address.is_empty() { &self.query.provider } else { &self.query.address }
    }

    /// A key of the Secret, without the newline that files end with.
    pub(super) fn optional_secret(&self, key: &str) -> Option<&str> {
        self.query.secret.get(key).map(|secret| secret.expose_secret().trim_end_matches('\n'))
    }

    /// The same; an error names the key.
    pub(super) fn secret(&self, key: &str) -> Result<&str, String> {
        self.optional_secret(key).ok_or_else(|| format!("the Secret has no key {key}"))
    }

    /// The address, or its default, with a path behind its own. Credentials in it are left out.
    pub(super) fn endpoint(&self, default: Option<&str>, path: &str) -> Result<Url, String> {
        let own = self.query.address.as_str();
        let text = match (own, default) {
            ("", Some(default)) => default,
            ("", None) => return Err(format!("the {} template has no address", self.query.provider)),
            (own, _) => own,
        };
        let mut url = http_url(text)?;
        // Both only fail on URLs without a host, which http URLs have.
        url.set_username("").ok();
        url.set_password(None).ok();
        let path = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(url)
    }

    /// A cloud's site: the operator's, by a variable of the environment, else the vendor's. Credentials of this machine go
    /// there only: a template could name any host for them (Flagger's clouds read no address at all).
    pub(super) fn site(&self, operators: Option<String>, vendors: &str, whose: Whose) -> Result<String, String> {
        let site = operators.filter(|site| !site.is_empty()).unwrap_or_else(|| vendors.to_owned());
        let same = |own: &str| own.trim_end_matches('/') == site.trim_end_matches('/');
        match (self.query.address.as_str(), whose) {
            ("", _) => Ok(site),
            (own, Whose::Machine) if !same(own) => Err(format!(
                "the daemon's own credentials go to {site} only: for another address the template needs a Secret with others"
            )),
            (own, _) => Ok(own.to_owned()),
        }
    }

    /// A client for a URL of [`Self::site`]. Credentials of this machine go to nobody unverified.
    pub(super) fn site_client(&self, url: &Url, whose: Whose) -> Result<reqwest::Client, String> {
        self.clients.get(url, self.query.insecure_skip_verify && whose == Whose::Template)
    }

    /// A client for a URL.
    pub(super) fn client(&self, url: &Url) -> Result<reqwest::Client, String> {
        self.clients.get(url, self.query.insecure_skip_verify)
    }

    /// The extra headers of the template.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, values) in &self.query.headers {
            let header = HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is no header name"))?;
            for value in values {
                let value = HeaderValue::try_from(value.as_str())
                    .map_err(|_| format!("the value of header {name} holds characters that a header cannot"))?;
                headers.append(header.clone(), value);
            }
        }
        Ok(headers)
    }

    /// Sends a request and reads the answer, whatever its status.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), String> {
        let doing = || format!("querying {}", self.place());
        let error = |error: reqwest::Error| format!("{}: {}", doing(), with_causes(&error.without_url()));
        let mut response = request.send().await.map_err(error)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(error)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(format!("{}: the answer is larger than {BODY_LIMIT} bytes", doing()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    /// The answer to a request, which must be 2xx.
    pub(super) async fn success(&self, request: RequestBuilder) -> Result<Vec<u8>, String> {
        let (status, body) = self.send(request).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(format!("querying {}: {} {}", self.place(), status.as_u16(), String::from_utf8_lossy(&body).trim()))
    }

    /// The same as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, String> {
        let body = self.success(request).await?;
        serde_json::from_slice(&body).map_err(|error| format!("querying {}: reading the answer: {error}", self.place()))
    }

    /// The query on one line: white space folded, as Flagger does for some providers.
    pub(super) fn folded(&self) -> String {
        self.query.query.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Beginning and end of the time that is looked at, in Unix seconds.
    pub(super) fn period(&self) -> (i64, i64) {
        let now = self.clock.now().as_second();
        let span = i64::try_from(self.query.window.saturating_mul(WINDOWS).as_secs()).unwrap_or(i64::MAX);
        (now.saturating_sub(span), now)
    }

    /// Words without credentials, whatever the other side put into them.
    pub(super) fn redacted(&self, message: String) -> String {
        let values = self.query.secret.values().map(|secret| secret.expose_secret());
        // A Secret over several lines, such as a key, may come back line by line.
        let values = values.flat_map(|value| std::iter::once(value).chain(value.lines().filter(|l| l.len() > 15)));
        let headers = self.query.headers.values().flatten().map(String::as_str);
        let secrets: Vec<&str> = values.chain(headers).collect();
        truncate(&redact(&message, secrets.iter().copied()), MESSAGE_LIMIT)
    }

    /// A reading in such words.
    pub(super) fn clean(&self, reading: Reading) -> Reading {
        match reading {
            Reading::Value(value) => Reading::Value(value),
            Reading::NoData(message) => Reading::NoData(self.redacted(message)),
            Reading::Inconclusive(message) => Reading::Inconclusive(self.redacted(message)),
            Reading::ProviderError(message) => Reading::ProviderError(self.redacted(message)),
        }
    }
}

/// A URL of http or https.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("reading the address {text}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("reading the address {text}: {} is neither http nor https", url.scheme()));
    }
    Ok(url)
}

/// The value of an `Authorization: Basic` header.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// A header value that does not print itself.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::try_from(text);
    let mut value = value.map_err(|_| "the Secret holds characters that a header cannot carry")?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a number says.
pub(super) fn judge(value: f64) -> Reading {
    if value.is_nan() {
        Reading::NoData("the result is NaN: most often nothing was measured".to_owned())
    } else if value.is_infinite() {
        Reading::Inconclusive(format!("the result is {}", format_float(value)))
    } else {
        Reading::Value(value)
    }
}

/// Whether an answer is the number 1 that a probe asked for.
pub(super) fn is_one(ask: &Ask<'_>, question: &str, answer: Reading) -> Result<(), String> {
    match answer {
        Reading::Value(1.0) => Ok(()),
        Reading::Value(value) => Err(format!("{} answered {value} to {question}", ask.place())),
        Reading::NoData(detail) | Reading::Inconclusive(detail) | Reading::ProviderError(detail) => Err(detail),
    }
}

/// What is said of an answer without a number.
pub(super) fn no_data() -> Reading {
    Reading::NoData("the query has no result".to_owned())
}

/// What is said of an answer with several numbers, of which chance would pick one. `remedy`: how to make one of them.
pub(super) fn several(count: usize, of_what: &str, remedy: &str) -> Reading {
    Reading::Inconclusive(format!("the query has {count} {of_what} in its result, {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_path_and_query_string() {
        for (address, want) in [
            ("http://prometheus:9090", Ok("http://prometheus:9090/api/v1/query")),
            ("http://prometheus:9090/", Ok("http://prometheus:9090/api/v1/query")),
            ("https://m.example.com/prom/", Ok("https://m.example.com/prom/api/v1/query")),
            ("https://me:pw@m.example.com/?tenant=a", Ok("https://m.example.com/api/v1/query?tenant=a")),
            (
                "https://m.example.com/select/0/prometheus?x=1",
                Ok("https://m.example.com/select/0/prometheus/api/v1/query?x=1"),
            ),
            ("prometheus:9090", Err("reading the address prometheus:9090: prometheus is neither http nor https")),
            ("", Err("the prometheus template has no address")),
        ] {
            let query = MetricQuery {
                provider: "prometheus".to_owned(),
                address: address.to_owned(),
                query: String::new(),
                headers: Default::default(),
                secret: Default::default(),
                region: None,
                window: std::time::Duration::ZERO,
                insecure_skip_verify: false,
                timeout: std::time::Duration::ZERO,
            };
            let ask = Ask {
                clock: &crate::sim::SimClock::new(jiff::Timestamp::UNIX_EPOCH),
                clients: &Clients::default(),
                query: &query,
            };
            let got = ask.endpoint(None, "/api/v1/query").map(|url| url.to_string());
            assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned), "{address}");
        }
    }
}
