//! Flagger's quirks and the surprises of its recordings: each that serin puts right, or keeps on purpose, has a line in
//! `docs/differences.md` and a test, named after its number (`q12_…`, `s16_…`) or pinned by a recorded run.
#![expect(clippy::unwrap_used, reason = "a file that cannot be read stops its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

/// `Q` and `S`: the quirks that can be improved without or with a visible change, and all surprises.
const QUIRKS: [u8; 35] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 33,
    34, 35, 36, 37,
];
const MORE: [u8; 7] = [15, 38, 39, 40, 41, 42, 43];
const SURPRISES: std::ops::RangeInclusive<u8> = 1..=24;

#[derive(Deserialize)]
struct Behaviour {
    #[serde(default)]
    quirk: String,
}

#[derive(Deserialize)]
struct Differences {
    general: BTreeMap<String, Behaviour>,
    behaviours: BTreeMap<String, Behaviour>,
    scenarios: BTreeMap<String, Vec<String>>,
}

type Number = (char, u8);

/// `Q-12, S-16`.
fn numbers(text: &str) -> BTreeSet<Number> {
    let number = |part: &str| {
        let (kind, number) = part.trim().split_once('-')?;
        Some((kind.chars().next()?, number.parse().ok()?))
    };
    text.split(',').filter_map(number).collect()
}

/// The numbers at the beginning of a test's name: `q12_s16_…`.
fn named(function: &str) -> BTreeSet<Number> {
    let number = |part: &str| {
        let kind = part.chars().next().filter(|kind| ['q', 's'].contains(kind))?;
        Some((kind.to_ascii_uppercase(), part.get(1..)?.parse().ok()?))
    };
    function.split('_').map_while(number).collect()
}

fn tests(folder: &Path, found: &mut BTreeSet<Number>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(text.split("fn ").flat_map(named));
        }
    }
}

#[test]
fn every_quirk_and_surprise_has_a_test_and_a_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/conformance/differences.yaml")).unwrap();
    let file: Differences = serde_saphyr::from_str(&text).unwrap();
    let mut tested = BTreeSet::new();
    tests(&root.join("src"), &mut tested);
    tests(&root.join("tests/it"), &mut tested);
    let recorded: BTreeSet<&String> = file.scenarios.values().flatten().collect();
    let (mut told, mut pinned) = (BTreeSet::<Number>::new(), BTreeSet::<Number>::new());
    for (name, behaviour) in file.general.iter().chain(&file.behaviours) {
        let numbers = numbers(&behaviour.quirk);
        // A surprise that only adds to a quirk is tested with it.
        if recorded.contains(name) || !numbers.is_disjoint(&tested) || file.general.contains_key(name) {
            pinned.extend(&numbers);
        }
        told.extend(numbers);
    }
    let quirks = QUIRKS.iter().chain(&MORE).map(|number| ('Q', *number));
    let all: BTreeSet<Number> = quirks.chain(SURPRISES.map(|number| ('S', number))).collect();
    let untold: Vec<_> = all.difference(&told).collect();
    let untested: Vec<_> = all.iter().filter(|number| !tested.contains(*number) && !pinned.contains(*number)).collect();
    assert!(untold.is_empty() && untested.is_empty(), "without a line: {untold:?}, without a test: {untested:?}");
}
