//! When each canary is looked at next: a table of due times, and an index from objects to the canaries that care.
//!
//! A canary at rest has no due time: it costs nothing until one of its objects changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::{CanaryKey, ObjectKey};

/// Ticks that may be due within an instant before the next one is put off.
const CROWD: usize = 16;
/// What counts as one instant.
const INSTANT: SignedDuration = SignedDuration::from_millis(100);

/// An object whatever version it is read in: group, kind, namespace, name.
type Identity = (String, String, Option<String>, String);

fn identity(key: &ObjectKey) -> Identity {
    (key.gvk.group.clone(), key.gvk.kind.clone(), key.namespace.clone(), key.name.clone())
}

/// How many ticks run at the same time. Each holds what it has read, about 100 KiB, and a thousand may be due at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Ticks that are not slow.
    quick: usize,
    /// All ticks.
    all: usize,
    /// From when on a tick is slow: it waits for a hook or a metrics server, and keeps no other canary waiting.
    slow: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Self { quick: 48, all: 512, slow: Duration::from_secs(1) }
    }
}

#[derive(Debug, Default)]
struct Slot {
    due: Option<Timestamp>,
    /// A change came while the tick was running: look again when it ends.
    dirty: bool,
    /// When the tick that is running began.
    running: Option<Timestamp>,
    /// Whether a change of an object brings the next look forward; not while an analysis paces itself.
    at_rest: bool,
    objects: BTreeSet<Identity>,
}

impl Slot {
    fn set(&mut self, times: &mut BTreeSet<(Timestamp, CanaryKey)>, canary: &CanaryKey, due: Option<Timestamp>) {
        if self.due == due {
            return;
        }
        if let Some(before) = self.due {
            times.remove(&(before, canary.clone()));
        }
        times.extend(due.map(|due| (due, canary.clone())));
        self.due = due;
    }
}

/// canaries that began together, with one commit or at a start, would all tick at the same moment for ever. Where a crowd is
/// due within an instant, the next one comes at the first instant after it that has room, if there is one within a tenth of
/// its wait. Where there is none nothing is put off: it would only make every interval longer.
fn spread(times: &BTreeSet<(Timestamp, CanaryKey)>, next: Timestamp, now: Timestamp) -> Timestamp {
    let wait = next.duration_since(now);
    let instants = usize::try_from(wait.as_millis() / INSTANT.as_millis()).unwrap_or(0).max(1);
    // Twice as many as there would be if all of them were spread evenly.
    let crowd = CROWD.max(2 * times.len() / instants);
    let begin = |at: Timestamp| (at, CanaryKey::new("", ""));
    (0..=instants / 10)
        .filter_map(|later| next.checked_add(INSTANT * i32::try_from(later).ok()?).ok())
        .find(|at| {
            let (from, to) = (at.checked_sub(INSTANT / 2).unwrap_or(*at), at.checked_add(INSTANT / 2).unwrap_or(*at));
            times.range(begin(from)..begin(to)).take(crowd).count() < crowd
        })
        .unwrap_or(next)
}

/// Due times and object index of all canaries. Ticks of one canary never overlap.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    slots: BTreeMap<CanaryKey, Slot>,
    /// The due times of all slots that have one. A slot whose tick is running has none.
    times: BTreeSet<(Timestamp, CanaryKey)>,
    /// When the ticks that are running began.
    running: BTreeSet<(Timestamp, CanaryKey)>,
    room: Room,
    by_object: HashMap<Identity, BTreeSet<CanaryKey>>,
}

impl Schedule {
    /// Makes a canary due at `at`, or earlier if it was due earlier. When its tick is running: at its end, unless an
    /// analysis is found to be under way, which paces itself.
    pub(crate) fn due(&mut self, canary: &CanaryKey, at: Timestamp) {
        let slot = self.slots.entry(canary.clone()).or_default();
        if slot.running.is_some() {
            // It is looking; should it come to rest it looks again. A run under way keeps its pace.
            slot.dirty = true;
            return;
        }
        slot.set(&mut self.times, canary, Some(slot.due.map_or(at, |due| due.min(at))));
    }

    /// Somebody wants the canary looked at: now when it is at rest or not known, never before its time when an analysis or
    /// a rollback paces itself.
    pub(crate) fn look(&mut self, canary: &CanaryKey, now: Timestamp) {
        let paced =
            self.slots.get(canary).is_some_and(|slot| slot.running.is_none() && !slot.at_rest && slot.due.is_some());
        if !paced {
            self.due(canary, now);
        }
    }

    /// Whether the canary has been seen before.
    pub(crate) fn knows(&self, canary: &CanaryKey) -> bool {
        self.slots.contains_key(canary)
    }

    /// All canaries that are known.
    pub(crate) fn canaries(&self) -> impl Iterator<Item = &CanaryKey> {
        self.slots.keys()
    }

    /// Takes note of a change: every canary at rest that cares for the object becomes due now.
    pub(crate) fn changed(&mut self, key: &ObjectKey, now: Timestamp) {
        let canaries = self.by_object.get(&identity(key)).cloned().unwrap_or_default();
        for canary in canaries {
            match self.slots.get_mut(&canary) {
                Some(slot) if slot.running.is_some() => slot.dirty = true,
                Some(slot) if slot.at_rest => {
                    slot.set(&mut self.times, &canary, Some(slot.due.map_or(now, |due| due.min(now))));
                }
                _ => {}
            }
        }
    }

    /// The canaries that are due and not running, as many as there is [`Room`] for and those first that have been due for
    /// longest, marked as running from now on.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<(CanaryKey, Timestamp)> {
        let room = self.room.quick.saturating_sub(self.quick(now).count());
        let room = room.min(self.room.all.saturating_sub(self.running.len()));
        let mut taken = Vec::new();
        while taken.len() < room
            && let Some((due, canary)) = self.times.first().filter(|(due, _)| *due <= now).cloned()
        {
            self.times.pop_first();
            if let Some(slot) = self.slots.get_mut(&canary) {
                slot.running = Some(now);
                slot.dirty = false;
                slot.due = None;
                self.running.insert((now, canary.clone()));
                taken.push((canary, due));
            }
        }
        taken.sort();
        taken
    }

    /// The ticks that are running and not slow, with the time when they began.
    fn quick(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let slow = self.room.slow;
        self.running.iter().rev().map(|(began, _)| *began).take_while(move |began| now < *began + slow)
    }

    fn ended(&mut self, canary: &CanaryKey) {
        let began = self.slots.get_mut(canary).and_then(|slot| slot.running.take());
        if let Some(began) = began {
            self.running.remove(&(began, canary.clone()));
        }
    }

    /// The tick of a canary has ended: its next due time (`None`: at rest), and the objects that it depends on.
    pub(crate) fn finished(
        &mut self,
        canary: &CanaryKey,
        next: Option<Timestamp>,
        objects: &[ObjectKey],
        now: Timestamp,
    ) {
        self.ended(canary);
        let Some(slot) = self.slots.get_mut(canary) else { return };
        slot.at_rest = next.is_none();
        let next = next.map(|next| spread(&self.times, next, now));
        slot.set(&mut self.times, canary, if slot.dirty && slot.at_rest { Some(now) } else { next });
        let objects: BTreeSet<Identity> = objects.iter().map(identity).collect();
        for gone in slot.objects.difference(&objects) {
            if let Some(canaries) = self.by_object.get_mut(gone) {
                canaries.remove(canary);
            }
        }
        for new in objects.difference(&slot.objects) {
            self.by_object.entry(new.clone()).or_default().insert(canary.clone());
        }
        slot.objects = objects;
    }

    /// Forgets a canary that is gone.
    pub(crate) fn forget(&mut self, canary: &CanaryKey) {
        self.ended(canary);
        if let Some(mut slot) = self.slots.remove(canary) {
            slot.set(&mut self.times, canary, None);
            for object in slot.objects {
                if let Some(canaries) = self.by_object.get_mut(&object) {
                    canaries.remove(canary);
                    if canaries.is_empty() {
                        self.by_object.remove(&object);
                    }
                }
            }
        }
    }

    /// When the next tick may begin, if no other ends before: the earliest due time of a canary that is not running, or the
    /// time when one that is running becomes slow and makes room.
    pub(crate) fn next_begin(&self, now: Timestamp) -> Option<Timestamp> {
        let (due, _) = self.times.first()?;
        if self.running.len() >= self.room.all {
            return None;
        }
        let (quick, oldest) = self.quick(now).fold((0, None), |(quick, _), began| (quick + 1, Some(began)));
        let slow = oldest.filter(|_| quick >= self.room.quick).map(|began| began + self.room.slow);
        Some(slow.map_or(*due, |slow| slow.max(*due)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn next(schedule: &Schedule) -> Option<Timestamp> {
        schedule.next_begin(at(0))
    }

    fn target() -> ObjectKey {
        ObjectKey::namespaced("apps/v1", "Deployment", "shop", "web")
    }

    #[test]
    fn a_canary_at_rest_is_due_when_its_object_changes() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        assert_eq!(schedule.take_due(at(0)), [(web.clone(), at(0))]);
        schedule.finished(&web, None, &[target()], at(1));
        assert_eq!(next(&schedule), None);
        schedule.changed(&ObjectKey::namespaced("apps/v1beta1", "Deployment", "shop", "web"), at(5));
        assert_eq!(next(&schedule), Some(at(5)), "the version it was read in does not matter");
        schedule.changed(&ObjectKey::namespaced("apps/v1", "Deployment", "shop", "other"), at(2));
        assert_eq!(next(&schedule), Some(at(5)));
    }

    #[test]
    fn changes_do_not_hurry_an_analysis() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        schedule.take_due(at(0));
        schedule.finished(&web, Some(at(10)), &[target()], at(0));
        schedule.changed(&target(), at(3));
        assert_eq!(next(&schedule), Some(at(10)));
    }

    #[test]
    fn a_look_does_not_hurry_an_analysis() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        schedule.take_due(at(0));
        schedule.look(&web, at(0));
        schedule.finished(&web, Some(at(10)), &[target()], at(0));
        assert_eq!(next(&schedule), Some(at(10)));
        schedule.look(&web, at(3));
        assert_eq!(next(&schedule), Some(at(10)));
        assert_eq!(schedule.take_due(at(10)).len(), 1);
        schedule.finished(&web, None, &[target()], at(10));
        schedule.look(&web, at(11));
        assert_eq!(next(&schedule), Some(at(11)), "at rest");
    }

    /// How many of them are due within a tenth of a second at most.
    fn most_at_once(due: &BTreeMap<CanaryKey, Timestamp>) -> usize {
        let mut instants: BTreeMap<i64, usize> = BTreeMap::new();
        for due in due.values() {
            *instants.entry(due.as_millisecond() / 100).or_default() += 1;
        }
        instants.values().max().copied().unwrap_or_default()
    }

    #[test]
    fn q32_a_crowd_that_began_together_does_not_tick_together_for_ever() {
        let mut schedule = Schedule::default();
        let canaries: Vec<_> = (0..200).map(|number| CanaryKey::new("shop", &format!("web-{number}"))).collect();
        canaries.iter().for_each(|canary| schedule.due(canary, at(0)));
        let mut now = at(0);
        let interval = SignedDuration::from_secs(10);
        let mut last = BTreeMap::new();
        while now < at(100) {
            let taken = schedule.take_due(now);
            for (canary, due) in &taken {
                let wait: Option<SignedDuration> =
                    last.insert(canary.clone(), now).map(|before| now.duration_since(before));
                assert!(wait.is_none_or(|wait| (10..=11).contains(&wait.as_secs())), "{canary} waited {wait:?}");
                schedule.finished(canary, Some(*due + interval), &[], now);
            }
            now = schedule.next_begin(now).expect("one");
        }
        assert!(most_at_once(&last) <= 2 * CROWD, "{last:?}");
        // Having found their places, they keep their pace.
        for _ in 0..canaries.len() {
            let taken = schedule.take_due(now);
            for (canary, due) in &taken {
                assert_eq!(now.duration_since(last[canary]), interval, "{canary}");
                schedule.finished(canary, Some(*due + interval), &[], now);
                last.insert(canary.clone(), now);
            }
            now = schedule.next_begin(now).expect("one");
        }
        // So do a few.
        let mut schedule = Schedule::default();
        canaries.iter().take(CROWD).for_each(|canary| schedule.due(canary, at(0)));
        schedule.take_due(at(0));
        canaries.iter().take(CROWD).for_each(|canary| schedule.finished(canary, Some(at(10)), &[], at(0)));
        assert_eq!(schedule.take_due(at(10)).len(), CROWD);
    }

    #[test]
    fn no_more_are_taken_than_there_is_room_for_and_the_longest_due_come_first() {
        let mut schedule =
            Schedule { room: Room { quick: 2, all: 3, slow: Duration::from_secs(4) }, ..Schedule::default() };
        let canaries = ["a", "b", "c", "d"].map(|name| CanaryKey::new("shop", name));
        for (canary, second) in canaries.iter().zip([2, 0, 1, 3]) {
            schedule.due(canary, at(second));
        }
        let [a, b, c, d] = canaries;
        assert_eq!(schedule.take_due(at(5)), [(b.clone(), at(0)), (c.clone(), at(1))]);
        assert_eq!(schedule.take_due(at(8)), []);
        assert_eq!(schedule.next_begin(at(8)), Some(at(9)), "when the two become slow");
        schedule.finished(&b, Some(at(30)), &[], at(8));
        assert_eq!(schedule.next_begin(at(8)), Some(at(2)), "it stays due");
        assert_eq!(schedule.take_due(at(8)), [(a, at(2))]);
        assert_eq!(schedule.take_due(at(9)), [(d, at(3))], "what is slow keeps nobody waiting");
        schedule.due(&CanaryKey::new("shop", "e"), at(4));
        assert_eq!(schedule.take_due(at(20)), [], "within limits");
        assert_eq!(schedule.next_begin(at(20)), None);
        schedule.forget(&c);
        assert_eq!(schedule.take_due(at(20)).len(), 1);
    }

    #[test]
    fn q25_ticks_do_not_overlap_and_no_change_is_lost() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        schedule.take_due(at(0));
        schedule.finished(&web, None, &[target()], at(0));
        schedule.changed(&target(), at(1));
        assert_eq!(schedule.take_due(at(1)).len(), 1);
        schedule.changed(&target(), at(1));
        schedule.due(&web, at(1));
        assert_eq!(schedule.take_due(at(1)), [], "it is running");
        schedule.finished(&web, None, &[target()], at(2));
        assert_eq!(schedule.take_due(at(2)).len(), 1, "the change is looked at");
        schedule.finished(&web, None, &[target()], at(3));
        assert_eq!(next(&schedule), None);
        schedule.forget(&web);
        schedule.changed(&target(), at(4));
        assert_eq!(next(&schedule), None);
    }
}
