//! Tests of the state machine: tables for each phase, recorded runs, a model over sequences.

mod crashes;
mod model;
mod phases;
mod quirks;
mod record;
mod strategies;
mod takeover;
mod world;
