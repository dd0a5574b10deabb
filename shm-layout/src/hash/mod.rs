//! The striped hash: which keys occur in how many groups, after Postgres's `dshash_table`.
//!
//! A *stripe* is an open-addressed table of its own; the caller decides which keys go to which stripe, and the stripe's task word is its
//! lock. A stripe is never changed in place: whoever holds it fills a [`counter::GroupCounter`] or, where it does not matter whose keys are, a
//! [`weights::WeightCounter`] in private memory, turns that into an
//! [`image`] in chunks of the arena, and publishes the image with one commit. So readers need no lock at all, growing never happens under
//! anybody's eyes, and a death while a stripe is filled leaves nothing.
//!
//! ```text
//! private, while counting                     published
//! GroupCounter<u32|u64>                       image: header, then
//!   place: key, groups, last group              KmerEntry16|32|64 { key, count }, open addressing, or
//! WeightCounter                                 identity: count alone, the place is the key
//!   place: rest of the hash, weight
//! linear probing, power of two
//! ```
//!
//! The hash of a key is its product with a random odd number drawn for each run, so nobody can prepare keys that all collide. Both
//! tables take the *high* bits of the product, so walking one in order fills the other in order.

pub mod counter;
pub mod entry;
pub mod image;
pub mod table;
pub mod weights;
