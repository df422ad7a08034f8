//! One app's requests over time: where they went, and the counters that they moved.
//!
//! What changes is kept as segments of constant routing; counters are worked out of them only when somebody asks, scrape
//! by scrape, and kept for an hour. What one scrape adds to a counter is a function of the seed, the series and the
//! number of the scrape.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::workloads::{Behaviour, World, is_ready};
use super::Totals;
use super::draw::{BOUNDS, Draw, buckets, number_of};
use super::load::Load;
use super::meters::Meter;
use super::route::{Share, selector, selects, split};
use crate::domain::Gvk;

/// Buckets of one histogram, the last without a bound.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;
/// First bucket of failed requests.
pub(super) const FAILED: usize = BUCKETS;
/// Requests that Envoy answered with 503, for want of an endpoint.
pub(super) const NO_ENDPOINT: usize = 2 * BUCKETS;
/// Sum of response times in milliseconds.
pub(super) const SUM: usize = 2 * BUCKETS + 1;
/// All counters of a series.
pub(super) type Counts = [u64; 2 * BUCKETS + 2];

/// How long counters are kept, in milliseconds.
const KEPT: i64 = 3_600_000;
/// Segments that may wait to be worked out.
const WAITING: usize = 512;

/// A pod that gets requests.
#[derive(Debug, Clone, PartialEq)]
struct Pod {
    behaviour: Behaviour,
    buckets: Vec<(u8, f64)>,
    stream: usize,
}

/// A Service that gets requests.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    share: Share,
    cluster: Option<usize>,
    pods: Vec<Pod>,
}

/// Constant routing from a time on.
struct Segment {
    from: i64,
    targets: Arc<[Target]>,
}

/// What a series of counters is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    /// One of Envoy's clusters.
    Cluster(String),
    /// One of Envoy's clusters, by copies of requests, whose answers nobody gets.
    Copies(String),
    /// One of Skipper's routes.
    Route(String),
    /// A pod's own metrics.
    Pod(String),
    /// What another mesh or ingress controller counts.
    Meter(Meter),
    /// The same, of copies of requests, whose answers nobody gets.
    Mirrored(Meter),
}

/// What a scrape added to some of the counters.
type Added = Box<[(u8, u32)]>;

/// The counters of one Envoy cluster or pod.
pub(super) struct Stream {
    pub(super) about: About,
    id: u64,
    /// Scrape after the last one in `added`.
    next: i64,
    /// What each scrape added; `None` where there was nothing to scrape.
    added: VecDeque<Option<Added>>,
    total: Counts,
    pending: Vec<(u8, u32)>,
}

impl Stream {
    fn count(&mut self, slot: usize, more: u32) {
        if more == 0 {
            return;
        }
        let slot = u8::try_from(slot).unwrap_or(u8::MAX);
        match self.pending.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, count)) => *count += more,
            None => self.pending.push((slot, more)),
        }
    }

    fn scraped(&mut self, scrape: i64, kept: usize) {
        let gap = scrape - self.next;
        if self.added.is_empty() || gap > i64::try_from(kept).unwrap_or(i64::MAX) {
            self.added.clear();
        } else {
            (0..gap).for_each(|_| self.added.push_back(None));
        }
        for (slot, more) in &self.pending {
            if let Some(total) = self.total.get_mut(usize::from(*slot)) {
                *total += u64::from(*more);
            }
        }
        self.added.push_back(Some(std::mem::take(&mut self.pending).into_boxed_slice()));
        self.next = scrape + 1;
        while self.added.len() > kept {
            self.added.pop_front();
        }
    }

    /// The counters at the scrapes `first..=last`, in order.
    pub(super) fn between(&self, first: i64, last: i64) -> Vec<(i64, Counts)> {
        let mut found = Vec::new();
        let mut counts = self.total;
        for (scrape, added) in (0..self.next).rev().zip(self.added.iter().rev()) {
            if scrape < first {
                break;
            }
            let Some(added) = added else { continue };
            if scrape <= last {
                found.push((scrape, counts));
            }
            for (slot, more) in added {
                if let Some(count) = counts.get_mut(usize::from(*slot)) {
                    *count -= u64::from(*more);
                }
            }
        }
        found.reverse();
        found
    }
}

/// One app's requests.
pub(super) struct Flow {
    pub(super) load: Load,
    pub(super) streams: Vec<Stream>,
    selectors: Vec<Vec<(String, String)>>,
    segments: VecDeque<Segment>,
    /// First scrape that is not worked out.
    next: Option<i64>,
    totals: Totals,
    totals_until: i64,
    seed: u64,
    /// Milliseconds between scrapes.
    scrape: i64,
}

impl Flow {
    pub(super) fn new(load: Load, seed: u64, scrape: i64) -> Self {
        Self {
            load,
            streams: Vec::new(),
            selectors: Vec::new(),
            segments: VecDeque::new(),
            next: None,
            totals: Totals::default(),
            totals_until: 0,
            seed,
            scrape,
        }
    }

    /// Reads where the requests go from `now` on.
    pub(super) fn record(&mut self, world: &dyn World, now: i64) {
        let Some(shares) = split(world, &self.load).or_else(|| self.forsaken()) else { return };
        self.selectors.clear();
        let targets: Vec<Target> = shares.into_iter().map(|share| self.target(world, share)).collect();
        let present = self.segments.back();
        if present.is_some_and(|present| *present.targets == *targets) {
            return;
        }
        match present {
            Some(_) => self.totals = self.totals_at(now),
            None => self.next = Some(now.div_euclid(self.scrape) + 1),
        }
        self.totals_until = now;
        if self.segments.back().is_some_and(|last| last.from == now) {
            self.segments.pop_back();
        }
        self.segments.push_back(Segment { from: now, targets: targets.into() });
        if self.segments.len() > WAITING {
            self.work_out(now.div_euclid(self.scrape));
        }
    }

    /// An app that was there and is gone: its requests find nothing.
    fn forsaken(&self) -> Option<Vec<Share>> {
        self.segments.back()?;
        Some(vec![Share { service: String::new(), counted: None, fraction: 1.0 }])
    }

    fn target(&mut self, world: &dyn World, share: Share) -> Target {
        let namespace = self.load.namespace.clone();
        let mut pods = Vec::new();
        if let Some(selector) = selector(world, &namespace, &share.service) {
            for pod in world.list(&Gvk::new("v1", "Pod"), Some(&namespace)) {
                if selects(&selector, &pod) && is_ready(&pod) {
                    let behaviour = Behaviour::of_pod(&pod);
                    let stream = self.stream(About::Pod(pod.name().to_owned()));
                    pods.push(Pod { behaviour, buckets: buckets(&behaviour), stream });
                }
            }
            self.selectors.push(selector);
        }
        let cluster = share.counted.clone().map(|about| self.stream(about));
        Target { share, cluster, pods }
    }

    fn stream(&mut self, about: About) -> usize {
        if let Some(known) = self.streams.iter().position(|stream| stream.about == about) {
            return known;
        }
        let name = match &about {
            About::Cluster(name) | About::Copies(name) | About::Route(name) | About::Pod(name) => name.clone(),
            About::Meter(meter) => meter.id(),
            About::Mirrored(meter) => format!("mirrored {}", meter.id()),
        };
        let id = number_of(&format!("{}/{}/{name}", self.load.namespace, self.load.app));
        let stream = Stream { about, id, next: 0, added: VecDeque::new(), total: [0; _], pending: Vec::new() };
        self.streams.push(stream);
        self.streams.len() - 1
    }

    /// Whether a pod gets requests now, or would by its labels.
    pub(super) fn knows_pod(&self, name: &str, pod: Option<&crate::domain::Object>) -> bool {
        pod.is_some_and(|pod| self.selectors.iter().any(|selector| selects(selector, pod)))
            || self.pods_now().any(|(_, stream)| matches!(&stream.about, About::Pod(known) if known == name))
    }

    /// Whether a Service gets requests now.
    pub(super) fn knows_service(&self, name: &str) -> bool {
        let targets = self.segments.back().map(|segment| &segment.targets);
        self.load.app == name
            || targets.is_some_and(|targets| targets.iter().any(|target| target.share.service == name))
    }

    /// Pods that get requests now, each with its part of them.
    fn pods_now(&self) -> impl Iterator<Item = (f64, &Stream)> {
        let targets = self.segments.back().map(|segment| &*segment.targets).unwrap_or_default();
        targets.iter().flat_map(move |target| {
            let part = target.share.fraction / target.pods.len().max(1) as f64;
            target.pods.iter().filter_map(move |pod| Some((part, self.streams.get(pod.stream)?)))
        })
    }

    /// Requests per second that reach a pod.
    pub(super) fn pod_rate(&self, name: &str, now: i64) -> f64 {
        let ours = self.pods_now().filter(|(_, stream)| matches!(&stream.about, About::Pod(known) if known == name));
        ours.map(|(part, _)| part).sum::<f64>() * self.load.rate(now)
    }

    /// What the requests came to until `now`.
    pub(super) fn totals_at(&self, now: i64) -> Totals {
        let mut totals = self.totals;
        let Some(segment) = self.segments.back() else { return totals };
        let sent = self.load.expected(self.totals_until, now);
        totals.sent += sent;
        let copies = |target: &Target| matches!(&target.share.counted, Some(About::Copies(_) | About::Mirrored(_)));
        for target in segment.targets.iter().filter(|target| !copies(target)) {
            let part = sent * target.share.fraction;
            if target.pods.is_empty() {
                totals.lost += part;
            } else {
                let errors: f64 = target.pods.iter().map(|pod| pod.behaviour.errors).sum();
                totals.failed += part * errors / target.pods.len() as f64;
            }
        }
        totals
    }

    /// Works out the counters up to a scrape.
    pub(super) fn work_out(&mut self, last: i64) {
        let Some(mut scrape) = self.next else { return };
        let kept = usize::try_from(KEPT / self.scrape).unwrap_or(1).max(2);
        while scrape <= last {
            self.work_out_one(scrape, kept);
            scrape += 1;
        }
        self.next = Some(scrape);
    }

    fn work_out_one(&mut self, scrape: i64, kept: usize) {
        let (begin, end) = ((scrape - 1) * self.scrape, scrape * self.scrape);
        // A segment that begins at the very time of a scrape counts from the next one on.
        while self.segments.get(1).is_some_and(|next| next.from <= begin) {
            self.segments.pop_front();
        }
        let mut index = 0;
        while let Some(segment) = self.segments.get(index).filter(|segment| segment.from < end) {
            let until = self.segments.get(index + 1).map_or(end, |next| next.from.min(end));
            let from = segment.from.max(begin);
            let targets = Arc::clone(&segment.targets);
            let expected = self.load.expected(from, until);
            if expected > 0.0 {
                for target in &*targets {
                    self.serve(target, expected * target.share.fraction, from);
                }
            }
            index += 1;
            if until == end {
                self.scrape_all(&targets, scrape, kept);
                break;
            }
        }
    }

    fn serve(&mut self, target: &Target, expected: f64, from: i64) {
        if expected <= 0.0 {
            return;
        }
        let time = u64::from_ne_bytes(from.to_ne_bytes());
        if target.pods.is_empty() {
            if let Some(cluster) = target.cluster.and_then(|cluster| self.streams.get_mut(cluster)) {
                let mut draw = Draw::about(self.seed, [cluster.id, time, 1]);
                cluster.count(NO_ENDPOINT, draw.poisson(expected));
            }
            return;
        }
        for pod in &target.pods {
            let Some(id) = self.streams.get(pod.stream).map(|stream| stream.id) else { continue };
            let way = target.cluster.and_then(|cluster| self.streams.get(cluster)).map_or(0, |cluster| cluster.id);
            let mut draw = Draw::about(self.seed, [id, time, way]);
            let requests = draw.poisson(expected / target.pods.len() as f64);
            let failed = draw.binomial(requests, pod.behaviour.errors);
            for (first, mut left) in [(0, requests - failed), (FAILED, failed)] {
                for (bucket, chance) in &pod.buckets {
                    let here = draw.binomial(left, *chance);
                    left -= here;
                    self.add(pod.stream, target.cluster, first + usize::from(*bucket), here);
                }
            }
            let millis = (f64::from(requests) * pod.behaviour.latency).round() as u32;
            self.add(pod.stream, target.cluster, SUM, millis);
        }
    }

    fn add(&mut self, pod: usize, cluster: Option<usize>, slot: usize, more: u32) {
        for stream in [Some(pod), cluster].into_iter().flatten() {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.count(slot, more);
            }
        }
    }

    /// Prometheus comes by: what is there now is read, what is gone is not.
    fn scrape_all(&mut self, targets: &[Target], scrape: i64, kept: usize) {
        let present = targets
            .iter()
            .flat_map(|target| target.cluster.into_iter().chain(target.pods.iter().map(|pod| pod.stream)));
        for index in present {
            if let Some(stream) = self.streams.get_mut(index)
                && stream.next <= scrape
            {
                stream.scraped(scrape, kept);
            }
        }
        for stream in &mut self.streams {
            stream.pending.clear();
        }
    }
}
