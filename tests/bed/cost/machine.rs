//! The machine under a measurement: how much of it others used. Counts and processor time hold on a busy machine; how late
//! a tick is does not.

use std::collections::BTreeMap;
use std::time::Instant;

/// Clock ticks of the kernel in a second, as `/proc` counts.
const TICKS: f64 = 100.0;

/// Fields of `/proc/stat` that count work: user, nice, system, irq, softirq, steal.
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum::<f64>() / TICKS
}

/// Seconds of processor time by process, of all that are in this PID namespace: the bed.
fn ours() -> BTreeMap<u32, f64> {
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    ids.map(|id| (id, super::process::processor(id))).collect()
}

/// Begins to look at the machine.
pub(super) struct Machine {
    began: Instant,
    busy: f64,
    ours: BTreeMap<u32, f64>,
}

impl Machine {
    pub(super) fn look() -> Self {
        Self { began: Instant::now(), busy: busy(), ours: ours() }
    }

    /// The share of all processors that was used by others since, in percent.
    pub(super) fn others(&self) -> f64 {
        let since = |id: &u32, now: f64| now - self.ours.get(id).copied().unwrap_or(0.0);
        let ours: f64 = ours().iter().map(|(id, now)| since(id, *now)).sum();
        let all = self.began.elapsed().as_secs_f64() * f64::from(u32::try_from(cores()).unwrap_or(1));
        (100.0 * (busy() - self.busy - ours) / all).clamp(0.0, 100.0)
    }
}

/// Processors that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Lets the kernel forget how much memory a process has had at most, so that each state has its own.
pub(super) fn forget_highest(process: u32) {
    // Where it is not allowed the figure is higher than it need be, which is no reason to stop.
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").ok();
}
