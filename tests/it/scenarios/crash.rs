//! The daemon is killed at every single effect, before it and after it, and started again. The end must be the one of a
//! daemon that nobody killed: cluster, Git, statuses and ledger.
//!
//! An effect is a write to the cluster, a push or a status. A killed daemon has had its last effect, and perhaps not heard
//! of it.
#![expect(clippy::unwrap_used, reason = "a world that cannot be made stops its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serin::domain::{CanaryKey, Gvk, ObjectKey};
use serin::ports::{Clock as _, CommitState, Forge};
use serin::release::Ledger;
use serin::sandbox::traffic::Load;
use serin::sim::{Bed, BedOptions, Effects, Stop, bed, example};
use tokio::task::AbortHandle;

use super::end::always;
use super::play::posted;

/// What the release does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Good,
    Bad,
}

/// Pairs of crashes that are tried of each story.
const PAIRS: usize = 16;

/// By then every run is over.
const END: Duration = Duration::from_secs(400);
/// All statuses and status files of an end are out after this time.
const REST: Duration = Duration::from_secs(30);

fn key() -> CanaryKey {
    CanaryKey::new("shop", "web")
}

/// The daemon's lives, each killed where it is told; the last one is not.
struct Lives {
    stops: Vec<Stop>,
    effects: Arc<Effects>,
    daemon: Option<AbortHandle>,
}

impl Lives {
    fn begin(bed: &Bed, mut stops: Vec<Stop>) -> Self {
        stops.push(Stop::Never);
        stops.reverse();
        let mut lives = Self { stops, effects: Effects::new(Stop::Never), daemon: None };
        lives.next(bed);
        lives
    }

    fn next(&mut self, bed: &Bed) {
        let stop = self.stops.pop().unwrap();
        self.effects = Effects::new(stop);
        let effects = self.effects.clone();
        let ports = bed.ports_over(|cluster| effects.cluster(cluster));
        let git = self.effects.git(bed.git().unwrap());
        let forge = self.effects.forge(bed.forge.clone() as Arc<dyn Forge>);
        self.daemon = Some(bed.daemon_with(ports, git, forge));
    }

    /// Buries a dead daemon and starts the next.
    fn look(&mut self, bed: &Bed) {
        if self.effects.reached() {
            self.daemon.take().unwrap().abort();
            self.next(bed);
        }
    }
}

/// How a world ended.
#[derive(Debug)]
struct End {
    /// The effects of the last life.
    effects: Vec<String>,
    /// How many of them had happened at the end of each second.
    pauses: BTreeSet<usize>,
    /// Everything that must be the same, as text by place.
    facts: BTreeMap<String, String>,
    /// What must never be.
    wrong: Vec<String>,
}

fn live(story: Story, stops: Vec<Stop>) -> End {
    let clock = Arc::new(bed::clock());
    let runtime = clock.runtime().unwrap();
    runtime.block_on(async move {
        let bed = Bed::start(clock.clone(), BedOptions::default()).await.unwrap();
        bed.sandbox.traffic.set_load(Load::constant("shop", "web", clock.now(), 20.0));
        let values = example::FILES.iter().find(|(path, _)| *path == "values/demo.yaml").unwrap().1;
        let (quiet, broken) = ("errors=0%, latency=40ms±10", "errors=50%");
        let first = values.replace("errors=0.1%, latency=40ms±10", quiet);
        let mut next = first.replace("version: 1.0.0", "version: 1.1.0");
        if story == Story::Bad {
            next = next.replace(quiet, broken);
        }
        let files: Vec<_> = example::FILES
            .iter()
            .map(|(path, text)| (*path, Some(if *path == "values/demo.yaml" { first.as_str() } else { *text })))
            .collect();
        bed.remote.commit("main", "Start", &files, clock.now()).unwrap();
        let mut lives = Lives::begin(&bed, stops);
        let (mut pushed, mut end) = (false, clock.now().checked_add(END).unwrap());
        let (mut over, mut pauses) = (false, BTreeSet::new());
        while clock.now() < end {
            bed.pass(Duration::from_secs(1)).await;
            lives.look(&bed);
            pauses.insert(lives.effects.done().len());
            if !over && is_over(&bed, story) {
                over = true;
                end = clock.now().checked_add(REST).unwrap();
            }
            if !pushed && bed.phase(&key()) == "Initialized" {
                pushed = true;
                let changes = [("values/demo.yaml", Some(next.as_str()))];
                bed.remote.commit("main", "Release web 1.1.0", &changes, clock.now()).unwrap();
            }
        }
        let effects = lives.effects.done();
        let mut wrong = always(&posted(&bed), &bed.remote.log("main"));
        let facts = facts(&bed, story, &mut wrong);
        End { effects, pauses, facts, wrong }
    })
}

/// Whether the canary is where the release leads it.
fn is_over(bed: &Bed, story: Story) -> bool {
    let Some(canary) = bed.canary(&key()) else { return false };
    let reverted = canary.str("/status/conditions/0/reason") == "Reverted";
    canary.str("/status/phase") == "Succeeded" && reverted == (story == Story::Bad)
}

/// The end of a world, by place.
fn facts(bed: &Bed, story: Story, wrong: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let log = bed.remote.log("main");
    let names =
        Names(log.iter().map(|(sha, message)| (sha.0.clone(), message.lines().next().unwrap().to_owned())).collect());
    for (kind, version) in [
        ("Deployment", "apps/v1"),
        ("Service", "v1"),
        ("ConfigMap", "v1"),
        ("Namespace", "v1"),
        ("HTTPProxy", "projectcontour.io/v1"),
        ("HTTPRoute", "gateway.networking.k8s.io/v1"),
        ("Ingress", "networking.k8s.io/v1"),
        ("Canary", "flagger.app/v1beta1"),
    ] {
        for object in bed.sandbox.store.list(&Gvk::new(version, kind), None) {
            let key = object.key();
            if key.name != "serin-apps" {
                facts.insert(key.to_string(), names.normal(object.0.clone()).to_string());
            }
        }
    }
    let state = ObjectKey::namespaced("v1", "ConfigMap", bed::NAMESPACE, "serin-apps");
    let state = bed.sandbox.store.get(&state).unwrap();
    let ledger = state.at("/data").unwrap()["ledger.json"].as_str().unwrap().to_owned();
    let (mut ledger, _) = Ledger::from_json(&ledger).unwrap();
    ledger.posted.sort_by_key(|posted| (posted.status.sha.0.clone(), posted.status.context.clone()));
    let posted: Vec<_> = ledger.posted.drain(..).map(|posted| names.text(&format!("{:?}", posted.status))).collect();
    facts.insert("posted, as the ledger has it".to_owned(), sorted(posted));
    let mut ledger: Value = serde_json::from_str(&ledger.to_json().unwrap()).unwrap();
    let cases: Vec<Value> = ledger["cases"].as_object().unwrap().values().cloned().collect();
    ledger["cases"] = Value::Array(cases);
    facts.insert("ledger".to_owned(), names.normal(ledger).to_string());
    let inventory = state.at("/data").unwrap()["inventory.json"].as_str().unwrap().to_owned();
    facts.insert("inventory".to_owned(), names.text(&inventory));
    for (index, (sha, message)) in log.iter().rev().enumerate() {
        let files = bed.remote.files_at(sha);
        facts.insert(format!("main {index}"), format!("{}\n{files:?}", names.text(message)));
    }
    facts.insert("branches".to_owned(), format!("{:?}", bed.remote.branches()));
    let mut in_force = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for posted in bed.forge.posted() {
        let words = names.text(&format!("{:?}: {}", posted.state, posted.description));
        let place = names.text(&format!("status {} {}", posted.sha, posted.context));
        if posted.state != CommitState::Pending && !ended.insert((place.clone(), words.clone())) {
            wrong.push(format!("{place} was told twice: {words}"));
        }
        in_force.insert(place, words);
    }
    facts.extend(in_force);
    status_files(bed, story, &names, &mut facts, wrong);
    facts
}

fn status_files(bed: &Bed, story: Story, names: &Names, facts: &mut BTreeMap<String, String>, wrong: &mut Vec<String>) {
    let branch = "serin/status/demo";
    let mut journals = Vec::new();
    for path in bed.remote.files(branch) {
        let text = bed.remote.text(branch, &path).unwrap();
        if path.ends_with(".jsonl") {
            journals.push((path, text));
        } else {
            facts.insert(format!("{branch} {path}"), names.text(&text));
        }
    }
    // Ticks that were not saved may be missing, but none is told twice, and the end is there.
    let [(path, text)] = journals.as_slice() else {
        return wrong
            .push(format!("one release, but the journals {:?}", journals.iter().map(|j| &j.0).collect::<Vec<_>>()));
    };
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // A new daemon looks at once, and may have to wait as the old one did in the same second.
    let acted = |line: &&Value| !line["decision"].as_str().unwrap().contains("not ready");
    let ticks: Vec<String> =
        lines.iter().filter(acted).map(|line| format!("{} {}", line["time"], line["decision"])).collect();
    if ticks.iter().collect::<BTreeSet<_>>().len() != ticks.len() {
        wrong.push(format!("{path} has ticks twice: {text}"));
    }
    let last = lines.last().unwrap()["phase"].as_str().unwrap();
    let want = if story == Story::Bad { "Failed" } else { "Succeeded" };
    if last != want {
        wrong.push(format!("{path} ends with {last}, not {want}"));
    }
}

fn sorted(mut lines: Vec<String>) -> String {
    lines.sort();
    lines.join("\n")
}

/// Names of commits by id. Ids of reverts, times and measured values differ from world to world.
struct Names(BTreeMap<String, String>);

impl Names {
    fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (sha, subject) in &self.0 {
            text = text.replace(sha.as_str(), &format!("<{subject}>")).replace(&sha[..7], &format!("<{subject}>"));
        }
        let mut normal = String::new();
        let mut word = String::new();
        for c in text.chars().chain(['\0']) {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '%') {
                word.push(c);
                continue;
            }
            normal += &plain(&word);
            word.clear();
            if c != '\0' {
                normal.push(c);
            }
        }
        normal
    }

    /// An object without what the API server counts, and without times.
    fn normal(&self, value: Value) -> Value {
        match value {
            Value::String(text) => match serde_json::from_str::<Value>(&text) {
                Ok(inner @ Value::Object(_)) => Value::String(self.normal(inner).to_string()),
                _ => Value::String(self.text(&text)),
            },
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.normal(item)).collect()),
            Value::Object(map) => {
                let counted = ["uid", "resourceVersion", "generation", "observedGeneration", "managedFields"];
                let kept = map.into_iter().filter(|(name, _)| !counted.contains(&name.as_str()));
                Value::Object(kept.map(|(name, value)| (self.text(&name), self.normal(value))).collect())
            }
            other => other,
        }
    }
}

/// Times, random and verdict ids and percentages by what they are.
fn plain(word: &str) -> String {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if word.len() >= 20 && word.contains('T') && word.ends_with('Z') && word.starts_with("20") {
        return "TIME".to_owned();
    }
    if word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) {
        return "UUID".to_owned();
    }
    // A ReplicaSet is named after its template, which carries a random word.
    if word.strip_prefix("web-primary-").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphanumeric())) {
        return "REPLICASET".to_owned();
    }
    if word.len() == 32 && word.chars().all(hex) {
        return "VERDICT".to_owned();
    }
    if word.ends_with('%') && word.trim_end_matches('%').parse::<f64>().is_ok() {
        return "N%".to_owned();
    }
    word.to_owned()
}

fn compare(what: &str, want: &End, found: &End) -> Vec<String> {
    let mut wrong = found.wrong.clone();
    let places: BTreeSet<&String> = want.facts.keys().chain(found.facts.keys()).collect();
    for place in places {
        let (want, found) = (want.facts.get(place), found.facts.get(place));
        if want != found {
            let nothing = String::new();
            let (want, found) = (want.unwrap_or(&nothing), found.unwrap_or(&nothing));
            let same = want.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
            let part = |text: &str| text.chars().skip(same.saturating_sub(120)).take(400).collect::<String>();
            wrong.push(format!("{place}:\n    found …{}\n    wanted …{}", part(found), part(want)));
        }
    }
    wrong.into_iter().map(|wrong| format!("{what}: {wrong}")).collect()
}

/// A daemon that dies after an effect leaves the world that it would leave if it died before the next one, which differ only in
/// when the successor comes. It comes in the second of the death, so both are one where no second lies between the two effects.
fn killed(story: Story, stops: fn(&End) -> Vec<Stop>) {
    let want = live(story, Vec::new());
    assert!(want.wrong.is_empty(), "{:#?}", want.wrong);
    assert!(want.effects.len() > 20, "few effects: {:#?}", want.effects);
    let mut wrong = Vec::new();
    for stop in stops(&want) {
        let found = live(story, vec![stop]);
        let (Stop::Before(number) | Stop::After(number)) = stop else { continue };
        let last = want.effects.get(number.saturating_sub(1)).map(String::as_str).unwrap_or_default();
        wrong.extend(compare(&format!("{story:?} {stop:?} ({last})"), &want, &found));
    }
    let text: String = wrong.iter().take(40).map(|wrong| format!("\n{wrong}")).collect();
    assert!(wrong.is_empty(), "{} differences{text}", wrong.len());
}

fn before_any_effect(want: &End) -> Vec<Stop> {
    (0..want.effects.len()).map(Stop::Before).collect()
}

fn after_any_last_effect_of_a_second(want: &End) -> Vec<Stop> {
    want.pauses.iter().copied().filter(|number| *number > 0).map(Stop::After).collect()
}

#[test]
fn good_release_killed_before_any_effect() {
    killed(Story::Good, before_any_effect);
}

#[test]
fn good_release_killed_after_any_effect() {
    killed(Story::Good, after_any_last_effect_of_a_second);
}

#[test]
fn bad_release_killed_before_any_effect() {
    killed(Story::Bad, before_any_effect);
}

#[test]
fn bad_release_killed_after_any_effect() {
    killed(Story::Bad, after_any_last_effect_of_a_second);
}

/// Pairs of crashes: the process dies, and its successor dies too, before or after any of its own effects.
#[test]
fn killed_twice() {
    const SEED: u64 = 20_260_105;
    let mut state = SEED;
    // A linear congruential generator with Knuth's numbers: the high bits are good enough to pick from.
    let mut pick = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut wrong = Vec::new();
    for story in [Story::Good, Story::Bad] {
        let want = live(story, Vec::new());
        let count = want.effects.len();
        for _ in 0..PAIRS {
            let first = pick(count);
            // What the first life has done its successor need not do.
            let second = pick((count - first).max(4));
            let stops = [first, second].map(|at| if pick(2) == 0 { Stop::Before(at) } else { Stop::After(at + 1) });
            let found = live(story, stops.to_vec());
            wrong.extend(compare(&format!("seed {SEED}: {story:?} {stops:?}"), &want, &found));
        }
    }
    let text: String = wrong.iter().take(20).map(|wrong| format!("\n{wrong}")).collect();
    assert!(wrong.is_empty(), "{} differences{text}", wrong.len());
}
