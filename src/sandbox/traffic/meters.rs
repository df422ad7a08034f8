//! What meshes and ingress controllers other than Envoy and Skipper count, under the names and labels that their built-in
//! queries ask for.
//!
//! Sources: ingress-nginx "Monitoring", Linkerd "Proxy Metrics", Istio "Standard Metrics", OSM "Metrics", Traefik
//! "Prometheus", APISIX "prometheus" plugin.

use super::super::promql::{Labels, Matcher, NAME};
use super::flow::{BUCKETS, Counts, FAILED, NO_ENDPOINT};
use super::series::{Read, buckets, millis, positive, seconds, sum, total_millis};

/// Who counts, and about what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meter {
    /// ingress-nginx, about the requests of one Ingress to one Service.
    Nginx {
        /// The user's Ingress.
        ingress: String,
        /// The Service that answered.
        service: String,
        /// The upstream of the canary, empty for the user's own.
        canary: String,
        /// Prometheus put its own labels first, so that ingress-nginx's are called `exported_…`.
        exported: bool,
    },
    /// The proxies of a mesh, about a Deployment: as Linkerd, Istio and OSM say it.
    Workload(String),
    /// An Envoy beside the pods of a mesh, by the labels that the mesh gives it.
    Envoy(Vec<(&'static str, String)>),
    /// Traefik, about a Service, `NAME-PORT`.
    Traefik(String),
    /// APISIX, about a rule of an ApisixRoute, `ROUTE_RULE`, and one of the Services behind it.
    Apisix(String, String),
}

/// A counter by result and a histogram of the same requests.
struct Family {
    counter: &'static str,
    histogram: &'static str,
    in_seconds: bool,
    /// Whether the histogram has the label of the result, too.
    by_result: bool,
    /// Whether a request that found no pod is counted: not where the proxy of the destination counts.
    lost: bool,
    result: fn(&'static str) -> (&'static str, &'static str),
    labels: Vec<(&'static str, String)>,
}

impl Meter {
    /// A name that no other meter of the namespace has.
    pub(super) fn id(&self) -> String {
        format!("{self:?}")
    }

    fn families(&self, namespace: &str) -> Vec<Family> {
        let own = |value: &str| value.to_owned();
        match self {
            Self::Nginx { ingress, service, canary, exported } => {
                let (of_namespace, of_service) =
                    if *exported { ("exported_namespace", "exported_service") } else { ("namespace", "service") };
                let mut labels = vec![
                    (of_namespace, own(namespace)),
                    (of_service, own(service)),
                    ("ingress", own(ingress)),
                    ("canary", own(canary)),
                    ("method", own("GET")),
                ];
                if *exported {
                    labels.extend([("namespace", own("ingress-nginx")), ("service", own("ingress-nginx-metrics"))]);
                }
                vec![Family {
                    counter: "nginx_ingress_controller_requests",
                    histogram: "nginx_ingress_controller_response_duration_seconds",
                    in_seconds: true,
                    by_result: true,
                    lost: true,
                    result: |code| ("status", code),
                    labels,
                }]
            }
            Self::Workload(name) => vec![
                Family {
                    counter: "response_total",
                    histogram: "response_latency_ms",
                    in_seconds: false,
                    by_result: false,
                    lost: false,
                    result: |code| ("classification", if code == "200" { "success" } else { "failure" }),
                    labels: vec![
                        ("namespace", own(namespace)),
                        ("deployment", own(name)),
                        ("direction", own("inbound")),
                    ],
                },
                Family {
                    counter: "istio_requests_total",
                    histogram: "istio_request_duration_milliseconds",
                    in_seconds: false,
                    by_result: true,
                    lost: false,
                    result: |code| ("response_code", code),
                    labels: vec![
                        ("reporter", own("destination")),
                        ("destination_workload_namespace", own(namespace)),
                        ("destination_workload", own(name)),
                    ],
                },
                Family {
                    counter: "osm_request_total",
                    histogram: "osm_request_duration_ms",
                    in_seconds: false,
                    by_result: false,
                    lost: false,
                    result: |code| ("response_code", code),
                    labels: vec![
                        ("destination_namespace", own(namespace)),
                        ("destination_kind", own("Deployment")),
                        ("destination_name", own(name)),
                    ],
                },
            ],
            Self::Envoy(labels) => vec![Family {
                counter: "envoy_cluster_upstream_rq",
                histogram: "envoy_cluster_upstream_rq_time",
                in_seconds: false,
                by_result: false,
                lost: true,
                result: |code| ("envoy_response_code", code),
                labels: labels.clone(),
            }],
            Self::Traefik(service) => vec![Family {
                counter: "traefik_service_requests_total",
                histogram: "traefik_service_request_duration_seconds",
                in_seconds: true,
                by_result: true,
                lost: true,
                result: |code| ("code", code),
                labels: vec![("service", format!("{namespace}-{service}@kubernetescrd")), ("method", own("GET"))],
            }],
            Self::Apisix(rule, service) => vec![Family {
                counter: "apisix_http_status",
                histogram: "apisix_http_latency",
                in_seconds: false,
                by_result: false,
                lost: true,
                result: |code| ("code", code),
                labels: vec![
                    ("route", format!("{namespace}_{rule}")),
                    ("node", own(service)),
                    ("type", own("request")),
                ],
            }],
        }
    }

    /// Whether any series can fulfil the matchers, as far as their common labels tell.
    pub(super) fn may_match(&self, namespace: &str, matchers: &[Matcher]) -> bool {
        self.families(namespace).iter().any(|family| {
            let result = (family.result)("200").0;
            let value = |label: &str| family.labels.iter().find(|(name, _)| *name == label).map(|(_, value)| &**value);
            matchers.iter().all(|matcher| match matcher.name.as_str() {
                NAME => family.names().iter().any(|name| matcher.is_match(name)),
                name if name == "le" || name == result => true,
                name => matcher.is_match(value(name).unwrap_or_default()),
            })
        })
    }

    /// All series, with what reads them off the counters.
    pub(super) fn series(&self, namespace: &str) -> Vec<(Labels, Read)> {
        let mut found = Vec::new();
        for family in self.families(namespace) {
            family.add_to(&mut found);
        }
        found
    }
}

impl Family {
    fn names(&self) -> [String; 4] {
        let part = |part: &str| format!("{}_{part}", self.histogram);
        [self.counter.to_owned(), part("bucket"), part("count"), part("sum")]
    }

    fn add_to(&self, found: &mut Vec<(Labels, Read)>) {
        let common: Labels = self.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let mut add = |name: &str, extra: &[(&str, &str)], read: Read| {
            let mut labels = common.clone();
            labels.insert(NAME.to_owned(), name.to_owned());
            labels.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            found.push((labels, read));
        };
        let [counter, bucket, count, total] = self.names();
        let lost = self.lost.then_some(("503", NO_ENDPOINT, NO_ENDPOINT + 1));
        for (code, from, to) in [("200", 0, BUCKETS), ("500", FAILED, FAILED + BUCKETS)].into_iter().chain(lost) {
            add(&counter, &[(self.result)(code)], Box::new(move |c| positive(sum(c, from, to))));
        }
        if !self.by_result {
            for (le, read) in millis(0, true) {
                add(&bucket, &[("le", &le)], read);
            }
            let seen = |c: &Counts| sum(c, 0, NO_ENDPOINT);
            add(&count, &[], Box::new(move |c| positive(seen(c))));
            add(&total, &[], Box::new(move |c| (seen(c) > 0, total_millis(c))));
            return;
        }
        for (code, from) in [("200", 0), ("500", FAILED)] {
            let result = (self.result)(code);
            let seen = move |c: &Counts| sum(c, from, from + BUCKETS);
            if self.in_seconds {
                buckets(from, |le, read| add(&bucket, &[result, ("le", le)], read));
                add(&total, &[result], Box::new(move |c| (seen(c) > 0, seconds(c, from))));
            } else {
                for (le, read) in millis(from, false) {
                    add(&bucket, &[result, ("le", &le)], read);
                }
                add(&total, &[result], Box::new(move |c| (seen(c) > 0, 1000.0 * seconds(c, from))));
            }
            add(&count, &[result], Box::new(move |c| positive(seen(c))));
        }
    }
}
