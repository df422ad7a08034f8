//! The words that every room uses: names, digests, weights, objects, Go's durations and numbers.

mod digest;
mod go;
mod names;
mod object;
mod redact;
mod redactor;
mod snapshot;

pub use digest::{Digest, canonical_json, sha256_hex};
pub use go::{format_duration, format_float, parse_duration, parse_quantity};
pub use names::{CanaryKey, Gvk, ObjectKey, Sha};
pub use object::{FieldManager, Object};
pub use redact::{redact, truncate, with_causes};
pub use redactor::Redactor;
pub use snapshot::{Blob, Snapshot};

use serde::{Deserialize, Serialize};

/// Annotation that names the old forms in which an object stood in Git, separated by spaces.
pub const CONVERTED_FROM: &str = "serin.dev/converted-from";

/// How traffic is divided between the primary and the canary, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Percent of requests that reach the primary, 0..=100.
    pub primary: u8,
    /// Percent of requests that reach the canary, 0..=100.
    pub canary: u8,
    /// Whether requests are copied to the canary besides.
    pub mirrored: bool,
}

impl Weights {
    /// All traffic on the primary: the state at rest, and after every rollback.
    pub const PRIMARY: Self = Self { primary: 100, canary: 0, mirrored: false };

    /// Weights with `canary` percent (capped at 100) on the canary and the rest on the primary.
    pub const fn canary(canary: u8) -> Self {
        let canary = if canary > 100 { 100 } else { canary };
        Self { primary: 100 - canary, canary, mirrored: false }
    }
}
