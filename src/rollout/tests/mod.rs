//! Tests of the state machine: tables for each phase, recorded runs, a model over sequences.

mod crashes;
mod model;
mod operators;
mod outcomes;
mod phases;
mod primaries;
mod quirks;
mod record;
mod runs;
mod strategies;
mod surprises;
mod takeover;
mod words;
mod world;
