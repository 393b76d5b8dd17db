//! Channels, and the choice of the channel for a message: edx-ace's rules with our departures. [`limiter`] enforces quotas.

pub mod limiter;
mod rate_limiter;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::config::Routing;
use crate::message::{
    ActionLink, Attempt, CallContext, ChannelType, DeliveryError, EMAIL, Fault, FaultKind, Message, PUSH, Receipt,
    Rule, TemplateFile,
};
use crate::plugin::{ChannelInfo, Runtime};

/// Delivers messages: a plugin, or native code of an embedding application.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Its name in reports and in the configuration.
    fn name(&self) -> &str;

    /// Its revision, if it has one.
    fn revision(&self) -> &str {
        ""
    }

    /// Its channel type.
    fn channel_type(&self) -> &str;

    /// The template files to render for it, in this order.
    fn template_files(&self) -> &[TemplateFile];

    /// Whether it claims this message for itself, even if another channel of its type would be chosen.
    async fn overrides_delivery_for_message(&self, _: &Arc<Message>, _: &CallContext) -> Result<bool, Fault> {
        Ok(false)
    }

    /// Links for the templates.
    async fn action_links(&self, _: &Arc<Message>, _: &CallContext) -> Result<Vec<ActionLink>, Fault> {
        Ok(Vec::new())
    }

    /// URLs of tracking images for the templates.
    async fn tracker_image_sources(&self, _: &Arc<Message>, _: &CallContext) -> Result<Vec<String>, Fault> {
        Ok(Vec::new())
    }

    /// Makes one attempt to submit the rendered files (name, text) to the provider. `call`, here and above, collects what happened
    /// besides the answer.
    ///
    /// # Errors
    /// Nothing was delivered, or nobody knows. The kind of the error says what happens next.
    async fn deliver(
        &self,
        message: &Arc<Message>,
        rendered: &[(String, String)],
        attempt: &Attempt,
        call: &CallContext,
    ) -> Result<Receipt, DeliveryError>;
}

/// A channel in a plugin.
pub struct WasmChannel {
    /// The plugin.
    pub runtime: Arc<Runtime>,
    /// Its channel type and template files.
    pub info: ChannelInfo,
}

#[async_trait]
impl Channel for WasmChannel {
    fn name(&self) -> &str {
        &self.runtime.settings.name
    }

    fn revision(&self) -> &str {
        &self.runtime.settings.revision
    }

    fn channel_type(&self) -> &str {
        &self.info.channel_type
    }

    fn template_files(&self) -> &[TemplateFile] {
        &self.info.template_files
    }

    async fn overrides_delivery_for_message(&self, message: &Arc<Message>, call: &CallContext) -> Result<bool, Fault> {
        self.runtime.overrides_delivery(message).await.report_to(call)
    }

    async fn action_links(&self, message: &Arc<Message>, call: &CallContext) -> Result<Vec<ActionLink>, Fault> {
        self.runtime.action_links(message).await.report_to(call)
    }

    async fn tracker_image_sources(&self, message: &Arc<Message>, call: &CallContext) -> Result<Vec<String>, Fault> {
        self.runtime.tracker_image_sources(message).await.report_to(call)
    }

    async fn deliver(
        &self,
        message: &Arc<Message>,
        rendered: &[(String, String)],
        attempt: &Attempt,
        call: &CallContext,
    ) -> Result<Receipt, DeliveryError> {
        match self.runtime.deliver_remaining(message, rendered, attempt, call.earlier()).await.report_to(call) {
            Ok(answer) => answer,
            Err(fault) if fault.kind == FaultKind::Unavailable => Err(DeliveryError::Unavailable(fault.to_string())),
            Err(fault) => Err(DeliveryError::Recoverable { message: fault.to_string(), next_attempt_time: None }),
        }
    }
}

/// The active channels by type, in the configured order.
#[derive(Clone, Default)]
pub struct ChannelMap {
    by_type: BTreeMap<ChannelType, Vec<Arc<dyn Channel>>>,
}

impl ChannelMap {
    /// A map of these channels, which are in the configured order.
    pub fn new(channels: impl IntoIterator<Item = Arc<dyn Channel>>) -> Self {
        let mut by_type: BTreeMap<ChannelType, Vec<Arc<dyn Channel>>> = BTreeMap::new();
        for channel in channels {
            by_type.entry(channel.channel_type().to_owned()).or_default().push(channel);
        }
        ChannelMap { by_type }
    }

    /// All channel types in a fixed order: email, push, then the rest by name. As in edx-ace, email and push are always included;
    /// without a channel their outcome is unsupported.
    pub fn types(&self) -> Vec<ChannelType> {
        let rest = self.by_type.keys().filter(|t| *t != EMAIL && *t != PUSH).cloned();
        [EMAIL.to_owned(), PUSH.to_owned()].into_iter().chain(rest).collect()
    }

    /// The channels of a type.
    pub fn of_type(&self, channel_type: &str) -> &[Arc<dyn Channel>] {
        self.by_type.get(channel_type).map_or(&[], Vec::as_slice)
    }

    /// Every channel.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Channel>> {
        self.by_type.values().flatten()
    }

    /// The channel with this type and name.
    pub fn find(&self, channel_type: &str, name: &str) -> Option<&Arc<dyn Channel>> {
        self.of_type(channel_type).iter().find(|c| c.name() == name)
    }
}

/// Restricts a message to some channels, in addition to the policies: edx-ace's `limit_to_channels`, which has no effect there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    types: Vec<ChannelType>,
    channels: Vec<String>,
}

/// A name that is neither a channel type nor a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is neither a channel type nor a channel; {hint}")]
pub struct UnknownChannel {
    name: String,
    /// The nearest name, or all names.
    hint: String,
}

impl Limit {
    /// A limit to these channel types or channel names. An empty list allows everything.
    ///
    /// # Errors
    /// A name is neither a channel type nor a channel.
    pub fn new(values: &[String], map: &ChannelMap) -> Result<Self, UnknownChannel> {
        let mut limit = Limit::default();
        let types = map.types();
        for value in values {
            if types.contains(value) {
                limit.types.push(value.clone());
            } else if map.iter().any(|c| c.name() == value) {
                limit.channels.push(value.clone());
            } else {
                let known: Vec<&str> = types.iter().map(String::as_str).chain(map.iter().map(|c| c.name())).collect();
                let hint = crate::message::nearest(value, known.iter().copied());
                let hint = hint.map_or_else(
                    || format!("known are {}", known.join(", ")),
                    |near| format!("did you mean {near:?}?"),
                );
                return Err(UnknownChannel { name: value.clone(), hint });
            }
        }
        Ok(limit)
    }

    /// The union of the limits in several requests for one message. An empty list allows everything; a name that no longer exists
    /// allows nothing.
    pub fn of_all(lists: &[Vec<String>], map: &ChannelMap) -> Self {
        if lists.iter().any(Vec::is_empty) {
            return Limit::default();
        }
        let known = map.types();
        let (types, channels) = lists.iter().flatten().cloned().partition(|name| known.contains(name));
        Limit { types, channels }
    }

    /// Whether a channel of this type may be used.
    pub fn allows_type(&self, channel_type: &str, map: &ChannelMap) -> bool {
        let named = || map.of_type(channel_type).iter().any(|c| self.channels.iter().any(|n| n == c.name()));
        self.is_empty() || self.types.iter().any(|t| t == channel_type) || named()
    }

    fn allows(&self, channel: &dyn Channel) -> bool {
        self.is_empty()
            || self.types.iter().any(|t| t == channel.channel_type())
            || self.channels.iter().any(|n| n == channel.name())
    }

    fn is_empty(&self) -> bool {
        self.types.is_empty() && self.channels.is_empty()
    }
}

/// The channels that may deliver a message, in order of preference.
pub struct Candidates {
    /// The channels, each with the rule that chose it.
    pub channels: Vec<(Arc<dyn Channel>, Rule)>,
    /// Channels that were configured or requested but cannot be used, with the reason.
    pub passed_over: Vec<String>,
}

/// edx-ace's `get_channel_for_message` without its overriding part. A configured channel that does not exist is skipped: the next
/// candidate follows, and after them the first channel of the type, which edx-ace takes at once.
pub fn candidates(
    map: &ChannelMap,
    routing: &Routing,
    limit: &Limit,
    channel_type: &str,
    message: &Message,
) -> Candidates {
    let mut found = Candidates { channels: Vec::new(), passed_over: Vec::new() };
    for (name, rule) in preferred(map, routing, channel_type, message) {
        match map.find(channel_type, name) {
            Some(channel) if !limit.allows(channel.as_ref()) => {
                found.passed_over.push(format!("{name}: outside the limit"))
            }
            Some(channel) => found.channels.push((channel.clone(), rule)),
            None => found.passed_over.push(format!("{name}: no channel of type {channel_type} has this name")),
        }
        // A channel that overrides the default is the only candidate, if it exists.
        if rule == Rule::OverrideDefaultChannel && !found.channels.is_empty() {
            break;
        }
    }
    if found.channels.is_empty() {
        let first = map.of_type(channel_type).iter().find(|c| limit.allows(c.as_ref()));
        found.channels.extend(first.map(|c| (c.clone(), Rule::FirstOfType)));
    }
    found
}

fn preferred<'a>(
    map: &ChannelMap,
    routing: &'a Routing,
    channel_type: &str,
    message: &'a Message,
) -> Vec<(&'a str, Rule)> {
    let mut preferred = Vec::new();
    if let Some(name) =
        message.options.get("override_default_channel").and_then(|v| v.as_str()).filter(|n| !n.is_empty())
    {
        // A channel of another type does not matter for this one. An unknown name is reported for email, the only type that
        // edx-ace overrides.
        let elsewhere = map.iter().any(|c| c.name() == name && c.channel_type() != channel_type);
        if map.find(channel_type, name).is_some() || (channel_type == EMAIL && !elsewhere) {
            preferred.push((name, Rule::OverrideDefaultChannel));
        }
    }
    if message.is_transactional() {
        preferred.extend(routing.transactional.get(channel_type).map(|n| (n.as_str(), Rule::Transactional)));
    }
    match routing.default.get(channel_type) {
        Some(name) => preferred.push((name, Rule::Default)),
        None => {
            let listed = routing.listed.get(channel_type).into_iter().flatten();
            preferred.extend(listed.map(|n| (n.as_str(), Rule::Listed)));
        }
    }
    let mut seen = Vec::new();
    preferred.retain(|(name, _)| {
        !seen.contains(name) && {
            seen.push(*name);
            true
        }
    });
    preferred
}

/// Chooses the first candidate that claims the message, or else the first one. A single candidate is not asked.
///
/// # Errors
/// A channel failed when it was asked.
pub async fn choose(
    candidates: Vec<(Arc<dyn Channel>, Rule)>,
    message: &Arc<Message>,
    call: &CallContext,
) -> Result<Option<(Arc<dyn Channel>, Rule)>, Fault> {
    if candidates.len() > 1 {
        for (channel, _) in &candidates {
            if channel.overrides_delivery_for_message(message, call).await? {
                return Ok(Some((channel.clone(), Rule::OverridesDelivery)));
            }
        }
    }
    Ok(candidates.into_iter().next())
}

/// The channels to try after others have failed, in the configured order.
pub fn failover(
    map: &ChannelMap,
    routing: &Routing,
    limit: &Limit,
    channel_type: &str,
    tried: &[String],
) -> Vec<Arc<dyn Channel>> {
    let list = routing.failover.get(channel_type).map_or(&[][..], Vec::as_slice);
    let untried = list.iter().filter(|name| !tried.contains(name));
    untried.filter_map(|name| map.find(channel_type, name)).filter(|c| limit.allows(c.as_ref())).cloned().collect()
}

#[cfg(test)]
mod tests;
