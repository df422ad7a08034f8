#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "shell: Speed mode sleeps in real time")]
//! Virtual time.
//!
//! Time stands still until everything that could happen now has happened; then it jumps to the earliest waiter. A
//! driver ([`SimClock::run`] or [`SimClock::until`]) decides that nothing can happen any more when all of this holds:
//!
//! * no call is in flight ([`Clock::in_flight`]): blocking work on other threads and HTTP over loopback hold a guard;
//! * the caller's `quiet` says so: watch queues and the like are drained;
//! * the runtime is idle. On a runtime made by [`SimClock::runtime`] this is exact: tokio is about to park its thread,
//!   and a few polls of its I/O driver found nothing. On any other current-thread runtime it is a long row of
//!   `yield_now` rounds, each of which lets up to 61 tasks run (tokio's event interval), without activity on the clock.
//!
//! Waiters wake one at a time, in the order of deadline, then of registration, with idleness awaited in between: two
//! timers of the same instant never race.
//!
//! A call whose far side is itself asleep on this clock ([`SimClock::sleep_within_call`]) does not count as in flight.
//!
//! Work under a guard must hand over its result before the guard is dropped, else time may jump in between.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::ports::{Clock, InFlight};

/// Rounds of `yield_now` after which a runtime without our hook counts as idle: twice tokio's event interval.
const ROUNDS_WITHOUT_HOOK: u32 = 2 * 61;
/// Rounds after the hook said idle. Each polls the I/O driver once, so that data on a loopback socket is seen.
const ROUNDS_WITH_HOOK: u32 = 3;
/// How long to wait in real time before asking `quiet` again.
const RETRY: Duration = Duration::from_micros(200);

/// How fast virtual time passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as possible.
    Jump,
    /// This many virtual seconds in one real second.
    Speed(f64),
}

/// A clock that jumps from waiter to waiter. Clones share one time.
#[derive(Clone)]
pub struct SimClock {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Set once a runtime calls [`Shared::parked`] before it parks.
    hooked: AtomicBool,
}

struct State {
    now: Timestamp,
    pace: Pace,
    /// When `now` was reached, in real time.
    reached: Instant,
    waiters: BTreeMap<(Timestamp, u64), Waiter>,
    next_id: u64,
    in_flight: usize,
    /// How many of them wait for a far side that sleeps: see [`SimClock::sleep_within_call`].
    far_asleep: usize,
    /// Grows with every sleep, guard and wake-up: two equal readings mean that nothing touched the clock in between.
    activity: u64,
    /// The driver, while it waits for activity on the clock.
    driver: Option<Waker>,
    /// The driver, while it waits for the runtime to be about to park.
    on_park: Option<Waker>,
}

/// A task that sleeps.
struct Waiter {
    waker: Waker,
    /// When it began to wait: in virtual and in real time.
    from: (Timestamp, Instant),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime has nothing to run. Waking the driver here makes it run instead of parking.
    fn parked(&self) {
        let waker = self.lock().on_park.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn touch(state: &mut State) -> Option<Waker> {
        state.activity += 1;
        state.driver.take()
    }
}

impl SimClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        let state = State {
            now: start,
            pace: Pace::Jump,
            reached: Instant::now(),
            waiters: BTreeMap::new(),
            next_id: 0,
            in_flight: 0,
            far_asleep: 0,
            activity: 0,
            driver: None,
            on_park: None,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), hooked: AtomicBool::new(false) }) }
    }

    /// Changes how fast time passes, from now on.
    pub fn set_pace(&self, pace: Pace) {
        let waker = {
            let mut state = self.shared.lock();
            state.pace = pace;
            state.reached = Instant::now();
            Shared::touch(&mut state)
        };
        wake(waker);
    }

    /// A current-thread runtime that tells this clock when it is idle. From then on the driver, and all that it waits
    /// for, must run on it; on another runtime the driver would wait for ever. A jump costs some microseconds on it, and
    /// a hundred times that on a runtime without the hook.
    ///
    /// # Errors
    /// When the operating system refuses the runtime's resources.
    pub fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        let shared = Arc::clone(&self.shared);
        self.shared.hooked.store(true, Ordering::Relaxed);
        tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(move || shared.parked()).build()
    }

    /// Deadline of the earliest waiter.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.shared.lock().waiters.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Calls that are in flight now.
    pub fn calls_in_flight(&self) -> usize {
        self.shared.lock().in_flight
    }

    /// Sleeps on the far side of a call in flight, as a slow server does: time goes on although the call is under way.
    /// Dropping the future, as a server does when its client hangs up, ends that.
    pub async fn sleep_within_call(&self, deadline: Timestamp) {
        let _asleep = FarAsleep::new(&self.shared);
        Sleep { shared: Arc::clone(&self.shared), deadline, id: None }.await;
    }

    /// Lets time pass for ever; drop the future to stop. There must be one driver only.
    pub async fn run(&self, quiet: impl Fn() -> bool + Send + Sync) {
        self.drive(None, &quiet).await;
    }

    /// Lets time pass until `end`, which is reached even when nobody waits for it, and returns when all that happens
    /// at `end` has happened.
    pub async fn until(&self, end: Timestamp, quiet: impl Fn() -> bool + Send + Sync) {
        self.drive(Some(end), &quiet).await;
    }

    async fn drive(&self, end: Option<Timestamp>, quiet: &(dyn Fn() -> bool + Send + Sync)) {
        loop {
            let seen = self.idle(quiet).await;
            let next = self.next_deadline();
            let target = match (next, end) {
                (Some(next), Some(end)) if next > end => end,
                (Some(next), _) => next,
                (None, Some(end)) => end,
                (None, None) => {
                    self.activity_after(seen).await;
                    continue;
                }
            };
            if !self.pass_real_time(target, seen).await {
                continue;
            }
            if next.is_some_and(|next| next <= target) {
                self.fire();
            } else {
                self.set(target);
                return;
            }
        }
    }

    /// Returns, with the reading of the activity counter, when nothing can happen any more at the present time.
    async fn idle(&self, quiet: &(dyn Fn() -> bool + Send + Sync)) -> u64 {
        loop {
            let seen = self.shared.lock().activity;
            self.settle().await;
            let (activity, in_flight) = {
                let state = self.shared.lock();
                (state.activity, state.in_flight.saturating_sub(state.far_asleep))
            };
            if activity != seen {
                continue;
            }
            if in_flight > 0 {
                self.activity_after(seen).await;
            } else if quiet() {
                return seen;
            } else {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Lets every other task of the runtime run until none can.
    async fn settle(&self) {
        let hooked = self.shared.hooked.load(Ordering::Relaxed);
        if hooked {
            self.before_park().await;
        }
        for _ in 0..if hooked { ROUNDS_WITH_HOOK } else { ROUNDS_WITHOUT_HOOK } {
            tokio::task::yield_now().await;
        }
        if hooked {
            self.before_park().await;
        }
    }

    async fn before_park(&self) {
        let mut asked = false;
        poll_fn(|context| {
            let mut state = self.shared.lock();
            if asked && state.on_park.is_none() {
                return Poll::Ready(());
            }
            asked = true;
            state.on_park = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn activity_after(&self, seen: u64) {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            if state.activity != seen {
                return Poll::Ready(());
            }
            state.driver = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// In Speed mode, sleeps until `target` is due: a waiter waits at least its own time divided by the speed, counted
    /// from when it began, so that a timer set after an idle spell is not over at once. False when something happened meanwhile: plan again.
    async fn pass_real_time(&self, target: Timestamp, seen: u64) -> bool {
        let rest = {
            let state = self.shared.lock();
            let Pace::Speed(factor) = state.pace else { return true };
            let first = state.waiters.first_key_value().filter(|((deadline, _), _)| *deadline <= target);
            let (from, since) = first.map_or((state.now, state.reached), |(_, waiter)| waiter.from);
            let ahead = Duration::try_from(target.duration_since(from)).unwrap_or_default();
            let real = Duration::try_from_secs_f64(ahead.as_secs_f64() / factor).unwrap_or(Duration::MAX);
            real.saturating_sub(since.elapsed())
        };
        if rest.is_zero() {
            return true;
        }
        tokio::select! {
            biased;
            () = self.activity_after(seen) => false,
            () = tokio::time::sleep(rest) => true,
        }
    }

    fn set(&self, target: Timestamp) {
        let mut state = self.shared.lock();
        if target > state.now {
            state.now = target;
            state.reached = Instant::now();
        }
    }

    /// Moves time to the earliest waiter and wakes it alone.
    fn fire(&self) {
        let waker = {
            let mut state = self.shared.lock();
            let Some(((deadline, _), waiter)) = state.waiters.pop_first() else { return };
            if deadline > state.now {
                state.now = deadline;
                state.reached = Instant::now();
            }
            state.activity += 1;
            waiter.waker
        };
        waker.wake();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.shared.lock().now
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        Sleep { shared: Arc::clone(&self.shared), deadline, id: None }.await;
    }

    fn in_flight(&self) -> InFlight {
        let shared = Arc::clone(&self.shared);
        let waker = {
            let mut state = shared.lock();
            state.in_flight += 1;
            Shared::touch(&mut state)
        };
        wake(waker);
        InFlight(Some(Box::new(move || {
            let waker = {
                let mut state = shared.lock();
                state.in_flight = state.in_flight.saturating_sub(1);
                Shared::touch(&mut state)
            };
            wake(waker);
        })))
    }
}

/// The far side of a call sleeps.
struct FarAsleep(Arc<Shared>);

impl FarAsleep {
    fn new(shared: &Arc<Shared>) -> Self {
        let driver = {
            let mut state = shared.lock();
            state.far_asleep += 1;
            Shared::touch(&mut state)
        };
        wake(driver);
        Self(Arc::clone(shared))
    }
}

impl Drop for FarAsleep {
    fn drop(&mut self) {
        let driver = {
            let mut state = self.0.lock();
            state.far_asleep = state.far_asleep.saturating_sub(1);
            Shared::touch(&mut state)
        };
        wake(driver);
    }
}

/// A waiter: in the map from its first poll until it is woken or dropped.
struct Sleep {
    shared: Arc<Shared>,
    deadline: Timestamp,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let Some(id) = self.id else {
            if self.deadline <= state.now {
                return Poll::Ready(());
            }
            let id = state.next_id;
            state.next_id += 1;
            self.id = Some(id);
            let waiter = Waiter { waker: context.waker().clone(), from: (state.now, Instant::now()) };
            state.waiters.insert((self.deadline, id), waiter);
            let driver = Shared::touch(&mut state);
            drop(state);
            wake(driver);
            return Poll::Pending;
        };
        match state.waiters.get_mut(&(self.deadline, id)) {
            Some(waiter) => {
                waiter.waker.clone_from(context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let driver = {
            let mut state = self.shared.lock();
            if state.waiters.remove(&(self.deadline, id)).is_none() {
                return;
            }
            Shared::touch(&mut state)
        };
        wake(driver);
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
