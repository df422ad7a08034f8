//! When each canary is looked at next: a table of due times, and an index from objects to the canaries that care.
//!
//! A canary at rest has no due time: it costs nothing until one of its objects changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::domain::{CanaryKey, ObjectKey};

/// An object whatever version it is read in: group, kind, namespace, name.
type Identity = (String, String, Option<String>, String);

fn identity(key: &ObjectKey) -> Identity {
    (key.gvk.group.clone(), key.gvk.kind.clone(), key.namespace.clone(), key.name.clone())
}

#[derive(Debug, Default)]
struct Slot {
    due: Option<Timestamp>,
    /// A change came while the tick was running: look again when it ends.
    dirty: bool,
    running: bool,
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

/// Due times and object index of all canaries. Ticks of one canary never overlap.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    slots: BTreeMap<CanaryKey, Slot>,
    /// The due times of all slots that have one. A slot whose tick is running has none.
    times: BTreeSet<(Timestamp, CanaryKey)>,
    by_object: HashMap<Identity, BTreeSet<CanaryKey>>,
}

impl Schedule {
    /// Makes a canary due at `at`, or earlier if it was due earlier. When its tick is running: at its end, unless an
    /// analysis is found to be under way, which paces itself.
    pub(crate) fn due(&mut self, canary: &CanaryKey, at: Timestamp) {
        let slot = self.slots.entry(canary.clone()).or_default();
        if slot.running {
            // It is looking; should it come to rest it looks again. A run under way keeps its pace.
            slot.dirty = true;
            return;
        }
        slot.set(&mut self.times, canary, Some(slot.due.map_or(at, |due| due.min(at))));
    }

    /// Somebody wants the canary looked at: now when it is at rest or not known, never before its time when an analysis or
    /// a rollback paces itself.
    pub(crate) fn look(&mut self, canary: &CanaryKey, now: Timestamp) {
        let paced = self.slots.get(canary).is_some_and(|slot| !slot.running && !slot.at_rest && slot.due.is_some());
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
                Some(slot) if slot.running => slot.dirty = true,
                Some(slot) if slot.at_rest => {
                    slot.set(&mut self.times, &canary, Some(slot.due.map_or(now, |due| due.min(now))));
                }
                _ => {}
            }
        }
    }

    /// The canaries that are due and not running, `room` of them at most and those first that have been due for longest,
    /// marked as running from now on.
    pub(crate) fn take_due(&mut self, now: Timestamp, room: usize) -> Vec<(CanaryKey, Timestamp)> {
        let mut taken = Vec::new();
        while taken.len() < room
            && let Some((due, canary)) = self.times.first().filter(|(due, _)| *due <= now).cloned()
        {
            self.times.pop_first();
            if let Some(slot) = self.slots.get_mut(&canary) {
                slot.running = true;
                slot.dirty = false;
                slot.due = None;
                taken.push((canary, due));
            }
        }
        taken.sort();
        taken
    }

    /// The tick of a canary has ended: its next due time (`None`: at rest), and the objects that it depends on.
    pub(crate) fn finished(
        &mut self,
        canary: &CanaryKey,
        next: Option<Timestamp>,
        objects: &[ObjectKey],
        now: Timestamp,
    ) {
        let Some(slot) = self.slots.get_mut(canary) else { return };
        slot.running = false;
        slot.at_rest = next.is_none();
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

    /// The earliest due time of a canary that is not running.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.times.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn target() -> ObjectKey {
        ObjectKey::namespaced("apps/v1", "Deployment", "shop", "web")
    }

    #[test]
    fn a_canary_at_rest_is_due_when_its_object_changes() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        assert_eq!(schedule.take_due(at(0), 9), [(web.clone(), at(0))]);
        schedule.finished(&web, None, &[target()], at(1));
        assert_eq!(schedule.next_due(), None);
        schedule.changed(&ObjectKey::namespaced("apps/v1beta1", "Deployment", "shop", "web"), at(5));
        assert_eq!(schedule.next_due(), Some(at(5)), "the version it was read in does not matter");
        schedule.changed(&ObjectKey::namespaced("apps/v1", "Deployment", "shop", "other"), at(2));
        assert_eq!(schedule.next_due(), Some(at(5)));
    }

    #[test]
    fn changes_do_not_hurry_an_analysis() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        schedule.take_due(at(0), 9);
        schedule.finished(&web, Some(at(10)), &[target()], at(0));
        schedule.changed(&target(), at(3));
        assert_eq!(schedule.next_due(), Some(at(10)));
    }

    #[test]
    fn a_look_does_not_hurry_an_analysis() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        schedule.take_due(at(0), 9);
        schedule.look(&web, at(0));
        schedule.finished(&web, Some(at(10)), &[target()], at(0));
        assert_eq!(schedule.next_due(), Some(at(10)));
        schedule.look(&web, at(3));
        assert_eq!(schedule.next_due(), Some(at(10)));
        assert_eq!(schedule.take_due(at(10), 9).len(), 1);
        schedule.finished(&web, None, &[target()], at(10));
        schedule.look(&web, at(11));
        assert_eq!(schedule.next_due(), Some(at(11)), "at rest");
    }

    #[test]
    fn no_more_are_taken_than_there_is_room_for_and_the_longest_due_come_first() {
        let mut schedule = Schedule::default();
        let canaries = ["a", "b", "c"].map(|name| CanaryKey::new("shop", name));
        for (canary, second) in canaries.iter().zip([2, 0, 1]) {
            schedule.due(canary, at(second));
        }
        let [a, b, c] = canaries;
        assert_eq!(schedule.take_due(at(5), 0), []);
        assert_eq!(schedule.take_due(at(5), 2), [(b, at(0)), (c, at(1))]);
        assert_eq!(schedule.next_due(), Some(at(2)), "it stays due");
        assert_eq!(schedule.take_due(at(5), 2), [(a, at(2))]);
    }

    #[test]
    fn q25_ticks_do_not_overlap_and_no_change_is_lost() {
        let mut schedule = Schedule::default();
        let web = CanaryKey::new("shop", "web");
        schedule.due(&web, at(0));
        schedule.take_due(at(0), 9);
        schedule.finished(&web, None, &[target()], at(0));
        schedule.changed(&target(), at(1));
        assert_eq!(schedule.take_due(at(1), 9).len(), 1);
        schedule.changed(&target(), at(1));
        schedule.due(&web, at(1));
        assert_eq!(schedule.take_due(at(1), 9), [], "it is running");
        schedule.finished(&web, None, &[target()], at(2));
        assert_eq!(schedule.take_due(at(2), 9).len(), 1, "the change is looked at");
        schedule.finished(&web, None, &[target()], at(3));
        assert_eq!(schedule.next_due(), None);
        schedule.forget(&web);
        schedule.changed(&target(), at(4));
        assert_eq!(schedule.next_due(), None);
    }
}
