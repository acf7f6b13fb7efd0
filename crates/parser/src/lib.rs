//! Turns Dockerfile and .dockerignore text into typed syntax with spans and diagnostics.
