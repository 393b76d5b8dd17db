//! Plugins and templates that are part of a program, so that they are there without files.
//!
//! The library contains none; a program sets its own with [`Config::ship`]. A plugin of it is active only if ace.toml names it, and a
//! file in the plugin folder or a template folder takes precedence over what is shipped under the same name.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Config;

/// What a program ships.
#[derive(Debug)]
pub struct Shipped {
    /// The plugins.
    pub plugins: &'static [ShippedPlugin],
    /// The base layout that messages extend, and its catalogues.
    pub templates: &'static [ShippedFile],
    /// Why the plugins are missing, if they are: added to the problem with the name of an unknown plugin.
    pub absence: Option<&'static str>,
}

impl Default for &'static Shipped {
    fn default() -> Self {
        &NOTHING
    }
}

/// A plugin of a program.
pub struct ShippedPlugin {
    /// Its name.
    pub name: &'static str,
    /// Unpacks its component.
    pub component: fn() -> Vec<u8>,
    /// Its manifest.
    pub manifest: &'static str,
}

/// A template or a catalogue of a program.
pub struct ShippedFile {
    /// Its path below a template folder, with slashes.
    pub path: &'static str,
    /// Its content.
    pub text: &'static str,
}

/// Begins the names by which what is shipped is shown in the place of a file's path.
const SCHEME: &str = "shipped:";

/// Nothing.
static NOTHING: Shipped = Shipped { plugins: &[], templates: &[], absence: None };

impl Shipped {
    /// The plugin with this name.
    pub fn plugin(&self, name: &str) -> Option<&'static ShippedPlugin> {
        self.plugins.iter().find(|plugin| plugin.name == name)
    }

    /// The plugin that [`ShippedPlugin::file`] names.
    pub(crate) fn plugin_at(&self, file: &Path) -> Option<&'static ShippedPlugin> {
        self.plugin(file.to_str()?.strip_prefix(SCHEME)?.strip_suffix(".wasm")?)
    }
}

impl ShippedPlugin {
    /// What is shown as its file.
    pub(crate) fn file(&self) -> PathBuf {
        PathBuf::from(format!("{SCHEME}{}.wasm", self.name))
    }
}

impl ShippedFile {
    /// What is shown as its path.
    pub(crate) fn file(&self) -> PathBuf {
        PathBuf::from(format!("{SCHEME}{}", self.path))
    }
}

/// A program ships the same as long as it runs.
impl PartialEq for Shipped {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl fmt::Debug for ShippedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for ShippedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)
    }
}

impl Config {
    /// Adds plugins and templates that are part of the program.
    pub fn ship(mut self, shipped: &'static Shipped) -> Config {
        self.fixed.shipped = shipped;
        self.presentation.shipped = shipped;
        self
    }

    /// The shipped plugins that ace.toml names: in `[plugins.NAME]`, `enabled-channels` or `enabled-policies`.
    pub(crate) fn shipped_plugins(&self) -> impl Iterator<Item = &'static ShippedPlugin> {
        let lists = [&self.enabled_channels, &self.enabled_policies];
        let is_listed = move |name: &str| lists.iter().any(|list| list.iter().flatten().any(|listed| listed == name));
        let plugins = self.fixed.shipped.plugins.iter();
        plugins.filter(move |plugin| self.plugins.contains_key(plugin.name) || is_listed(plugin.name))
    }
}
