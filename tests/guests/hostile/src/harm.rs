//! Harms that are possible in any of the functions. Most of them never return.

use std::cell::RefCell;
use std::hint::black_box;

use crate::exhaustion::{hoard, spin};
use crate::openedx::ace::keyvalue;
use crate::openedx::ace::logging::{self, Level};
use crate::openedx::ace::messages::Message;
use crate::reach;

/// Does the requested harm.
pub fn in_any(wish: &str, message: Option<&Message>) {
    match wish {
        "trap" => panic!("it was asked for a trap"),
        "spin" => spin(),
        "hoard" => hoard(),
        "recurse" => drop(recurse(&[0; 64])),
        "sleep" => reach::sleep(),
        "exit" => reach::exit(),
        "handles" => reach::hoard_handles(),
        "random" => reach::much_randomness(),
        "forge" => reach::forge(),
        "stdout" => reach::print(),
        "stdin" => reach::read_input(),
        "log" => (0..10_000).for_each(|n| logging::log(Level::Info, &format!("{n:0>1000}"))),
        "forge-log" => logging::log(Level::Info, "one\nERROR forged line\x1b[31m\u{2028}"),
        "refusals" => refusals(),
        "loot" => loot(),
        "long-keys" => long_keys(),
        "host-calls" => host_calls(message),
        _ => {}
    }
}

/// Deeper than any stack.
#[expect(unconditional_recursion, reason = "until the stack is full")]
fn recurse(above: &[u64; 64]) -> u64 {
    let own = black_box(above.map(|n| n + 1));
    recurse(&own) + own[0]
}

fn host_calls(message: Option<&Message>) {
    let Some(message) = message else { return };
    loop {
        black_box(message.uuid());
    }
}

/// Calls that are refused, each with a name of a MiB that contains line breaks.
fn refusals() {
    let bucket = "secret\nERROR forged line ".repeat(40_000);
    for _ in 0..200 {
        assert!(keyvalue::get(&bucket, "key").is_err(), "it was granted");
    }
}

/// Fills the store until it is full.
fn loot() {
    for n in 0..900 {
        if let Err(error) = keyvalue::set("loot", &n.to_string(), &[0; 60_000], None) {
            abort(&format!("{n} entries, then {error}"));
        }
    }
}

/// Keys of 2 MiB each.
fn long_keys() {
    let key = "k".repeat(2 << 20);
    for n in 0..900 {
        if let Err(error) = keyvalue::increment("loot", &format!("{n}{key}"), 1, None, None) {
            abort(&format!("{n} keys, then {error}"));
        }
    }
}

/// Traps with the reason why it cannot continue.
fn abort(why: &str) -> ! {
    logging::log(Level::Error, why);
    panic!("{why}");
}

thread_local! {
    static KEPT: RefCell<Option<Message>> = const { RefCell::new(None) };
}

/// Uses the message of the previous call, and keeps this one for the next call.
pub fn keep_handle(message: Message) {
    KEPT.with_borrow_mut(|kept| {
        if let Some(stale) = kept.replace(message) {
            black_box(stale.uuid());
        }
    });
}

/// Drops its handle twice.
pub fn drop_twice(message: Message) {
    let handle = message.take_handle();
    // SAFETY: deliberately violated; the test is that the host withstands it.
    unsafe {
        drop(Message::from_handle(handle));
        drop(Message::from_handle(handle));
    }
}
