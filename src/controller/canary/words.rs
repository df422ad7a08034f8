//! Words on their way through a tick, without secrets. What others say is cleaned when it comes in, so that it compares
//! equal with what was remembered of it; what is decided is cleaned when it goes out, whatever it was made of: run
//! memory, status, events, verdict and journal leave by nothing else.

use super::super::registry::Registry;
use crate::rollout::{
    Decision, HookAnswer, MetricRecord, Notice, Observation, Outcome, Read, Reading, RouteState, TickRecord,
};

/// Cleans what was seen.
pub(super) fn of_observation(registry: &Registry, seen: &mut Observation) {
    let clean = |text: &mut String| *text = registry.redact(text);
    read(&mut seen.target, clean);
    read(&mut seen.primary, clean);
    read(&mut seen.kept, clean);
    read(&mut seen.weights, clean);
    if let Err(words) = &mut seen.objects {
        clean(words);
    }
    if let RouteState::Refused(words) = &mut seen.route {
        clean(words);
    }
    seen.answers.hooks.values_mut().for_each(|answer| hook(answer, clean));
    seen.answers.metrics.iter_mut().flatten().for_each(|reading| metric(reading, clean));
    if let Some(Err(words)) = &mut seen.answers.providers {
        clean(words);
    }
}

/// Cleans what was decided.
pub(super) fn of_decision(registry: &Registry, decision: &mut Decision) {
    let clean = |text: &mut String| *text = registry.redact(text);
    decision.run.said.iter_mut().chain(&mut decision.run.evidence).for_each(clean);
    decision.status.conditions.iter_mut().for_each(|condition| clean(&mut condition.message));
    decision.events.iter_mut().chain(&mut decision.closing).for_each(|told| notice(told, clean));
    if let Some(verdict) = &mut decision.verdict {
        match &mut verdict.outcome {
            Outcome::Failed { evidence: words, .. } | Outcome::Cancelled(words) | Outcome::NoVerdict(words) => {
                clean(words);
            }
            Outcome::Promoted | Outcome::Superseded => {}
        }
    }
    if let Some(TickRecord { metrics, hooks, decision, .. }) = &mut decision.journal {
        metrics.iter_mut().for_each(|MetricRecord { reading, .. }| metric(reading, clean));
        hooks.iter_mut().for_each(|(_, answer)| hook(answer, clean));
        clean(decision);
    }
}

fn read<T>(read: &mut Read<T>, clean: impl Fn(&mut String)) {
    if let Read::Failed(words) = read {
        clean(words);
    }
}

fn hook(answer: &mut HookAnswer, clean: impl Fn(&mut String)) {
    match answer {
        HookAnswer::Refused(words) | HookAnswer::Unreachable(words) => clean(words),
        HookAnswer::Passed => {}
    }
}

fn metric(reading: &mut Reading, clean: impl Fn(&mut String)) {
    match reading {
        Reading::NoData(words) | Reading::Inconclusive(words) | Reading::ProviderError(_, words) => clean(words),
        Reading::Value(_) => {}
    }
}

fn notice(notice: &mut Notice, clean: impl Fn(&mut String)) {
    clean(&mut notice.message);
    if let Some(alert) = &mut notice.alert {
        clean(&mut alert.text);
    }
}
