//! How many look-ups a second a pinned result answers: `cargo run --release -p kmer-pin --example rate NAME`.
//!
//! Asks for every key that is there and for as many that are not, in an order without any, one by one and then together.

use kmer_pin::{Pinned, Result};
use std::time::Instant;

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let pinned = Pinned::open(&name)?;
    let mut keys = Vec::new();
    pinned.entries(|key, _| keys.extend([key, key ^ 1 << 3]))?;
    let mut state = 88_172_645_463_325_252u64;
    for place in (1..keys.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        keys.swap(place, (state % (place as u64 + 1)) as usize);
    }
    let rate = |start: Instant| keys.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
    let (start, mut sum) = (Instant::now(), 0u64);
    for key in &keys {
        sum += u64::from(pinned.count_key(*key)?);
    }
    println!("one by one: {:.1} million a second (sum {sum})", rate(start));
    let (start, mut counts) = (Instant::now(), Vec::new());
    pinned.count_all(&keys, &mut counts)?;
    let sum: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    println!("together:   {:.1} million a second (sum {sum})", rate(start));
    Ok(())
}
