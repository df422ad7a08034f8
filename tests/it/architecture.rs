//! The walls of docs/architecture.md, wall (b): who imports whom, read from the sources and compared with the table
//! in the document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a readable file")
}

/// All Rust files under a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The rooms, in the order of lib.rs.
fn rooms() -> Vec<String> {
    let library = read(&root().join("src/lib.rs"));
    library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned)).collect()
}

/// The rows of the table under a heading: cells without their backticks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let document = read(&root().join("docs/architecture.md"));
    let section = document.split("\n## ").find(|part| part.starts_with(heading)).expect("the heading");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect())
        .collect()
}

/// The rooms named in the first cell of a row, such as `metrics/, hooks/`.
fn named(cell: &str) -> Vec<String> {
    cell.split(',').map(|name| name.trim().trim_end_matches('/').to_owned()).collect()
}

fn kinds() -> BTreeMap<String, String> {
    table("Codemap").iter().flat_map(|row| named(&row[0]).into_iter().map(|room| (room, row[1].clone()))).collect()
}

/// What each room may import, from the words of the table.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let kinds = kinds();
    let rooms = rooms();
    let pure: BTreeSet<String> = rooms.iter().filter(|room| kinds[*room] == "pure").cloned().collect();
    let notes = Regex::new(r"\([^)]*\)").expect("a pattern");
    let mut allowed = BTreeMap::new();
    for row in table("Who may import whom") {
        for room in named(&row[0]) {
            // What follows "never" repeats what is not listed before it.
            let words = row[1].split(", never").next().unwrap_or_default();
            let words = &notes.replace_all(words, "");
            let mut set = BTreeSet::new();
            for word in words.split([',', ' ']).filter(|word| !word.is_empty()) {
                match word {
                    "nothing" | "and" | "the" | "but" => {}
                    "everything" => set.extend(rooms.iter().cloned()),
                    "pure" => set.extend(pure.iter().cloned()),
                    "rooms" => {}
                    name if words.contains(&format!("but {name}")) => {
                        set.remove(name);
                    }
                    name => {
                        assert!(rooms.iter().any(|room| room == name), "the table names {name}, which is no room");
                        set.insert(name.to_owned());
                    }
                }
            }
            set.insert(room.clone());
            allowed.insert(room, set);
        }
    }
    allowed
}

/// The code of a file without comments and without its test module.
fn code(path: &Path) -> String {
    let text = read(path);
    let text = match text.split_once("#[cfg(test)]\nmod tests {") {
        // The module ends where a brace stands at the start of a line.
        Some((before, rest)) => format!("{before}{}", rest.split_once("\n}\n").map_or("", |(_, after)| after)),
        None => text,
    };
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The files of a room that are compiled into the program: without modules of their own file that are for tests only.
fn shipped(room: &str) -> Vec<PathBuf> {
    static DECLARED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"#\[cfg\(test\)\]\s*(?:pub(?:\([a-z]+\))? )?mod ([a-z_]+);").expect("a pattern"));
    let single = root().join(format!("src/{room}.rs"));
    let folder = root().join("src").join(room);
    let mut files = if folder.exists() { sources(&folder) } else { Vec::new() };
    files.extend(single.exists().then_some(single));
    let mut tests = Vec::new();
    for file in &files {
        // `mod.rs` declares what lies beside it, any other file what lies in the folder of its name.
        let home = if file.ends_with("mod.rs") {
            file.parent().expect("a folder").to_owned()
        } else {
            file.with_extension("")
        };
        let text = read(file);
        tests.extend(DECLARED.captures_iter(&text).map(|found| home.join(&found[1])));
    }
    files.retain(|file| !tests.iter().any(|test| file.with_extension("") == *test || file.starts_with(test)));
    assert!(!files.is_empty(), "{room} has no sources");
    files
}

/// The rooms that some code names by `crate::`, in paths and in grouped imports.
fn imports(code: &str) -> BTreeSet<String> {
    static SINGLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bcrate::([a-z_]+)").expect("a pattern"));
    static GROUPED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bcrate::\{([^;]*)\}").expect("a pattern"));
    let mut found: BTreeSet<String> = SINGLE.captures_iter(code).map(|c| c[1].to_owned()).collect();
    for group in GROUPED.captures_iter(code) {
        let mut depth = 0;
        let mut word = String::new();
        for c in group[1].chars().chain([',']) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    let first = word.trim().split("::").next().unwrap_or_default().to_owned();
                    found.insert(first);
                    word.clear();
                }
                _ => word.push(c),
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let (rooms, allowed) = (rooms(), allowed());
    let mut breaches = Vec::new();
    for room in &rooms {
        let may = allowed.get(room).unwrap_or_else(|| panic!("{room} is not in the table"));
        for file in shipped(room) {
            for import in imports(&code(&file)).iter().filter(|import| rooms.contains(import)) {
                if !may.contains(import) {
                    breaches.push(format!("{}: {room} imports {import}", file.display()));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_room_stands_in_the_codemap_and_in_the_table() {
    let rooms: BTreeSet<String> = rooms().into_iter().collect();
    assert_eq!(kinds().into_keys().collect::<BTreeSet<_>>(), rooms);
    assert_eq!(allowed().into_keys().collect::<BTreeSet<_>>(), rooms);
}

/// Invariant I1: no waiting, no clock and no environment where decisions are made.
#[test]
fn pure_rooms_have_no_async_no_clock_and_no_environment() {
    let forbidden = Regex::new(
        r"\basync\b|\.await\b|\btokio::|Timestamp::now|SystemTime|Instant::now|\bstd::(env|fs|net|process|thread)::|\brand::rng\b",
    )
    .expect("a pattern");
    let mut breaches = Vec::new();
    for (room, _) in kinds().iter().filter(|(_, kind)| *kind == "pure") {
        for file in shipped(room) {
            for line in code(&file).lines().filter(|line| forbidden.is_match(line)) {
                breaches.push(format!("{}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// A file that no `mod` line names is a test that never runs. Helpers may be named by the module that uses them.
#[test]
fn every_file_of_tests_it_is_listed_in_its_main() {
    let folder = root().join("tests/it");
    let line = Regex::new(r"(?m)^(?:pub(?:\([a-z]+\))? )?mod ([a-z_]+);").expect("a pattern");
    let mut listed = BTreeSet::new();
    let mut present = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_file = path.extension().is_some_and(|extension| extension == "rs");
        if is_file {
            listed.extend(line.captures_iter(&read(&path)).map(|found| found[1].to_owned()));
        }
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        if (is_file || path.join("mod.rs").exists()) && name != "main" {
            present.insert(name);
        }
    }
    let lost: Vec<_> = present.difference(&listed).collect();
    assert!(lost.is_empty(), "no test module names {lost:?}");
}

/// The wall itself is tested: a scanner that sees nothing would let everything through.
#[test]
fn the_scanner_sees_every_form_of_import() {
    let found = imports(
        "use crate::domain::Sha;\nuse crate::{ports::{Clock, git}, rollout, api};\nlet x = crate::git::open();\npub(crate) fn f() {}",
    );
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["api", "domain", "git", "ports", "rollout"]);
    let allowed = allowed();
    assert!(allowed["cli"].contains("sim") && !allowed["sim"].contains("cli"));
    assert!(
        allowed["git"].contains("ports") && allowed["git"].contains("release") && !allowed["git"].contains("cluster")
    );
    assert!(allowed["controller"].contains("telemetry") && !allowed["controller"].contains("traffic"));
    assert_eq!(allowed["domain"].len(), 1);
}
