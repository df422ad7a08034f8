//! Watches a bed from the outside and tells what changed since the last look.

use std::collections::BTreeSet;

use serde_json::json;

use super::show::Show;
use crate::domain::{CanaryKey, Gvk, Sha};
use crate::ports::Clock as _;
use crate::sim::Bed;

/// What has been told already.
pub(super) struct Watch {
    canary: CanaryKey,
    status: String,
    events: BTreeSet<String>,
    statuses: usize,
    commits: BTreeSet<Sha>,
}

impl Watch {
    pub(super) fn new(canary: CanaryKey) -> Self {
        Self { canary, status: String::new(), events: BTreeSet::new(), statuses: 0, commits: BTreeSet::new() }
    }

    /// The canary of the story.
    pub(super) fn canary(&self) -> &CanaryKey {
        &self.canary
    }

    /// Tells what is new: Events, the canary's status, commits of serin's, posted statuses.
    pub(super) fn look(&mut self, bed: &Bed, show: &Show) {
        self.events(bed, show);
        self.status(bed, show);
        self.commits(bed, show);
        self.statuses(bed, show);
    }

    fn events(&mut self, bed: &Bed, show: &Show) {
        for event in bed.sandbox.store.list(&Gvk::new("v1", "Event"), Some(&self.canary.namespace)) {
            let about = event.str("/involvedObject/kind");
            let id = format!("{} {}", event.uid(), event.int("/count").unwrap_or(1));
            if about != "Canary" || !self.events.insert(id) {
                continue;
            }
            let (type_, message) = (event.str("/type"), event.str("/message"));
            let data = json!({"event": "kubernetes", "type": type_, "object": self.canary, "message": message});
            show.line(bed.clock.now(), if type_ == "Warning" { "warning" } else { "event" }, message, data);
        }
    }

    fn status(&mut self, bed: &Bed, show: &Show) {
        let Some(canary) = bed.canary(&self.canary) else { return };
        let number = |pointer: &str| canary.int(pointer).unwrap_or(0);
        let (phase, weight) = (canary.str("/status/phase"), number("/status/canaryWeight"));
        let failed = number("/status/failedChecks");
        let text = format!("{phase}, {weight} % of users on the new version, {failed} failed checks");
        if self.status == text {
            return;
        }
        let data = json!({
            "event": "status", "canary": self.canary, "phase": phase, "weight": weight, "failedChecks": failed,
        });
        show.line(bed.clock.now(), "canary", &text, data);
        self.status = text;
    }

    fn commits(&mut self, bed: &Bed, show: &Show) {
        for (sha, message) in bed.remote.log("main").into_iter().take(1) {
            let subject = message.lines().next().unwrap_or_default();
            if self.commits.insert(sha.clone()) && crate::release::is_ours(&message) {
                let data = json!({"event": "revert", "sha": sha, "subject": subject});
                show.line(bed.clock.now(), "git", &format!("serin pushes {} {subject} to main", sha.short()), data);
            }
        }
    }

    fn statuses(&mut self, bed: &Bed, show: &Show) {
        let posted = bed.forge.posted();
        for status in posted.iter().skip(self.statuses) {
            let state = format!("{:?}", status.state).to_lowercase();
            let text = format!("{} {}: {state}, {}", status.sha.short(), status.context, status.description);
            let data = json!({"event": "commitStatus", "status": status});
            show.line(bed.clock.now(), "status", &text, data);
        }
        self.statuses = posted.len();
    }
}
