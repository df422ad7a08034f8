//! Phases and the one condition. Source: Flagger `pkg/canary/status.go`.

use jiff::Timestamp;

use crate::api::{CanaryCondition, CanaryStatus, Phase};

/// RFC 3339 with whole seconds, as Kubernetes writes times.
pub(super) fn time_text(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Enters a phase: its condition, and what the phase says about weight and iterations.
///
/// `WaitingPromotion` keeps weight and iterations, because the traffic is where it was.
pub(super) fn enter(status: &mut CanaryStatus, phase: Phase, kind: &str, now: Timestamp) {
    status.phase = phase;
    if !matches!(phase, Phase::Progressing | Phase::Waiting | Phase::WaitingPromotion | Phase::Promoting) {
        status.canary_weight = 0;
        status.iterations = 0;
    }
    if matches!(phase, Phase::Initialized | Phase::Succeeded) {
        status.last_promoted_spec = status.last_applied_spec.clone();
    }
    let (value, message) = condition_of(phase, kind);
    set_condition(status, value, phase.as_str(), message, now);
}

/// Sets the condition `Promoted`. Nothing moves when status and reason stay; the time of transition stays when only the
/// reason changes.
pub(super) fn set_condition(status: &mut CanaryStatus, value: &str, reason: &str, message: String, now: Timestamp) {
    let current = status.conditions.first();
    if current.is_some_and(|current| current.status == value && current.reason == reason) {
        return;
    }
    let now = time_text(now);
    let since = current.filter(|current| current.status == value).and_then(|c| c.last_transition_time.clone());
    status.conditions = vec![CanaryCondition {
        type_: "Promoted".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
        last_update_time: Some(now),
    }];
}

/// Status and message of the condition in a phase.
fn condition_of(phase: Phase, kind: &str) -> (&'static str, String) {
    let text = |text: &str| text.to_owned();
    match phase {
        Phase::Initialized => ("True", format!("{kind} initialization completed.")),
        Phase::Waiting | Phase::WaitingPromotion => ("Unknown", text("Waiting for approval.")),
        Phase::Progressing => ("Unknown", text("New revision detected, progressing canary analysis.")),
        Phase::Promoting => ("Unknown", text("Canary analysis completed, starting primary rolling update.")),
        Phase::Finalising => ("Unknown", text("Canary analysis completed, routing all traffic to primary.")),
        Phase::Succeeded => ("True", text("Canary analysis completed successfully, promotion finished.")),
        Phase::Failed => ("False", format!("Canary analysis failed, {kind} scaled to zero.")),
        Phase::Unset | Phase::Initializing | Phase::Terminating | Phase::Terminated => {
            ("Unknown", format!("New {kind} detected, starting initialization."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_stays_when_only_the_reason_changes() {
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        let mut status = CanaryStatus::default();
        enter(&mut status, Phase::Progressing, "Deployment", at(0));
        enter(&mut status, Phase::Promoting, "Deployment", at(60));
        let condition = status.conditions.first().expect("one").clone();
        assert_eq!(condition.last_transition_time.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(condition.last_update_time.as_deref(), Some("1970-01-01T00:01:00Z"));
        enter(&mut status, Phase::Promoting, "Deployment", at(90));
        assert_eq!(status.conditions, vec![condition]);
        enter(&mut status, Phase::Succeeded, "Deployment", at(120));
        assert_eq!(status.conditions[0].last_transition_time.as_deref(), Some("1970-01-01T00:02:00Z"));
    }
}
