//! Requests that follow the route objects actually written, and the series that they make.
//!
//! Whoever holds the cluster calls [`Traffic::record_changes`] after every change and reads the series through
//! [`Series`]; nothing is computed for an app that nobody asks about. Response codes and times follow the behaviour of the
//! ready pods behind each Service ([`super::workloads::behaviour`]); a Service without a ready pod answers 503.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::promql::{Labels, Matcher, Point, Series};
use super::workloads::World;
use crate::domain::ObjectKey;

mod draw;
mod flow;
mod load;
mod meters;
mod route;
mod series;
#[cfg(test)]
mod tests;

use flow::Flow;
pub use load::Load;

/// Expected numbers of requests so far, without the luck of the draw.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// All requests that came in since the app's route or Service was first seen.
    pub sent: f64,
    /// Requests that a pod answered with 500.
    pub failed: f64,
    /// Requests that found no ready pod. Exactly 0 while there always was one wherever traffic went.
    pub lost: f64,
}

/// The traffic model. Calls must come in order of time.
pub struct Traffic {
    seed: u64,
    scrape: i64,
    flows: Mutex<BTreeMap<(String, String), Flow>>,
}

impl Traffic {
    /// No load yet; Prometheus scrapes every `scrape` (2 s is a good value: with less than 3 scrapes in an analysis
    /// interval the first check after a shift may find no data).
    pub fn new(seed: u64, scrape: Duration) -> Self {
        let scrape = i64::try_from(scrape.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { seed, scrape, flows: Mutex::default() }
    }

    fn flows(&self) -> MutexGuard<'_, BTreeMap<(String, String), Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a load. Of one that is there for the same namespace and app, the steps before the new ones stay. It counts
    /// from the next [`Traffic::record`] on.
    pub fn set_load(&self, load: Load) {
        let mut flows = self.flows();
        match flows.get_mut(&(load.namespace.clone(), load.app.clone())) {
            Some(flow) => flow.load.replace(load),
            None => {
                let key = (load.namespace.clone(), load.app.clone());
                flows.insert(key, Flow::new(load, self.seed, self.scrape));
            }
        }
    }

    /// Changes the rate of an app from `now` on; later steps of its load are dropped.
    pub fn set_rate(&self, namespace: &str, app: &str, now: Timestamp, requests_per_second: f64) {
        let mut load = Load::constant(namespace, app, now, requests_per_second);
        if let Some(flow) = self.flows().get(&(namespace.to_owned(), app.to_owned())) {
            load = Load { steps: load.steps, ..flow.load.clone() };
        }
        self.set_load(load);
    }

    /// Looks at the routes, Services and pods of every app.
    pub fn record(&self, world: &dyn World, now: Timestamp) {
        for flow in self.flows().values_mut() {
            flow.record(world, now.as_millisecond());
        }
    }

    /// Looks at the apps that `changed` touches.
    pub fn record_changes(&self, world: &dyn World, now: Timestamp, changed: &BTreeSet<ObjectKey>) {
        let mut flows = self.flows();
        for ((namespace, app), flow) in &mut *flows {
            let touches = |key: &&ObjectKey| {
                // Kuma's routes are in no namespace.
                key.namespace.as_ref().is_none_or(|known| known == namespace)
                    && match key.gvk.kind.as_str() {
                        "Pod" => flow.knows_pod(&key.name, world.get(key).as_deref()),
                        "Service" => flow.knows_service(&key.name),
                        "ApisixRoute" => key.name.contains(app.as_str()),
                        // Route objects bear the app's name; Skipper's second one and App Mesh's, more than that.
                        _ => {
                            let name = key.name.split('.').next().unwrap_or_default();
                            name.strip_suffix("-canary").unwrap_or(name) == *app || name == *app
                        }
                    }
            };
            if changed.iter().any(|key| touches(&key)) {
                flow.record(world, now.as_millisecond());
            }
        }
    }

    /// What an app's requests came to until `now`.
    pub fn totals(&self, namespace: &str, app: &str, now: Timestamp) -> Totals {
        let flows = self.flows();
        let flow = flows.get(&(namespace.to_owned(), app.to_owned()));
        flow.map_or_else(Totals::default, |flow| flow.totals_at(now.as_millisecond()))
    }

    /// Requests per second that reach a pod at `now`; what [`World::requests_per_second`] asks for.
    pub fn pod_rate(&self, pod: &ObjectKey, now: Timestamp) -> f64 {
        let flows = self.flows();
        let ours = flows.iter().filter(|((namespace, _), _)| pod.namespace.as_ref() == Some(namespace));
        ours.map(|(_, flow)| flow.pod_rate(&pod.name, now.as_millisecond())).sum()
    }
}

impl Series for Traffic {
    fn select(&self, matchers: &[Matcher], start: i64, end: i64) -> Vec<(Labels, Vec<Point>)> {
        let scrapes = (start.div_euclid(self.scrape) + 1, end.div_euclid(self.scrape), self.scrape);
        let mut found: BTreeMap<Labels, Vec<Point>> = BTreeMap::new();
        for ((namespace, _), flow) in &mut *self.flows() {
            if !flow.streams.iter().any(|stream| series::may_match(stream, namespace, matchers)) {
                continue;
            }
            flow.work_out(scrapes.1);
            for stream in flow.streams.iter().filter(|stream| series::may_match(stream, namespace, matchers)) {
                for (labels, points) in series::read(stream, namespace, matchers, scrapes) {
                    merge(found.entry(labels).or_default(), points);
                }
            }
        }
        found.into_iter().collect()
    }
}

/// Two loads that reach the same pods move the same counters.
fn merge(into: &mut Vec<Point>, points: Vec<Point>) {
    if into.is_empty() {
        *into = points;
        return;
    }
    let mut sums: BTreeMap<i64, f64> = into.iter().copied().collect();
    for (time, value) in points {
        *sums.entry(time).or_default() += value;
    }
    *into = sums.into_iter().collect();
}
