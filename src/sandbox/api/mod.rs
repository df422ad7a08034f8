#![expect(clippy::disallowed_types, reason = "shell: hands out a kube client")]
//! The Kubernetes API over a [`Store`].

mod builtin;
mod convert;
pub(crate) mod delete;
mod discovery;
pub mod error;
mod fields;
pub(crate) mod http;
mod options;
mod owners;
mod patch;
mod protobuf;
mod route;
mod rules;
mod schema;
mod selector;
mod shape;
pub(crate) mod state;
mod table;
mod types;
mod view;
mod watch;
pub(crate) mod write;

use std::net::SocketAddr;

use axum::Router;

use super::store::Store;

/// The API as a tower service. A simulated clock waits until the client has taken every watch event.
pub fn service(store: Store) -> Router {
    router(store, true)
}

fn router(store: Store, waited_for: bool) -> Router {
    Router::new().fallback(http::answer).with_state(http::Door { store, waited_for })
}

/// A real kube client that talks to the store in memory.
pub fn client(store: &Store, namespace: &str) -> kube::Client {
    kube::Client::new(service(store.clone()), namespace)
}

/// Serves the API on a port until the task is dropped. Watches from there do not hold up a simulated clock: a stalled
/// kubectl must not stop the demo.
///
/// # Errors
/// When the listener fails.
pub async fn serve(store: Store, listener: tokio::net::TcpListener) -> std::io::Result<()> {
    axum::serve(listener, router(store, false)).await
}

/// A kubeconfig for a server at this address, as YAML.
pub fn kubeconfig(addr: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: serin-sandbox\n\
         clusters:\n- name: serin-sandbox\n  cluster:\n    server: http://{addr}\n\
         contexts:\n- name: serin-sandbox\n  context:\n    cluster: serin-sandbox\n    user: serin-sandbox\n    namespace: default\n\
         users:\n- name: serin-sandbox\n  user: {{}}\n"
    )
}
