//! What hooks mean. Source: Flagger `pkg/controller/scheduler_hooks.go`; texts are Flagger's.

use std::collections::BTreeMap;

use super::decision::{Level, Notice, Severity};
use super::observation::{HookAnswer, Question};
use super::tick::{Ask, Tick, Told};
use crate::api::canary::CanaryView;
use crate::api::{Analysis, Phase, Webhook, WebhookType};

/// The hooks of one type with their indexes; `rollout` is also meant when the type is unset.
pub(super) fn of(analysis: &Analysis, type_: WebhookType) -> impl Iterator<Item = (usize, &Webhook)> {
    let is = move |hook: &Webhook| {
        hook.type_ == type_ || (type_ == WebhookType::Rollout && hook.type_ == WebhookType::Unset)
    };
    analysis.webhooks.iter().enumerate().filter(move |(_, hook)| is(hook))
}

/// A hook that did not pass.
pub(super) struct Refusal {
    /// Its name.
    pub(super) name: String,
    /// What it said.
    pub(super) error: String,
    /// Whether it answered at all.
    pub(super) answered: bool,
    muted: bool,
}

impl Refusal {
    fn new(hook: &Webhook, answer: &HookAnswer) -> Option<Self> {
        let (error, answered) = match answer {
            HookAnswer::Passed => return None,
            HookAnswer::Refused(error) => (error, true),
            HookAnswer::Unreachable(error) => (error, false),
        };
        Some(Self { name: hook.name.clone(), error: error.clone(), answered, muted: hook.mute_alert })
    }
}

impl Tick<'_> {
    /// Asks all hooks of a type in order, up to the first that does not pass. `told`: how a pass is told, such as
    /// `Confirm-rollout`. `also`: what may be asked besides.
    pub(super) fn call(
        &mut self,
        type_: WebhookType,
        phase: Phase,
        told: Option<&str>,
        also: &[Question],
    ) -> Told<Option<Refusal>> {
        let hooks: Vec<(usize, Webhook)> =
            of(&self.analysis, type_).map(|(index, hook)| (index, hook.clone())).collect();
        for (index, hook) in hooks {
            let Some(answer) = self.seen.answers.hooks.get(&index) else {
                let mut questions = vec![Question::Hook { index, type_, phase }];
                questions.extend_from_slice(also);
                return Err(Ask(questions));
            };
            self.hooks.push((hook.name.clone(), answer.clone()));
            if let Some(refusal) = Refusal::new(&hook, answer) {
                return Ok(Some(refusal));
            }
            if let Some(told) = told {
                self.normal(format!("{told} check {} passed", hook.name));
            }
        }
        if also.is_empty() { Ok(None) } else { Err(Ask(also.to_vec())) }
    }

    /// Tells that a gate is shut, with an alert unless the hook is muted.
    pub(super) fn halted(&mut self, refusal: &Refusal, waiting_for: &str, alert: &str) {
        self.warn(format!("Halt {} advancement waiting for {waiting_for} {}", self.name(), refusal.name));
        if !refusal.muted {
            self.alert(Severity::Warn, alert, false);
        }
    }

    /// Whether a rollback hook asks for a rollback. No answer is no request.
    pub(super) fn rollback_hook_fires(&mut self) -> Told<bool> {
        let hooks: Vec<(usize, Webhook)> =
            of(&self.analysis, WebhookType::Rollback).map(|(index, hook)| (index, hook.clone())).collect();
        let phase = self.status.phase;
        for (index, hook) in hooks {
            let Some(answer) = self.seen.answers.hooks.get(&index) else {
                return Err(Ask(vec![Question::Hook { index, type_: WebhookType::Rollback, phase }]));
            };
            self.hooks.push((hook.name.clone(), answer.clone()));
            if *answer == HookAnswer::Passed {
                self.warn(format!("Rollback check {} passed", hook.name));
                return Ok(true);
            }
            self.normal(format!("Rollback hook {} not signaling a rollback", hook.name));
        }
        Ok(false)
    }
}

/// What to tell about the post-rollout hooks that [`Decision::after`](super::Decision::after) asked for: each pass, up
/// to the first that does not.
pub fn told(canary: &CanaryView, phase: Phase, answers: &BTreeMap<usize, HookAnswer>) -> Vec<Notice> {
    let mut notices = Vec::new();
    let analysis = canary.spec.analysis().cloned().unwrap_or_default();
    for (index, hook) in of(&analysis, WebhookType::PostRollout) {
        let Some(answer) = answers.get(&index) else { break };
        let (level, message) = match Refusal::new(hook, answer) {
            None => (Level::Normal, format!("Post-rollout check {} passed", hook.name)),
            Some(refusal) => (Level::Warning, format!("Post-rollout hook {} failed {}", hook.name, refusal.error)),
        };
        notices.push(Notice { level, message, phase, alert: None });
        if level == Level::Warning {
            break;
        }
    }
    notices
}
