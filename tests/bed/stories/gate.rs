//! A gate before Gitea, by which the daemon reaches it: somebody may push between its look at the branch and its push.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::gitea;

/// A push of manifests is far smaller.
const LARGEST: usize = 64 << 20;

/// What happens before the next push to `main`.
type Race = Box<dyn FnOnce() -> BoxFuture<'static, anyhow::Result<()>> + Send>;

#[derive(Clone)]
struct Behind {
    http: reqwest::Client,
    race: Arc<Mutex<Option<Race>>>,
}

/// A running gate; it closes when dropped.
pub(crate) struct Gate {
    address: String,
    race: Arc<Mutex<Option<Race>>>,
    serving: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Gate {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let race = Arc::<Mutex<Option<Race>>>::default();
        let http = reqwest::Client::builder().no_proxy().build()?;
        let router = Router::new().fallback(pass).with_state(Behind { http, race: race.clone() });
        let serving = tokio::spawn(async move {
            // It serves until it is dropped; what fails is one connection.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { address, race, serving })
    }

    /// An address of Gitea, by way of the gate.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(gitea::ADDRESS, &self.address)
    }

    /// Says what happens before the next push to `main`.
    pub(crate) fn before_push(&self, race: impl FnOnce() -> BoxFuture<'static, anyhow::Result<()>> + Send + 'static) {
        *self.race.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(race));
    }
}

async fn pass(State(behind): State<Behind>, request: Request) -> Response {
    match forward(&behind, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn forward(behind: &Behind, request: Request) -> anyhow::Result<Response> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LARGEST).await?;
    let push = parts.method == Method::POST && parts.uri.path().ends_with("/git-receive-pack");
    let main = b"refs/heads/main";
    if push && body.windows(main.len()).any(|window| window == main) {
        let race = behind.race.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(race) = race {
            race().await?;
        }
    }
    let path = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or_default();
    let mut headers = parts.headers;
    headers.remove(HOST);
    let asked = behind.http.request(parts.method, format!("{}{path}", gitea::ADDRESS)).headers(headers).body(body);
    let answer = asked.send().await?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != TRANSFER_ENCODING && *name != CONNECTION) {
        response = response.header(name, value);
    }
    Ok(response.body(Body::from(answer.bytes().await?))?)
}
