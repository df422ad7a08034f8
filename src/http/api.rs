//! `/api`: what `serin get` prints, as JSON for programs. Read-only, and nothing in it is secret.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Endpoints;

/// A list that `/api` serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Every Canary of the cluster.
    Canaries,
    /// The releases that the ledgers remember.
    Releases,
    /// The configured sources.
    Sources,
}

impl List {
    const ALL: [(&'static str, Self); 3] =
        [("canaries", Self::Canaries), ("releases", Self::Releases), ("sources", Self::Sources)];
}

/// Where the lists come from.
#[async_trait]
pub trait Records: Send + Sync {
    /// The records of a list, of one namespace or of all, as `serin get --output json` prints them.
    ///
    /// # Errors
    /// Text for people when the cluster does not answer.
    async fn records(&self, list: List, namespace: Option<&str>) -> Result<Vec<Value>, String>;
}

/// The records, once the daemon has reached the cluster.
pub type RecordsSlot = Arc<OnceLock<Arc<dyn Records>>>;

#[derive(Deserialize)]
pub(super) struct Selection {
    namespace: Option<String>,
}

/// `GET /api`: the paths below it.
pub(super) async fn index() -> Json<Value> {
    let paths: Vec<String> = List::ALL.iter().map(|(name, _)| format!("/api/{name}")).collect();
    Json(json!({ "paths": paths }))
}

/// `GET /api/{list}`, with `?namespace=` for one namespace only.
pub(super) async fn list(
    State(endpoints): State<Endpoints>,
    Path(name): Path<String>,
    Query(selection): Query<Selection>,
) -> Response {
    let Some((_, list)) = List::ALL.iter().find(|(known, _)| *known == name) else {
        return failed(StatusCode::NOT_FOUND, "no such list: see /api");
    };
    let Some(records) = endpoints.records.get() else {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "the cluster is not reached yet");
    };
    match records.records(*list, selection.namespace.as_deref()).await {
        Ok(records) => Json(records).into_response(),
        Err(message) => failed(StatusCode::SERVICE_UNAVAILABLE, &message),
    }
}

fn failed(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({ "error": message }))).into_response()
}
