//! A malicious policy and channel of the type `email`. The key `do` of the context, or else of the config, names the harm, and the key
//! `in` the function. Everywhere else, and without `do`, it works: it lets every message pass, and reports that it has
//! delivered.
//!
//! It uses the bindings without the SDK, because the SDK would prevent it from misusing a handle.

mod answers;
mod exhaustion;
mod harm;
mod reach;

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "tests:hostile/hostile",
    generate_all,
});

use exports::openedx::ace::{channel, policy};
use openedx::ace::config;
use openedx::ace::messages::Message;

/// Not used without a host.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct Hostile;

/// A setting: the message's context first, then the config.
fn setting(message: Option<&Message>, key: &str) -> String {
    let of_message = message.and_then(|m| m.context(&format!("/{key}")));
    let text = of_message.map(|json| json.trim_matches('"').to_owned());
    text.or_else(|| config::get(key)).unwrap_or_default()
}

/// The harm to do in this function, if any.
fn wish(function: &str, message: Option<&Message>) -> String {
    if setting(message, "in") == function { setting(message, "do") } else { String::new() }
}

impl policy::Guest for Hostile {
    fn enabled() -> Result<(), String> {
        harm::in_any(&wish("enabled", None), None);
        Ok(())
    }

    fn check(message: Message) -> Result<policy::PolicyResult, String> {
        let wish = wish("check", Some(&message));
        harm::in_any(&wish, Some(&message));
        match wish.as_str() {
            "stale" => harm::keep_handle(message),
            "drop-twice" => harm::drop_twice(message),
            _ => return Ok(answers::verdict(&wish, &message)),
        }
        Ok(answers::pass())
    }
}

impl channel::Guest for Hostile {
    fn describe() -> channel::ChannelInfo {
        harm::in_any(&wish("describe", None), None);
        answers::description(&wish("describe", None))
    }

    fn enabled() -> Result<(), String> {
        Ok(())
    }

    fn overrides_delivery_for_message(message: Message) -> bool {
        harm::in_any(&wish("overrides", Some(&message)), Some(&message));
        false
    }

    fn action_links(message: Message) -> Vec<channel::ActionLink> {
        let wish = wish("action-links", Some(&message));
        harm::in_any(&wish, Some(&message));
        answers::links(&wish)
    }

    fn tracker_image_sources(message: Message) -> Vec<String> {
        let wish = wish("trackers", Some(&message));
        harm::in_any(&wish, Some(&message));
        answers::trackers(&wish)
    }

    fn deliver(
        message: Message,
        _: Vec<(String, String)>,
        attempt: channel::Attempt,
    ) -> Result<channel::Receipt, channel::DeliveryError> {
        let wish = wish("deliver", Some(&message));
        if wish == "mail" {
            reach::mail(&attempt);
        }
        harm::in_any(&wish, Some(&message));
        answers::receipt(&wish)
    }
}

// Nothing is exported natively, because a linker takes the `@` in the names for a version.
#[cfg(target_family = "wasm")]
export!(Hostile);
