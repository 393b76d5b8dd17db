//! Decides between two versions of a plugin: which one is active after a change of files or settings.

use std::sync::Arc;

use super::stamp::FileStamps;
use crate::config::Config;
use crate::plugin::{Namespace, Plugin, PluginState, Rejected};

impl Plugin {
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, PluginState::Broken(_))
    }

    /// Whether loading it again would give the same result.
    pub(super) fn is_current(&self, stamp: &FileStamps, config: &Config) -> bool {
        let settings = config.plugins.get(&self.name).cloned().unwrap_or_default();
        self.stamp == *stamp
            && self.settings.runs_as(&settings)
            && self.limits == config.fixed.limits
            && (self.state == PluginState::Disabled) != is_enabled(self, config)
    }

    /// Whether its code was compiled from these files.
    pub(super) fn has_code_of(&self, stamp: &FileStamps) -> bool {
        self.stamp == *stamp && self.rejected.is_none() && self.code.is_some()
    }

    /// Whether it may be started again with the settings of `next`, a later version that is broken.
    pub(super) fn can_replace(&self, next: &Plugin, config: &Config) -> bool {
        self.runtime.is_some()
            && self.revision != next.revision
            && !self.settings.runs_as(&next.settings)
            && is_enabled(self, config)
    }

    /// The same plugin with its current settings, which do not affect its instances.
    pub(super) fn with_settings_of(self: &Arc<Self>, config: &Config) -> Arc<Plugin> {
        let settings = config.plugins.get(&self.name).cloned().unwrap_or_default();
        if self.settings == settings { self.clone() } else { Arc::new(Plugin { settings, ..self.as_ref().clone() }) }
    }

    /// This version, or if it is broken, the previous one. If the settings have changed, the previous one does not stay active, so
    /// that it does not keep revoked grants.
    pub(super) fn or_previous(self, before: Option<&Arc<Plugin>>, config: &Config) -> Plugin {
        let PluginState::Broken(reason) = &self.state else { return self };
        match before {
            Some(before)
                if before.runtime.is_some()
                    && before.settings.runs_as(&self.settings)
                    && is_enabled(before, config) =>
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

    /// The version that is active while changed files or settings are being loaded.
    pub(super) fn until_loaded(self: &Arc<Self>, config: &Config) -> Arc<Plugin> {
        if is_enabled(self, config) || self.state == PluginState::Disabled {
            return self.clone();
        }
        Arc::new(Plugin {
            state: PluginState::Disabled,
            runtime: None,
            channel: None,
            feedback_refused: None,
            ..self.as_ref().clone()
        })
    }

    /// The plugin after its file was removed: broken if ace.toml requires it, else disabled.
    pub(super) fn with_file_removed(self: &Arc<Self>, config: &Config) -> Arc<Plugin> {
        let state = if is_enforced(self, config) && is_enabled(self, config) {
            PluginState::Broken("its file was removed from the plugin folder".to_owned())
        } else {
            PluginState::Disabled
        };
        let stamp = FileStamps::default();
        let removed = Plugin {
            state,
            stamp,
            runtime: None,
            channel: None,
            feedback_refused: None,
            rejected: None,
            code: None,
            ..self.as_ref().clone()
        };
        // It was removed before.
        let is_same = self.state == removed.state && self.stamp == removed.stamp;
        if is_same { self.clone() } else { Arc::new(removed) }
    }
}

/// Whether ace.toml enables a plugin in any of its namespaces.
pub(super) fn is_enabled(plugin: &Plugin, config: &Config) -> bool {
    let listed = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|names| names.contains(&plugin.name));
    config.plugins.get(&plugin.name).is_none_or(|p| p.enabled)
        && (plugin.namespaces.is_empty()
            || plugin.namespaces.iter().any(|namespace| match namespace {
                Namespace::Policy => listed(&config.enabled_policies),
                Namespace::Channel => listed(&config.enabled_channels),
                Namespace::RecipientResolver | Namespace::Feedback => true,
            }))
}

/// Whether an inactive plugin counts as a policy that must not fail open. Either ace.toml names it, and it is a policy, or it cannot
/// be read and nothing in ace.toml says that it is a channel; or it was active before, and its file exists.
pub(crate) fn is_enforced(plugin: &Plugin, config: &Config) -> bool {
    let name = &plugin.name;
    if config.fixed.enforced_before.contains(name) && (plugin.stamp.is_shipped() || plugin.file.exists()) {
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
