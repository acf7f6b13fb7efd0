//! Speaks the OCI distribution protocol behind a blocking handle.
