//! The scenarios.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::differences::Differences;
use crate::recording::Recording;
use crate::scenario::Scenario;
use crate::{compare, sim};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// Where the recordings are: ours, or others of the same form.
fn corpus() -> PathBuf {
    std::env::var_os("SERIN_CORPUS").map_or_else(|| folder().join("corpus"), PathBuf::from)
}

/// What differs, and serin's recording.
fn play(folder: &Path) -> (Option<String>, Recording) {
    let serin = sim::play(&Scenario::read(folder));
    (compare::differences(&Recording::read(folder), &serin), serin)
}

fn run(name: &str) {
    let (different, serin) = play(&corpus().join(name));
    let explained = Differences::read(&folder()).of(name);
    match (different, explained.is_empty()) {
        (None, true) => {}
        (Some(different), true) => {
            panic!("{name} differs from Flagger without an explanation\n{different}\n{}", serin.transcript.join("\n"))
        }
        (None, false) => panic!("{name} is equal to Flagger: remove its entry from differences.yaml"),
        (Some(different), false) => {
            let mut settings = insta::Settings::new();
            settings.set_snapshot_path(folder().join("transcripts"));
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.set_description(explained.join(", "));
            let text = format!("{different}\n== serin's transcript\n{}", serin.transcript.join("\n"));
            settings.bind(|| insta::assert_snapshot!(name, text));
        }
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(&stringify!($name).replace('_', "-"));
            }
        )*

        fn played() -> BTreeSet<String> {
            [$(stringify!($name)),*].map(|name| name.replace('_', "-")).into_iter().collect()
        }
    };
}

scenarios! {
    apisix_canary_succeeds
    contour_ab_confirm_promotion
    contour_ab_cookie_regex
    contour_ab_prefix_suffix
    appmesh_v1beta1_canary_succeeds
    appmesh_v1beta2_ab
    contour_alerts_error
    contour_alerts_info
    contour_alerts_progress_deadline
    contour_alerts_promotion_failed
    contour_alerts_skip_analysis
    contour_alerts_traffic_increase
    contour_blue_green
    contour_canary_fails_success_rate
    contour_canary_scaled_to_zero_mid_run
    contour_canary_spec_edited
    contour_canary_succeeds
    contour_config_missing
    contour_config_optional_missing
    contour_config_tracking_disabled
    contour_configmap_envfrom
    contour_configmap_volume
    contour_confirm_promotion
    contour_confirm_rollout
    contour_confirm_rollout_reverted_while_waiting
    contour_deleted
    contour_deleted_mid_run
    contour_duration_no_values
    contour_event_webhook
    contour_event_webhook_failed_run
    contour_failed_checks_kept
    contour_failed_then_fixed
    contour_failed_then_reverted
    contour_hpa
    contour_inline_query
    contour_keda
    contour_metric_template
    contour_metric_template_basic_auth
    contour_metric_template_missing
    contour_metric_template_no_interval
    contour_metric_template_secret_missing
    contour_metric_threshold_legacy
    contour_metric_unusable
    contour_metrics_server
    contour_nan
    contour_new_revision_while_promoting
    contour_new_revision_while_waiting_promotion
    contour_no_metrics
    contour_no_step
    contour_no_values
    contour_port_named
    contour_post_rollout_failed
    contour_pre_rollout_fails
    contour_pre_rollout_recovers
    contour_primary_breaks_while_promoting
    contour_primary_deleted
    contour_primary_edited
    contour_primary_never_ready
    contour_primary_workload
    contour_progress_deadline
    contour_progress_deadline_mid_run
    contour_prometheus_500
    contour_prometheus_unreachable
    contour_refused_both_steps
    contour_refused_strategies
    contour_replicas_changed
    contour_restarted_failed
    contour_restarted_initialized
    contour_restarted_progressing
    contour_restarted_promoting
    contour_restarted_waitingpromotion
    contour_retries_no_retry_on
    contour_reverted_mid_run
    contour_reverted_on_deletion_owned
    contour_reverted_on_deletion_target_gone
    contour_rollback_hook
    contour_rollout_hook_204
    contour_rollout_hook_400
    contour_rollout_hook_500
    contour_rollout_hook_basic_auth
    contour_rollout_hook_retries
    contour_rollout_hook_slow
    contour_second_run
    contour_secret_env
    contour_selector_label_missing
    contour_service_match
    contour_service_metadata
    contour_service_name
    contour_skip_analysis
    contour_skip_analysis_bad_image
    contour_skip_analysis_switched_on
    contour_step_weight_promotion
    contour_step_weights_over_100
    contour_success_rate_max
    contour_suspend_long
    contour_take_over
    contour_target_deleted_mid_run
    contour_template_label_changed
    contour_threshold_zero
    contour_timeout_retries
    contour_two_canaries
    contour_two_series
    flags_canary_fails
    flags_cross_namespace
    flags_own_event_webhook
    gatewayapi_ab_header
    gatewayapi_ab_header_prefix
    gatewayapi_blue_green
    gatewayapi_blue_green_mirror
    gatewayapi_canary_fails_latency
    gatewayapi_canary_mirror
    gatewayapi_canary_succeeds
    gatewayapi_full_route
    gatewayapi_match_header_prefix
    gatewayapi_no_gateway_refs
    gatewayapi_not_accepted
    gatewayapi_rewrite_prefix_refused
    gatewayapi_session_affinity
    gatewayapi_session_affinity_one_cookie
    gatewayapi_three_headers
    gatewayapi_two_matches
    gatewayapi_v1beta1_linkerd_parent
    gloo_ab
    istio_ab
    istio_canary_fails
    istio_canary_succeeds
    istio_delegation
    istio_full_route
    istio_mirror_blue_green
    istio_mirror_canary
    istio_service_target
    istio_session_affinity
    istio_tcp
    kubernetes_blue_green_succeeds
    knative_canary_succeeds
    kubernetes_confirm_promotion
    kubernetes_daemonset_fails
    kubernetes_daemonset_reverted
    kubernetes_daemonset_succeeds
    kubernetes_match_warns
    kubernetes_no_iterations
    kubernetes_primary_never_ready
    linkerd_canary_succeeds
    nginx_ab_cookie
    nginx_ab_header
    nginx_ab_header_and_cookie
    nginx_ab_header_regex
    nginx_backend_missing
    nginx_canary_fails
    nginx_canary_succeeds
    nginx_ingress_missing
    osm_canary_succeeds
    skipper_blue_green
    skipper_canary_fails
    skipper_canary_succeeds
    skipper_predicate_kept
    skipper_reverted_on_deletion
    smi_v1alpha1_canary_succeeds
    smi_v1alpha2_canary_succeeds
    smi_v1alpha3_canary_fails
    traefik_canary_fails
    traefik_canary_succeeds
}

/// Plays every folder that `SERIN_CORPUS` holds, and says what differs.
#[test]
#[ignore = "plays a corpus that is kept elsewhere: SERIN_CORPUS=FOLDER"]
fn another_corpus() {
    let only = std::env::var("SERIN_ONLY").unwrap_or_default();
    let mut names: Vec<_> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("scenario.json").exists() && path.to_string_lossy().contains(&only))
        .collect();
    names.sort();
    let judge = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let played = std::panic::catch_unwind(|| play(path).0);
        (name, played.unwrap_or_else(|_| Some("== problem\nthe scenario could not be played\n".to_owned())))
    };
    let size = names.len().div_ceil(4).max(1);
    let results: Vec<(String, Option<String>)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            names.chunks(size).map(|part| scope.spawn(|| part.iter().map(judge).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let differing = results.iter().filter_map(|(name, different)| Some((name, different.as_ref()?)));
    let text: Vec<_> = differing.map(|(name, different)| format!("##### {name}\n{different}")).collect();
    assert!(text.is_empty(), "{} of {} differ\n{}", text.len(), results.len(), text.join("\n"));
}

#[test]
fn every_scenario_is_played_or_pending() {
    let files: BTreeSet<String> = std::fs::read_dir(folder().join("corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, played());
    let known = Differences::read(&folder());
    let strangers: Vec<_> = known.explained().difference(&played()).cloned().collect();
    assert!(strangers.is_empty(), "differences.yaml explains what is not played: {strangers:?}");
    let both: Vec<_> = known.pending().intersection(&played()).cloned().collect();
    assert!(both.is_empty(), "pending and played: {both:?}");
}
