//! The loops of the daemon: sources (Git to cluster), canaries (observe, decide, act, record), write-back (verdicts to
//! Git and forge). They know ports and pure rooms only.

mod bootstrap;
mod canary;
mod drain;
mod fetch;
mod journals;
mod judge;
mod publisher;
mod refs;
mod registry;
mod render;
mod revert;
mod schedule;
mod settings;
mod source;
mod state;
pub(crate) mod texts;
mod wanted;
mod writer;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use drain::Drain;
pub use settings::{Channel, Outgoing, Ports, RouterFactory, Settings, Source, SourceSettings};
pub use state::{CONFIRM_PRUNE, KEEP_GIT, state_key};

pub(crate) use render::rendered;

use fetch::Fetcher;
use registry::Registry;
use render::SourceRender;
use source::SourceContext;
use state::SourceState;

/// Runs the daemon until [`Drain::begin`] and the end of all work under way, or until the future is dropped, which may
/// happen at any moment: nothing is lost (I4). Each source comes with the receiver of its triggers (webhook pushes).
pub async fn run(settings: Settings, ports: Ports, sources: Vec<(Source, mpsc::Receiver<()>)>) {
    let settings = Arc::new(settings);
    let (registry, looks) = Registry::new(ports.telemetry.log_secrets().clone());
    let registry = Arc::new(registry);
    let (context, background) = canary::Context::new(settings.clone(), ports.clone(), registry.clone());
    let mut tasks = JoinSet::new();
    let mut states = Vec::new();
    tasks.spawn(background);
    let mut writers: Vec<Vec<Arc<SourceContext>>> = Vec::new();
    let mut fetchers: Vec<Arc<Fetcher>> = Vec::new();
    let mut publishers: BTreeMap<(String, Option<String>), Vec<Arc<SourceContext>>> = BTreeMap::new();
    for (source, triggers) in sources {
        let state = Arc::new(SourceState::new(&source.settings, &settings.cluster, &settings.namespace, ports.clone()));
        let render = SourceRender::new(source.settings.clone(), settings.cluster.clone());
        registry.add(&state, &render);
        states.push(state.clone());
        let fetcher = fetcher(&mut fetchers, &source, &ports);
        let context = Arc::new(SourceContext {
            source,
            fetcher,
            cluster_name: settings.cluster.clone(),
            config_tracking: settings.config_tracking,
            ports: ports.clone(),
            registry: registry.clone(),
            state,
            render,
            head: std::sync::Mutex::default(),
            reverts: std::sync::Mutex::default(),
            passed: std::sync::atomic::AtomicBool::default(),
        });
        share_writer(&mut writers, &context);
        let group = (context.source.settings.repository.clone(), context.source.settings.status_branch.clone());
        publishers.entry(group).or_default().push(context.clone());
        tasks.spawn(source::run(context, triggers));
    }
    for sources in writers {
        tasks.spawn(writer::run(sources));
    }
    for sources in publishers.into_values() {
        tasks.spawn(publisher::run(sources));
    }
    tasks.spawn(canary::run(context, looks));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a loop of the daemon ended");
        }
    }
    for state in states {
        if let Err(error) = state.save(false).await {
            tracing::warn!(source = state.name, %error, "saving the journals at the end");
        }
    }
}

/// The fetcher of a source's branch, which it may share with others.
fn fetcher(known: &mut Vec<Arc<Fetcher>>, source: &Source, ports: &Ports) -> Arc<Fetcher> {
    let reference = format!("refs/heads/{}", source.settings.branch);
    if let Some(fetcher) = known.iter().find(|fetcher| fetcher.is_of(&source.git, &reference)) {
        return fetcher.clone();
    }
    let fetcher = Arc::new(Fetcher::new(source.git.clone(), reference, ports.clock.clone()));
    known.push(fetcher.clone());
    fetcher
}

/// Puts a source to those that post to the same repository of the same forge.
fn share_writer(writers: &mut Vec<Vec<Arc<SourceContext>>>, context: &Arc<SourceContext>) {
    let Some(forge) = &context.source.forge else { return };
    let same = |other: &Arc<SourceContext>| other.source.forge.as_ref().is_some_and(|other| Arc::ptr_eq(other, forge));
    match writers.iter_mut().find(|sources| sources.iter().any(same)) {
        Some(sources) => sources.push(context.clone()),
        None => writers.push(vec![context.clone()]),
    }
}

/// Runs one piece of a loop's work. A panic in it, which is a defect, ends that piece only.
async fn caught<T>(what: &str, work: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    if ended.is_err() {
        tracing::error!(what, "this panicked, which is a defect of serin; it is tried again");
    }
    ended.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flagger dies of an Ingress without annotations, and with it every other canary's run.
    #[tokio::test]
    async fn q18_a_panic_ends_its_own_piece_of_work_only() {
        let defect = async { "no number".parse::<u8>().expect("a defect") };
        assert_eq!(caught("a tick", defect).await, None);
        assert_eq!(caught("a tick", async { 1 }).await, Some(1));
    }
}
