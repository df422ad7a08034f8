//! Tests of the state machine: tables for each phase, recorded runs, properties over sequences.

mod phases;
mod properties;
mod quirks;
mod record;
mod strategies;
mod world;
