//! The one integration test binary. One module per subject; `architecture` fails when a file is not listed here.

mod accidents;
mod adoption;
mod alerts;
mod architecture;
mod bed;
mod cli;
mod cluster;
mod cost;
mod demo;
mod denied;
mod fidelity;
mod forge;
mod git;
mod hooks;
mod loops;
mod manifest;
mod metrics;
mod plan;
mod quirks;
mod release;
mod rollups;
mod sandbox;
mod scenarios;
mod sources;
mod targets;
mod walkthroughs;
