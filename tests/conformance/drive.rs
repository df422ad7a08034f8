//! Drives a scenario by what is observed. Nothing here knows which API server or which controller it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use serin::ports::Clock;

use super::api::Api;
use super::log::{Condition, Entry, Log, State};
use super::scenario::Scenario;
use super::servers::Servers;

/// Between seeing a step's condition and acting: the tick that made it true is over, the next has not begun.
const SETTLE: Duration = Duration::from_secs(2);
/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(500);
/// Seconds watched after the last step: at least one more tick.
const GRACE: u64 = 12;
/// Seconds that a condition may take.
const PATIENCE: u64 = 240;

/// A scenario under way.
pub(crate) struct Stage<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) api: Api,
    pub(crate) log: Log,
    pub(crate) servers: &'a Servers,
    /// Starts the controller anew, as if it had crashed.
    pub(crate) restart: &'a dyn Fn(),
}

impl Stage<'_> {
    /// Creates the input and takes all steps. What went wrong with the scenario itself, if anything.
    pub(crate) async fn play(&self) -> Result<(), String> {
        for object in &self.scenario.input {
            if let Err(error) = self.api.create(&self.fill(object)).await {
                self.log.add(Entry::Refused(error.clone()));
                if !self.scenario.refused {
                    return Err(error);
                }
            }
        }
        let mut mark = 0;
        for (index, step) in self.scenario.steps.iter().enumerate() {
            let began = self.clock.now();
            let limit = Duration::from_secs(step.timeout.unwrap_or(PATIENCE));
            self.log.expect(self.condition(&step.when, mark, began));
            mark = loop {
                if let Some(met) = self.log.met() {
                    break met;
                }
                if self.clock.now() > began + limit {
                    let when = serde_json::to_string(&step.when).unwrap();
                    return Err(format!("step {} waited {} s in vain for {when}", index + 1, limit.as_secs()));
                }
                self.pass(POLL).await;
            };
            if !step.acts.is_empty() {
                self.pass(SETTLE).await;
            }
            for act in &step.acts {
                self.act(act).await?;
            }
        }
        self.pass(Duration::from_secs(self.scenario.grace.unwrap_or(GRACE))).await;
        Ok(())
    }

    async fn pass(&self, time: Duration) {
        self.clock.sleep_until(self.clock.now() + time).await;
    }

    fn fill(&self, value: &Value) -> Value {
        let text = value.to_string().replace("$NS", &self.scenario.name);
        serde_json::from_str(&self.servers.addresses().fill(&text)).unwrap()
    }

    fn condition(&self, when: &BTreeMap<String, Value>, mark: usize, began: Timestamp) -> Condition {
        let (when, clock, canary) = (when.clone(), self.clock.clone(), self.scenario.canary().to_owned());
        Box::new(move |state| {
            let holds = |(key, want): (&String, &Value)| match key.as_str() {
                "seconds" => clock.now() >= began + Duration::from_secs_f64(want.as_f64().unwrap()),
                _ => holds(key, want, state, mark, &canary),
            };
            when.iter().all(holds)
        })
    }

    async fn act(&self, act: &Value) -> Result<(), String> {
        let (verb, argument) = act.as_object().and_then(|act| act.iter().next()).expect("an act");
        self.log.add(Entry::Step(act.clone()));
        let answers = || serde_json::from_value(argument.clone()).unwrap();
        match verb.as_str() {
            "answers" => self.servers.set_answers(answers()),
            "hooks" => self.servers.set_hooks(answers()),
            "create" => {
                for object in argument.as_array().unwrap() {
                    self.api.create(&self.fill(object)).await?;
                }
            }
            "patch" => self.api.patch(argument, &self.fill(&argument["patch"])).await?,
            // What is gone already is as good.
            "delete" => self.api.delete(argument).await.unwrap_or_default(),
            "controller" => (self.restart)(),
            "wait" => self.pass(Duration::from_secs_f64(argument.as_f64().unwrap())).await,
            other => panic!("`{other}` is no act"),
        }
        Ok(())
    }
}

fn holds(key: &str, want: &Value, state: &State, mark: usize, canary: &str) -> bool {
    let object = |name: &Value| {
        let (kind, name) = name.as_str().and_then(|name| name.split_once('/')).expect("KIND/NAME");
        state.live(kind, name).is_some()
    };
    let said = |words: &str| {
        state.count(mark, |entry| matches!(entry, Entry::Event { message, .. } if message.contains(words)))
    };
    let called = |name: &str| state.count(mark, |entry| matches!(entry, Entry::Hook { hook, .. } if hook == name));
    let each = |count: &dyn Fn(&str) -> u64| {
        want.as_object().unwrap().iter().all(|(name, least)| count(name) >= least.as_u64().unwrap())
    };
    match key {
        "phase" | "canaryWeight" | "iterations" | "failedChecks" => {
            let live = state.live("Canary", canary).and_then(|canary| canary.pointer("/status")?.get(key).cloned());
            let live = live.unwrap_or_else(|| if key == "phase" { "".into() } else { 0.into() });
            want.as_array().map_or(*want == live, |any| any.contains(&live))
        }
        "event" => said(want.as_str().unwrap()) > 0,
        "events" => each(&said),
        "hook" => each(&called),
        "exists" => object(want),
        "gone" => !object(want),
        other => panic!("`{other}` is no condition"),
    }
}
