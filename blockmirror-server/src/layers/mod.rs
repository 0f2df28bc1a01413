//! Layers around a [`Driver`](crate::ring::Driver): the same interface, with something done to what passes. Faults are
//! a layer, never a flag in the code that serves.

mod fault;

pub use fault::{Fault, FaultLayer, FaultPlan};
