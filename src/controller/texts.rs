//! How the memory of a source stands in its ConfigMap: as JSON that people can read while it is small, compressed when it
//! is not. A thousand canaries take more than the 1 MiB that Kubernetes gives a ConfigMap.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};

use crate::domain::Object;
use crate::plan::Inventory;
use crate::release::{LEDGER_LIMIT, Ledger, LedgerError};

/// Bytes that a ConfigMap takes (Kubernetes: 1 MiB, of `binaryData` as decoded), less some for its names.
const CONFIG_MAP_LIMIT: usize = 1_040_000;
/// Longer texts are compressed.
const PLAIN: usize = 256 * 1024;
/// Bytes of the ledger's text; the first with which all fits counts. It shrinks to a third or less.
const LEDGER_LIMITS: [usize; 4] = [4 << 20, 2 << 20, 1 << 20, LEDGER_LIMIT];
/// Bytes of the journals' text.
const JOURNALS_LIMIT: usize = 200_000;
/// Bytes of it in a source whose memory is compressed anyway.
const LARGE_JOURNALS_LIMIT: usize = 1 << 20;
/// A compressed text that is longer than this was not written by us.
const LONGEST: u64 = 64 << 20;

/// Ledger, inventory and journals.
const LEDGER: &str = "ledger.json";
const INVENTORY: &str = "inventory.json";
const JOURNALS: &str = "journals.json";

/// What a ConfigMap holds.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// Its `data`.
    pub(crate) data: Map<String, Value>,
    /// Its `binaryData`.
    pub(crate) binary: Map<String, Value>,
    bytes: usize,
}

/// Why a memory cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TextsError {
    /// It cannot be made to JSON.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// So many bytes are left of it at least.
    #[error("{0} bytes are more than a ConfigMap takes")]
    TooLarge(usize),
}

impl Texts {
    /// The texts of a memory. From a ledger that is too long the least important is dropped; of the journals, which
    /// `journals` makes as JSON of so many bytes at most, what is left over room for.
    pub(crate) fn new(
        ledger: &mut Ledger,
        inventory: &Inventory,
        journals: impl Fn(usize) -> String,
    ) -> Result<Self, TextsError> {
        Self::within(CONFIG_MAP_LIMIT, ledger, inventory, journals)
    }

    fn within(
        room: usize,
        ledger: &mut Ledger,
        inventory: &Inventory,
        journals: impl Fn(usize) -> String,
    ) -> Result<Self, TextsError> {
        let inventory = serde_json::to_string(inventory).unwrap_or_default();
        let mut size = 0;
        for limit in LEDGER_LIMITS {
            let text = ledger.to_bounded_json(limit)?;
            let exhausted = text.len() > limit;
            let mut texts = Self::default();
            texts.add(LEDGER, text);
            texts.add(INVENTORY, inventory.clone());
            size = texts.bytes;
            if size <= room {
                texts.add_journals(room - size, journals);
                return Ok(texts);
            }
            if exhausted {
                break; // there is nothing left to drop
            }
        }
        Err(TextsError::TooLarge(size))
    }

    fn add_journals(&mut self, room: usize, journals: impl Fn(usize) -> String) {
        let mut limit = if self.binary.is_empty() { JOURNALS_LIMIT.min(room) } else { LARGE_JOURNALS_LIMIT };
        loop {
            let text = journals(limit);
            let (bytes, packed) = packed(text);
            if bytes <= room || limit == 0 {
                self.put(JOURNALS, bytes, packed);
                return;
            }
            limit /= 2;
        }
    }

    fn add(&mut self, name: &str, text: String) {
        let (bytes, packed) = packed(text);
        self.put(name, bytes, packed);
    }

    fn put(&mut self, name: &str, bytes: usize, text: Result<String, String>) {
        self.bytes += bytes;
        match text {
            Ok(text) => self.data.insert(name.to_owned(), text.into()),
            Err(binary) => self.binary.insert(format!("{name}.gz"), binary.into()),
        };
    }
}

/// A text as it is, or compressed and encoded; and the bytes that count.
fn packed(text: String) -> (usize, Result<String, String>) {
    if text.len() <= PLAIN {
        return (text.len(), Ok(text));
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    match encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()) {
        Ok(bytes) => (bytes.len(), Err(STANDARD.encode(bytes))),
        Err(_) => (text.len(), Ok(text)),
    }
}

/// The ledger in a ConfigMap.
pub(crate) fn ledger(object: &Object) -> Option<Cow<'_, str>> {
    text(object, LEDGER)
}

/// The inventory in a ConfigMap.
pub(crate) fn inventory(object: &Object) -> Option<Cow<'_, str>> {
    text(object, INVENTORY)
}

/// The journals in a ConfigMap.
pub(crate) fn journals(object: &Object) -> Option<Cow<'_, str>> {
    text(object, JOURNALS)
}

/// A text of a ConfigMap. One that is there and cannot be read is an empty text, which no reader takes for nothing.
fn text<'a>(object: &'a Object, name: &str) -> Option<Cow<'a, str>> {
    let field = |part: &str, name: &str| object.0.get(part)?.get(name)?.as_str();
    if let Some(plain) = field("data", name) {
        return Some(Cow::Borrowed(plain));
    }
    let encoded = field("binaryData", &format!("{name}.gz"))?;
    let mut text = String::new();
    let read = STANDARD.decode(encoded).ok().and_then(|bytes| {
        let mut decoder = GzDecoder::new(bytes.as_slice()).take(LONGEST);
        decoder.read_to_string(&mut text).ok()
    });
    Some(Cow::Owned(if read.is_some() { text } else { String::new() }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{CanaryKey, Digest, ObjectKey, Sha, sha256_hex};
    use crate::release::{Applied, Ended, Promoted, Record, Run};

    fn object(texts: Texts) -> Object {
        Object(json!({"data": texts.data, "binaryData": texts.binary}))
    }

    /// Everything that a canary whose release is under way has in the ledger, with three releases before it.
    fn record(canary: usize) -> Record {
        let digest = |what: &str| Digest(format!("v1:{}", sha256_hex(format!("{what} {canary}").as_bytes())));
        let commit = |what: &str| Sha(sha256_hex(what.as_bytes())[..40].to_owned());
        let at = "2026-01-05T08:00:00Z".parse().unwrap();
        let ended = |what: &str| Ended {
            digest: Some(digest(what)),
            commit: Some(commit(what)),
            included: Vec::new(),
            verdict: "promoted".to_owned(),
            attempt: Some(1),
            at,
            why: String::new(),
        };
        let (old, new) = (digest("c"), digest("d"));
        Record {
            promoted: Some(Promoted {
                digest: old.clone(),
                aliases: Vec::new(),
                live: digest("live c"),
                commit: commit("c"),
                at,
            }),
            applied: Some(Applied {
                digest: new.clone(),
                template: digest("template d"),
                live: digest("live d"),
                commit: commit("d"),
                guilty: vec![commit("d")],
            }),
            run: Some(Run {
                digest: Some(new.clone()),
                live: digest("live d"),
                commit: Some(commit("d")),
                guilty: vec![commit("d")],
                started: at,
                restarts: 0,
            }),
            history: ["a", "b", "c"].map(ended).to_vec(),
            primary: Some(old),
            ..Record::default()
        }
    }

    fn memory(canaries: usize) -> (Ledger, Inventory) {
        let key = |index: usize| CanaryKey::new(&format!("team-{}", index % 20), &format!("app-{index}"));
        let canaries: Vec<_> = (0..canaries).map(|index| (key(index), record(index))).collect();
        let target =
            |canary: &CanaryKey| ObjectKey::namespaced("apps/v1", "Deployment", &canary.namespace, &canary.name);
        let entries = canaries.iter().flat_map(|(canary, _)| [canary.object_key(), target(canary)]).collect();
        let ledger = Ledger { canaries: canaries.into_iter().collect(), ..Ledger::default() };
        (ledger, Inventory { entries, ..Inventory::default() })
    }

    #[test]
    fn a_small_memory_is_plain() {
        let (mut before, inventory) = memory(10);
        let texts = Texts::new(&mut before, &inventory, |_| "[]".to_owned()).unwrap();
        assert!(texts.binary.is_empty());
        let object = object(texts);
        assert_eq!(Ledger::from_json(&ledger(&object).unwrap()).unwrap().0, before);
        assert_eq!(journals(&object).as_deref(), Some("[]"));
    }

    /// A quarter of them in a quarter of the room, which takes a quarter of the time.
    #[test]
    fn a_thousand_canaries_that_are_released_together_fit() {
        let room = CONFIG_MAP_LIMIT / 4;
        let (mut before, wanted) = memory(250);
        let whole = before.clone();
        let texts = Texts::within(room, &mut before, &wanted, |limit| "x".repeat(limit)).unwrap();
        assert!(texts.bytes <= room, "{}", texts.bytes);
        let object = object(texts);
        let read = Ledger::from_json(&ledger(&object).unwrap()).unwrap().0;
        assert_eq!(read, whole, "nothing was dropped");
        let read: Inventory = serde_json::from_str(&inventory(&object).unwrap()).unwrap();
        assert_eq!(read, wanted);
        assert!(journals(&object).is_some_and(|text| text.len() >= JOURNALS_LIMIT));
    }

    #[test]
    fn too_much_is_refused() {
        let (mut ledger, inventory) = memory(20);
        let result = Texts::within(2000, &mut ledger, &inventory, |_| String::new());
        assert!(matches!(result, Err(TextsError::TooLarge(_))), "{result:?}");
    }

    #[test]
    fn a_damaged_text_is_not_taken_for_none() {
        for broken in ["!", "aGVsbG8="] {
            let object = Object(json!({"binaryData": {"ledger.json.gz": broken}}));
            assert_eq!(ledger(&object).as_deref(), Some(""));
            assert!(Ledger::from_json("").is_err());
        }
        assert_eq!(ledger(&Object(json!({}))), None);
    }
}
