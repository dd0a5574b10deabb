//! (under construction)
pub mod sync;
pub mod words;
