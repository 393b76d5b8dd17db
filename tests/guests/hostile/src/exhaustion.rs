//! The two harms that are possible without any import: using up time and memory. `faulty_policy` uses them, too.

use std::hint::black_box;

pub fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

pub fn hoard() -> ! {
    let mut treasure = Vec::new();
    loop {
        treasure.push(black_box(vec![1_u8; 1 << 20]));
    }
}
