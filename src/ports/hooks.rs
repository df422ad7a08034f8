//! Webhooks: a call with its policy, and what came of it.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

/// One webhook call.
#[derive(Debug, Clone, PartialEq)]
pub struct HookCall {
    /// Where; may hold credentials as user information.
    pub url: String,
    /// JSON body.
    pub body: Value,
    /// Timeout of each attempt.
    pub timeout: Duration,
    /// Further attempts after the first.
    pub retries: u32,
    /// Skip certificate verification.
    pub disable_tls: bool,
}

/// What came of a call, after all attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookReply {
    /// 2xx.
    Passed,
    /// The receiver said no (4xx); its words, credentials redacted.
    Refused(String),
    /// Nobody answered, or a server error after all attempts; what went wrong, credentials redacted.
    Unreachable(String),
}

/// Calls webhooks.
#[async_trait]
pub trait HookRunner: Send + Sync {
    /// Sends one call with its retries. Never fails: every outcome is a reply.
    async fn call(&self, call: HookCall) -> HookReply;
}
