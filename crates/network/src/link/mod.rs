//! Devices, addresses and routes, by rtnetlink.
//!
//! [`Links`] is one socket in one network namespace. Requests that belong together go out in one
//! system call; each is answered, and the first refusal is the error.

mod bridge;
mod endpoint;
mod error;
mod host;
mod links;
mod request;

pub use bridge::Bridge;
pub use endpoint::{Endpoint, Port};
pub use error::LinkError;
pub use links::Links;
