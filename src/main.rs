//! The `serin` binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    serin::cli::Args::of_process().run()
}
