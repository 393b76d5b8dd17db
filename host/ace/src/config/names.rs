//! Checks the names in ace.toml against the existing plugins.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::Problem;
use super::reader::nearest;
use super::reader::unknown;
use super::{Config, Shipped, reader};
use crate::message::{ChannelType, EMAIL, PUSH};

/// The existing names.
struct Names<'a> {
    channels: &'a BTreeMap<String, ChannelType>,
    policies: &'a [String],
    plugins: &'a [String],
    shipped: &'static Shipped,
}

impl Config {
    /// The names in the configuration that do not exist, or that are plugins of the wrong kind.
    ///
    /// `channels` and `policies` can be used, and include those of the application; `all_plugins` also includes plugins that cannot be
    /// loaded. The kind of those is unknown, so they are accepted here; why they cannot be loaded is reported elsewhere.
    pub fn check_names(
        &self,
        channels: &BTreeMap<String, ChannelType>,
        policies: &[String],
        all_plugins: &[String],
    ) -> Vec<Problem> {
        let names = Names { channels, policies, plugins: all_plugins, shipped: self.fixed.shipped };
        let mut wrong: Vec<(Vec<String>, String)> = Vec::new();
        let mut note = |path: &[&str], message: Option<String>| {
            let path = path.iter().map(|level| level.to_string()).collect();
            wrong.extend(message.map(|message| (path, message)));
        };
        for (at, name) in self.enabled_channels.iter().flatten().enumerate() {
            note(&["enabled-channels", &reader::item(at)], names.wrong_channel(name, None));
        }
        for (at, name) in self.enabled_policies.iter().flatten().enumerate() {
            note(&["enabled-policies", &reader::item(at)], names.wrong_policy(name));
        }
        let routing = &self.routing;
        for (key, by_type) in [("default", &routing.default), ("transactional", &routing.transactional)] {
            for (channel_type, name) in by_type {
                note(&["routing", key, channel_type], names.wrong_channel(name, Some(channel_type)));
            }
        }
        for (key, by_type) in [("listed", &routing.listed), ("failover", &routing.failover)] {
            for (channel_type, list) in by_type {
                for (at, name) in list.iter().enumerate() {
                    let wrong = names.wrong_channel(name, Some(channel_type));
                    note(&["routing", key, channel_type, &reader::item(at)], wrong);
                }
            }
        }
        for (channel_type, list) in &routing.fallback {
            note(&["routing", "fallback", channel_type], names.wrong_type(channel_type));
            for (at, next) in list.iter().enumerate() {
                note(&["routing", "fallback", channel_type, &reader::item(at)], names.wrong_type(next));
            }
        }
        for name in self.channels.keys() {
            note(&["channels", name], names.wrong_channel(name, None));
        }
        for (name, plugin) in &self.plugins {
            note(&["plugins", name], names.wrong_plugin(name));
            for (at, channel) in plugin.grants.feedback.iter().enumerate() {
                let path = ["plugins", name, "grants", "feedback", &reader::item(at)];
                note(&path, names.wrong_channel(channel, None));
            }
        }
        let problem = |(path, message): (Vec<String>, String)| self.problem(&reader::dotted(&path), message);
        if let Some(why) = self.fixed.shipped.absence {
            wrong.iter_mut().filter(|(_, message)| message.starts_with("there is no ")).for_each(|(_, message)| {
                message.push_str("; ");
                message.push_str(why);
            });
        }
        let mut problems: Vec<Problem> = wrong.into_iter().map(problem).collect();
        problems.sort_by_key(|p| (p.variable.is_some(), p.line));
        problems
    }
}

impl Names<'_> {
    fn wrong_channel(&self, name: &String, channel_type: Option<&ChannelType>) -> Option<String> {
        match (self.channels.get(name), channel_type) {
            (Some(actual), Some(wanted)) if actual != wanted => {
                Some(format!("{name:?} is a channel for {actual}, not for {wanted}"))
            }
            (Some(_), _) => None,
            _ if self.policies.contains(name) => Some(format!("{name:?} is a policy, not a channel")),
            _ if self.plugins.contains(name) => None,
            _ if self.shipped.plugin(name).is_some() => Some(format!(
                "{name:?} is part of ACE, but such a plugin is active only if ace.toml names it: add [plugins.{name}]"
            )),
            _ => {
                let of_type = |actual: &ChannelType| channel_type.is_none_or(|wanted| wanted == actual);
                let known = self.channels.iter().filter(|(_, actual)| of_type(actual));
                let mut known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
                // The type of a disabled channel is unknown, but the name may be a misspelling of it.
                let others = || self.plugins.iter().filter(|p| !self.policies.contains(p)).map(String::as_str);
                if nearest(name, known.iter().copied()).is_none() && nearest(name, others()).is_some() {
                    known.extend(others());
                }
                Some(unknown("channel", name, &known, "channels that can be used here"))
            }
        }
    }

    fn wrong_type(&self, name: &ChannelType) -> Option<String> {
        let usual = [EMAIL, PUSH].into_iter();
        let known: BTreeSet<&str> = usual.chain(self.channels.values().map(String::as_str)).collect();
        let known: Vec<&str> = known.into_iter().collect();
        // The type of a channel that cannot be loaded is unknown.
        let has_unloaded = || self.plugins.iter().any(|p| !self.channels.contains_key(p) && !self.policies.contains(p));
        let is_wrong =
            !known.contains(&name.as_str()) && (nearest(name, known.iter().copied()).is_some() || !has_unloaded());
        is_wrong.then(|| unknown("channel type", name, &known, "channel types"))
    }

    fn wrong_policy(&self, name: &String) -> Option<String> {
        if self.policies.contains(name) {
            return None;
        }
        if self.channels.contains_key(name) {
            return Some(format!("{name:?} is a channel, not a policy"));
        }
        let known: Vec<&str> = self.policies.iter().map(String::as_str).collect();
        (!self.plugins.contains(name)).then(|| unknown("policy", name, &known, "policies"))
    }

    fn wrong_plugin(&self, name: &String) -> Option<String> {
        let known: Vec<&str> = self.plugins.iter().map(String::as_str).collect();
        (!self.plugins.contains(name)).then(|| unknown("plugin", name, &known, "plugins"))
    }
}
