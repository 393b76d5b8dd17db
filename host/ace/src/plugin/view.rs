//! What a plugin shows of itself, to the command line and over HTTP.

use serde::{Deserialize, Serialize};

use super::runtime::circuit_breaker;
use super::{ChannelInfo, Plugin, PluginState, Rejected};
use crate::message::text;

/// Everything that is known of one plugin. No secret is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// The component.
    pub file: String,
    /// edx-ace's entry-point groups.
    pub namespaces: Vec<String>,
    /// As its manifest says.
    pub version: Option<String>,
    /// As its manifest says.
    pub description: Option<String>,
    /// A short content hash of component and manifest together.
    pub revision: String,
    /// Bytes of the component.
    pub size: u64,
    /// The interfaces it imports.
    pub imports: Vec<String>,
    /// What ace.toml grants it, a line each.
    pub granted: Vec<String>,
    /// What its manifest requests and ace.toml does not grant.
    pub missing_grants: Vec<String>,
    /// The interfaces it imports that answer nothing but "not granted".
    pub imports_not_granted: Vec<String>,
    /// What it says of itself, if it is a channel.
    pub channel: Option<ChannelInfo>,
    /// Whether it is used, and if not why.
    pub state: PluginState,
    /// The files that are there now, where they cannot serve and `revision` goes on instead. At the next start the plugin would be
    /// broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// How it fares in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<circuit_breaker::View>,
    /// Instances that wait for a call now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_instances: Option<usize>,
}

impl PluginView {
    /// What it requests in vain, and what it imports in vain without having requested it.
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
    /// What listings show of it.
    pub fn view(&self) -> PluginView {
        let grants = &self.settings.grants;
        let mut granted: Vec<String> = grants.http.iter().map(|url| format!("http:{url}")).collect();
        granted.extend(grants.keyvalue.iter().map(|grant| format!("keyvalue:{grant}")));
        granted.extend(grants.mailer.then(|| "mailer".to_owned()));
        granted.extend(grants.outbox.iter().map(|dir| format!("outbox:{}", dir.display())));
        PluginView {
            // Whoever may write into the folder names the files.
            name: text::one_line(&self.name, text::TEXT_BYTES_MAX),
            file: text::shown(self.file.display(), text::TEXT_BYTES_MAX * 4),
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
            state: self.state.clone(),
            rejected: self.rejected.clone(),
            circuit_breaker: self.runtime.as_ref().map(|runtime| runtime.circuit.view()),
            idle_instances: self.runtime.as_ref().map(|runtime| runtime.idle_instances()),
        }
    }
}
