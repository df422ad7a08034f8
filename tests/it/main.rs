//! The one integration test binary. One module per subject; `architecture` fails when a file is not listed here.

mod architecture;
mod cli;
mod cluster;
mod forge;
mod git;
mod hooks;
mod manifest;
mod metrics;
mod plan;
mod release;
mod sandbox;
mod scenarios;
