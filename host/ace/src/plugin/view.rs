//! A plugin as the command line and HTTP show it.

use serde::{Deserialize, Serialize};

use super::runtime::circuit_breaker;
use super::{ChannelInfo, Plugin, PluginState, Rejected};
use crate::config::Mode;
use crate::message::text;

/// Everything that is known about a plugin, without secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// The path of the component.
    pub file: String,
    /// Its namespaces: edx-ace's entry-point groups.
    pub namespaces: Vec<String>,
    /// From its manifest.
    pub version: Option<String>,
    /// From its manifest.
    pub description: Option<String>,
    /// A short content hash of component and manifest together.
    pub revision: String,
    /// The size of the component in bytes.
    pub size: u64,
    /// The interfaces it imports.
    pub imports: Vec<String>,
    /// What ace.toml grants it, one text for each grant.
    pub granted: Vec<String>,
    /// What its manifest requests and ace.toml does not grant.
    pub missing_grants: Vec<String>,
    /// The imported interfaces whose every call is denied for lack of a grant.
    pub imports_not_granted: Vec<String>,
    /// What `describe` returned, if it is a channel.
    pub channel: Option<ChannelInfo>,
    /// Whether it is a policy in shadow mode, whose verdicts have no effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Why it reads no feedback although it exports `feedback` and ace.toml grants it, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback_refused: Option<String>,
    /// Whether it is active, and if not, why.
    pub state: PluginState,
    /// Set if the current files cannot be loaded and `revision` stays active. After a restart the plugin would be broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// Its circuit breaker and faults in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<circuit_breaker::View>,
    /// The number of idle instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_instances: Option<usize>,
}

impl PluginView {
    /// What it requests and is not granted, and what it imports without a request or a grant.
    pub fn not_granted(&self) -> Vec<String> {
        let is_requested = |import: &&String| {
            let capability = import.split(['/', '@']).nth(1).unwrap_or(import);
            self.missing_grants.iter().any(|line| line.split(':').next() == Some(capability))
        };
        let imported = self.imports_not_granted.iter().filter(|import| !is_requested(import));
        self.missing_grants
            .iter()
            .cloned()
            .chain(imported.map(|import| format!("{import} (imported, not requested)")))
            .collect()
    }
}

impl Plugin {
    /// The plugin as listings show it.
    pub fn view(&self) -> PluginView {
        let grants = &self.settings.grants;
        let mut granted: Vec<String> = grants.http.iter().map(|url| format!("http:{url}")).collect();
        granted.extend(grants.keyvalue.iter().map(|grant| format!("keyvalue:{grant}")));
        granted.extend(self.settings.credentials.iter().map(|(own, name)| format!("credential:{own}={name}")));
        granted.extend(grants.mailer.then(|| "mailer".to_owned()));
        granted.extend(grants.outbox.iter().map(|dir| format!("outbox:{}", dir.display())));
        granted.extend(grants.feedback.iter().map(|channel| format!("feedback:{channel}")));
        PluginView {
            // The name of a file can be anything.
            name: text::one_line(&self.name, text::TEXT_BYTES_MAX),
            file: text::display(self.file.display(), text::TEXT_BYTES_MAX * 4),
            namespaces: self.namespaces.iter().map(ToString::to_string).collect(),
            version: self.version.clone(),
            description: self.description.clone(),
            revision: self.revision.clone(),
            size: self.size,
            imports: self.imports.clone(),
            granted,
            missing_grants: self.missing.lines(),
            imports_not_granted: self.ungranted(),
            channel: self.channel.clone(),
            shadow: self.settings.mode == Mode::Shadow,
            feedback_refused: self.feedback_refused.clone(),
            state: self.state.clone(),
            rejected: self.rejected.clone(),
            circuit_breaker: self.runtime.as_ref().map(|runtime| runtime.circuit_breaker.view()),
            idle_instances: self.runtime.as_ref().map(|runtime| runtime.idle_instances()),
        }
    }
}
