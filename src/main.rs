//! The `serin` binary: parse, run, exit code.

use std::process::ExitCode;

/// Ticks leave many small pieces behind, between objects that stay. The C library keeps the pages of such pieces for good;
/// this one gives them back, after a second (`.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    serin::cli::Args::of_process().run()
}
