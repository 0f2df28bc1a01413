//! Layers around a [`Driver`]: the same interface, with something done to what passes. Faults are
//! a layer, never a flag in the code that serves.

mod fault;
mod tls;

pub use fault::{Fault, FaultLayer, FaultPlan};
pub use tls::TlsLayer;

use crate::ring::Driver;

/// Puts a layer around the engine of a data thread. A plain function, since every thread calls it for itself.
pub type Wrap = fn(Box<dyn Driver>) -> Box<dyn Driver>;
