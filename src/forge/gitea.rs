//! Gitea and Forgejo: commit statuses by their own API, which resembles GitHub's and differs where it hurts: a status is
//! posted with `state` and listed with `status`, lists are ordered by whole seconds, and answers come in pages of fifty.
//!
//! Source: Gitea's API, `POST /repos/{owner}/{repo}/statuses/{sha}` and `GET /repos/{owner}/{repo}/commits/{ref}/status`;
//! `models/git/commit_status.go` of its source.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ACCEPT, AUTHORIZATION};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::answer::{Answer, BODY_LIMIT, Body, SetupError, TIMEOUT, later, owner_and_name, usable_token};
use crate::domain::{Sha, with_causes};
use crate::outbound::Clients;
use crate::ports::{Clock, CommitState, CommitStatus, Forge, ForgeError, timeout};

/// Path of the API under an instance's address.
const API: &str = "/api/v1";
/// Statuses asked for at once: the most that Gitea gives unless configured otherwise.
const PAGE: usize = 50;
/// A first page with fewer statuses than this is the last: no server is configured to give less at once.
const LEAST_PAGE: usize = 10;
/// Pages that are read at most: a thousand contexts on one commit.
const PAGES: usize = 20;

/// One repository on a Gitea or Forgejo instance.
pub struct GiteaForge {
    clock: Arc<dyn Clock>,
    clients: Clients,
    /// Address of the instance, without a slash at its end.
    instance: String,
    owner: String,
    repository: String,
    token: SecretString,
}

impl GiteaForge {
    /// A repository, given as `OWNER/NAME`, of an instance, given as its address or that of its API
    /// (`https://git.example.com` or `https://git.example.com/api/v1`).
    ///
    /// # Errors
    /// [`SetupError`] when the URL, the name or the token cannot be used.
    pub fn new(api: &str, repository: &str, token: &SecretString, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let (owner, name) = owner_and_name(repository)?;
        let token = usable_token(token)?;
        let url = Url::parse(api).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut url = url.ok_or_else(|| SetupError("its address is no http or https URL".to_owned()))?;
        // Neither belongs to an address, and credentials would stand in messages.
        url.set_query(None);
        url.set_fragment(None);
        url.set_username("").and_then(|()| url.set_password(None)).ok();
        let instance = url.as_str().trim_end_matches('/');
        let instance = instance.strip_suffix(API).unwrap_or(instance).to_owned();
        let clients = Clients::default();
        Ok(Self { clock, clients, instance, owner: owner.to_owned(), repository: name.to_owned(), token })
    }

    /// One request, judged: the body of a success, or the error with words about `doing`.
    async fn ask(&self, doing: &str, route: &str, body: Option<&Body<'_>>) -> Result<bytes::Bytes, ForgeError> {
        let Self { instance, owner, repository, .. } = self;
        let exchange = async {
            let url = format!("{instance}{API}/repos/{owner}/{repository}/{route}");
            let url = Url::parse(&url).map_err(|error| format!("{url}: {error}"))?;
            let client = self.clients.get(&url, false)?;
            let request = match body {
                Some(body) => client.post(url).json(body),
                None => client.get(url),
            };
            let token = format!("token {}", self.token.expose_secret());
            let request = request.header(AUTHORIZATION, token).header(ACCEPT, "application/json");
            read(request.send().await.map_err(|error| with_causes(&error))?).await
        };
        let guard = self.clock.in_flight();
        let answer = timeout(&*self.clock, TIMEOUT, exchange).await;
        drop(guard);
        match answer {
            Ok(Ok(answer)) => answer.judged(&self.token, doing, self.clock.now().as_second()),
            Ok(Err(message)) => Err(later(&self.token, doing, &message)),
            Err(elapsed) => Err(later(&self.token, doing, &elapsed.to_string())),
        }
    }
}

/// The answer with as much of its body as is read.
async fn read(mut response: reqwest::Response) -> Result<Answer, String> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_LIMIT => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Answer { status, headers, body: body.into() }),
            Ok(Some(_)) | Err(_) => return Ok(Answer { status, headers, body: bytes::Bytes::new() }),
        }
    }
}

#[async_trait]
impl Forge for GiteaForge {
    async fn set_status(&self, status: &CommitStatus) -> Result<(), ForgeError> {
        let doing = format!("posting status {} on {}", status.context, status.sha.short());
        self.ask(&doing, &format!("statuses/{}", status.sha), Some(&Body::of(status))).await.map(drop)
    }

    async fn statuses(&self, sha: &Sha) -> Result<Vec<CommitStatus>, ForgeError> {
        let doing = format!("reading the statuses of {}", sha.short());
        let mut in_force: BTreeMap<String, CommitStatus> = BTreeMap::new();
        let mut first = 0;
        for page in 1..=PAGES {
            // The combined status lists the newest of each context by its id. The list of all of them is ordered by
            // whole seconds: of two posted within one, it does not tell which is in force.
            let route = format!("commits/{sha}/status?page={page}&limit={PAGE}");
            let body = self.ask(&doing, &route, None).await?;
            let found = combined(&body).map_err(|error| later(&self.token, &doing, &error))?;
            let count = found.len();
            in_force.extend(found.into_iter().filter_map(|found| {
                let status = found.into_status(sha)?;
                Some((status.context.clone(), status))
            }));
            first = if page == 1 { count } else { first };
            if count < first.max(LEAST_PAGE) {
                break;
            }
        }
        Ok(in_force.into_values().collect())
    }

    fn file_link(&self, branch: &str, path: &str) -> Option<String> {
        let Self { instance, owner, repository, .. } = self;
        Some(format!("{instance}/{owner}/{repository}/src/branch/{branch}/{path}"))
    }
}

/// The statuses of an answer; versions before 1.24 answer nothing at all for a commit without any.
fn combined(body: &[u8]) -> Result<Vec<Found>, String> {
    #[derive(Deserialize)]
    struct Combined {
        statuses: Option<Vec<Found>>,
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let combined: Combined = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(combined.statuses.unwrap_or_default())
}

/// A status as Gitea lists it.
#[derive(Deserialize)]
struct Found {
    status: String,
    context: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    target_url: String,
}

impl Found {
    /// `None` for a state that we never post, such as `warning`: it is somebody else's.
    fn into_status(self, sha: &Sha) -> Option<CommitStatus> {
        let state = match self.status.as_str() {
            "pending" => CommitState::Pending,
            "success" => CommitState::Success,
            "failure" => CommitState::Failure,
            "error" => CommitState::Error,
            _ => return None,
        };
        let target_url = Some(self.target_url).filter(|url| !url.is_empty());
        Some(CommitStatus { sha: sha.clone(), context: self.context, state, description: self.description, target_url })
    }
}
