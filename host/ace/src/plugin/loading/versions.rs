//! One version of a plugin beside the one before it: which of them serves, and what a change of files or settings means for it.

use std::sync::Arc;

use super::stamp::FileStamps;
use crate::config::Config;
use crate::plugin::{Namespace, Plugin, PluginState, Rejected};

impl Plugin {
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, PluginState::Broken(_))
    }

    /// Whether loading it again could come to anything else.
    pub(super) fn is_current(&self, stamp: &FileStamps, config: &Config) -> bool {
        let settings = config.plugins.get(&self.name).cloned().unwrap_or_default();
        self.stamp == *stamp
            && self.settings.runs_as(&settings)
            && self.limits == config.fixed.limits
            && (self.state == PluginState::Disabled) != is_wanted(self, config)
    }

    /// Whether what was made of its files is what these come to.
    pub(super) fn has_code_of(&self, stamp: &FileStamps) -> bool {
        self.stamp == *stamp && self.rejected.is_none() && self.code.is_some()
    }

    /// Whether it may be started anew with the settings of `next`, a later version that cannot serve.
    pub(super) fn goes_on_instead_of(&self, next: &Plugin, config: &Config) -> bool {
        self.runtime.is_some()
            && self.revision != next.revision
            && !self.settings.runs_as(&next.settings)
            && is_wanted(self, config)
    }

    /// The same with what ace.toml says of it now, where an instance of it cannot tell the difference.
    pub(super) fn with_settings_of(self: &Arc<Self>, config: &Config) -> Arc<Plugin> {
        let settings = config.plugins.get(&self.name).cloned().unwrap_or_default();
        if self.settings == settings { self.clone() } else { Arc::new(Plugin { settings, ..self.as_ref().clone() }) }
    }

    /// A new version that cannot serve leaves the one before serving. Not so where the settings have changed: nothing goes
    /// on with grants that were taken away.
    pub(super) fn or_else(self, before: Option<&Arc<Plugin>>, config: &Config) -> Plugin {
        let PluginState::Broken(reason) = &self.state else { return self };
        match before {
            Some(before)
                if before.runtime.is_some() && before.settings.runs_as(&self.settings) && is_wanted(before, config) =>
            {
                let rejected = Rejected { reason: reason.clone(), revision: self.revision };
                Plugin {
                    rejected: Some(rejected),
                    stamp: self.stamp,
                    settings: self.settings,
                    ..before.as_ref().clone()
                }
            }
            _ => self,
        }
    }

    /// What goes on while other files, or other settings, are being loaded.
    pub(super) fn until_loaded(self: &Arc<Self>, config: &Config) -> Arc<Plugin> {
        if is_wanted(self, config) || self.state == PluginState::Disabled {
            return self.clone();
        }
        Arc::new(Plugin { state: PluginState::Disabled, runtime: None, channel: None, ..self.as_ref().clone() })
    }

    /// What is left of it when its file is gone: nothing, unless ace.toml names it.
    pub(super) fn without_its_file(self: &Arc<Self>, config: &Config) -> Arc<Plugin> {
        let state = if is_enforced(self, config) && is_wanted(self, config) {
            PluginState::Broken("its file is gone from the plugin folder".to_owned())
        } else {
            PluginState::Disabled
        };
        let stamp = FileStamps::default();
        let nothing =
            Plugin { state, stamp, runtime: None, channel: None, rejected: None, code: None, ..self.as_ref().clone() };
        // It was gone before.
        let is_same = self.state == nothing.state && self.stamp == nothing.stamp;
        if is_same { self.clone() } else { Arc::new(nothing) }
    }
}

/// Whether ace.toml lets a plugin serve in any of its namespaces.
pub(super) fn is_wanted(plugin: &Plugin, config: &Config) -> bool {
    let listed = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|names| names.contains(&plugin.name));
    config.plugins.get(&plugin.name).is_none_or(|p| p.enabled)
        && (plugin.namespaces.is_empty()
            || plugin.namespaces.iter().any(|namespace| match namespace {
                Namespace::Policy => listed(&config.enabled_policies),
                Namespace::Channel => listed(&config.enabled_channels),
                Namespace::RecipientResolver => true,
            }))
}

/// Whether a plugin that cannot serve stands for a policy that must not fail open: ace.toml names it, and it is a policy, or
/// nobody could read what it is and nothing in ace.toml says it is a channel; or it served before, and its file is there.
pub(crate) fn is_enforced(plugin: &Plugin, config: &Config) -> bool {
    let name = &plugin.name;
    if config.fixed.enforced_before.contains(name) && plugin.file.exists() {
        return true;
    }
    let lists = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|names| names.contains(name));
    if config.enabled_policies.is_some() {
        return lists(&config.enabled_policies);
    }
    if !plugin.namespaces.is_empty() {
        return plugin.namespaces.contains(&Namespace::Policy) && config.plugins.contains_key(name);
    }
    let routing = &config.routing;
    let single = routing.default.values().chain(routing.transactional.values());
    let mut routed = single.chain(routing.listed.values().flatten()).chain(routing.failover.values().flatten());
    let is_channel = lists(&config.enabled_channels) || routed.any(|routed| routed == name);
    config.plugins.contains_key(name) && !is_channel
}
