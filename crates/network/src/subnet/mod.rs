//! Subnets, which of them are free, and which address of one is next. Nothing here asks anybody:
//! what is taken is the caller's to say.

mod address;
mod choose;
mod error;
mod pool;
#[cfg(test)]
mod tests;

pub use address::{InterfaceAddress, Subnet};
pub use choose::{choose_default, choose_for_user};
pub use error::SubnetError;
pub use pool::Pool;
