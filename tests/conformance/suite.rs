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
    contour_canary_fails_success_rate
    contour_canary_succeeds
    kubernetes_blue_green_succeeds
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
