//! One attempt to deliver a webhook.

use std::time::Duration;

use base64::Engine as _;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use jiff::Timestamp;
use url::Url;

use super::retry;
use crate::domain::with_causes;
use crate::ports::HookReply;

/// Most of a receiver's answer that is read; the rest is for nobody.
const BODY_LIMIT: usize = 4096;

/// Where a call goes: the URL without credentials, and the header made of them.
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) disable_tls: bool,
    authorization: Option<HeaderValue>,
}

impl Target {
    /// Splits the credentials off a URL.
    pub(super) fn read(text: &str, disable_tls: bool) -> Result<Self, String> {
        let mut url = Url::parse(text).map_err(|error| format!("reading the URL {text}: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("reading the URL {text}: {} is neither http nor https", url.scheme()));
        }
        let mut authorization = None;
        if !url.username().is_empty() || url.password().is_some() {
            let user = decode(url.username());
            let password = decode(url.password().unwrap_or_default());
            let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            let mut value = HeaderValue::try_from(format!("Basic {token}"))
                .map_err(|_| format!("reading the URL {text}: unusable credentials"))?;
            value.set_sensitive(true);
            authorization = Some(value);
            // Both only fail on URLs without a host, which http URLs have.
            url.set_username("").ok();
            url.set_password(None).ok();
        }
        Ok(Self { url, disable_tls, authorization })
    }
}

/// The credentials of a URL, as written and decoded, for redaction.
pub(super) fn secrets(text: &str) -> Vec<String> {
    let Ok(url) = Url::parse(text) else { return Vec::new() };
    let parts = [url.username(), url.password().unwrap_or_default()];
    parts.into_iter().flat_map(|part| [part.to_owned(), decode(part)]).collect()
}

/// Undoes percent encoding of user information (RFC 3986, section 2.1).
fn decode(text: &str) -> String {
    let query = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// What a receiver answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// 5xx but 501, and 429, as go-retryablehttp decides.
    pub(super) fn is_worth_a_retry(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED)
    }

    /// Status and body, for people.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.status, self.body.trim()).trim_end().to_owned()
    }

    /// What an answer that is final and no success means: 4xx is a no, with the receiver's own words.
    pub(super) fn refusal(&self, target: &Target) -> HookReply {
        match self.body.trim() {
            "" if self.status.is_client_error() => HookReply::Refused(self.status.to_string()),
            words if self.status.is_client_error() => HookReply::Refused(words.to_owned()),
            _ => HookReply::Unreachable(format!("POST {}: {}", target.url, self.words())),
        }
    }

    /// `Retry-After` of a 429 or 503.
    pub(super) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let honoured = matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let value = self.headers.get(RETRY_AFTER).filter(|_| honoured)?.to_str().ok()?;
        retry::retry_after(value, now)
    }
}

/// Posts the body once.
pub(super) async fn post(client: &reqwest::Client, target: &Target, body: &[u8]) -> Result<Answer, String> {
    let mut request = client.post(target.url.clone()).header(CONTENT_TYPE, "application/json").body(body.to_vec());
    if let Some(value) = &target.authorization {
        request = request.header(AUTHORIZATION, value.clone());
    }
    let mut response = request.send().await.map_err(|error| with_causes(&error.without_url()))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut bytes = Vec::new();
    // An answer whose body breaks off has answered all the same.
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= BODY_LIMIT {
            bytes.truncate(BODY_LIMIT);
            break;
        }
    }
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&bytes).into_owned() })
}
