//! Literal histories, and a renderer of a few lines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a broken test world is a failed test")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use serin::domain::{Blob, CanaryKey, Digest, Object, Sha, Snapshot};
use serin::ports::{CommitInfo, FileChange};
use serin::release::*;
use serin::report::{RevertedCanary, RevertedCommit, revert_message};

pub(super) type Files = BTreeMap<String, String>;

/// A renderer with `{{key}}` from `app/values.yaml` and `{{> name}}` from `app/partials/name`.
pub(super) fn render(snapshot: &Snapshot) -> Rendered {
    assert_eq!(snapshot.revision, None, "comparisons are rendered without the commit's name");
    let mut rendered = Rendered::default();
    for path in snapshot.files.keys().filter(|path| path.starts_with("app/")) {
        if !(path.ends_with(".yaml") || path.ends_with(".hbs")) || path.ends_with("values.yaml") {
            continue;
        }
        let mut inputs = BTreeSet::from([path.clone()]);
        let text = snapshot.text(path).unwrap_or_default().to_owned();
        let result = if path.ends_with(".hbs") { expand(&text, snapshot, &mut inputs) } else { Ok(text) };
        let objects = result.and_then(|text| parse(&text));
        match objects {
            Ok(objects) => {
                for object in objects.into_iter().map(Object) {
                    rendered.objects.insert(
                        object.key(),
                        RenderedObject { object: object.into(), inputs: inputs.clone(), file: path.clone() },
                    );
                }
            }
            Err(error) => rendered.problems.push(Problem { file: path.clone(), text: format!("{path}:1: {error}") }),
        }
    }
    rendered
}

/// Reading YAML is most of the time these tests take, and most texts come many times.
fn parse(text: &str) -> Result<Vec<Value>, String> {
    thread_local!(static KNOWN: RefCell<BTreeMap<String, Result<Vec<Value>, String>>> = RefCell::default());
    KNOWN.with_borrow_mut(|known| {
        let read = || {
            let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
            documents.map(|d| serde_saphyr::from_str::<Value>(d).map_err(|e| e.to_string())).collect()
        };
        known.entry(text.to_owned()).or_insert_with(read).clone()
    })
}

pub(super) fn expand(text: &str, snapshot: &Snapshot, inputs: &mut BTreeSet<String>) -> Result<String, String> {
    let Some((before, rest)) = text.split_once("{{") else { return Ok(text.to_owned()) };
    let (name, after) = rest.split_once("}}").ok_or("unclosed tag")?;
    let value = if let Some(partial) = name.strip_prefix("> ") {
        let path = format!("app/partials/{partial}");
        let text = snapshot.text(&path).ok_or(format!("no partial {partial}"))?.trim_end().to_owned();
        inputs.insert(path);
        expand(&text, snapshot, inputs)?
    } else {
        inputs.insert("app/values.yaml".to_owned());
        let values = snapshot.text("app/values.yaml").unwrap_or_default();
        let line = values.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.ok_or(format!("no value {name}"))?.to_owned()
    };
    Ok(format!("{before}{value}{}", expand(after, snapshot, inputs)?))
}

pub(super) struct Commit {
    pub(super) message: String,
    files: Files,
    renames: BTreeMap<String, String>,
}

impl Commit {
    pub(super) fn set(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }
}

/// A first-parent line. Commit ids are the numbers of the commits, so that failures read well.
#[derive(Default)]
pub(super) struct World {
    pub(super) commits: Vec<Commit>,
    /// Commits that the repository cannot show.
    missing: BTreeSet<usize>,
}

pub(super) fn sha(number: usize) -> Sha {
    Sha(format!("{number:040}"))
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

impl World {
    pub(super) fn new<const N: usize>(files: [(&str, String); N]) -> Self {
        let mut world = Self::default();
        world.push("start", files.into_iter().map(|(path, text)| (path.to_owned(), text)).collect());
        world
    }

    pub(super) fn push(&mut self, message: &str, files: Files) -> usize {
        self.commits.push(Commit { message: message.to_owned(), files, renames: BTreeMap::new() });
        self.commits.len() - 1
    }

    pub(super) fn files(&self) -> &Files {
        &self.commits.last().unwrap().files
    }

    /// A commit that replaces texts: (path, from, to).
    pub(super) fn edit(&mut self, message: &str, edits: &[(&str, &str, &str)]) -> usize {
        let mut files = self.files().clone();
        for (path, from, to) in edits {
            let text = files.get(*path).unwrap_or_else(|| panic!("no {path}"));
            assert!(text.contains(from), "{path} does not contain {from}: {text}");
            files.insert((*path).to_owned(), text.replacen(from, to, 1));
        }
        self.push(message, files)
    }

    pub(super) fn write(&mut self, message: &str, path: &str, text: Option<&str>) -> usize {
        let mut files = self.files().clone();
        match text {
            Some(text) => files.insert(path.to_owned(), text.to_owned()),
            None => files.remove(path),
        };
        self.push(message, files)
    }

    /// The next commit of the given files, with a rename.
    pub(super) fn rename(&mut self, message: &str, from: &str, to: &str, edits: &[(&str, &str)]) -> usize {
        let mut files = self.files().clone();
        let mut text = files.remove(from).unwrap();
        for (old, new) in edits {
            text = text.replacen(old, new, 1);
        }
        files.insert(to.to_owned(), text);
        let number = self.push(message, files);
        self.commits[number].renames.insert(from.to_owned(), to.to_owned());
        number
    }

    pub(super) fn snapshot(&self, sha: &Sha) -> Snapshot {
        let number: usize = sha.0.parse().unwrap();
        let mut snapshot =
            Snapshot::from_texts(self.commits[number].files.iter().map(|(p, t)| (p.as_str(), t.as_str())));
        snapshot.revision = Some(sha.clone());
        snapshot
    }

    pub(super) fn changes(&self, sha: &Sha) -> Vec<FileChange> {
        let number: usize = sha.0.parse().unwrap();
        let (old, new) = (&self.commits[number - 1].files, &self.commits[number].files);
        let renames = &self.commits[number].renames;
        let side =
            |files: &Files, path: &String| files.get(path).map(|text| (path.clone(), Blob::from(text.as_bytes())));
        let mut changes = Vec::new();
        for (from, to) in renames {
            changes.push(FileChange { before: side(old, from), after: side(new, to) });
        }
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for path in paths {
            let moved = renames.contains_key(path) || renames.values().any(|to| to == path);
            if !moved && old.get(path) != new.get(path) {
                changes.push(FileChange { before: side(old, path), after: side(new, path) });
            }
        }
        changes
    }

    pub(super) fn info(&self, number: usize) -> CommitInfo {
        let paths = self.changes(&sha(number)).into_iter();
        let paths = paths.flat_map(|c| c.before.into_iter().chain(c.after)).map(|(path, _)| path).collect();
        CommitInfo {
            sha: sha(number),
            parent: Some(sha(number - 1)),
            message: self.commits[number].message.clone(),
            author: "a <a@example.com>".to_owned(),
            time: 0,
            paths,
        }
    }

    pub(super) fn line(&self, from: usize) -> Vec<CommitInfo> {
        (from + 1..self.commits.len()).rev().map(|number| self.info(number)).collect()
    }

    pub(super) fn head(&self) -> Sha {
        sha(self.commits.len() - 1)
    }

    pub(super) fn digest(&self, number: usize, canary: &CanaryKey) -> Digest {
        let mut snapshot = self.snapshot(&sha(number));
        snapshot.revision = None;
        release_digest(&render(&snapshot), canary).unwrap()
    }

    pub(super) fn give(&self, need: &Need, evidence: &mut Evidence) {
        assert!(!need.is_empty());
        let number = |sha: &Sha| sha.0.parse::<usize>().unwrap();
        let asked: BTreeSet<&Sha> = need.snapshots.iter().chain(&need.changes).collect();
        for sha in asked.into_iter().filter(|sha| self.missing.contains(&number(sha))) {
            evidence.add_missing(sha.clone());
        }
        for sha in need.snapshots.iter().filter(|sha| !self.missing.contains(&number(sha))) {
            evidence.add_snapshot(sha.clone(), self.snapshot(sha));
        }
        for sha in need.changes.iter().filter(|sha| !self.missing.contains(&number(sha))) {
            evidence.add_changes(sha.clone(), self.changes(sha));
        }
    }

    pub(super) fn promoted(&self, canary: &CanaryKey, number: usize) -> Promoted {
        let digest = self.digest(number, canary);
        Promoted { live: digest.clone(), digest, aliases: Vec::new(), commit: sha(number), at: at(0) }
    }

    pub(super) fn attribute(&self, canary: &CanaryKey, promoted: usize, running: usize) -> (Attribution, usize) {
        let promoted_digests = BTreeSet::from([self.digest(promoted, canary)]);
        let running = BTreeSet::from([self.digest(running, canary)]);
        let (line, head) = (self.line(promoted), self.head());
        let question = AttributionQuestion {
            canary,
            promoted: &promoted_digests,
            promoted_commit: &sha(promoted),
            running: &running,
            head: &head,
            line: Some(&line),
            scope: &scope(),
        };
        let mut evidence = Evidence::default();
        loop {
            match attribute(&question, &mut evidence, &render) {
                AttributionStep::Need(need) => self.give(&need, &mut evidence),
                AttributionStep::Done(attribution) => return (attribution, evidence.rendered_count()),
            }
        }
    }

    /// Condemns what commit `running` renders, with `promoted` as the last good one, as seen when `running` was head.
    pub(super) fn condemn(&self, canary: &CanaryKey, promoted: usize, running: usize) -> Case {
        let (attribution, _) = self.attribute(canary, promoted, running);
        let digest = self.digest(running, canary);
        let mut ledger = Ledger::default();
        ledger.promoted(canary, self.promoted(canary, promoted));
        let run = Run {
            digest: Some(digest.clone()),
            live: digest.clone(),
            commit: attribution.release,
            guilty: attribution.guilty,
            started: at(10),
            restarts: 0,
        };
        ledger.started(canary, run.clone());
        let verdict = verdict_id("prod", canary, &digest, at(10));
        let condemnation = Condemnation {
            verdict,
            run,
            cause: Cause::Metric,
            why: "success rate 87 % < 99 %".to_owned(),
            step: "at weight 20".to_owned(),
            at: at(60),
        };
        assert_eq!(ledger.condemn(canary, condemnation), Some(true));
        ledger.open_cases().first().map(|case| (*case).clone()).unwrap()
    }

    pub(super) fn next_without(&mut self, case: &Case, missing: &[usize]) -> Next {
        self.missing = missing.iter().copied().collect();
        let next = self.next(case);
        self.missing.clear();
        next
    }

    pub(super) fn next(&self, case: &Case) -> Next {
        self.next_with(case, |_| {})
    }

    pub(super) fn next_with(&self, case: &Case, change: impl FnOnce(&mut CaseFacts<'_>)) -> Next {
        self.next_among(case, &BTreeMap::new(), change)
    }

    pub(super) fn next_among(
        &self,
        case: &Case,
        peers: &BTreeMap<CanaryKey, Peer>,
        change: impl FnOnce(&mut CaseFacts<'_>),
    ) -> Next {
        let from: usize = case.restores.as_ref().map_or(0, |promoted| promoted.commit.0.parse().unwrap());
        let (line, head, scope) = (self.line(from), self.head(), scope());
        let mut facts = CaseFacts {
            case,
            head: &head,
            line: Some(&line),
            scope: &scope,
            policy: RevertPolicy::Commit,
            peers,
            reverts_in_last_hour: 0,
            reverts_per_hour: 5,
            primary_restored: true,
            now: at(100),
        };
        change(&mut facts);
        self.ask(&facts)
    }

    pub(super) fn ask(&self, facts: &CaseFacts<'_>) -> Next {
        let mut evidence = Evidence::default();
        for _ in 0..200 {
            match next(facts, &mut evidence, &render) {
                Next::Need(need) => self.give(&need, &mut evidence),
                answer => return answer,
            }
        }
        panic!("asks for ever");
    }

    /// The head's files with a candidate on them.
    pub(super) fn with(&self, candidate: &Candidate) -> Files {
        let mut files = self.files().clone();
        for change in &candidate.changes {
            match &change.content {
                Some(blob) => files.insert(change.path.clone(), String::from_utf8_lossy(blob).into_owned()),
                None => files.remove(&change.path),
            };
        }
        files
    }

    /// Commits a candidate as the daemon would.
    pub(super) fn land(&mut self, case: &Case, candidate: &Candidate) -> usize {
        let canary = RevertedCanary {
            canary: case.canary.clone(),
            digest: case.digests[0].clone(),
            restores: case.restores.as_ref().unwrap().commit.clone(),
            verdict: case.verdict.clone(),
            why: case.why.clone(),
            step: case.step.clone(),
        };
        let commits: Vec<_> = candidate
            .reverses
            .iter()
            .map(|sha| RevertedCommit { sha: sha.clone(), subject: "bad".to_owned() })
            .collect();
        let message = revert_message("prod", &[canary], &commits);
        let files = self.with(candidate);
        self.push(&message, files)
    }
}

pub(super) fn scope() -> Scope {
    Scope { path: "app".to_owned(), values: None }
}

pub(super) fn key(name: &str) -> CanaryKey {
    CanaryKey::new("shop", name)
}

pub(super) fn deployment(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  replicas: 2\n  \
         template:\n    metadata:\n      labels:\n        app: {name}\n    spec:\n      containers:\n      - name: app\n        \
         image: {image}\n        envFrom:\n        - configMapRef:\n            name: {name}-config\n"
    )
}

pub(super) fn canary(name: &str) -> String {
    format!(
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  \
         targetRef:\n    apiVersion: apps/v1\n    kind: Deployment\n    name: {name}\n"
    )
}

pub(super) fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: shop\ndata:\n  level: {value}\n")
}

/// One canary, `web`, with a config, and an unrelated file.
pub(super) fn web() -> World {
    World::new([
        ("app/web.yaml", deployment("web", "web:1")),
        ("app/web-canary.yaml", canary("web")),
        ("app/web-config.yaml", config("web-config", "low")),
        ("app/other.yaml", config("other", "x")),
        ("README.md", "hello\n".to_owned()),
    ])
}
