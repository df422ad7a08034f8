//! The command line and the composition root: the only room that sees both the controller and the adapters.

mod api;
mod args;
mod check;
mod checkout;
mod clock;
mod compose;
pub mod config;
pub mod crds;
mod demo;
mod flags;
mod get;
mod intent;
mod kube;
mod memory;
mod output;
mod plan;
#[cfg(test)]
mod reference;
mod reload;
mod render;
mod run;
mod support;

pub use args::Args;
