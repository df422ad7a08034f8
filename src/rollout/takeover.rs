//! Whose canary this is: Flagger's, which may be at work still, or ours. Sources: Kubernetes `managedFields` (Server-Side
//! Apply, "Field management"), Flagger `pkg/canary/status.go`.

use serde_json::Value;

use super::tick::Tick;
use crate::domain::{FieldManager, Object};

/// Name of Flagger as a manager of fields: client-go takes the name of the program.
const FLAGGER: &str = "flagger";

/// Who has written the status of a Canary, as far as its `managedFields` tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusWriters {
    /// We own something of the status, so we wrote it once.
    pub ours: bool,
    /// The other controller that wrote it last.
    pub rival: Option<String>,
}

impl StatusWriters {
    /// Reads the managers of a Canary's status. Who owns `lastTransitionTime` wrote last: Flagger and serin both set it
    /// with everything that they write. The times of the entries say less, because they are whole seconds.
    pub fn of(canary: &Object) -> Self {
        let entries = canary.at("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
        let mut writers = Self::default();
        for entry in entries {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
            if text("subresource") != "status" {
                continue;
            }
            writers.ours |= text("manager") == FieldManager::Engine.as_str();
            if text("manager") == FLAGGER && entry.pointer("/fieldsV1/f:status/f:lastTransitionTime").is_some() {
                writers.rival = Some(FLAGGER.to_owned());
            }
        }
        writers
    }
}

impl Tick<'_> {
    /// Whether this canary is ours to drive. What another controller wrote before we ever did is taken over at once; what
    /// it wrote after us is left alone until a person says that it is stopped (`serin.dev/adopt`). Its silence says
    /// nothing: Flagger writes when something changes, and at rest nothing does.
    pub(super) fn is_ours(&mut self) -> bool {
        let Some(rival) = self.seen.writers.rival.clone() else { return true };
        let written = self.status.last_transition_time.clone().unwrap_or_default();
        if self.run.taken_over.as_ref() == Some(&written) {
            return true;
        }
        let asked = self.seen.intent.adopt.is_some() && self.seen.intent.adopt != self.run.handled.adopt;
        let name = self.name();
        if self.drove_before() && !asked {
            let message = format!(
                "{rival} wrote the status of {name} after serin: serin leaves it alone; stop {rival}, then set the \
                 annotation serin.dev/adopt of the canary to a new value"
            );
            if self.first_time(&message) {
                self.warn(message.clone());
            }
            self.note = message;
            return false;
        }
        self.run.handled.adopt.clone_from(&self.seen.intent.adopt);
        self.run.taken_over = Some(written);
        self.normal(format!("Taking over {name} from {rival}"));
        true
    }

    /// Whether we have driven this canary, by what that leaves behind: Flagger may have written over all of our status.
    fn drove_before(&self) -> bool {
        let run = &self.run;
        self.seen.writers.ours || run.taken_over.is_some() || run.started.is_some() || run.promoted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_owner_of_the_time_wrote_last() {
        let status = |fields: Value| json!({"f:status": fields});
        let entry = |manager: &str, subresource: &str, fields: Value| json!({"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": status(fields)});
        let time = json!({"f:phase": {}, "f:lastTransitionTime": {}});
        let rest = json!({"f:failedChecks": {}});
        let flagger = || Some("flagger".to_owned());
        for (entries, ours, rival) in [
            (json!([]), false, None),
            (json!([entry("flagger", "status", time.clone())]), false, flagger()),
            (json!([entry("flagger", "", time.clone())]), false, None),
            (json!([entry("kubectl-edit", "status", time.clone())]), false, None),
            (
                json!([entry("serin-canary", "status", rest.clone()), entry("flagger", "status", time.clone())]),
                true,
                flagger(),
            ),
            (json!([entry("serin-canary", "status", time), entry("flagger", "status", rest)]), true, None),
        ] {
            let canary = Object(json!({"metadata": {"managedFields": entries}}));
            assert_eq!(StatusWriters::of(&canary), StatusWriters { ours, rival }, "{canary:?}");
        }
    }
}
