//! What one component and its manifest say, without running it: for `ace plugin check`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Manifest;
use crate::plugin::{Limits, Plugin};

/// What a component and its manifest say.
pub struct Inspection {
    /// As it would be loaded; it has no runtime, since none of its code ran.
    pub plugin: Plugin,
    /// What the manifest says.
    pub manifest: Manifest,
    /// Every name it exports, those that no host asks for among them.
    pub exports: Vec<String>,
    /// What the component says of itself.
    pub metadata: Metadata,
    /// What it would run within.
    pub limits: Limits,
    /// Why this host cannot run it.
    pub misfit: Option<String>,
}

/// Where a component comes from, as the tools that made it wrote it down. Nobody vouches for any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The producers section: languages, compilers and tools, each with its version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub producers: BTreeMap<String, Vec<String>>,
    /// The component's own fields: `authors`, `description`, `homepage`, `licenses`, `revision`, `source`, `version`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

impl Metadata {
    /// Custom sections that hold one text each (the tool conventions of the component model).
    pub(super) const FIELDS: [&str; 7] =
        ["authors", "description", "homepage", "licenses", "revision", "source", "version"];
}
