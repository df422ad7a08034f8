//! Whether the story ended as it should: in the cluster, on the branch, in the ledger, in the status files, on the forge.

use serde_json::Value;

use super::Story;
use crate::controller::state_key;
use crate::domain::{CanaryKey, ObjectKey, Sha};
use crate::ports::{CommitState, CommitStatus};
use crate::release::{is_ours, trailers};
use crate::report::StatusRecord;
use crate::sim::{Bed, bed};

/// One thing that was looked at.
pub(super) struct Finding {
    /// Whether it is as it should be.
    pub(super) ok: bool,
    /// What was looked at, and how it is.
    pub(super) text: String,
}

/// The world at the end of the story.
#[derive(Debug, Clone, Default)]
struct End {
    /// Images of the primary and of the target.
    primary: String,
    target: String,
    /// Weights of primary and canary in the route.
    weights: (i64, i64),
    /// Phase of the Canary, and why.
    phase: String,
    reason: String,
    /// The branch, newest first, and the values file on it.
    log: Vec<(Sha, String)>,
    values: String,
    ledger: Value,
    /// Paths of the status branch, and two of its files.
    files: Vec<String>,
    record: String,
    table: String,
    posted: Vec<CommitStatus>,
}

/// Looks at everything.
pub(super) fn findings(bed: &Bed, story: &Story) -> Vec<Finding> {
    judge(&End::of(bed), story)
}

impl End {
    fn of(bed: &Bed) -> Self {
        let web = CanaryKey::new("shop", "web");
        let object = |version: &str, kind: &str, name: &str| {
            bed.sandbox.store.get(&ObjectKey::namespaced(version, kind, "shop", name))
        };
        let image = |name: &str| {
            let object = object("apps/v1", "Deployment", name);
            object.map(|object| object.str("/spec/template/spec/containers/0/image").to_owned()).unwrap_or_default()
        };
        let proxy = object("projectcontour.io/v1", "HTTPProxy", "web");
        let services = proxy.as_ref().and_then(|proxy| proxy.at("/spec/routes/0/services")?.as_array());
        let weight = |name: &str| {
            let service = services.into_iter().flatten().find(|service| service["name"] == name);
            service.and_then(|service| service["weight"].as_i64()).unwrap_or(0)
        };
        let ledger = bed.sandbox.store.get(&state_key(bed::NAMESPACE, "apps"));
        let ledger = ledger.and_then(|object| serde_json::from_str(object.0["data"]["ledger.json"].as_str()?).ok());
        let branch = format!("serin/status/{}", bed::CLUSTER);
        let canary = bed.canary(&web);
        Self {
            primary: image("web-primary"),
            target: image("web"),
            weights: (weight("web-primary"), weight("web-canary")),
            phase: bed.phase(&web),
            reason: canary.map(|canary| canary.str("/status/conditions/0/reason").to_owned()).unwrap_or_default(),
            log: bed.remote.log("main"),
            values: bed.remote.text("main", super::VALUES).unwrap_or_default(),
            ledger: ledger.unwrap_or_default(),
            files: bed.remote.files(&branch),
            record: bed.remote.text(&branch, "shop/web.yaml").unwrap_or_default(),
            table: bed.remote.text(&branch, "README.md").unwrap_or_default(),
            posted: bed.forge.posted(),
        }
    }
}

fn judge(end: &End, story: &Story) -> Vec<Finding> {
    let mut findings = cluster(end);
    findings.extend(branch(end, story));
    findings.push(ledger(end));
    findings.extend(status_files(end, story));
    findings.extend(statuses(end, story));
    findings
}

fn finding(ok: bool, text: String) -> Finding {
    Finding { ok, text }
}

fn cluster(end: &End) -> Vec<Finding> {
    let good = |image: &str| image.ends_with(":1.1.0");
    let (primary, canary) = end.weights;
    vec![
        finding(good(&end.primary), format!("cluster: users get {}", end.primary)),
        finding(good(&end.target), format!("cluster: the Deployment of Git is back at {}", end.target)),
        finding(
            end.weights == (100, 0),
            format!("cluster: the route sends {primary} % to the primary, {canary} % to the canary"),
        ),
        finding(
            end.phase == "Succeeded" && end.reason == "Reverted",
            format!("cluster: the Canary says {}, reason {}", end.phase, end.reason),
        ),
    ]
}

fn branch(end: &End, story: &Story) -> Vec<Finding> {
    let message = end.log.first().map(|(_, message)| message.as_str()).unwrap_or_default();
    let named = trailers(message).iter().any(|(key, value)| *key == "Serin-Condemned" && *value == story.condemned.0);
    let shas: Vec<&Sha> = end.log.iter().map(|(sha, _)| sha).take(3).collect();
    let in_order = shas == [&story.revert, &story.condemned, &story.promoted];
    vec![
        finding(
            in_order && is_ours(message) && named,
            format!("branch: it ends in the revert {} of {}", story.revert.short(), story.condemned.short()),
        ),
        finding(end.values.contains("version: 1.1.0"), format!("branch: {} names version 1.1.0 again", super::VALUES)),
    ]
}

fn ledger(end: &End) -> Finding {
    let record = &end.ledger["canaries"]["shop/web"];
    let condemned = record["condemned"].as_array().map_or(0, Vec::len);
    finding(
        condemned == 1 && !record["promoted"].is_null(),
        format!("ledger: it holds {condemned} condemned release, and the promoted one"),
    )
}

fn status_files(end: &End, story: &Story) -> Vec<Finding> {
    let record = StatusRecord::from_yaml(&end.record).unwrap_or_default();
    let promoted = record.promoted.as_ref().is_some_and(|promoted| promoted.commit == story.promoted);
    let condemned = record.condemned.iter().any(|condemned| condemned.commits.contains(&story.condemned));
    let row = end.table.lines().find(|line| line.contains("shop/web")).unwrap_or_default();
    let journals = end.files.iter().filter(|file| file.ends_with(".jsonl")).count();
    vec![
        finding(
            record.phase == "Succeeded" && promoted && condemned && row.contains("| Succeeded |"),
            format!("status files: shop/web is {}, {} condemned", record.phase, story.condemned.short()),
        ),
        finding(journals == 2, format!("status files: {journals} journals, one for each release")),
    ]
}

fn statuses(end: &End, story: &Story) -> Vec<Finding> {
    let context = format!("serin/{}/shop/web", bed::CLUSTER);
    let rollup = format!("serin/{}", bed::CLUSTER);
    let check = |sha: &Sha, state: CommitState, words: &str| {
        let of = |context: &str| end.posted.iter().rev().find(|status| status.sha == *sha && status.context == context);
        let own = of(&context);
        let ok = own.is_some_and(|status| status.state == state && status.description.contains(words))
            && of(&rollup).is_some_and(|status| status.state == state);
        let words = own.map_or("has no status", |status| status.description.as_str());
        finding(ok, format!("commit status of {}: {words}", sha.short()))
    };
    vec![
        check(&story.promoted, CommitState::Success, "promoted"),
        check(&story.condemned, CommitState::Failure, &format!("reverted in {}", story.revert.short())),
        check(&story.revert, CommitState::Success, &format!("restores {}", story.promoted.short())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(digit: &str) -> Sha {
        Sha(digit.repeat(40))
    }

    fn story() -> Story {
        Story { promoted: sha("a"), condemned: sha("b"), revert: sha("c") }
    }

    /// The end that the demo is made for.
    fn good() -> End {
        let Story { promoted, condemned, revert } = story();
        let status = |sha: &Sha, state: CommitState, words: &str, context: &str| CommitStatus {
            sha: sha.clone(),
            state,
            description: words.to_owned(),
            context: context.to_owned(),
            target_url: None,
        };
        let both = |sha: &Sha, state: CommitState, words: &str| {
            ["serin/demo/shop/web", "serin/demo"].map(|context| status(sha, state, words, context))
        };
        let message = format!(
            "Revert \"Release web 1.2.0\"\n\nSerin-Canary: demo/shop/web\nSerin-Condemned: {}\n\
            Serin-Digest: v1:0\nSerin-Restores: {}\nSerin-Verdict: 0\n",
            condemned.0, promoted.0
        );
        let record = StatusRecord {
            phase: "Succeeded".to_owned(),
            promoted: Some(
                serde_json::from_value(serde_json::json!({
                    "digest": "v1:1", "live": "v1:1", "commit": promoted, "at": "2026-01-05T08:00:00Z",
                }))
                .unwrap(),
            ),
            condemned: vec![
                serde_json::from_value(serde_json::json!({
                    "digest": "v1:0", "live": "v1:0", "commits": [condemned], "at": "2026-01-05T08:00:00Z",
                    "verdict": "0", "why": "",
                }))
                .unwrap(),
            ],
            ..StatusRecord::default()
        };
        End {
            primary: "registry.example.com/shop/web:1.1.0".to_owned(),
            target: "registry.example.com/shop/web:1.1.0".to_owned(),
            weights: (100, 0),
            phase: "Succeeded".to_owned(),
            reason: "Reverted".to_owned(),
            log: vec![(revert.clone(), message), (condemned.clone(), String::new()), (promoted.clone(), String::new())],
            values: "web:\n  version: 1.1.0\n".to_owned(),
            ledger: serde_json::json!({"canaries": {"shop/web": {"condemned": [{}], "promoted": {}}}}),
            files: ["README.md", "shop/web.yaml", "shop/web/1.jsonl", "shop/web/2.jsonl"].map(str::to_owned).to_vec(),
            record: crate::report::record_yaml(&record).unwrap(),
            table: "| [shop/web](shop/web.yaml) | Succeeded | aaaaaaa | 0 | | |\n".to_owned(),
            posted: [
                both(&promoted, CommitState::Success, "promoted"),
                both(&condemned, CommitState::Failure, "rolled back; reverted in ccccccc"),
                both(&revert, CommitState::Success, "restores aaaaaaa"),
            ]
            .concat(),
        }
    }

    fn wrong(change: impl FnOnce(&mut End)) -> Vec<String> {
        let mut end = good();
        change(&mut end);
        judge(&end, &story()).into_iter().filter(|finding| !finding.ok).map(|finding| finding.text).collect()
    }

    #[test]
    fn the_good_end_is_found_good() {
        assert_eq!(wrong(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_part_that_ends_badly_is_found() {
        type Break = (&'static str, fn(&mut End));
        let breaks: [Break; 14] = [
            ("cluster", |end| end.primary = "web:1.2.0".to_owned()),
            ("cluster", |end| end.target = "web:1.2.0".to_owned()),
            ("cluster", |end| end.weights = (60, 40)),
            ("cluster", |end| end.phase = "Failed".to_owned()),
            ("cluster", |end| end.reason = "Succeeded".to_owned()),
            ("branch", |end| drop(end.log.remove(0))),
            ("branch", |end| end.log[0].1 = "Revert by hand".to_owned()),
            ("branch", |end| end.values = "version: 1.2.0".to_owned()),
            ("ledger", |end| end.ledger = Value::Null),
            ("status files", |end| end.table = end.table.replace("Succeeded", "Progressing")),
            ("status files", |end| end.record = "phase: Succeeded".to_owned()),
            ("status files", |end| drop(end.files.pop())),
            ("commit status", |end| end.posted.truncate(2)),
            ("commit status", |end| end.posted[3].state = CommitState::Pending),
        ];
        for (index, (what, change)) in breaks.into_iter().enumerate() {
            let found = wrong(change);
            assert!(found.iter().any(|text| text.starts_with(what)), "{index} {what}: {found:?}");
        }
    }

    #[test]
    fn an_empty_world_is_wrong_throughout() {
        assert!(judge(&End::default(), &story()).iter().all(|finding| !finding.ok));
    }
}
