//! Alerts over HTTP: one JSON POST to the webhook of a chat channel.
//!
//! Source: Flagger `pkg/notifier`. The payloads are what Flagger sends, so that channels, filters and bots made for them
//! keep working.

mod payload;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, HeaderValue};
use secrecy::ExposeSecret as _;
use url::Url;

use crate::domain::{redact, truncate, with_causes};
use crate::outbound::Clients;
use crate::ports::{AlertCall, AlertSender, Clock, timeout};

/// Longest text of an error, in characters.
const MESSAGE_LIMIT: usize = 500;
/// Most of an answer that is read.
const BODY_LIMIT: usize = 4096;

/// Sends alerts over HTTP.
pub struct HttpAlerts {
    clock: Arc<dyn Clock>,
    clients: Clients,
}

impl HttpAlerts {
    /// A sender whose timeouts run on the given clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, clients: Clients::default() }
    }

    async fn post(&self, call: &AlertCall) -> Result<(), String> {
        let url = address(call)?;
        let body = payload::of(call)?;
        let client = match call.proxy.as_deref().filter(|proxy| !proxy.is_empty()) {
            Some(proxy) => self.clients.proxied(&url, proxy)?,
            None => self.clients.get(&url, false)?,
        };
        let mut request = client.post(url).json(&body);
        if let Some(token) = call.token.as_ref().filter(|_| call.type_ == "slack") {
            let text = format!("Bearer {}", token.expose_secret().trim());
            let value = HeaderValue::try_from(text);
            let mut value = value.map_err(|_| "the token holds characters that a header cannot carry")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let mut response = request.send().await.map_err(|error| with_causes(&error.without_url()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let mut words = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            words.extend_from_slice(&chunk);
            if words.len() >= BODY_LIMIT {
                words.truncate(BODY_LIMIT);
                break;
            }
        }
        Err(format!("{status} {}", String::from_utf8_lossy(&words).trim()))
    }
}

/// Where an alert goes. Discord speaks Slack's language below a path of its own.
fn address(call: &AlertCall) -> Result<Url, String> {
    // The text is a credential, so it is not repeated.
    let text = call.address.expose_secret().trim();
    let mut url = Url::parse(text).map_err(|error| format!("reading the address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("reading the address: {} is neither http nor https", url.scheme()));
    }
    if call.type_ == "discord" && !url.path().ends_with("/slack") {
        let path = format!("{}/slack", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Ok(url)
}

#[async_trait]
impl AlertSender for HttpAlerts {
    async fn send(&self, call: AlertCall) -> Result<(), String> {
        let guard = self.clock.in_flight();
        let sent = timeout(&*self.clock, call.timeout, self.post(&call)).await;
        drop(guard);
        sent.unwrap_or_else(|elapsed| Err(elapsed.to_string())).map_err(|message| {
            let address = call.address.expose_secret();
            // The path is what a chat service knows its friends by.
            let path = Url::parse(address).map(|url| url.path().trim_matches('/').to_owned()).unwrap_or_default();
            let proxy = call.proxy.as_deref().unwrap_or_default();
            let token = call.token.as_ref().map(|token| token.expose_secret()).unwrap_or_default();
            truncate(&redact(&message, [address, &path, token, proxy]), MESSAGE_LIMIT)
        })
    }
}
