//! Arrays of md with a local leg and a blockmirror leg. mdadm does what is done to them; what is to be done is decided here.

pub mod check;
pub mod heal;
pub mod healing;
pub mod hold;
pub mod mdadm;
pub mod options;
pub mod record;
pub mod report;
mod scene;
mod start;
pub mod sysfs;
pub mod watch;

pub use healing::{Healing, LegDevice};
pub use hold::Hold;
pub use mdadm::Mdadm;
pub use options::Options;
pub use record::{Certificates, Record, Records};
pub use report::Report;
pub use sysfs::{Array, Blocks, Member, Standing};

/// What arrays are looked at and changed by.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The program that changes them.
    pub mdadm: Mdadm,
    /// Where the kernel shows them.
    pub blocks: Blocks,
}
