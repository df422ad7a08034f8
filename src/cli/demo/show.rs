//! How the demo looks: a timeline with progress bars on a terminal, plain lines elsewhere, JSON for machines.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::Finding;
use super::{DemoOutput, Story};
use crate::cli::output::{self, Colour};
use crate::domain::CanaryKey;
use crate::ports::{Clock as _, CommitStatus};
use crate::sim::{Bed, bed};

/// Where the demo is shown.
pub(super) struct Show {
    json: bool,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    weight: ProgressBar,
    waiting: ProgressBar,
}

impl Show {
    pub(super) fn new(output: DemoOutput) -> Self {
        let bars = (!output.is_json() && std::io::stdout().is_terminal()).then(Bars::new);
        Self { json: output.is_json(), bars }
    }

    fn print(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.all.suspend(|| output::line(text)),
            None => output::line(text),
        }
    }

    fn data(&self, data: &Value) {
        output::line(&data.to_string());
    }

    /// What this is, for somebody who sees it for the first time.
    pub(super) fn begin(&self, speed: f64) {
        if self.json {
            return self.data(&json!({"event": "begin", "speed": speed}));
        }
        self.print(&format!(
            "A Kubernetes cluster, its users, a Git repository and a forge, simulated in this process; time runs {speed} \
             times as fast.\nThe daemon between them is the real serin. Each line: time in the sandbox, what it is \
             about, what happened."
        ));
    }

    /// A headline.
    pub(super) fn chapter(&self, number: usize, title: &str, story: &str) {
        if self.json {
            self.data(&json!({"event": "chapter", "number": number, "title": title, "story": story}));
        } else {
            self.print(&format!("\n{}\n{story}", output::paint(Colour::Bold, &format!("{number}. {title}"))));
        }
    }

    /// What is being waited for; bars show it all the time.
    pub(super) fn waiting(&self, at: Timestamp, what: &str) {
        if self.bars.is_none() {
            let data = json!({"event": "waiting", "for": what});
            self.line(at, "", &format!("waiting for {what}"), data);
        }
    }

    /// One thing that happened.
    pub(super) fn line(&self, at: Timestamp, what: &str, text: &str, mut data: Value) {
        if self.json {
            data["time"] = json!(at.to_string());
            return self.data(&data);
        }
        let colour = match what {
            "git" => Colour::Cyan,
            "warning" => Colour::Yellow,
            "status" | "" => Colour::Grey,
            _ => Colour::Plain,
        };
        self.print(&format!("{}  {}  {text}", at.strftime("%H:%M:%S"), output::paint(colour, &format!("{what:<7}"))));
    }

    /// What is being waited for, and how far the canary is.
    pub(super) fn progress(&self, bed: &Bed, canary: &CanaryKey, what: &str) {
        let Some(bars) = &self.bars else { return };
        let weight = bed.canary(canary).and_then(|canary| canary.int("/status/canaryWeight")).unwrap_or(0);
        let totals = bed.sandbox.traffic.totals(&canary.namespace, &canary.name, bed.clock.now());
        bars.weight.set_position(u64::try_from(weight).unwrap_or(0));
        bars.weight.set_message(format!("{:.0} requests sent, {:.0} failed", totals.sent, totals.failed + totals.lost));
        bars.waiting.set_message(format!("{} waiting for {what}", bed.clock.now().strftime("%H:%M:%S")));
        bars.waiting.tick();
    }

    /// The branch, the revert, the status files and the statuses, as a person would look at them afterwards.
    pub(super) fn result(&self, bed: &Bed, story: &Story, findings: &[Finding]) {
        if let Some(bars) = &self.bars {
            bars.all.clear().ok();
        }
        let branch = format!("serin/status/{}", bed::CLUSTER);
        let log = bed.remote.log("main");
        let diff = bed.remote.diff(&story.revert).unwrap_or_default();
        let files = bed.remote.files(&branch);
        let in_force = in_force(bed);
        if self.json {
            let log: Vec<Value> = log.iter().map(|(sha, message)| json!({"sha": sha, "message": message})).collect();
            self.data(&json!({
                "event": "end", "log": log, "diff": diff, "statusFiles": files, "statuses": in_force,
            }));
            for finding in findings {
                self.data(&json!({"event": "check", "ok": finding.ok, "text": finding.text}));
            }
            return;
        }
        self.section("What is left: git log main");
        for (sha, message) in &log {
            output::line(&format!(
                "{} {}",
                output::paint(Colour::Yellow, sha.short()),
                message.lines().next().unwrap_or_default()
            ));
        }
        self.section(&format!("git show {}", story.revert.short()));
        let message = log.iter().find(|(sha, _)| *sha == story.revert).map(|(_, message)| message.as_str());
        for line in message.unwrap_or_default().lines() {
            output::line(&format!("    {line}"));
        }
        for line in diff.lines() {
            let colour = match line.chars().next() {
                Some('+') => Colour::Green,
                Some('-') => Colour::Red,
                _ => Colour::Plain,
            };
            output::line(&output::paint(colour, line));
        }
        self.section(&format!("files on {branch}, where serin publishes what it knows"));
        for file in &files {
            output::line(file);
        }
        output::line("");
        output::line(bed.remote.text(&branch, "README.md").unwrap_or_default().trim_end());
        self.section("commit statuses in force, as a pull request shows them");
        for status in in_force {
            let state = format!("{:?}", status.state).to_lowercase();
            output::line(&format!("{} {state:<8} {} {}", status.sha.short(), status.context, status.description));
        }
        self.section("is everything as it should be?");
        for finding in findings {
            let mark = if finding.ok { output::paint(Colour::Green, "yes") } else { output::paint(Colour::Red, "NO ") };
            output::line(&format!("{mark} {}", finding.text));
        }
    }

    fn section(&self, title: &str) {
        output::line(&format!("\n{}", output::paint(Colour::Bold, title)));
    }

    /// The last line.
    pub(super) fn summary(&self, ok: bool, story: &Story, took: Duration) {
        if self.json {
            self.data(&json!({
                "event": "summary", "ok": ok, "promoted": story.promoted, "condemned": story.condemned,
                "revert": story.revert, "seconds": took.as_secs_f64(),
            }));
        } else {
            let words = if ok {
                "Cluster, branch, ledger, status files and commit statuses ended as they should"
            } else {
                "Something did not end as it should: see the lines that say NO"
            };
            output::line(&format!("\n{words}. The demo took {:.1} s.", took.as_secs_f64()));
        }
    }

    /// The story did not come to its end.
    pub(super) fn failed(&self, error: &anyhow::Error, took: Duration) {
        if let Some(bars) = &self.bars {
            bars.all.clear().ok();
        }
        if self.json {
            let text = format!("{error:#}");
            self.data(&json!({"event": "summary", "ok": false, "error": text, "seconds": took.as_secs_f64()}));
        } else {
            output::line(&format!("\nthe demo stopped after {:.1} s: {error:#}", took.as_secs_f64()));
        }
    }

    /// How to reach what is kept running.
    pub(super) fn kept(&self, kubeconfig: &Path, repository: &str) {
        let path = kubeconfig.display();
        if self.json {
            self.data(&json!({"event": "kept", "kubeconfig": path.to_string(), "repository": repository}));
            return;
        }
        output::line(&format!(
            "\nThe cluster goes on in real time until you press Ctrl-C. In another terminal:\n\n\
             export KUBECONFIG={path}\n\
             kubectl get canaries -A -w\n\
             kubectl -n shop describe canary web\n\n\
             The daemon goes on too. A release of your own:\n\n\
             git clone {repository} && cd shop\n\
             sed -i 's/version: 1.1.0/version: 1.3.0/' values/demo.yaml\n\
             git commit -am 'Release web 1.3.0' && git push"
        ));
    }
}

/// The last status of each commit and context, in the order of their posting.
fn in_force(bed: &Bed) -> Vec<CommitStatus> {
    let mut last = BTreeMap::new();
    for (index, status) in bed.forge.posted().into_iter().enumerate() {
        last.insert((status.sha.clone(), status.context.clone()), (index, status));
    }
    let mut last: Vec<_> = last.into_values().collect();
    last.sort_by_key(|(index, _)| *index);
    last.into_iter().map(|(_, status)| status).collect()
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let weight = all.add(ProgressBar::new(100));
        let waiting = all.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("users on the new version {bar:30.cyan/blue} {pos:>3} %  {msg}")
        {
            weight.set_style(style);
        }
        Self { all, weight, waiting }
    }
}
