//! Builds pages for tests.
