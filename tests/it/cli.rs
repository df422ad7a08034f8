//! The command line from the outside: the real binary, its exit codes and its words.

#[path = "cli/world.rs"]
mod world;

#[path = "cli/daemon.rs"]
mod daemon;

#[path = "cli/offline.rs"]
mod offline;

#[path = "cli/cluster.rs"]
mod online;

#[path = "cli/secrets.rs"]
mod secrets;

#[path = "cli/rights.rs"]
mod rights;
