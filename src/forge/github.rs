//! GitHub, and GitHub Enterprise Server under another base URL: commit statuses by octocrab.
//!
//! Source: GitHub REST API, "Create a commit status" and "Rate limits for the REST API". octocrab is built without its
//! retry layer: it repeats at once and repeats POSTs, which is what gets clients banned; the status writer paces.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Limited};
use octocrab::Octocrab;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::answer::{Answer, BODY_LIMIT, Body, SetupError, TIMEOUT, later, owner_and_name, usable_token};
use crate::domain::{Sha, redact, with_causes};
use crate::ports::{Clock, CommitState, CommitStatus, Forge, ForgeError, timeout};

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
        let (owner, name) = owner_and_name(repository)?;
        // octocrab panics on a token that no header can carry.
        let token = usable_token(token)?;
        let secret = token.expose_secret();
        let crab = Octocrab::builder()
            .base_uri(api.trim_end_matches('/'))
            .map_err(|_| SetupError(format!("`{api}` is no URL")))?
            .personal_token(secret)
            .build()
            .map_err(|error| SetupError(redact(&error.to_string(), [secret])))?;
        Ok(Self { clock, crab, owner: owner.to_owned(), repository: name.to_owned(), token })
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
                Err(_) => bytes::Bytes::new(),
            };
            Ok::<_, String>(Answer { status: parts.status, headers: parts.headers, body: bytes })
        };
        let guard = self.clock.in_flight();
        let answer = timeout(&*self.clock, TIMEOUT, read).await;
        drop(guard);
        match answer {
            Ok(Ok(answer)) => answer.judged(&self.token, doing, self.clock.now().as_second()),
            Ok(Err(message)) => Err(later(&self.token, doing, &message)),
            Err(elapsed) => Err(later(&self.token, doing, &elapsed.to_string())),
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
        let found: Vec<Found> =
            serde_json::from_slice(&body).map_err(|error| later(&self.token, &doing, &error.to_string()))?;
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
