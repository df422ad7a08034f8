//! Why a difference is meant. The words stand in `tests/conformance/differences.yaml`; here stands where they are seen.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// Story (or `*`), part of the recording, words that the difference contains, and the name of the behaviour.
const SEEN: &[(&str, &str, &str, &str)] = &[
    ("*", "objects", ".weight: null -> 0", "zero-weights"),
    ("skip", "statuses", "nothing -> phase=Promoting", "skip-analysis-waits-for-the-primary"),
];

/// What the file says of a behaviour.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Behaviour {
    /// Its number among Flagger's quirks or the recordings' surprises; empty when in neither.
    #[serde(default)]
    pub(crate) quirk: String,
    pub(crate) flagger: String,
    pub(crate) serin: String,
    pub(crate) why: String,
}

#[derive(Debug, Deserialize)]
struct File {
    general: BTreeMap<String, Behaviour>,
    behaviours: BTreeMap<String, Behaviour>,
}

/// The behaviours by name.
pub(crate) fn read() -> anyhow::Result<BTreeMap<String, Behaviour>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/differences.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let file: File = serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(file.general.into_iter().chain(file.behaviours).collect())
}

/// The behaviour that explains a difference.
pub(crate) fn of(story: &str, part: &str, difference: &str) -> Option<&'static str> {
    let holds =
        |row: &&(&str, &str, &str, &str)| [story, "*"].contains(&row.0) && row.1 == part && difference.contains(row.2);
    SEEN.iter().find(holds).map(|row| row.3)
}

/// The behaviours that must be seen when all stories are played; one that is not seen any more is to be removed.
pub(crate) fn expected() -> impl Iterator<Item = &'static str> {
    SEEN.iter().map(|row| row.3)
}
