//! The functions that a host calls, for all types that implement a trait of this crate.

use std::sync::Once;

use super::channel_world::exports::openedx::ace::channel as channel_wit;
use super::feedback_world::exports::openedx::ace::feedback as feedback_wit;
use super::policy_world::exports::openedx::ace::policy as policy_wit;
use super::resolver_world::exports::openedx::ace::recipient_resolver as resolver_wit;
use crate::bindings::openedx::ace::{incoming, messages};
use crate::channel::{self, Channel, Rendered};
use crate::feedback::{self, Feedback, Request};
use crate::policy::{self, Policy};
use crate::recipient_resolver::{self, RecipientResolver};
use crate::{Level, Message};

impl<T: Policy> policy_wit::Guest for T {
    fn enabled() -> Result<(), String> {
        log_panics();
        T::enabled()
    }

    fn check(message: messages::Message) -> Result<policy::PolicyResult, String> {
        log_panics();
        T::check(&Message::new(message))
    }
}

impl<T: Channel> channel_wit::Guest for T {
    fn describe() -> channel::ChannelInfo {
        log_panics();
        T::describe()
    }

    fn enabled() -> Result<(), String> {
        log_panics();
        T::enabled()
    }

    fn overrides_delivery_for_message(message: messages::Message) -> bool {
        log_panics();
        T::overrides_delivery_for_message(&Message::new(message))
    }

    fn action_links(message: messages::Message) -> Vec<channel::ActionLink> {
        log_panics();
        T::action_links(&Message::new(message))
    }

    fn tracker_image_sources(message: messages::Message) -> Vec<String> {
        log_panics();
        T::tracker_image_sources(&Message::new(message))
    }

    fn deliver(
        message: messages::Message,
        rendered: Vec<(String, String)>,
        attempt: channel::Attempt,
    ) -> Result<channel::Receipt, channel::DeliveryError> {
        log_panics();
        T::deliver(&Message::new(message), Rendered::new(rendered), &attempt)
    }
}

impl<T: RecipientResolver> resolver_wit::Guest for T {
    fn enabled() -> Result<(), String> {
        log_panics();
        T::enabled()
    }

    fn resolve(
        message_type: String,
        arguments: String,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<recipient_resolver::Page, recipient_resolver::ResolveError> {
        log_panics();
        T::resolve(&message_type, &arguments, cursor.as_deref(), limit)
    }
}

impl<T: Feedback> feedback_wit::Guest for T {
    fn enabled() -> Result<(), String> {
        log_panics();
        T::enabled()
    }

    fn receive(request: incoming::Request) -> Result<feedback::Received, feedback::FeedbackError> {
        log_panics();
        T::receive(&Request::new(request))
    }
}

/// Logs the text and location of panics, because a trap does not contain them.
fn log_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| crate::log(Level::Error, &panic.to_string()))));
}
