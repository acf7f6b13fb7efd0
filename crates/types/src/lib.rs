//! The vocabulary every crate shares: digest, platform, reference, span, diagnostic, event,
//! cancellation. Values only: nothing here opens a file or talks to a network.

#![forbid(unsafe_code)]

mod cancel;
mod diagnostic;
mod digest;
mod event;
mod image_config;
mod platform;
mod reason;
mod reference;
mod signal;
mod span;

pub use cancel::{CancelToken, Cancelled};
pub use diagnostic::{Diagnostic, Label, Severity};
pub use digest::{Digest, DigestError, Hasher};
pub use event::{CacheTraffic, Ctx, Event, Progress, Silent, StepId, Stream};
pub use image_config::{ContainerConfig, HealthConfig, History, ImageConfig, RootFs};
pub use platform::{Platform, PlatformError};
pub use reason::{FileChange, Reason};
pub use reference::{Reference, ReferenceError};
pub use signal::{signal_name, signal_number};
pub use span::{LineIndex, Span};
