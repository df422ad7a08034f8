//! GitHub, and GitHub Enterprise Server under another base URL: commit statuses by octocrab.
//!
//! Source: GitHub REST API, "Create a commit status" and "Rate limits for the REST API". octocrab is built without its
//! retry layer: it repeats at once and repeats POSTs, which is what gets clients banned; the status writer paces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Limited};
use octocrab::Octocrab;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::domain::{Sha, redact, sha256_hex, truncate, with_causes};
use crate::ports::{Clock, CommitState, CommitStatus, Forge, ForgeError, timeout};

/// Longest description that GitHub takes, in characters.
const DESCRIPTION_LIMIT: usize = 140;
/// Longest context that GitHub takes, in characters.
const CONTEXT_LIMIT: usize = 255;
/// Longest message of ours about an answer, in characters.
const MESSAGE_LIMIT: usize = 300;
/// Most of an answer that is read.
const BODY_LIMIT: usize = 1 << 20;
/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// What GitHub asks of a client that hit a limit without being told for how long.
const UNTOLD_PAUSE: Duration = Duration::from_secs(60);

/// Why a forge cannot be used as it is configured.
#[derive(Debug, Clone, thiserror::Error)]
#[error("setting up the forge: {0}")]
pub struct SetupError(String);

/// One repository on GitHub.
pub struct GithubForge {
    clock: Arc<dyn Clock>,
    crab: Octocrab,
    owner: String,
    repository: String,
    token: SecretString,
}

impl GithubForge {
    /// A repository, given as `OWNER/NAME`, under an API base URL such as `https://api.github.com`. Must be called
    /// inside a tokio runtime, on which octocrab runs its connections.
    ///
    /// # Errors
    /// [`SetupError`] when the URL, the name or the token cannot be used, or the machine has no certificate store.
    pub fn new(api: &str, repository: &str, token: &SecretString, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !text.starts_with('.')
        };
        let (owner, name) = repository
            .split_once('/')
            .filter(|(owner, name)| plain(owner) && plain(name))
            .ok_or_else(|| SetupError(format!("repository `{repository}` is not OWNER/NAME")))?;
        let secret = token.expose_secret().trim();
        // octocrab panics on a token that no header can carry.
        if secret.is_empty() || !secret.chars().all(|c| c.is_ascii_graphic()) {
            return Err(SetupError("the token is empty or holds characters that no token has".to_owned()));
        }
        let crab = Octocrab::builder()
            .base_uri(api.trim_end_matches('/'))
            .map_err(|_| SetupError(format!("`{api}` is no URL")))?
            .personal_token(secret)
            .build()
            .map_err(|error| SetupError(redact(&error.to_string(), [secret])))?;
        let token = SecretString::from(secret.to_owned());
        Ok(Self { clock, crab, owner: owner.to_owned(), repository: name.to_owned(), token })
    }

    /// Words about a failure: without the token, in one line, not endless.
    fn words(&self, doing: &str, message: &str) -> String {
        let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = truncate(&redact(&line, [self.token.expose_secret()]), MESSAGE_LIMIT);
        format!("{doing}: {line}")
    }

    /// One request, judged: the body of a success, or the error with words about `doing`.
    async fn ask(
        &self,
        doing: &str,
        request: impl Future<Output = octocrab::Result<http::Response<BoxBody<bytes::Bytes, octocrab::Error>>>>,
    ) -> Result<bytes::Bytes, ForgeError> {
        let read = async {
            let response = request.await.map_err(|error| with_causes(&error))?;
            let (parts, body) = response.into_parts();
            let bytes = match Limited::new(body, BODY_LIMIT).collect().await {
                Ok(body) => body.to_bytes(),
                // The status line decides; a body that breaks off or is too long only costs its words.
                Err(_) => bytes::Bytes::new(),
            };
            Ok::<_, String>(Answer { status: parts.status, headers: parts.headers, body: bytes })
        };
        let guard = self.clock.in_flight();
        let answer = timeout(&*self.clock, TIMEOUT, read).await;
        drop(guard);
        let later = |message: &str| ForgeError::Later { message: self.words(doing, message), retry_after: None };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(message)) => return Err(later(&message)),
            Err(elapsed) => return Err(later(&elapsed.to_string())),
        };
        match answer.verdict(self.clock.now().as_second()) {
            Verdict::Taken => Ok(answer.body),
            Verdict::Refused => Err(ForgeError::Permanent(self.words(doing, &answer.text()))),
            Verdict::Later(retry_after) => {
                Err(ForgeError::Later { message: self.words(doing, &answer.text()), retry_after })
            }
        }
    }
}

#[async_trait]
impl Forge for GithubForge {
    async fn set_status(&self, status: &CommitStatus) -> Result<(), ForgeError> {
        let route = format!("/repos/{}/{}/statuses/{}", self.owner, self.repository, status.sha);
        let body = Body::of(status);
        let doing = format!("posting status {} on {}", status.context, status.sha.short());
        self.ask(&doing, self.crab._post(route, Some(&body))).await.map(drop)
    }

    async fn statuses(&self, sha: &Sha) -> Result<Vec<CommitStatus>, ForgeError> {
        let route = format!("/repos/{}/{}/commits/{sha}/statuses?per_page=100", self.owner, self.repository);
        let doing = format!("reading the statuses of {}", sha.short());
        let body = self.ask(&doing, self.crab._get(route)).await?;
        let found: Vec<Found> = serde_json::from_slice(&body).map_err(|error| ForgeError::Later {
            message: self.words(&doing, &error.to_string()),
            retry_after: None,
        })?;
        let mut in_force: BTreeMap<String, CommitStatus> = BTreeMap::new();
        // Newest first: the first of a context is the one in force.
        for Found { state, context, description, target_url } in found {
            let description = description.unwrap_or_default();
            let status = CommitStatus { sha: sha.clone(), context: context.clone(), state, description, target_url };
            in_force.entry(context).or_insert(status);
        }
        Ok(in_force.into_values().collect())
    }
}

/// A status as GitHub lists it.
#[derive(Deserialize)]
struct Found {
    state: CommitState,
    context: String,
    description: Option<String>,
    target_url: Option<String>,
}

/// The request's body.
#[derive(Serialize)]
struct Body<'a> {
    state: CommitState,
    context: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_url: Option<&'a str>,
}

impl<'a> Body<'a> {
    fn of(status: &'a CommitStatus) -> Self {
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
    Later(Option<Duration>),
}

/// What GitHub answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Answer {
    fn verdict(&self, now: i64) -> Verdict {
        match self.status {
            status if status.is_success() => Verdict::Taken,
            StatusCode::FORBIDDEN => match (self.asked_pause(now), self.speaks_of_a_limit()) {
                (Some(pause), _) => Verdict::Later(Some(pause)),
                (None, true) => Verdict::Later(Some(UNTOLD_PAUSE)),
                (None, false) => Verdict::Refused,
            },
            StatusCode::TOO_MANY_REQUESTS => Verdict::Later(Some(self.asked_pause(now).unwrap_or(UNTOLD_PAUSE))),
            StatusCode::REQUEST_TIMEOUT => Verdict::Later(None),
            status if status.is_server_error() => Verdict::Later(self.asked_pause(now)),
            // 401, 404, 422 and the rest, a redirect of a renamed repository among them: a person must act.
            _ => Verdict::Refused,
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

    /// Status and GitHub's own words.
    fn text(&self) -> String {
        #[derive(Deserialize)]
        struct Words {
            message: String,
            #[serde(default)]
            errors: Vec<serde_json::Value>,
        }
        let location = self.headers.get("location").and_then(|value| value.to_str().ok());
        match (serde_json::from_slice::<Words>(&self.body), location) {
            (_, Some(location)) if self.status.is_redirection() => {
                format!("{}: the repository has moved to {location}", self.status)
            }
            (Ok(words), _) => {
                let details: Vec<&str> =
                    words.errors.iter().filter_map(|error| error.get("message")?.as_str()).collect();
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
            (401, &[], "", Verdict::Refused),
            (404, &[], "", Verdict::Refused),
            (422, &[], "This SHA and context has reached the maximum number of statuses.", Verdict::Refused),
            (301, &[], "", Verdict::Refused),
            (403, &[], "Resource not accessible by integration", Verdict::Refused),
            (403, &[("x-ratelimit-remaining", "17")], "Must have push access", Verdict::Refused),
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
