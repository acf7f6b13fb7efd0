//! Networks of containers: devices, addresses, translation, names and published ports.

#![forbid(unsafe_code)]

pub mod publish;
pub mod resolv_conf;
pub mod resolver;
mod socket;
