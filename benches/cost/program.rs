//! A program that is measured from outside: its processor time and memory, as the kernel counts them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Memory of a process in MiB, as `/proc/PID/status` has it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) now: f64,
    /// Resident at its highest.
    pub(crate) highest: f64,
}

/// Memory of a process; zero when it is gone.
pub(crate) fn memory(process: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    Memory { now: field("VmRSS:"), highest: field("VmHWM:") }
}

/// Seconds of processor time of a process; the kernel counts in hundredths.
pub(crate) fn processor(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| rest.split_whitespace().nth(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// A running program. It ends with this value.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts it, with what it says in a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> std::io::Result<Self> {
        let file = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: command.spawn()? })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a program took over some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Processor time in percent of one core.
    pub(crate) percent: f64,
    /// Processor time in seconds.
    pub(crate) seconds: f64,
    /// Memory at the end.
    pub(crate) memory: Memory,
}

/// A measurement that has begun.
pub(crate) struct Meter {
    process: u32,
    began: std::time::Instant,
    processor: f64,
}

impl Meter {
    /// Begins.
    pub(crate) fn start(process: u32) -> Self {
        Self { process, began: std::time::Instant::now(), processor: processor(process) }
    }

    /// Ends.
    pub(crate) fn stop(&self) -> Usage {
        let seconds = processor(self.process) - self.processor;
        let percent = 100.0 * seconds / self.began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        Usage { percent, seconds, memory: memory(self.process) }
    }
}
