//! Tests of TOAST look-ups.
