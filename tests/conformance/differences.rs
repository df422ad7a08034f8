//! The explained differences, and the page that is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

/// The file `differences.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Differences {
    /// Behaviours that differ in every scenario, which the comparison takes out.
    general: BTreeMap<String, Behaviour>,
    /// Each behaviour of serin that differs, by a short name; some are in no recording.
    behaviours: BTreeMap<String, Behaviour>,
    /// Which of them are seen in which scenario.
    scenarios: BTreeMap<String, Vec<String>>,
    /// Scenarios that are not played yet, by the reason.
    pending: BTreeMap<String, Vec<String>>,
}

/// One behaviour.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Behaviour {
    /// Number in the list of Flagger's quirks (`Q-12`), or of the recordings' surprises (`S-3`); empty when in neither.
    #[serde(default)]
    quirk: String,
    flagger: String,
    serin: String,
    /// Why that is better for the user.
    why: String,
}

impl Differences {
    pub(crate) fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("differences.yaml")).unwrap();
        let read: Self = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("differences.yaml: {error}"));
        for (scenario, seen) in &read.scenarios {
            for name in seen {
                assert!(read.behaviours.contains_key(name), "{scenario}: behaviour {name} is not described");
            }
        }
        read
    }

    /// The page `docs/differences.md`.
    pub(crate) fn page(&self) -> String {
        let mut page = String::from(HEAD);
        page += "\n## Everywhere\n";
        for (name, behaviour) in &self.general {
            page += &behaviour.section(name, None);
        }
        page += "\n## By behaviour\n";
        for (name, behaviour) in &self.behaviours {
            let seen = self.scenarios.iter().filter(|(_, names)| names.contains(name)).map(|(scenario, _)| scenario);
            page += &behaviour.section(name, Some(seen.cloned().collect()));
        }
        page += "\n## Not compared yet\n";
        for (reason, names) in &self.pending {
            let count = names.len();
            page += &format!("\n{reason} ({count}):\n{}.\n", wrapped(&names.join(", ")));
        }
        page
    }

    /// The behaviours that explain a scenario.
    pub(crate) fn of(&self, scenario: &str) -> Vec<String> {
        self.scenarios.get(scenario).cloned().unwrap_or_default()
    }

    pub(crate) fn explained(&self) -> BTreeSet<String> {
        self.scenarios.keys().cloned().collect()
    }

    pub(crate) fn pending(&self) -> BTreeSet<String> {
        self.pending.values().flatten().cloned().collect()
    }
}

const HEAD: &str = "# Differences from Flagger\n
serin reads the manifests of Flagger 1.44 and is compared with recorded runs of it (`tests/conformance/`). Every
scenario is either equal in statuses, events, objects, hook calls and queries, or one of these differences explains it,
and serin's own run is pinned in `tests/conformance/transcripts/`. Q-numbers count Flagger's quirks, S-numbers the
surprises of the recordings. This page is generated from `tests/conformance/differences.yaml`.
";

impl Behaviour {
    fn section(&self, name: &str, seen: Option<Vec<String>>) -> String {
        let quirk = if self.quirk.is_empty() { String::new() } else { format!(" ({})", self.quirk) };
        let mut text = format!("\n### {name}{quirk}\n");
        for (who, what) in [("Flagger", &self.flagger), ("serin", &self.serin), ("Why", &self.why)] {
            text += &format!("\n{}\n", wrapped(&format!("**{who}**: {}", what.trim())));
        }
        if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
            text += &format!("\n{}\n", wrapped(&format!("Seen in: {}.", seen.join(", "))));
        }
        text
    }
}

/// Lines of up to 120 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.len() + 1 + word.len() > 120 {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("\n")
}

/// `INSTA_UPDATE=always` rewrites the file, as it does for snapshots.
#[test]
fn generated_page_of_differences_is_committed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/differences.md");
    let page = Differences::read(&root.join("tests/conformance")).page();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "{} is stale: run this test with INSTA_UPDATE=always", path.display());
}
