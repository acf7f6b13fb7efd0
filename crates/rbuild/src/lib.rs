//! The embeddable Dockerfile build engine.
