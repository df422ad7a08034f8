//! The state machine: which part decides a tick. Order: what ends a run comes before what lets it go on.

use super::analyse;
use super::decision::{Cause, Severity, Step};
use super::initialise;
use super::observation::Observation;
use super::promote;
use super::rest;
use super::rollback::{self, Failure};
use super::tick::{Ask, Tick, Told};
use crate::api::Phase;
use crate::api::canary::CanaryView;

/// What is told once while `spec.suspend` is set.
const SUSPENDED: &str = "skipping canary run as object is suspended";

/// Decides one tick. Total: every phase and every observation has an answer, and asking ends.
pub fn decide(canary: &CanaryView, seen: &Observation) -> Step {
    let mut tick = Tick::new(canary, seen);
    match tick.decide() {
        Ok(()) => tick.finish(),
        Err(Ask(questions)) => Step::Ask(questions),
    }
}

/// Whether the applier must leave the target's pod template alone now: because the target may carry traffic while the
/// primary is exchanged (unless only the target can bring a lost primary back), or because `serin.dev/on-new-release: finish` asks to judge the running release first.
pub fn holds_template(canary: &CanaryView) -> bool {
    let run = super::RunMemory::parse(canary.annotations.get(super::RUN_ANNOTATION).map(String::as_str));
    match canary.status.phase {
        Phase::Promoting | Phase::Finalising => true,
        Phase::Failed => run.restoring && !run.lost,
        Phase::Progressing | Phase::WaitingPromotion => canary.setting("on-new-release") == Some("finish"),
        _ => false,
    }
}

impl Tick<'_> {
    fn decide(&mut self) -> Told {
        if self.canary.terminating {
            initialise::terminate(self);
            return Ok(());
        }
        if self.canary.spec.suspend {
            if self.seen.writers.rival.is_none() {
                initialise::finalizer(self);
            }
            // told once, so that the events that count are not lost in a crowd.
            if self.first_time(SUSPENDED) {
                self.normal(SUSPENDED.to_owned());
            }
            return Ok(());
        }
        if !self.is_ours() {
            return Ok(());
        }
        initialise::finalizer(self);
        self.tell_old_forms();
        self.adopt();
        let phase = self.status.phase;
        self.run.lost &= self.seen.primary.present().is_none();
        // Only a failure that was recorded in full is being undone; one that was not is found again.
        self.run.restoring &= phase == Phase::Failed;
        if phase.is_active() && self.must_end()? {
            return Ok(());
        }
        match phase {
            Phase::Unset | Phase::Initializing | Phase::Terminating | Phase::Terminated => initialise::tick(self),
            // The flag can be lost with its annotation; what the primary carries and the status cannot.
            Phase::Failed if self.run.restoring || self.primary_strayed() || self.status.canary_weight > 0 => {
                self.run.restoring = true;
                rollback::restoring(self);
                Ok(())
            }
            Phase::Initialized | Phase::Succeeded | Phase::Failed | Phase::Waiting => rest::tick(self),
            Phase::Progressing | Phase::WaitingPromotion => analyse::tick(self),
            Phase::Promoting => {
                promote::promoting(self);
                Ok(())
            }
            Phase::Finalising => {
                promote::finalising(self);
                Ok(())
            }
        }
    }

    /// Old forms and fractions work, and are told of once for as long as they stay the same.
    fn tell_old_forms(&mut self) {
        let forms = crate::api::old_forms(self.canary);
        let cut = &self.canary.cut;
        let told = forms.iter().chain(cut).cloned().collect::<Vec<_>>().join(", ");
        let told = Some(told).filter(|told| !told.is_empty());
        if self.run.old_forms == told {
            return;
        }
        if !forms.is_empty() {
            self.warn(format!("Old forms in {}, which still work: {}", self.name(), forms.join(", ")));
        }
        if !cut.is_empty() {
            self.warn(format!("Numbers in {} that must be whole: {}", self.name(), cut.join(", ")));
        }
        self.run.old_forms = told;
    }

    /// What ends a run in every active phase, whatever else is seen.
    fn must_end(&mut self) -> Told<bool> {
        if self.status.phase != Phase::Waiting && self.status.failed_checks >= self.threshold() {
            self.threshold_reached();
            return Ok(true);
        }
        if self.verdict_is_known() {
            rollback::fail(self, Failure::cancelled("a verdict against it is on record"));
            return Ok(true);
        }
        if self.rollback_asked() {
            self.warn(format!("Rolling back {} an operator asked for it", self.name()));
            self.alert(Severity::Warn, "Rolling back as an operator asked", false);
            rollback::fail(self, Failure::judged(Cause::Operator, "an operator asked for it"));
            return Ok(true);
        }
        Ok(false)
    }

    /// As many failed checks as the threshold allows. Only as many *real* ones are a verdict.
    fn threshold_reached(&mut self) {
        let threshold = self.threshold();
        self.warn(format!("Rolling back {} failed checks threshold reached {threshold}", self.name()));
        self.alert(Severity::Error, &format!("Failed checks threshold reached {threshold}"), false);
        let real = self.status.failed_checks.saturating_sub(self.run.undecided);
        let evidence = self.run.evidence.clone().unwrap_or_else(|| format!("{real} failed checks"));
        let failure =
            if real >= threshold { Failure::judged(Cause::Checks, &evidence) } else { Failure::undecided(&evidence) };
        rollback::fail(self, failure);
    }

    /// Whether the ledger holds a verdict against the release that is running: a tick that ended it died before its status was
    /// written. What it undid must not be done again.
    fn verdict_is_known(&self) -> bool {
        let applied = self.applied();
        let on_trial = self.target_version().is_some_and(|version| super::tick::same(version, &applied));
        self.status.phase != Phase::Waiting && self.seen.release.condemned && on_trial
    }

    fn rollback_asked(&self) -> bool {
        self.seen.intent.rollback.is_some() && self.seen.intent.rollback != self.run.handled.rollback
    }

    pub(super) fn promote_asked(&self) -> bool {
        self.seen.intent.promote.is_some() && self.seen.intent.promote != self.run.handled.promote
    }

    /// Rolls back as not judged when the run has been held for too long. Returns whether it has ended.
    pub(super) fn hold(&mut self, message: String) -> bool {
        let expired = self.hold_expired();
        self.warn(message.clone());
        if expired {
            self.warn(format!("Rolling back {} no verdict: {message}", self.name()));
            self.alert(Severity::Error, &format!("No verdict: {message}"), false);
            rollback::fail(self, Failure::undecided(&message));
        }
        self.note = message;
        expired
    }

    /// a digest of another program (Flagger's hash) is replaced by ours without a run, when the primary shows that
    /// nothing changed, or when what it belongs to goes on.
    fn adopt(&mut self) {
        let Some(digest) = self.status.last_applied_spec.clone() else { return };
        let Some(version) = self.target_version().cloned() else { return };
        if !super::tick::is_foreign(&digest) {
            return;
        }
        let carried = self.seen.primary.present().and_then(|primary| primary.version.clone());
        let unchanged = carried.as_ref().is_some_and(|carried| super::tick::same(carried, &version));
        match self.status.phase {
            Phase::Initialized | Phase::Succeeded if unchanged => {
                self.set_applied(&version);
                self.status.last_promoted_spec = Some(version.digest.clone());
                self.run.promoted = Some(version);
            }
            Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting | Phase::Finalising | Phase::Failed => {
                self.set_applied(&version);
            }
            _ => {}
        }
    }
}
