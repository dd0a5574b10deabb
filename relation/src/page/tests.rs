//! Tests of the page checks.
