//! Scenarios: the whole daemon on the sandbox under virtual time, as told by the files in `tests/scenarios`. What can be
//! seen from outside is compared with a transcript; the end, with what the file expects.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that cannot be read stops its test")]

mod crash;
mod end;
mod files;
mod play;
#[expect(dead_code, reason = "some fields are for the bed, which shares the format")]
mod story;
mod transcript;

use std::path::Path;

use story::Story;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn run(name: &str) {
    let text = std::fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
    let story: Story = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}.yaml: {error}"));
    let transcript = play::play(&story);
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(folder().join("transcripts"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(&story.about);
    settings.bind(|| insta::assert_snapshot!(name, transcript));
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn every_file_is_played() {
            let mut files: Vec<String> = std::fs::read_dir(folder())
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
                .collect();
            files.sort();
            let mut played = vec![$(stringify!($name)),*];
            played.sort_unstable();
            assert_eq!(files, played);
        }
    };
}

scenarios! {
    ab_test_failed
    ab_test_promoted
    appmesh_promoted
    both_bad_by_one_value
    broken_template
    broken_yaml
    broken_yaml_on_top
    canary_deleted_in_mid_run
    config_only
    config_only_bad
    failed_during_promotion
    failed_on_latency
    failed_on_success_rate
    fix_after_failure
    fix_wins_the_race
    gatewayapi_failed
    gatewayapi_promoted
    gloo_failed
    human_commit_on_top_other_file
    human_commit_on_top_same_file
    human_push_races
    innocent_change_in_between
    istio_failed
    istio_promoted
    istio_session_affinity
    kuma_promoted
    manual_approval
    mirror_failed
    mirror_promoted
    new_release_in_mid_analysis
    no_traffic
    partial_shared_with_a_deployment
    primary_deleted_in_mid_run
    primary_never_ready
    prometheus_down
    prometheus_down_too_long
    promoted
    promoted_commit_pushed_away
    refused_by_hook
    rename_and_bad_change
    retry_that_fails_again
    revert_refused
    session_affinity_failed
    session_affinity_promoted
    skipper_failed
    skipper_promoted
    someone_reverts_first
    superseded_and_guilty
    too_few_samples
    two_canaries_one_bad
}
