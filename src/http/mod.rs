//! What we answer over HTTP: health, metrics, lists for programs, and push webhooks of forges.

mod api;
mod receiver;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub use api::{List, Records, RecordsSlot};

use crate::telemetry::{CONTENT_TYPE, Telemetry};

/// Whether we are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The loops run.
    Yes,
    /// They do not, for this reason.
    No(&'static str),
}

/// Whether we are ready, shared with the composition root.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<Ready>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Ready::No("starting"))))
    }
}

impl Readiness {
    /// Says from now on that we are ready, or why we are not.
    pub fn set(&self, ready: Ready) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    /// Whether we are ready.
    pub fn get(&self) -> Ready {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the endpoints need.
#[derive(Clone)]
pub struct Endpoints {
    /// Metrics to show.
    pub telemetry: Arc<Telemetry>,
    /// What `/readyz` answers.
    pub ready: Readiness,
    /// Secret of each source that has a webhook.
    pub hooks: BTreeMap<String, SecretString>,
    /// Told the name of a source whose remote says that it has changed. A full channel loses nothing: the source has
    /// been told already.
    pub triggers: mpsc::Sender<String>,
    /// What `/api` answers with.
    pub records: RecordsSlot,
}

/// All endpoints: `/healthz`, `/readyz`, `/metrics`, `/api` and `/hooks/{source}`.
pub fn router(endpoints: Endpoints) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "OK" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api", get(api::index))
        .route("/api/{list}", get(api::list))
        .route("/hooks/{source}", post(receiver::receive))
        .with_state(endpoints)
}

/// Serves until `shutdown` is done and the answers under way are out.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    endpoints: Endpoints,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(endpoints)).with_graceful_shutdown(shutdown).await
}

async fn readyz(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    match endpoints.ready.get() {
        Ready::Yes => (StatusCode::OK, "OK"),
        Ready::No(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn metrics(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], endpoints.telemetry.encode())
}

#[cfg(test)]
mod tests;
