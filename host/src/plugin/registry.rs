//! Reads the plugin folder: what each file is, whether it may serve, and why not. One bad file never stops the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};

use super::bindings::{channel, policy, recipient_resolver};
use super::circuit;
use super::engine::hex;
use super::grants::{self, Grants};
use super::imports;
use super::instance::{ExportIndices, Runtime};
use super::state::State;
use super::{ChannelInfo, Engine, INTERFACE_VERSION, Limits, Namespace, Plugin, PluginState, Services, Settings};
use crate::config::{self, Config, Manifest};

/// The largest component that is read.
const COMPONENT_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// The largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// Hexadecimal digits of a revision as it is shown.
const REVISION_DIGITS: usize = 12;

/// Why no plugin could be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the plugin folder {} cannot be read: {source}", dir.display())]
    Folder { dir: PathBuf, source: std::io::Error },
    #[error("wasmtime cannot run here: {0}")]
    Engine(#[from] wasmtime::Error),
}

/// All plugins of the folder, by name.
pub struct Registry {
    pub plugins: BTreeMap<String, Arc<Plugin>>,
    host: Option<Arc<Host>>,
}

/// What every plugin is loaded with, at the start and at every reload.
struct Host {
    dir: PathBuf,
    engine: Engine,
    linker: Linker<State>,
    services: Arc<Services>,
}

/// What a reload came to.
pub struct Reloaded {
    pub registry: Registry,
    pub changes: Vec<Change>,
    /// A file is wrong and was being written a moment ago: look again soon.
    pub is_unsettled: bool,
}

/// One plugin that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub plugin: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It serves, and did not before.
    Added { revision: String },
    /// It serves in a new revision or with new settings.
    Replaced { from: String, to: String },
    /// The new files cannot serve; the revision before goes on.
    Rejected { reason: String, serving: String },
    /// It should serve and cannot.
    Broken { reason: String },
    /// It does not serve any more, as the operator wants it.
    Removed,
}

/// A file that is wrong may still be being written this long after its last change.
const SETTLING: Duration = Duration::from_secs(1);

impl Registry {
    /// No plugins: an application that registers its own policies and channels needs none.
    pub fn empty() -> Self {
        Registry { plugins: BTreeMap::new(), host: None }
    }

    /// Reads, compiles and asks every plugin of the folder. What does not fit is in the result too, with its reason.
    pub async fn load(config: &Config, dir: &Path, services: Arc<Services>) -> Result<Self, RegistryError> {
        let engine = Engine::new(config.cache_dir.clone(), config.limits.memory)?;
        let linker = imports::linker(&engine.inner)?;
        let host = Arc::new(Host { dir: dir.to_owned(), engine, linker, services });
        let nothing = Registry { plugins: BTreeMap::new(), host: Some(host) };
        Ok(nothing.reload(config, Duration::ZERO).await?.registry)
    }

    /// What the folder and the configuration say now. What did not change stays as it is; what cannot serve leaves the
    /// revision before it serving, where there is one.
    pub async fn reload_now(&self, config: &Config) -> Result<Reloaded, RegistryError> {
        self.reload(config, SETTLING).await
    }

    async fn reload(&self, config: &Config, settling: Duration) -> Result<Reloaded, RegistryError> {
        let Some(host) = &self.host else {
            return Ok(Reloaded { registry: Registry::empty(), changes: Vec::new(), is_unsettled: false });
        };
        let files =
            component_files(&host.dir).map_err(|source| RegistryError::Folder { dir: host.dir.clone(), source })?;
        let config = Arc::new(config.clone());
        let (mut plugins, mut changes, mut is_unsettled) = (BTreeMap::new(), Vec::new(), false);
        for file in files {
            let name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let before = self.plugins.get(&name);
            let stamp = Stamp::of(&file);
            let plugin = match before {
                Some(before) if before.is_current(&stamp, &config) => before.clone(),
                _ => {
                    let loader = Loader { config: config.clone(), host: host.clone() };
                    let mut loaded = loader.load(name, file).await;
                    if matches!(loaded.state, PluginState::Broken(_)) && stamp.is_younger_than(settling) {
                        is_unsettled = true;
                        plugins.extend(before.map(|before| (before.name.clone(), before.clone())));
                        continue;
                    }
                    loaded.stamp = stamp;
                    Arc::new(loaded.or_else(before, &config))
                }
            };
            changes.extend(change(before, &plugin));
            plugins.insert(plugin.name.clone(), plugin);
        }
        for gone in self.plugins.values().filter(|before| !plugins.contains_key(&before.name)).collect::<Vec<_>>() {
            let left = gone.without_its_file(&config);
            changes.extend(change(Some(gone), &left));
            if matches!(left.state, PluginState::Broken(_)) {
                plugins.insert(left.name.clone(), left);
            }
        }
        for change in &changes {
            change.log();
        }
        Ok(Reloaded { registry: Registry { plugins, host: Some(host.clone()) }, changes, is_unsettled })
    }

    /// Names and types of the channels among the plugins, whether they serve or not.
    pub fn channels(&self) -> impl Iterator<Item = (&Plugin, &ChannelInfo)> {
        self.plugins.values().filter_map(|p| p.channel.as_ref().map(|info| (p.as_ref(), info)))
    }
}

/// How a plugin's files looked when they were read: enough to see that they have changed without reading them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    component: Option<FileStamp>,
    manifest: Option<FileStamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    fn of(component: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let stamp = |file: &Path| {
            let meta = std::fs::metadata(file).ok()?;
            Some(FileStamp { bytes: meta.len(), modified: meta.modified().ok(), inode: meta.ino() })
        };
        Stamp { component: stamp(component), manifest: stamp(&component.with_extension("toml")) }
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        let files = self.component.iter().chain(&self.manifest);
        files.filter_map(|f| f.modified?.elapsed().ok()).any(|elapsed| elapsed < age)
    }
}

impl Plugin {
    /// Whether loading it again could come to anything else.
    fn is_current(&self, stamp: &Stamp, config: &Config) -> bool {
        let settings = config.plugins.get(&self.name).cloned().unwrap_or_default();
        self.stamp == *stamp
            // Where its section stands in ace.toml changes nothing.
            && self.settings == config::Plugin { line: self.settings.line, ..settings }
            && self.limits == config.limits
            && (self.state == PluginState::Disabled) != is_wanted(self, config)
    }

    /// A new version that cannot serve leaves the one before serving. Not so where the settings have changed: nothing goes
    /// on with grants that were taken away.
    fn or_else(self, before: Option<&Arc<Plugin>>, config: &Config) -> Plugin {
        let PluginState::Broken(reason) = &self.state else { return self };
        match before {
            Some(before)
                if before.runtime.is_some() && before.settings == self.settings && is_wanted(before, config) =>
            {
                Plugin { rejected: Some(reason.clone()), stamp: self.stamp, ..before.as_ref().clone() }
            }
            _ => self,
        }
    }

    /// What is left of it when its file is gone: nothing, unless ace.toml names it.
    fn without_its_file(&self, config: &Config) -> Arc<Plugin> {
        let state = match is_enforced(self, config) && is_wanted(self, config) {
            true => PluginState::Broken("its file is gone from the plugin folder".to_owned()),
            false => PluginState::Disabled,
        };
        Arc::new(Plugin { state, runtime: None, channel: None, stamp: Stamp::default(), ..self.clone() })
    }
}

fn change(before: Option<&Arc<Plugin>>, now: &Arc<Plugin>) -> Option<Change> {
    if before.is_some_and(|before| Arc::ptr_eq(before, now)) {
        return None;
    }
    let served = before.filter(|b| b.runtime.is_some()).map(|b| b.revision.clone());
    let what = match (&now.state, &now.rejected, served) {
        (PluginState::Active, Some(reason), _) => {
            What::Rejected { reason: reason.clone(), serving: now.revision.clone() }
        }
        (PluginState::Active, None, None) => What::Added { revision: now.revision.clone() },
        (PluginState::Active, None, Some(from)) => What::Replaced { from, to: now.revision.clone() },
        (PluginState::Broken(reason), ..) => What::Broken { reason: reason.clone() },
        (PluginState::Disabled, _, Some(_)) => What::Removed,
        (PluginState::Disabled, _, None) => return None,
    };
    Some(Change { plugin: now.name.clone(), what })
}

impl Change {
    fn log(&self) {
        let plugin = self.plugin.as_str();
        match &self.what {
            What::Added { revision } => tracing::info!(plugin, revision, "The plugin serves."),
            What::Replaced { from, to } => tracing::info!(plugin, from, to, "The plugin serves in a new revision."),
            What::Rejected { reason, serving } => {
                tracing::error!(plugin, serving, "The new version cannot serve, and the one before goes on: {reason}");
            }
            What::Broken { reason } => tracing::error!(plugin, "The plugin cannot serve: {reason}"),
            What::Removed => tracing::info!(plugin, "The plugin does not serve any more."),
        }
    }
}

/// Whether ace.toml lets a plugin serve in any of its namespaces.
fn is_wanted(plugin: &Plugin, config: &Config) -> bool {
    let listed = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|names| names.contains(&plugin.name));
    config.plugins.get(&plugin.name).is_none_or(|p| p.enabled)
        && (plugin.namespaces.is_empty()
            || plugin.namespaces.iter().any(|namespace| match namespace {
                Namespace::Policy => listed(&config.enabled_policies),
                Namespace::Channel => listed(&config.enabled_channels),
                Namespace::RecipientResolver => true,
            }))
}

fn component_files(dir: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|e| e == "wasm") && !hidden {
            files.insert(path);
        }
    }
    Ok(files)
}

/// What one plugin's loading needs.
struct Loader {
    config: Arc<Config>,
    host: Arc<Host>,
}

/// What was read from disk and compiled, before any of its code runs.
struct Prepared {
    component: Component,
    manifest: Manifest,
    grants: Grants,
}

impl Loader {
    async fn load(self, name: String, file: PathBuf) -> Plugin {
        let settings = self.config.plugins.get(&name).cloned().unwrap_or_default();
        let mut plugin = Plugin::unread(name, file, settings, self.config.limits.clone());
        let (loader, mut plugin, prepared) = tokio::task::spawn_blocking(move || {
            let prepared = self.prepare(&mut plugin);
            (self, plugin, prepared)
        })
        .await
        .expect("preparing a plugin does not panic");
        if !is_wanted(&plugin, &loader.config) {
            return plugin;
        }
        let started = match prepared {
            Err(reason) => Err(reason),
            Ok(prepared) => loader.start(&mut plugin, prepared).await,
        };
        plugin.state = started.map_or_else(|why| PluginState::Broken(printable(&why)), |()| PluginState::Active);
        plugin
    }

    /// Reads the files, compiles, and looks at what the component says of itself. Runs none of its code.
    fn prepare(&self, plugin: &mut Plugin) -> Result<Prepared, String> {
        check_name(&plugin.name)?;
        let wasm = read_component(&plugin.file)?;
        plugin.size = wasm.len() as u64;
        let manifest_file = plugin.file.with_extension("toml");
        let manifest_text = match read_bounded(&manifest_file, MANIFEST_BYTES_MAX).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return Err(format!("its manifest is not UTF-8: {}", manifest_file.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(format!("its manifest cannot be read: {}: {e}", manifest_file.display())),
        };
        let digest = Sha256::new().chain_update(Sha256::digest(&wasm)).chain_update(&manifest_text).finalize();
        plugin.revision = hex(&digest)[..REVISION_DIGITS].to_owned();
        let component = self.host.engine.compile(&wasm).map_err(|e| format!("it does not compile: {e:#}"))?;
        let (imports, exports) = names(&component);
        plugin.namespaces = namespaces(&exports);
        plugin.imports = imports;
        // The manifest comes after the exports, so that a policy with a bad manifest is known to be a policy.
        let manifest =
            Manifest::read(&manifest_text, Some(&manifest_file)).map_err(|e| format!("its manifest is wrong: {e}"))?;
        plugin.version = manifest.version.clone();
        plugin.description = manifest.description.clone();
        let secrets: Vec<String> = plugin.settings.secrets.keys().cloned().collect();
        plugin.missing = grants::missing(&manifest.requests, &plugin.settings.grants, &secrets);
        check_interfaces(&plugin.imports, &exports)?;
        if plugin.namespaces.is_empty() {
            let wanted = Namespace::ALL.map(|n| format!("openedx:ace/{}", n.interface())).join(", ");
            return Err(format!(
                "it exports none of {wanted}: build it for the world policy-plugin, channel-plugin or resolver-plugin"
            ));
        }
        let grants = Grants::open(&plugin.settings.grants)?;
        Ok(Prepared { component, manifest, grants })
    }

    /// Links it, makes the first instance, and asks it whether it can work.
    async fn start(&self, plugin: &mut Plugin, prepared: Prepared) -> Result<(), String> {
        let pre = self
            .host
            .linker
            .instantiate_pre(&prepared.component)
            .map_err(|e| format!("{}: {e:#}", misfit(&plugin.imports)))?;
        let is = |namespace| plugin.namespaces.contains(&namespace);
        let unfit = |e: wasmtime::Error| format!("an export is not what openedx:ace@{INTERFACE_VERSION} says: {e:#}");
        let exports = ExportIndices {
            policy: is(Namespace::Policy).then(|| policy::GuestIndices::new(&pre)).transpose().map_err(unfit)?,
            channel: is(Namespace::Channel).then(|| channel::GuestIndices::new(&pre)).transpose().map_err(unfit)?,
            resolver: is(Namespace::RecipientResolver)
                .then(|| recipient_resolver::GuestIndices::new(&pre))
                .transpose()
                .map_err(unfit)?,
        };
        let settled = Settings {
            name: plugin.name.clone(),
            revision: plugin.revision.clone(),
            limits: self.limits(&plugin.namespaces, &plugin.settings, &prepared.manifest),
            config: merge(prepared.manifest.defaults, plugin.settings.config.clone()),
            secrets: plugin.settings.secrets.clone(),
        };
        let runtime =
            Runtime::start(Arc::new(settled), Arc::new(prepared.grants), self.host.services.clone(), pre, exports);
        if is(Namespace::Channel) {
            plugin.channel =
                Some(runtime.describe().await.answer.map_err(|fault| format!("describe: {}", fault.message))?);
        }
        for namespace in &plugin.namespaces {
            match runtime.enabled(*namespace).await.answer {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Err(format!("it says it cannot work: {why}")),
                Err(fault) => return Err(format!("enabled: {}", fault.message)),
            }
        }
        plugin.runtime = Some(runtime);
        Ok(())
    }

    /// ace.toml's word, else the manifest's wish, never more than the maxima.
    fn limits(&self, namespaces: &[Namespace], settings: &config::Plugin, manifest: &Manifest) -> Limits {
        let max = &self.config.limits;
        let call_timeout_max = match namespaces {
            [Namespace::Policy] => max.policy_call_timeout,
            _ => max.channel_call_timeout,
        };
        Limits {
            memory: at_most(max.memory, settings.memory.or(manifest.runtime.memory)),
            time: at_most(max.time, settings.time.or(manifest.runtime.time)),
            call_timeout: at_most(call_timeout_max, settings.call_timeout.or(manifest.runtime.call_timeout)),
            instances: at_most(max.instances, settings.instances.or(manifest.runtime.instances)),
            isolation: settings.isolation.or(manifest.runtime.isolation).unwrap_or_default(),
            calls_per_instance: max.calls_per_instance,
            output_bytes: max.output_bytes,
            log_bytes: max.log_bytes,
            host_calls: max.host_calls,
            circuit: circuit::Limits {
                faults: max.circuit_faults,
                window: max.circuit_window,
                pause: max.circuit_pause,
            },
        }
    }
}

fn at_most<T: Ord + Copy>(max: T, wish: Option<T>) -> T {
    wish.unwrap_or(max).min(max)
}

fn merge(defaults: crate::message::Object, config: crate::message::Object) -> crate::message::Object {
    let mut merged = defaults;
    merged.extend(config);
    merged
}

/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 4_000;

/// A reason as it may be shown on a terminal: a compiler's error quotes what it finds in the file, whatever that is.
fn printable(reason: &str) -> String {
    let mut text = reason.replace(|c: char| c.is_control() && c != '\n', " ");
    if text.len() > REASON_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
        text.push('…');
    }
    text
}

fn check_name(name: &str) -> Result<(), String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.len() <= 64 && name.chars().all(sound) {
        return Ok(());
    }
    Err(format!("{name:?} cannot be a plugin's name: rename the file to letters, digits, \"_\" and \"-\" (64 at most)"))
}

/// A regular file of at most `max` bytes. Anything else (a pipe, say) could keep the reader waiting for ever.
fn read_bounded(file: &Path, max: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read};
    if !std::fs::metadata(file)?.is_file() {
        return Err(Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    std::fs::File::open(file)?.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(Error::other(format!("it is longer than {max} bytes")));
    }
    Ok(content)
}

fn read_component(file: &Path) -> Result<Vec<u8>, String> {
    let wasm = read_bounded(file, COMPONENT_BYTES_MAX).map_err(|e| format!("the file cannot be read: {e}"))?;
    match (wasm.get(..4), wasm.get(4..8)) {
        (Some(b"\0asm"), Some([0x0d, 0, 1, 0])) => Ok(wasm),
        (Some(b"\0asm"), Some([1, 0, 0, 0])) => {
            Err("it is a core WebAssembly module, not a component: link it with wasm-component-ld, or run `wasm-tools component new`".to_owned())
        }
        _ => Err("it is not a WebAssembly component".to_owned()),
    }
}

/// The names of what a component imports and exports.
fn names(component: &Component) -> (Vec<String>, Vec<String>) {
    let kind = component.component_type();
    let engine = component.engine();
    let imports = kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    (imports, exports)
}

/// `openedx:ace/policy@1.0.0`, taken apart.
struct InterfaceName<'a> {
    package: &'a str,
    interface: &'a str,
    version: Option<semver::Version>,
}

fn parse(name: &str) -> InterfaceName<'_> {
    let (path, version) = name.split_once('@').map_or((name, None), |(path, v)| (path, Some(v)));
    let (package, interface) = path.split_once('/').unwrap_or((path, ""));
    InterfaceName { package, interface, version: version.and_then(|v| v.parse().ok()) }
}

const OURS: &str = "openedx:ace";
/// Interfaces of ours that a guest may import.
const SERVED: [&str; 9] =
    ["common", "messages", "config", "logging", "keyvalue", "http", "mailer", "outbox", "time-zones"];
/// WASI packages that are linked, with nothing behind what is not granted.
const WASI_SERVED: [&str; 7] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:io", "wasi:random", "wasi:sockets"];

fn namespaces(exports: &[String]) -> Vec<Namespace> {
    let exported = |namespace: &Namespace| {
        exports.iter().map(|e| parse(e)).any(|e| e.package == OURS && e.interface == namespace.interface())
    };
    Namespace::ALL.into_iter().filter(exported).collect()
}

/// Why a component cannot be linked: most likely it calls what a later minor version of the interface added.
fn misfit(imports: &[String]) -> String {
    let host: semver::Version = INTERFACE_VERSION.parse().expect("a version");
    let ours = imports.iter().map(|name| parse(name)).filter(|i| i.package == OURS);
    match ours.filter_map(|i| i.version).max() {
        Some(newest) if newest > host => {
            format!(
                "it was built against {OURS}@{newest}, and this host serves {OURS}@{host}, which lacks what it calls"
            )
        }
        _ => "it does not fit this host".to_owned(),
    }
}

/// Names everything that this host cannot give, before wasmtime stumbles over the first of it.
fn check_interfaces(imports: &[String], exports: &[String]) -> Result<(), String> {
    let host: semver::Version = INTERFACE_VERSION.parse().expect("a version");
    let mut unknown = Vec::new();
    for name in imports.iter().chain(exports) {
        let parsed = parse(name);
        if let (OURS, Some(version)) = (parsed.package, &parsed.version)
            && version.major != host.major
        {
            return Err(format!(
                "it was built for {OURS}@{version}, and this host serves {OURS}@{host}: build it against the host's WIT"
            ));
        }
    }
    for name in imports {
        let parsed = parse(name);
        let served = match parsed.package {
            OURS => SERVED.contains(&parsed.interface),
            package => WASI_SERVED.contains(&package) && parsed.version.is_some_and(|v| v.major == 0 && v.minor == 2),
        };
        if !served {
            unknown.push(name.as_str());
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!("it imports what this host does not serve: {}", unknown.join(", ")))
}

/// Whether a plugin that cannot serve stands for a policy that must not fail open: ace.toml names it, and it is a policy, or
/// nobody could read what it is and nothing in ace.toml says it is a channel.
pub fn is_enforced(plugin: &Plugin, config: &Config) -> bool {
    let name = &plugin.name;
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
