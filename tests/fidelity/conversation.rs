//! The form of a conversation: requests that are sent to a server, one after the other.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One file of `conversations`. In paths and bodies, `$NS` is the conversation's own namespace, and `$(NAME/POINTER)` a
/// value of an answer that was saved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conversation {
    /// What it is about, in a sentence.
    pub(crate) about: String,
    /// Whether `metadata.managedFields` are shown.
    #[serde(default)]
    pub(crate) fields: bool,
    /// Parts that are not shown of any answer, by JSON pointer.
    #[serde(default)]
    pub(crate) hide: Vec<String>,
    /// The requests.
    pub(crate) steps: Vec<Step>,
}

/// One request, and what is shown of its answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Method and path. `COMPACT` makes the server forget its history.
    pub(crate) send: String,
    /// Why, for readers.
    #[serde(default)]
    pub(crate) note: String,
    /// Content type: `apply`, `merge`, `strategic`, `json-patch`, or a media type.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    /// `table`, `metadata`, `metadata-list`, `aggregated`, or a media type.
    #[serde(default)]
    pub(crate) accept: String,
    /// The body as YAML.
    pub(crate) body: Option<Value>,
    /// The body as it is.
    pub(crate) text: Option<String>,
    /// Name under which the answer is kept.
    pub(crate) save: Option<String>,
    /// Repeats the request until the answer has these values (by JSON pointer; null: has nothing there).
    pub(crate) until: Option<BTreeMap<String, Value>>,
    /// Repeats the request until it is answered with this code.
    pub(crate) code: Option<u16>,
    /// Reads this many events of a watch and hangs up.
    pub(crate) take: Option<usize>,
    /// Shows these parts only, by JSON pointer; an empty list shows the code alone.
    pub(crate) only: Option<Vec<String>>,
    /// Does not show these parts.
    #[serde(default)]
    pub(crate) hide: Vec<String>,
}

impl Step {
    /// The media type that the request is sent with.
    pub(crate) fn content_type(&self) -> &str {
        match self.kind.as_str() {
            "" => "application/json",
            "apply" => "application/apply-patch+yaml",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            "json-patch" => "application/json-patch+json",
            other => other,
        }
    }

    /// The media type that is asked for.
    pub(crate) fn accepted(&self) -> &str {
        match self.accept.as_str() {
            "" => "application/json",
            "table" => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            "metadata" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
            "metadata-list" => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
            "aggregated" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
            other => other,
        }
    }
}
