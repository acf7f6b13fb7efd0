//! Fixtures and checks for the project's own tests.
