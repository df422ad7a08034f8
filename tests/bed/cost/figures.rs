//! What was measured, as it is kept and as it is read.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::audit::{Kind, Tally};

/// Where and with what it was measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// The day.
    pub(crate) day: String,
    /// Processors of the machine.
    pub(crate) cores: usize,
    /// The build profile of serin.
    pub(crate) profile: String,
    /// The command that made it.
    pub(crate) command: String,
}

/// A program over a window of time, in one state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// How long it was.
    pub(crate) seconds: f64,
    /// What was asked of the API server in it.
    pub(crate) requests: Tally,
    /// Seconds of processor time.
    pub(crate) processor: f64,
    /// Resident memory at its end, in MiB.
    pub(crate) memory: f64,
    /// The most that was resident in it, in MiB.
    pub(crate) highest: f64,
    /// How much of the machine others than the bed used, in percent.
    pub(crate) others: f64,
}

/// One program with some canaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Canaries {
    pub(crate) program: String,
    pub(crate) many: u32,
    pub(crate) setting: Setting,
    /// From the creation of the first canary until all were initialised.
    pub(crate) initialised: f64,
    pub(crate) rest: Window,
    pub(crate) progress: Window,
    /// Steps of the weight that were made in the window of progress.
    pub(crate) steps: u32,
    /// Canaries that progressed from its begin to its end.
    pub(crate) under_way: u32,
    /// How much later than due ticks came, in seconds, in ascending order, as far as Prometheus saw them.
    pub(crate) late: Late,
}

/// Lateness of ticks, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Late {
    pub(crate) ticks: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Late {
    /// Of values in any order.
    pub(crate) fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self { ticks: seconds.len(), p50: percentile(&seconds, 50), p99: percentile(&seconds, 99) }
    }
}

/// Applications from one repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applications {
    pub(crate) many: u32,
    pub(crate) setting: Setting,
    /// From the start of the daemon until all objects were there.
    pub(crate) applying: Window,
    pub(crate) rest: Window,
}

/// What is kept of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measured {
    Canaries(Canaries),
    Applications(Applications),
}

/// Time between two ticks of a canary, in seconds.
pub(crate) const INTERVAL: f64 = 10.0;

/// The value at a percentile of ascending values, by nearest rank; 0 without values.
pub(crate) fn percentile(ascending: &[f64], percent: usize) -> f64 {
    let at = (ascending.len() * percent).div_ceil(100).saturating_sub(1);
    ascending.get(at).copied().unwrap_or_default()
}

impl Window {
    fn per(&self, kind: Kind, divisor: f64) -> String {
        share(self.requests.count(kind), divisor)
    }

    fn core(&self) -> f64 {
        100.0 * self.processor / self.seconds.max(1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn share(count: u64, divisor: f64) -> String {
    if divisor <= 0.0 {
        return "-".to_owned();
    }
    let value = count as f64 / divisor;
    match value {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

impl Canaries {
    /// Ticks that fall into a window.
    fn ticks(&self, window: &Window) -> f64 {
        f64::from(self.many) * window.seconds / INTERVAL
    }
}

/// The generated part of the page: what was measured, in the order of programs and numbers.
pub(crate) fn page(all: &[Measured]) -> String {
    let mut canaries: Vec<&Canaries> = Vec::new();
    let mut applications: Vec<&Applications> = Vec::new();
    for one in all {
        match one {
            Measured::Canaries(one) => canaries.push(one),
            Measured::Applications(one) => applications.push(one),
        }
    }
    canaries.sort_by_key(|one| (one.many, std::cmp::Reverse(one.program.clone())));
    applications.sort_by_key(|one| one.many);
    let settings = canaries.iter().map(|one| &one.setting).chain(applications.iter().map(|one| &one.setting));
    let mut text = commands(settings.collect());
    if !canaries.is_empty() {
        text += &rest(&canaries);
        text += &progress(&canaries);
        text += &asked(&canaries);
    }
    if !applications.is_empty() {
        text += &applied(&applications);
    }
    text
}

fn commands(mut settings: Vec<&Setting>) -> String {
    settings.sort();
    settings.dedup();
    let mut text = String::from("Made by\n\n");
    for Setting { day, cores, profile, command } in settings {
        writeln!(text, "* `{command}` on {day}, {cores} cores, serin built with the profile `{profile}`").ok();
    }
    text
}

fn heading(title: &str, columns: &[&str]) -> String {
    let rule = columns.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "--:" });
    format!("\n{title}\n\n| {} |\n|{}|\n", columns.join(" | "), rule.collect::<Vec<_>>().join("|"))
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Processor time, memory and the rest of the machine: the last cells of a row.
fn used(window: &Window) -> [String; 4] {
    [
        format!("{:.1} s ({:.1} %)", window.processor, window.core()),
        format!("{:.0}", window.memory),
        format!("{:.0}", window.highest),
        format!("{:.0} %", window.others),
    ]
}

const USED: [&str; 4] = ["processor (of a core)", "MiB at the end", "MiB at most", "machine used by others"];

fn rest(all: &[&Canaries]) -> String {
    let columns = ["program", "canaries", "window", "reads for a tick", "writes for a tick", "reads a minute"];
    let columns = [&columns[..], &["writes a minute", "Events a minute", "watches begun a minute"], &USED].concat();
    let mut text = heading("**At rest.** Nothing is released; a tick is due every 10 s.", &columns);
    for one in all {
        let (window, ticks) = (&one.rest, one.ticks(&one.rest));
        let minutes = window.seconds / 60.0;
        let mut cells = vec![one.program.clone(), one.many.to_string(), format!("{:.0} s", window.seconds)];
        cells.extend([Kind::Read, Kind::Write].map(|kind| window.per(kind, ticks)));
        cells.extend([Kind::Read, Kind::Write, Kind::Event, Kind::Watch].map(|kind| window.per(kind, minutes)));
        cells.extend(used(window));
        text += &row(&cells);
    }
    text
}

fn progress(all: &[&Canaries]) -> String {
    let columns = ["program", "canaries", "window", "steps made (due)", "reads for a step", "writes for a step"];
    let columns = [&columns[..], &["Events for a step", "refused", "lateness p50", "p99"], &USED].concat();
    let title = "**Progressing.** All canaries at once; a step of the weight is due every 10 s.";
    let mut text = heading(title, &columns);
    for one in all {
        let (window, steps) = (&one.progress, f64::from(one.steps));
        let mut cells = vec![one.program.clone(), one.many.to_string(), format!("{:.0} s", window.seconds)];
        cells.push(format!("{} ({:.0})", one.steps, one.ticks(window)));
        cells.extend([Kind::Read, Kind::Write, Kind::Event].map(|kind| window.per(kind, steps)));
        cells.push(window.requests.refused.to_string());
        cells.extend([one.late.p50, one.late.p99].map(|late| format!("{late:.2} s")));
        cells.extend(used(window));
        text += &row(&cells);
    }
    text
}

/// What each program asks for, from its largest measurement.
fn asked(all: &[&Canaries]) -> String {
    let mut text = String::from("\nWhat they ask for, where there were most canaries (Events and watches apart):\n\n");
    let mut programs: Vec<&str> = all.iter().map(|one| one.program.as_str()).collect();
    programs.sort_by_key(|name| std::cmp::Reverse(*name));
    programs.dedup();
    for program in programs {
        let Some(one) = all.iter().filter(|one| one.program == program).max_by_key(|one| one.many) else { continue };
        let idle = words(&one.rest.requests, one.ticks(&one.rest));
        let (divisor, unit) =
            if one.steps == 0 { (1.0, "in all, and no step") } else { (f64::from(one.steps), "for a step") };
        let busy = words(&one.progress.requests, divisor);
        writeln!(text, "* {program}: at rest {idle} for a tick; progressing {busy} {unit}").ok();
    }
    text
}

/// Verbs and resources, each with its share; those that are rare are left out.
fn words(requests: &Tally, divisor: f64) -> String {
    let shares = requests.frequent().into_iter().map(|(what, count)| (what, share(count, divisor)));
    let words: Vec<String> =
        shares.filter(|(_, share)| *share != "0.00").map(|(what, share)| format!("{share} `{what}`")).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn applied(all: &[&Applications]) -> String {
    let columns = ["applications", "time", "reads", "writes", "watches begun", USED[0], USED[2], USED[3]];
    let columns = [&columns[..], &["reads a minute afterwards", "writes a minute afterwards"]].concat();
    let title =
        "**Applications.** Deployment, Service, ServiceAccount and Ingress each, from one repository, by serin.";
    let mut text = heading(title, &columns);
    for one in all {
        let window = &one.applying;
        let count = |kind| window.requests.count(kind).to_string();
        let [processor, _, highest, others] = used(window);
        let mut cells = vec![one.many.to_string(), format!("{:.1} s", window.seconds)];
        cells.extend([Kind::Read, Kind::Write, Kind::Watch].map(count));
        cells.extend([processor, highest, others]);
        cells.extend([Kind::Read, Kind::Write].map(|kind| one.rest.per(kind, one.rest.seconds / 60.0)));
        text += &row(&cells);
    }
    text
}

/// Puts a text between the markers of a document; `None` when they are not there.
pub(crate) fn between(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim()))
}

const BEGIN: &str = "<!-- made by `tests/bed/run cost`: begin -->";
const END: &str = "<!-- made by `tests/bed/run cost`: end -->";
