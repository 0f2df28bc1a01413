//! Real daemons, real sockets, real files: one file per behaviour.

mod access;
mod admin_command;
mod async_mode;
mod bad_config;
mod bad_handshake;
mod bad_request;
mod bad_surroundings;
mod chaos_rounds;
mod crash_rounds;
mod degraded;
mod hostile_rounds;
mod memory_use;
mod mirror;
mod on_disconnect;
mod partners;
mod power_cut;
mod protocol;
mod resync;
mod serve;
mod shutdown;
mod tls;
mod zombie_write;
