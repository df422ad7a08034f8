//! What forges have in common: who may be addressed how, the body of a status, what an answer means, and words about it.
//!
//! Source: GitHub REST API, "Create a commit status" and "Rate limits for the REST API"; Gitea's API, which follows it.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::domain::{redact, sha256_hex, truncate};
use crate::ports::{CommitState, CommitStatus, ForgeError};

/// Longest description that GitHub takes, in characters. Gitea takes more, and shows as much.
const DESCRIPTION_LIMIT: usize = 140;
/// Longest context that GitHub takes, in characters; the same status is to have the same name on every forge.
const CONTEXT_LIMIT: usize = 255;
/// Longest message of ours about an answer, in characters.
const MESSAGE_LIMIT: usize = 300;
/// Most of an answer that is read, in bytes.
pub(super) const BODY_LIMIT: usize = 1 << 20;
/// Time for one request.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// What GitHub asks of a client that hit a limit without being told for how long.
const UNTOLD_PAUSE: Duration = Duration::from_secs(60);

/// Why a forge cannot be used as it is configured.
#[derive(Debug, Clone, thiserror::Error)]
#[error("setting up the forge: {0}")]
pub struct SetupError(pub(super) String);

/// Owner and name of a repository given as `OWNER/NAME`, both of characters that mean nothing in a path.
pub(super) fn owner_and_name(repository: &str) -> Result<(&str, &str), SetupError> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !text.starts_with('.')
    };
    repository
        .split_once('/')
        .filter(|(owner, name)| plain(owner) && plain(name))
        .ok_or_else(|| SetupError(format!("repository `{repository}` is not OWNER/NAME")))
}

/// A token without the white space around it; one that no header can carry is refused without being told.
pub(super) fn usable_token(token: &SecretString) -> Result<SecretString, SetupError> {
    let secret = token.expose_secret().trim();
    if secret.is_empty() || !secret.chars().all(|c| c.is_ascii_graphic()) {
        return Err(SetupError("the token is empty or holds characters that no token has".to_owned()));
    }
    Ok(SecretString::from(secret.to_owned()))
}

/// Words about a failure: without the token, in one line, not endless.
pub(super) fn words(token: &SecretString, doing: &str, message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = truncate(&redact(&line, [token.expose_secret()]), MESSAGE_LIMIT);
    format!("{doing}: {line}")
}

/// The error of a request that got no answer, or one that cannot be read.
pub(super) fn later(token: &SecretString, doing: &str, message: &str) -> ForgeError {
    ForgeError::Later { message: words(token, doing, message), retry_after: None }
}

/// The request's body.
#[derive(Serialize)]
pub(super) struct Body<'a> {
    state: CommitState,
    context: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<&'a str>,
}

impl<'a> Body<'a> {
    /// The body for a status, cut to what forges take.
    pub(super) fn of(status: &'a CommitStatus) -> Self {
        Self {
            state: status.state,
            context: shorten(&status.context),
            description: truncate(&status.description, DESCRIPTION_LIMIT),
            target_url: status.target_url.as_deref(),
        }
    }
}

/// A context of at most 255 characters; a longer one keeps its head and gets a hash, so that two stay two.
fn shorten(context: &str) -> String {
    if context.chars().count() <= CONTEXT_LIMIT {
        return context.to_owned();
    }
    let hash = sha256_hex(context.as_bytes());
    let head: String = context.chars().take(CONTEXT_LIMIT - 9).collect();
    format!("{head}-{}", hash.get(..8).unwrap_or_default())
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Refused,
    Denied,
    Later(Option<Duration>),
}

/// What a forge answered.
pub(super) struct Answer {
    /// Status code.
    pub(super) status: StatusCode,
    /// Headers.
    pub(super) headers: HeaderMap,
    /// Body, empty where it was too long or broke off: the status line decides, and only its words are lost.
    pub(super) body: bytes::Bytes,
}

impl Answer {
    /// The body of a success, or the error with words about `doing`; `now` in seconds of Unix time.
    pub(super) fn judged(self, token: &SecretString, doing: &str, now: i64) -> Result<bytes::Bytes, ForgeError> {
        match self.verdict(now) {
            Verdict::Taken => Ok(self.body),
            Verdict::Refused => Err(ForgeError::Permanent(words(token, doing, &self.text()))),
            Verdict::Denied => Err(ForgeError::Denied(words(token, doing, &self.text()))),
            Verdict::Later(retry_after) => {
                Err(ForgeError::Later { message: words(token, doing, &self.text()), retry_after })
            }
        }
    }

    fn verdict(&self, now: i64) -> Verdict {
        match self.status {
            status if status.is_success() => Verdict::Taken,
            StatusCode::FORBIDDEN => match (self.asked_pause(now), self.speaks_of_a_limit()) {
                (Some(pause), _) => Verdict::Later(Some(pause)),
                (None, true) => Verdict::Later(Some(UNTOLD_PAUSE)),
                (None, false) => Verdict::Denied,
            },
            StatusCode::TOO_MANY_REQUESTS => Verdict::Later(Some(self.asked_pause(now).unwrap_or(UNTOLD_PAUSE))),
            StatusCode::REQUEST_TIMEOUT => Verdict::Later(None),
            status if status.is_server_error() => Verdict::Later(self.asked_pause(now)),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Verdict::Refused,
            // 401, 404 and the rest, a redirect of a renamed repository among them: a person must act.
            _ => Verdict::Denied,
        }
    }

    /// `retry-after`, or the time to `x-ratelimit-reset` when nothing remains.
    fn asked_pause(&self, now: i64) -> Option<Duration> {
        let header = |name: &str| self.headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
        let seconds = match header("retry-after") {
            Some(seconds) => seconds,
            None if header("x-ratelimit-remaining") == Some(0) => header("x-ratelimit-reset")?.saturating_sub(now),
            None => return None,
        };
        // A reset in the past means our clocks differ: a second is enough to stay polite.
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)))
    }

    /// The secondary limits answer 403 without any header; only the words tell them from a missing right.
    fn speaks_of_a_limit(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body).to_ascii_lowercase();
        text.contains("rate limit") || text.contains("abuse detection")
    }

    /// Status and the forge's own words.
    fn text(&self) -> String {
        #[derive(Deserialize)]
        struct Words {
            message: String,
            /// GitHub lists objects with a message each, Gitea texts, or null.
            errors: Option<Vec<serde_json::Value>>,
        }
        let location = self.headers.get("location").and_then(|value| value.to_str().ok());
        match (serde_json::from_slice::<Words>(&self.body), location) {
            (_, Some(location)) if self.status.is_redirection() => {
                format!("{}: the repository has moved to {location}", self.status)
            }
            (Ok(words), _) => {
                let errors = words.errors.iter().flatten();
                let details: Vec<&str> =
                    errors.filter_map(|error| error.get("message").unwrap_or(error).as_str()).collect();
                let colon = if details.is_empty() { "" } else { ": " };
                format!("{}: {}{colon}{}", self.status, words.message, details.join(", "))
            }
            (Err(_), _) => format!("{}: {}", self.status, String::from_utf8_lossy(&self.body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_what_may_be_done_about_them() {
        let seconds = |seconds| Verdict::Later(Some(Duration::from_secs(seconds)));
        for (status, headers, body, want) in [
            (201, &[][..], "", Verdict::Taken),
            (400, &[], "", Verdict::Refused),
            (401, &[], "", Verdict::Denied),
            (404, &[], "", Verdict::Denied),
            (410, &[], "", Verdict::Denied),
            (422, &[], "This SHA and context has reached the maximum number of statuses.", Verdict::Refused),
            (301, &[], "", Verdict::Denied),
            (403, &[], "Resource not accessible by integration", Verdict::Denied),
            (403, &[("x-ratelimit-remaining", "17")], "Must have push access", Verdict::Denied),
            (403, &[("retry-after", "30")], "", seconds(30)),
            (403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1120")], "", seconds(120)),
            (403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "900")], "", seconds(1)),
            (403, &[], "You have exceeded a secondary rate limit", seconds(60)),
            (403, &[], "You have triggered an abuse detection mechanism", seconds(60)),
            (429, &[], "", seconds(60)),
            (429, &[("retry-after", "5")], "", seconds(5)),
            (500, &[], "", Verdict::Later(None)),
            (503, &[("retry-after", "9")], "", seconds(9)),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, http::HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = Answer { status, headers: map, body: bytes::Bytes::from_static(body.as_bytes()) };
            assert_eq!(answer.verdict(1000), want, "{status} {headers:?} {body}");
        }
    }

    #[test]
    fn contexts_that_are_too_long_stay_distinct() {
        let long = "x".repeat(300);
        let (one, two) = (shorten(&format!("{long}1")), shorten(&format!("{long}2")));
        assert_eq!((one.chars().count(), two.chars().count()), (255, 255));
        assert_ne!(one, two);
        assert_eq!(shorten("serin/prod"), "serin/prod");
    }
}
