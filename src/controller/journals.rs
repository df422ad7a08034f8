//! The journals of releases under way, and of those that ended and are not published yet.
//!
//! They lie in the source's ConfigMap beside the ledger. A tick is not worth a write of its own: ticks are written with
//! whatever is written next, after [`QUIET`] ticks of each release with one that wrote little else, after [`UNSAVED`] of
//! each at the latest, and when the daemon ends. A killed process loses less than that.

use std::collections::{BTreeMap, BinaryHeap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{CanaryKey, Digest};
use crate::rollout::TickRecord;

/// Ticks of each release after which they are saved in any case: a write is as large as the whole memory of the source.
const UNSAVED: usize = 10;
/// Ticks of each release after which a tick that moves no traffic saves them.
const QUIET: usize = 5;
/// Ticks of one release that are kept; beyond that the oldest but the first go.
const TICKS: usize = 5000;
/// Journals that wait for a status branch that cannot be written.
const FINISHED: usize = 50;

/// All journals of one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Journals {
    /// Of releases under way.
    pub(super) running: BTreeMap<CanaryKey, Vec<TickRecord>>,
    /// Of releases that ended, oldest first.
    pub(super) finished: Vec<FinishedJournal>,
    /// Ticks since the last save.
    #[serde(skip)]
    unsaved: usize,
    #[serde(skip)]
    changes: u64,
}

/// The journal of a release that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FinishedJournal {
    pub(crate) canary: CanaryKey,
    pub(crate) started: Timestamp,
    pub(crate) digest: Option<Digest>,
    pub(crate) ticks: Vec<TickRecord>,
}

impl Journals {
    /// Adds a tick; `quiet` when it wrote little else. True when it is time to save.
    pub(super) fn add(&mut self, canary: &CanaryKey, tick: &TickRecord, quiet: bool) -> bool {
        let ticks = self.running.entry(canary.clone()).or_default();
        ticks.push(tick.clone());
        if ticks.len() > TICKS {
            ticks.remove(1);
        }
        self.unsaved += 1;
        self.changes += 1;
        self.unsaved >= self.running.len() * if quiet { QUIET } else { UNSAVED }
    }

    /// Takes out what is known of a canary's releases, to be put back should their end not be recorded.
    pub(super) fn of(&self, canary: &CanaryKey) -> Self {
        let ticks = self.running.get(canary).map(|ticks| (canary.clone(), ticks.clone()));
        let finished = self.finished.iter().filter(|journal| journal.canary == *canary);
        Self { running: ticks.into_iter().collect(), finished: finished.cloned().collect(), ..Self::default() }
    }

    /// Puts back what [`Journals::of`] took out of the journals of a canary.
    pub(super) fn put_back(&mut self, canary: &CanaryKey, before: Self) {
        self.changes += 1;
        self.running.remove(canary);
        self.running.extend(before.running);
        self.finished.retain(|journal| journal.canary != *canary);
        self.finished.extend(before.finished);
    }

    /// Grows with every change.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// A release ended; its last tick may have been added before, when the end could not be recorded.
    pub(super) fn finish(
        &mut self,
        canary: &CanaryKey,
        started: Option<Timestamp>,
        digest: Option<Digest>,
        last: Option<&TickRecord>,
    ) {
        let mut ticks = self.running.remove(canary).unwrap_or_default();
        ticks.extend(last.cloned());
        let Some(first) = ticks.first() else { return };
        let started = started.unwrap_or(first.time);
        self.finished.retain(|known| known.canary != *canary || known.started != started);
        self.finished.push(FinishedJournal { canary: canary.clone(), started, digest, ticks });
        let excess = self.finished.len().saturating_sub(FINISHED);
        self.finished.drain(..excess);
        self.unsaved += 1;
        self.changes += 1;
    }

    /// A journal has been published.
    pub(super) fn forget(&mut self, journal: &FinishedJournal) {
        self.changes += 1;
        self.finished.retain(|finished| finished != journal);
    }

    /// Whether there is something that a killed process would lose.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved > 0
    }

    /// All of it has been saved.
    pub(super) fn saved(&mut self) {
        self.unsaved = 0;
    }

    /// Reads what [`Journals::text`] wrote; anything else is as good as nothing.
    pub(super) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// JSON of at most `limit` bytes: of the longest journals the older half goes until it fits.
    pub(super) fn text(&self, limit: usize) -> String {
        let journals = || self.running.values().chain(self.finished.iter().map(|journal| &journal.ticks));
        let sizes: Vec<Vec<usize>> = journals().map(|ticks| ticks.iter().map(size).collect()).collect();
        let bare = |journal: &FinishedJournal, ticks| FinishedJournal {
            canary: journal.canary.clone(),
            started: journal.started,
            digest: journal.digest.clone(),
            ticks,
        };
        let frame = Self {
            running: self.running.keys().map(|canary| (canary.clone(), Vec::new())).collect(),
            finished: self.finished.iter().map(|journal| bare(journal, Vec::new())).collect(),
            ..Self::default()
        };
        let frame = size(&frame);
        // What each journal begins with, the longest of them on top.
        let mut from = vec![0; sizes.len()];
        let mut total = frame + sizes.iter().flatten().map(|size| size + 1).sum::<usize>();
        let mut longest: BinaryHeap<(usize, usize)> = sizes.iter().map(Vec::len).zip(0..).collect();
        while total > limit {
            let Some((length, at)) = longest.pop().filter(|(length, _)| *length > 1) else { return String::new() };
            let half = from[at] + length / 2;
            total -= sizes[at][from[at]..half].iter().map(|size| size + 1).sum::<usize>();
            from[at] = half;
            longest.push((length - length / 2, at));
        }
        let mut from = from.into_iter();
        let mut rest = |ticks: &[TickRecord]| ticks.iter().skip(from.next().unwrap_or(0)).cloned().collect::<Vec<_>>();
        let running = self.running.iter().map(|(canary, ticks)| (canary.clone(), rest(ticks))).collect();
        let finished = self.finished.iter().map(|journal| bare(journal, rest(&journal.ticks))).collect();
        serde_json::to_string(&Self { running, finished, ..Self::default() }).unwrap_or_default()
    }
}

/// Bytes of a value as JSON.
fn size(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting does not fail.
    serde_json::to_writer(&mut count, value).ok();
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Phase;

    fn tick(second: i64) -> TickRecord {
        TickRecord {
            time: Timestamp::from_second(second).unwrap(),
            phase: Phase::Progressing,
            weight: 20,
            iterations: 0,
            failed_checks: 0,
            metrics: Vec::new(),
            hooks: Vec::new(),
            decision: "x".repeat(100),
        }
    }

    fn web() -> CanaryKey {
        CanaryKey::new("shop", "web")
    }

    #[test]
    fn a_journal_survives_its_process() {
        let mut journals = Journals::default();
        let due: Vec<bool> = (0..5).map(|second| journals.add(&web(), &tick(second), second > 2)).collect();
        assert_eq!(due, [false, false, false, false, true]);
        let mut moving = Journals::default();
        let due = (0..10).filter(|second| moving.add(&web(), &tick(*second), false));
        assert_eq!(due.collect::<Vec<_>>(), [9]);
        let mut journals = Journals::parse(&journals.text(100_000));
        journals.finish(&web(), None, None, Some(&tick(5)));
        let journals = Journals::parse(&journals.text(100_000));
        assert_eq!((journals.running.len(), journals.finished[0].ticks.len()), (0, 6));
        assert_eq!(Journals::parse("what?"), Journals::default());
    }

    #[test]
    fn memory_is_bounded() {
        let mut journals = Journals::default();
        (0..6000).for_each(|second| {
            journals.add(&web(), &tick(second), true);
        });
        let ticks = &journals.running[&web()];
        assert_eq!((ticks.len(), ticks[0].time.as_second(), ticks[4999].time.as_second()), (TICKS, 0, 5999));
        let text = journals.text(50_000);
        let kept = &Journals::parse(&text).running[&web()];
        assert!(text.len() <= 50_000 && kept.len() > 100 && kept.last() == Some(&tick(5999)), "{}", kept.len());
        assert_eq!(journals.text(10), "");
        (0..60).for_each(|second| journals.finish(&web(), Some(tick(second).time), None, Some(&tick(second))));
        assert_eq!(journals.finished.len(), FINISHED);
    }

    #[test]
    fn an_end_that_is_recorded_again_is_one_journal() {
        let mut journals = Journals::default();
        journals.add(&web(), &tick(1), true);
        for _ in 0..2 {
            let again = journals.clone();
            journals.finish(&web(), Some(tick(0).time), None, Some(&tick(2)));
            assert_eq!(journals.finished[0].ticks.len(), 2);
            journals = again;
        }
    }
}
