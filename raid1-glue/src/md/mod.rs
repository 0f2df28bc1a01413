//! Arrays of md with a local leg and a blockmirror leg. mdadm does what is done to them; what is to be done is decided here.

pub mod heal;
pub mod mdadm;
pub mod options;
pub mod record;
pub mod sysfs;

pub use options::Options;
pub use record::{Record, Records};
pub use sysfs::{Array, Member, Standing};
