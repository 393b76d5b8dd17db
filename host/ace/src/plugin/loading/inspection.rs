//! What `ace plugin check` shows about a component and its manifest, without running it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Manifest;
use crate::plugin::{Limits, Plugin};

/// A component and its manifest.
pub struct Inspection {
    /// The plugin as it would be loaded, but without a runtime, because none of its code ran.
    pub plugin: Plugin,
    /// The manifest.
    pub manifest: Manifest,
    /// The names of all its exports, including those that the host does not use.
    pub exports: Vec<String>,
    /// The component's own metadata.
    pub metadata: Metadata,
    /// The limits that it would have.
    pub limits: Limits,
    /// Why this host cannot run it, if so.
    pub mismatch: Option<String>,
}

/// Where a component comes from, according to the tools that made it. None of it is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The producers section: languages, compilers and tools, each with its version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub producers: BTreeMap<String, Vec<String>>,
    /// Other fields: `authors`, `description`, `homepage`, `licenses`, `revision`, `source`, `version`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

impl Metadata {
    /// Custom sections with one text each (the tool conventions of the component model).
    pub(super) const FIELDS: [&str; 7] =
        ["authors", "description", "homepage", "licenses", "revision", "source", "version"];
}
