//! A scenario as data: what is created, what the metrics server and the hooks answer, and the steps.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// The file `scenario.json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Scenario {
    /// Also the namespace; `$NS` stands for it in every text.
    pub(crate) name: String,
    pub(crate) provider: String,
    /// Objects created first, in order.
    pub(crate) input: Vec<Value>,
    pub(crate) steps: Vec<Step>,
    /// Answers of the metrics server by a part of the query, or `success-rate`, `duration`, `online`. A list is used up
    /// from its front; its last entry stays.
    #[serde(default)]
    pub(crate) answers: BTreeMap<String, Value>,
    /// Answers of hooks by the last part of their URL: a status, or `{status, body, delay, headers}`; lists as above.
    #[serde(default)]
    pub(crate) hooks: BTreeMap<String, Value>,
    /// First answer to the duration query; by default 0.1 where the query counts in seconds, else 100.
    pub(crate) duration: Option<Value>,
    /// Seconds that are watched after the last step.
    pub(crate) grace: Option<u64>,
    /// Some input object is refused by the API server.
    #[serde(default)]
    pub(crate) refused: bool,
    /// The controller's own flags, in Flagger's spelling.
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    /// Name of the Canary that conditions are about.
    pub(crate) canary: Option<String>,
}

/// One step: acts follow 2 s after the condition was first seen.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Step {
    /// Everything in it must hold.
    pub(crate) when: BTreeMap<String, Value>,
    #[serde(default, rename = "do")]
    pub(crate) acts: Vec<Value>,
    /// Seconds after which the condition counts as missed.
    pub(crate) timeout: Option<u64>,
}

impl Scenario {
    pub(crate) fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("scenario.json"))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    }

    pub(crate) fn canary(&self) -> &str {
        self.canary.as_deref().unwrap_or("podinfo")
    }

    /// Value of one of the controller's flags.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().find_map(|flag| flag.strip_prefix('-')?.strip_prefix(name)?.strip_prefix('='))
    }

    /// What the metrics server answers at first.
    pub(crate) fn first_answers(&self) -> BTreeMap<String, Value> {
        let seconds = self.provider.starts_with("gatewayapi") || self.provider.starts_with("kubernetes");
        let duration = self.duration.clone().unwrap_or(if seconds { 0.1.into() } else { 100.into() });
        let mut answers = BTreeMap::from([("success-rate".to_owned(), 100.into()), ("duration".to_owned(), duration)]);
        answers.extend(self.answers.clone());
        answers
    }
}
