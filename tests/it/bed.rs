//! The pure pieces of the test bed, which itself has no test harness: what is read from the audit log, and the page of
//! what things cost.

#[path = "../bed/cost/audit.rs"]
mod audit;
#[path = "../bed/cost/figures.rs"]
mod figures;

use serde_json::json;

use self::audit::{Kind, Request, Tally, request};
use self::figures::{Applications, Canaries, Late, Measured, Setting, Window, between, page, percentile};

const USER: &str = "system:serviceaccount:serin-system:serin";

/// A line of the log as kube-apiserver 1.35 writes it at the level `Metadata`.
fn line(user: &str, stage: &str, verb: &str, object: Option<(&str, Option<&str>)>, code: u16) -> String {
    let reference = object.map(|(resource, subresource)| {
        json!({"resource": resource, "subresource": subresource, "namespace": "team-1", "name": "app-1",
            "apiGroup": "flagger.app", "apiVersion": "v1beta1"})
    });
    let mut line = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "1",
        "stage": stage, "requestURI": "/apis", "verb": verb, "userAgent": "serin",
        "user": {"username": user, "groups": ["system:serviceaccounts", "system:authenticated"]},
        "responseStatus": {"metadata": {}, "code": code}, "annotations": {"authorization.k8s.io/decision": "allow"}});
    if let Some(reference) = reference {
        line["objectRef"] = reference;
    }
    line.to_string()
}

#[test]
fn requests_of_the_audit_log_are_told_apart() {
    let of = |kind, what: &str, code| Some(Request { kind, what: what.to_owned(), code });
    let canaries = Some(("canaries", None));
    let table = [
        (line(USER, "ResponseComplete", "get", canaries, 200), of(Kind::Read, "get canaries", 200)),
        (line(USER, "ResponseComplete", "list", canaries, 200), of(Kind::Read, "list canaries", 200)),
        (
            line(USER, "ResponseComplete", "patch", Some(("canaries", Some("status"))), 409),
            of(Kind::Write, "patch canaries/status", 409),
        ),
        (line(USER, "ResponseComplete", "create", Some(("events", None)), 201), of(Kind::Event, "create events", 201)),
        // Reading Events is reading.
        (line(USER, "ResponseComplete", "list", Some(("events", None)), 200), of(Kind::Read, "list events", 200)),
        (line(USER, "ResponseComplete", "get", None, 200), of(Kind::Discovery, "discovery", 200)),
        // A watch is told of twice, and counted when it begins.
        (line(USER, "ResponseStarted", "watch", canaries, 200), of(Kind::Watch, "watch canaries", 200)),
        (line(USER, "ResponseComplete", "watch", canaries, 200), None),
        (line(USER, "ResponseStarted", "list", canaries, 200), None),
        (line("system:serviceaccount:kube-system:other", "ResponseComplete", "get", canaries, 200), None),
        ("{\"half a line".to_owned(), None),
        (String::new(), None),
    ];
    for (line, expected) in table {
        assert_eq!(request(&line, USER), expected, "{line}");
    }
}

#[test]
fn requests_are_counted_by_kind_and_by_what_they_ask() {
    let status = || line(USER, "ResponseComplete", "patch", Some(("canaries", Some("status"))), 200);
    let refused = line(USER, "ResponseComplete", "patch", Some(("httpproxies", None)), 409);
    let read = line(USER, "ResponseComplete", "get", Some(("canaries", None)), 200);
    let tally = Tally::of(&[status(), refused, status(), read].join("\n"), USER);
    assert_eq!([Kind::Read, Kind::Write, Kind::Event].map(|kind| tally.count(kind)), [1, 3, 0]);
    assert_eq!(tally.refused, 1);
    assert_eq!(tally.frequent(), [("patch canaries/status", 2), ("get canaries", 1), ("patch httpproxies", 1)]);
}

#[test]
fn percentiles_are_of_the_nearest_rank() {
    let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    for (values, percent, expected) in [
        (&hundred[..], 50, 50.0),
        (&hundred[..], 99, 99.0),
        (&hundred[..], 100, 100.0),
        (&hundred[..3], 50, 2.0),
        (&hundred[..1], 99, 1.0),
        (&[], 99, 0.0),
    ] {
        assert!((percentile(values, percent) - expected).abs() < 1e-9, "p{percent} of {values:?}");
    }
    assert_eq!(Late::of(vec![3.0, 1.0, 2.0]), Late { ticks: 3, p50: 2.0, p99: 3.0 });
}

fn window(reads: usize) -> Window {
    let get = line(USER, "ResponseComplete", "get", Some(("canaries", None)), 200);
    let requests = Tally::of(&vec![get; reads].join("\n"), USER);
    Window { seconds: 60.0, requests, processor: 3.0, memory: 20.0, highest: 30.0, others: 5.0 }
}

fn setting() -> Setting {
    Setting { day: "2026-01-02".into(), cores: 2, profile: "dist".into(), command: "tests/bed/run cost".into() }
}

fn measured(program: &str, many: u32, reads: usize) -> Measured {
    let (window, setting) = (window(reads), setting());
    let late = Late { ticks: 9, p50: 0.0, p99: 0.5 };
    let program = program.to_owned();
    let (rest, progress) = (window.clone(), window);
    Measured::Canaries(Canaries {
        program,
        many,
        setting,
        initialised: 9.0,
        rest,
        progress,
        steps: 60,
        under_way: many,
        late,
    })
}

fn applications() -> Measured {
    Measured::Applications(Applications { many: 50, setting: setting(), applying: window(4), rest: window(0) })
}

#[test]
fn the_page_sets_programs_with_as_many_canaries_side_by_side() {
    insta::assert_snapshot!(
        page(&[measured("flagger", 10, 600), measured("serin", 10, 0), measured("serin", 1, 0), applications()]),
        @r"
        Made by

        * `tests/bed/run cost` on 2026-01-02, 2 cores, serin built with the profile `dist`

        **At rest.** Nothing is released; a tick is due every 10 s.

        | program | canaries | window | reads for a tick | writes for a tick | reads a minute | writes a minute | Events a minute | watches begun a minute | processor (of a core) | MiB at the end | MiB at most | machine used by others |
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
        | serin | 1 | 60 s | 0 | 0 | 0 | 0 | 0 | 0 | 3.0 s (5.0 %) | 20 | 30 | 5 % |
        | serin | 10 | 60 s | 0 | 0 | 0 | 0 | 0 | 0 | 3.0 s (5.0 %) | 20 | 30 | 5 % |
        | flagger | 10 | 60 s | 10.00 | 0 | 600 | 0 | 0 | 0 | 3.0 s (5.0 %) | 20 | 30 | 5 % |

        **Progressing.** All canaries at once; a step of the weight is due every 10 s.

        | program | canaries | window | steps made (due) | reads for a step | writes for a step | Events for a step | refused | lateness p50 | p99 | processor (of a core) | MiB at the end | MiB at most | machine used by others |
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
        | serin | 1 | 60 s | 60 (6) | 0 | 0 | 0 | 0 | 0.00 s | 0.50 s | 3.0 s (5.0 %) | 20 | 30 | 5 % |
        | serin | 10 | 60 s | 60 (60) | 0 | 0 | 0 | 0 | 0.00 s | 0.50 s | 3.0 s (5.0 %) | 20 | 30 | 5 % |
        | flagger | 10 | 60 s | 60 (60) | 10.00 | 0 | 0 | 0 | 0.00 s | 0.50 s | 3.0 s (5.0 %) | 20 | 30 | 5 % |

        What they ask for, where there were most canaries (Events and watches apart):

        * serin: at rest nothing for a tick; progressing nothing for a step
        * flagger: at rest 10.00 `get canaries` for a tick; progressing 10.00 `get canaries` for a step

        **Applications.** Deployment, Service, ServiceAccount and Ingress each, from one repository, by serin.

        | applications | time | reads | writes | watches begun | processor (of a core) | MiB at most | machine used by others | reads a minute afterwards | writes a minute afterwards |
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
        | 50 | 60.0 s | 4 | 0 | 0 | 3.0 s (5.0 %) | 30 | 5 % | 0 | 0 |
        "
    );
}

#[test]
fn only_what_is_between_the_markers_is_written_anew() {
    let markers = |inside: &str| {
        format!(
            "# By hand\n\n<!-- made by `tests/bed/run cost`: begin -->{inside}<!-- made by `tests/bed/run cost`: end -->\nmore\n"
        )
    };
    assert_eq!(between(&markers("\nold\n"), "\nnew\n"), Some(markers("\n\nnew\n\n")));
    assert_eq!(between("# By hand\n", "new"), None);
}
