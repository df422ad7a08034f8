//! Webhooks over HTTP: one JSON POST with its retries, and what came of it.
//!
//! Source: Flagger `pkg/controller/webhook.go` and go-retryablehttp, with every 2xx accepted and the words of a
//! failing receiver kept.

#![expect(clippy::disallowed_types, reason = "shell")]

mod attempt;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{redact, truncate};
use crate::outbound::Clients;
use crate::ports::{Clock, HookCall, HookReply, HookRunner, timeout};
use attempt::{Answer, Target};

/// Longest text of a reply, in characters.
const MESSAGE_LIMIT: usize = 500;

/// Calls webhooks over HTTP.
pub struct HttpHooks {
    clock: Arc<dyn Clock>,
    clients: Clients,
}

impl HttpHooks {
    /// A caller whose timeouts and pauses run on the given clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, clients: Clients::default() }
    }

    /// One attempt, or `Err` with what went wrong when there was no answer.
    async fn attempt(&self, target: &Target, body: &[u8], limit: Duration) -> Result<Answer, String> {
        let client = self.clients.get(&target.url, target.disable_tls)?;
        let guard = self.clock.in_flight();
        let answer = timeout(&*self.clock, limit, attempt::post(&client, target, body)).await;
        drop(guard);
        answer.map_err(|elapsed| elapsed.to_string())?
    }

    async fn run(&self, call: &HookCall) -> HookReply {
        let target = match Target::read(&call.url, call.disable_tls) {
            Ok(target) => target,
            Err(message) => return HookReply::Unreachable(message),
        };
        let body = call.body.to_string();
        let mut attempts = 0u32;
        loop {
            let answer = self.attempt(&target, body.as_bytes(), call.timeout).await;
            attempts += 1;
            let (message, asked) = match answer {
                Ok(answer) if answer.status.is_success() => return HookReply::Passed,
                Ok(answer) if !answer.is_worth_a_retry() => return answer.refusal(&target),
                Ok(answer) => (answer.words(), answer.retry_after(self.clock.now())),
                Err(message) => (message, None),
            };
            if attempts > call.retries {
                return HookReply::Unreachable(gave_up(&target, attempts, &message));
            }
            let pause = retry::pause(attempts, asked);
            let until = self.clock.now().checked_add(pause).unwrap_or(jiff::Timestamp::MAX);
            self.clock.sleep_until(until).await;
        }
    }
}

fn gave_up(target: &Target, attempts: u32, message: &str) -> String {
    format!("POST {} giving up after {attempts} attempt(s): {message}", target.url)
}

#[async_trait]
impl HookRunner for HttpHooks {
    async fn call(&self, call: HookCall) -> HookReply {
        let clean = |message: String| {
            let secrets = attempt::secrets(&call.url);
            truncate(&redact(&message, secrets.iter().map(String::as_str)), MESSAGE_LIMIT)
        };
        match self.run(&call).await {
            HookReply::Passed => HookReply::Passed,
            HookReply::Refused(message) => HookReply::Refused(clean(message)),
            HookReply::Unreachable(message) => HookReply::Unreachable(clean(message)),
        }
    }
}
