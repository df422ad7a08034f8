//! Scenarios: the whole daemon on the sandbox under virtual time, as told by the files in `tests/scenarios`. What can be
//! seen from outside is compared with a transcript; the end, with what the file expects.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that cannot be read stops its test")]

mod crash;
mod end;
mod files;
mod play;
#[path = "../bed/stories/shape.rs"]
#[expect(dead_code, reason = "the bed's own, but for what is tested here")]
mod shape;
#[expect(dead_code, reason = "some fields are for the bed, which shares the format")]
mod story;
mod transcript;

use std::path::Path;

use shape::Shape;
use story::{Act, Story};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn read(name: &str) -> Story {
    let text = std::fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}.yaml: {error}"))
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let name = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned);
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

fn run(name: &str) {
    let story = read(name);
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
            let mut played = vec![$(stringify!($name)),*];
            played.sort_unstable();
            assert_eq!(names(), played);
        }
    };
}

/// The bed can do all that its stories ask for, and what it makes of their files can be undone.
#[test]
fn stories_of_the_bed_can_be_played_there() {
    let mut count = 0;
    for name in names() {
        let story = read(&name);
        if story.bed.is_none() {
            continue;
        }
        count += 1;
        let shape = Shape::new(7);
        let mut states = vec![files::first(&story).unwrap()];
        for act in story.steps.iter().flat_map(|step| &step.acts) {
            match act {
                Act::Commit(wanted) | Act::Race(wanted) => {
                    let mut next = states.last().unwrap().clone();
                    for (path, text) in files::changed(&next, wanted).unwrap() {
                        next.remove(&path);
                        next.extend(text.map(|text| (path, text)));
                    }
                    states.push(next);
                }
                Act::Prometheus(_) | Act::Hooks(_) => panic!("{name}: the bed cannot {act:?}"),
                _ => {}
            }
        }
        for files in states {
            let bed = shape.files(files.iter().map(|(path, text)| (path.clone(), Some(text.clone()))).collect());
            let bed: files::Files = bed.into_iter().filter_map(|(path, text)| Some((path, text?))).collect();
            for (path, text) in bed.iter().filter(|(_, text)| text.contains("kind: Deployment\n")) {
                assert_eq!(text.contains("containers:"), text.contains("exec /image/podinfo"), "{name}: {path}");
                assert!(!text.contains("namespace: shop\n"), "{name}: {path}");
            }
            assert_eq!(shape.files_back(bed), files, "{name}");
        }
    }
    assert!(count > 20, "{count} stories");
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
