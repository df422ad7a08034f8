//! Plays a scenario on the sandbox under virtual time, with the unmodified daemon.

use std::cell::RefCell;
use std::sync::Arc;

use futures::FutureExt as _;
use kube::Client;
use serde_json::json;
use serin::ports::Clock;
use serin::sandbox::api;
use serin::sim::bed::Adjust;
use serin::sim::{Bed, BedOptions, bed};

use super::api::Api;
use super::drive::Stage;
use super::flags;
use super::log::Log;
use super::recording::Recording;
use super::render::render;
use super::scenario::Scenario;
use super::servers::{Pause, Servers};

/// An image that no registry has.
const MISSING_IMAGE: &str = "unknown:1";

/// Plays it on a runtime of its own.
pub(crate) fn play(scenario: &Scenario) -> Recording {
    let sim = Arc::new(bed::clock());
    let runtime = sim.runtime().unwrap();
    runtime.block_on(async move {
        let clock: Arc<dyn Clock> = sim.clone();
        let log = Log::new(clock.clone());
        let (answers, hooks) = (scenario.first_answers(), scenario.hooks.clone());
        let asleep = sim.clone();
        let pause: Pause = Arc::new(move |time| {
            let clock = asleep.clone();
            async move { clock.sleep_within_call(clock.now() + time).await }.boxed()
        });
        let servers = Servers::start(log.clone(), pause, &scenario.name, answers, hooks).await;
        let (flags, addresses) = (scenario.clone(), servers.addresses());
        let options = BedOptions {
            all_canaries: true,
            source: false,
            metrics_server: Some(format!("http://{}", servers.metrics)),
            adjust: Some(Adjust(Arc::new(move |settings| {
                flags::over(&flags, settings, &|text| addresses.fill(text));
            }))),
            ..BedOptions::default()
        };
        let bed = Bed::start(sim.clone(), options).await.unwrap();
        bed.sandbox.lack_image(MISSING_IMAGE);
        let client: Client = api::client(&bed.sandbox.store, &scenario.name);
        let api = Api::new(client, &scenario.name);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scenario.name}});
        api.create(&namespace).await.unwrap();
        let _watches = api.watch_all(&log, &scenario.provider).await;
        let start = || {
            let ports = bed.ports();
            let telemetry = ports.telemetry.clone();
            (bed.daemon_with(ports, bed.git().unwrap(), bed.forge.clone()), telemetry)
        };
        let daemon = RefCell::new(start());
        let restart = || {
            let mut daemon = daemon.borrow_mut();
            daemon.0.abort();
            *daemon = start();
        };
        let stage = Stage { scenario, clock, api, log: log.clone(), servers: &servers, restart: &restart };
        let problem = stage.play().await.err();
        let metrics = daemon.borrow().1.encode();
        render(&log, scenario, &servers, &metrics, problem)
    })
}
