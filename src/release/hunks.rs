//! Reversing parts of a commit on top of later ones, line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::domain::Blob;
use crate::ports::FileChange;

/// Files of a tree.
pub(crate) type Files = BTreeMap<String, Blob>;

/// Names one hunk: the reversal's place in its list, and the hunk's place in it.
pub(crate) type HunkId = (usize, usize);

/// What one commit did to one file, ready to be undone at the path that the file has now.
#[derive(Debug, Clone)]
pub(crate) struct Reversal {
    /// The file's present path.
    pub(crate) path: String,
    undo: Undo,
}

#[derive(Debug, Clone)]
enum Undo {
    /// Undo hunks of a text.
    Lines { after: Vec<String>, hunks: Vec<Hunk> },
    /// Remove a file that was added, or put back a whole content, when the file still is what the commit made of it.
    Whole { expect: Option<Blob>, content: Option<Blob> },
}

/// One hunk: lines `at` of the text after the commit become `before`.
#[derive(Debug, Clone)]
struct Hunk {
    at: Range<usize>,
    before: Vec<String>,
}

impl Reversal {
    /// Prepares a change for reversal at `path`. A rename is kept: only the content is undone.
    pub(crate) fn new(path: String, change: &FileChange) -> Self {
        let before = change.before.as_ref().map(|(_, blob)| blob);
        let after = change.after.as_ref().map(|(_, blob)| blob);
        let undo = match (before.and_then(|b| text(b)), after.and_then(|a| text(a))) {
            (Some(before), Some(after)) => line_undo(&lines(before), &lines(after)),
            _ => Undo::Whole { expect: after.cloned(), content: before.cloned() },
        };
        Self { path, undo }
    }

    /// How many hunks it has.
    pub(crate) fn len(&self) -> usize {
        match &self.undo {
            Undo::Lines { hunks, .. } => hunks.len(),
            Undo::Whole { .. } => 1,
        }
    }
}

/// Undoes all hunks, in order, but for those in `skip`. A hunk whose lines were changed since is left as it is: whether
/// enough was undone is seen by rendering the result.
pub(crate) fn undo(files: &Files, reversals: &[Reversal], skip: &BTreeSet<HunkId>) -> Files {
    let mut files = files.clone();
    for (index, reversal) in reversals.iter().enumerate() {
        let wanted = |hunk: usize| !skip.contains(&(index, hunk));
        match &reversal.undo {
            Undo::Whole { expect, content } if wanted(0) && files.get(&reversal.path) == expect.as_ref() => {
                match content {
                    Some(content) => files.insert(reversal.path.clone(), Arc::clone(content)),
                    None => files.remove(&reversal.path),
                };
            }
            Undo::Whole { .. } => {}
            Undo::Lines { after, hunks } => {
                let Some(current) = files.get(&reversal.path).and_then(|blob| text(blob)).map(lines) else { continue };
                let chosen: Vec<_> = hunks.iter().enumerate().filter(|(i, _)| wanted(*i)).map(|(_, h)| h).collect();
                if let Some(result) = undo_lines(after, &current, &chosen) {
                    files.insert(reversal.path.clone(), Blob::from(result.as_bytes()));
                }
            }
        }
    }
    files
}

pub(crate) fn text(blob: &Blob) -> Option<&str> {
    std::str::from_utf8(blob).ok().filter(|text| !text.contains('\0'))
}

fn lines(text: &str) -> Vec<String> {
    text.split_inclusive('\n').map(str::to_owned).collect()
}

fn line_undo(before: &[String], after: &[String]) -> Undo {
    let mut hunks = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, before, after) {
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        split(before, after, op.old_range(), op.new_range(), &mut hunks);
    }
    Undo::Lines { after: after.to_vec(), hunks }
}

/// Lines that were changed side by side are still separate changes, such as an image beside a number of replicas: what
/// stands before the first colon tells which line became which.
fn split(before: &[String], after: &[String], old: Range<usize>, new: Range<usize>, hunks: &mut Vec<Hunk>) {
    let names = |lines: &[String], range: Range<usize>| -> Vec<String> {
        let name = |line: &String| line.split_once(':').map_or(line.as_str(), |(name, _)| name).to_owned();
        lines.get(range).unwrap_or_default().iter().map(name).collect()
    };
    let (old_names, new_names) = (names(before, old.clone()), names(after, new.clone()));
    for op in capture_diff_slices(Algorithm::Myers, &old_names, &new_names) {
        let shift = |range: Range<usize>, by: usize| range.start + by..range.end + by;
        let (old, new) = (shift(op.old_range(), old.start), shift(op.new_range(), new.start));
        if old.len() == new.len() {
            let pairs = old.zip(new).filter(|(o, n)| before.get(*o) != after.get(*n));
            hunks.extend(pairs.map(|(o, n)| Hunk { at: n..n + 1, before: slice(before, o..o + 1) }));
        } else {
            hunks.push(Hunk { at: new, before: slice(before, old) });
        }
    }
}

fn slice(lines: &[String], range: Range<usize>) -> Vec<String> {
    lines.get(range).map(<[String]>::to_vec).unwrap_or_default()
}

/// `None` when nothing could be undone.
fn undo_lines(after: &[String], current: &[String], hunks: &[&Hunk]) -> Option<String> {
    let place = places(after, current);
    let mut edits: Vec<(Range<usize>, &[String])> = hunks
        .iter()
        .filter_map(|hunk| Some((locate(&hunk.at, &place, current.len())?, hunk.before.as_slice())))
        .collect();
    if edits.is_empty() {
        return None;
    }
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut result = String::new();
    let mut at = 0;
    for (range, before) in edits {
        result.extend(current.get(at..range.start).unwrap_or_default().iter().map(String::as_str));
        before.iter().for_each(|line| push_line(&mut result, line));
        at = range.end.max(at);
    }
    for line in current.get(at..).unwrap_or_default() {
        push_line(&mut result, line);
    }
    Some(result)
}

/// A last line without newline that is no longer the last one gets one, else two lines would run together.
fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

/// For each line of `after` that is unchanged in `current`: where it stands there.
fn places(after: &[String], current: &[String]) -> Vec<Option<usize>> {
    let mut place = vec![None; after.len()];
    for op in capture_diff_slices(Algorithm::Myers, after, current) {
        if let DiffOp::Equal { old_index, new_index, len } = op {
            for (slot, new) in place.iter_mut().skip(old_index).take(len).zip(new_index..) {
                *slot = Some(new);
            }
        }
    }
    place
}

/// Where lines `at` stand now; `None` when any of them was changed.
fn locate(at: &Range<usize>, place: &[Option<usize>], length: usize) -> Option<Range<usize>> {
    if at.is_empty() {
        let before = at.start.checked_sub(1).and_then(|line| place.get(line).copied().flatten());
        let after = place.get(at.start).copied().flatten();
        let start = match (before, after) {
            (Some(line), _) => line + 1,
            (None, Some(line)) => line,
            (None, None) if place.is_empty() && length == 0 => 0,
            (None, None) => return None,
        };
        return Some(start..start);
    }
    let first = place.get(at.start).copied().flatten()?;
    let still_there = at.clone().enumerate().all(|(i, line)| place.get(line).copied().flatten() == Some(first + i));
    still_there.then(|| first..first + at.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(text: &str) -> Blob {
        Blob::from(text.as_bytes())
    }

    fn reverse(before: &str, after: &str, now: &str) -> String {
        let side = |text| Some(("f".to_owned(), blob(text)));
        let change = FileChange { before: side(before), after: side(after) };
        let files = Files::from([("f".to_owned(), blob(now))]);
        let result = undo(&files, &[Reversal::new("f".to_owned(), &change)], &BTreeSet::new());
        String::from_utf8_lossy(&result["f"]).into_owned()
    }

    #[test]
    fn hunks_are_undone_below_later_changes() {
        for (before, after, now, want) in [
            ("a\nb\nc\n", "a\nX\nc\n", "a\nX\nc\n", "a\nb\nc\n"),
            // A human changed the next line, and added one above.
            ("a\nb\nc\n", "a\nX\nc\n", "0\na\nX\nC\n", "0\na\nb\nC\n"),
            // The human changed the very line: it stays.
            ("a\nb\nc\n", "a\nX\nc\n", "a\nY\nc\n", "a\nY\nc\n"),
            // An added line goes, a removed one comes back.
            ("a\nc\n", "a\nb\nc\n", "a\nb\nc\nd\n", "a\nc\nd\n"),
            ("a\nb\nc\n", "a\nc\n", "a\nc\nd\n", "a\nb\nc\nd\n"),
            ("a\nb", "a", "a", "a\nb"),
            ("a\r\nb\r\n", "a\r\nX\r\n", "a\r\nX\r\nz\r\n", "a\r\nb\r\nz\r\n"),
        ] {
            assert_eq!(reverse(before, after, now), want, "{before:?} {after:?} {now:?}");
        }
    }

    #[test]
    fn lines_changed_side_by_side_are_separate_hunks() {
        let side = |text| Some(("f".to_owned(), blob(text)));
        let change = FileChange { before: side("image: 1\nreplicas: 1\n"), after: side("image: 2\nreplicas: 2\n") };
        let reversal = Reversal::new("f".to_owned(), &change);
        assert_eq!(reversal.len(), 2);
        let files = Files::from([("f".to_owned(), blob("image: 2\nreplicas: 2\n"))]);
        let result = undo(&files, &[reversal], &BTreeSet::from([(0, 1)]));
        assert_eq!(result["f"], blob("image: 1\nreplicas: 2\n"));
    }
}
