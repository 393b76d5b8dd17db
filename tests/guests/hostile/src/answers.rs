//! Harmful answers.

use std::cell::Cell;

use crate::exports::openedx::ace::channel::{
    ActionLink, ChannelInfo, DeliveryError, Receipt, RecoverableError, TemplateFile,
};
use crate::exports::openedx::ace::policy::{Delay, Denial, PolicyResult};
use crate::openedx::ace::messages::Message;
use crate::reach;
use crate::setting;

/// Longer than the tests' limit.
const HUGE: usize = 4 << 20;

pub fn pass() -> PolicyResult {
    PolicyResult { deny: Vec::new(), delay: Vec::new() }
}

fn deny(channel_type: &str, reason: impl Into<String>) -> PolicyResult {
    let denial = Denial { channel_type: channel_type.to_owned(), reason: Some(reason.into()) };
    PolicyResult { deny: vec![denial], delay: Vec::new() }
}

fn delay(not_before: u64) -> PolicyResult {
    let delay = Delay { channel_type: "*".to_owned(), not_before, reason: None };
    PolicyResult { deny: Vec::new(), delay: vec![delay] }
}

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// `count` is harmless: it shows how many calls this instance remembers.
pub fn verdict(wish: &str, message: &Message) -> PolicyResult {
    match wish {
        "spy" => deny("push", reach::spied()),
        "effects" => deny("push", reach::effects()),
        "count" => {
            CALLS.set(CALLS.get() + 1);
            deny("push", CALLS.get().to_string())
        }
        "huge-text" => deny("push", "x".repeat(HUGE)),
        "long-text" => deny("push", "x".repeat(HUGE / 4)),
        "huge-list" => PolicyResult { deny: vec![deny("push", "").deny.remove(0); 200_000], delay: Vec::new() },
        "long-list" => PolicyResult { deny: vec![deny("push", "").deny.remove(0); 257], delay: Vec::new() },
        "control" => deny("push", "one\r\nBcc: all@campus.example\x1b[31m\0 two"),
        "type" => deny(&setting(Some(message), "type").replace("\\n", "\n"), "no such type"),
        "long-type" => deny(&"t".repeat(65), "no such type"),
        "past" => delay(1),
        "far" => delay(253_402_000_000_000),
        "never" => delay(u64::MAX),
        _ => pass(),
    }
}

pub fn description(wish: &str) -> ChannelInfo {
    let (channel_type, name) = match wish {
        "every-type" => ("*", "body.txt"),
        "no-type" => ("", "body.txt"),
        "upper-type" => ("E-Mail", "body.txt"),
        "file-outside" => ("email", "../../../etc/passwd"),
        "file-hidden" => ("email", ".netrc"),
        _ => ("email", "body.txt"),
    };
    let files = if wish == "many-files" { 257 } else { 1 };
    let template_files = (0..files).map(|_| TemplateFile { name: name.to_owned(), required: true }).collect();
    ChannelInfo { channel_type: channel_type.to_owned(), template_files }
}

pub fn links(wish: &str) -> Vec<ActionLink> {
    let one = || ActionLink { url: "https://campus.example".to_owned(), text: "x".to_owned(), unsubscribe: false };
    match wish {
        "long-list" => (0..257).map(|_| one()).collect(),
        "huge-text" => vec![ActionLink { text: "x".repeat(HUGE), ..one() }],
        _ => Vec::new(),
    }
}

pub fn trackers(wish: &str) -> Vec<String> {
    match wish {
        "long-list" => vec!["https://campus.example".to_owned(); 257],
        "huge-text" => vec!["x".repeat(HUGE)],
        _ => Vec::new(),
    }
}

pub fn receipt(wish: &str) -> Result<Receipt, DeliveryError> {
    let recoverable = |next| RecoverableError { message: "later".to_owned(), next_attempt_time: Some(next) };
    let (id, detail) = match wish {
        "huge-text" => ("x".repeat(HUGE), None),
        "long-text" => ("x".repeat(HUGE / 4), None),
        "control" => ("id\r\nforged: yes\x1b[31m".to_owned(), None),
        "no-json" => ("id".to_owned(), Some("{".to_owned())),
        "deep-json" => ("id".to_owned(), Some("[".repeat(8_000))),
        "long-json" => ("id".to_owned(), Some(format!("\"{}\"", "x".repeat(20_000)))),
        "never" => return Err(DeliveryError::Recoverable(recoverable(u64::MAX))),
        "far" => return Err(DeliveryError::Recoverable(recoverable(253_402_000_000_000))),
        "past" => return Err(DeliveryError::Recoverable(recoverable(1))),
        _ => ("taken".to_owned(), None),
    };
    Ok(Receipt { provider_id: Some(id), detail })
}
