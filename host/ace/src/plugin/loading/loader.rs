//! Loads one plugin from its files: checks that it fits this host, compiles and links it, and calls `enabled` on a first instance.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::code::Compiled;
use super::component_file::{ComponentInfo, check_memory, read_bounded, read_component};
use super::host::Host;
use super::inspection::Inspection;
use super::interfaces::{check_interfaces, link, namespaces};
use super::signature;
use super::versions::is_enabled;
use crate::config::{self, Config, Manifest};
use crate::message::text;
use crate::plugin::grants::{self, Grants};
use crate::plugin::runtime::circuit_breaker;
use crate::plugin::runtime::errors::printable;
use crate::plugin::runtime::instance::{Linked, Runtime};
use crate::plugin::{Limits, Namespace, Plugin, PluginState, Settings};
use crate::tasks;

/// The largest manifest.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// Hexadecimal digits of a revision.
const REVISION_DIGITS: usize = 12;

/// Loads plugins with one configuration.
#[derive(Clone)]
pub(in crate::plugin) struct Loader {
    pub config: Arc<Config>,
    pub host: Arc<Host>,
}

/// A compiled component and its manifest, independent of ace.toml.
pub(in crate::plugin) struct Code {
    compiled: Arc<Compiled>,
    manifest: Manifest,
    /// The initial memory of an instance in bytes.
    initial_memory: u64,
}

impl Loader {
    /// Loads one plugin. A plugin that does not fit, or that makes loading panic, is broken, with the reason.
    pub(in crate::plugin) async fn load(&self, name: String, file: PathBuf) -> Plugin {
        self.start(self.read(name, file).await).await
    }

    /// The first part, which is slow and independent of the plugin's settings: reads and compiles the plugin.
    pub(in crate::plugin) async fn read(&self, name: String, file: PathBuf) -> Plugin {
        let unread = self.unread(name, file);
        let (loader, mut plugin) = (self.clone(), unread.clone());
        let read = tasks::blocking(move || {
            let code = loader.prepare(&mut plugin, &mut ComponentInfo::default());
            (plugin, code)
        });
        match read.await {
            Ok((plugin, Ok(code))) => Plugin { code: Some(Arc::new(code)), ..plugin },
            Ok((plugin, Err(why))) => Plugin { state: PluginState::Broken(printable(&why)), ..plugin },
            Err(panicked) => Plugin { state: PluginState::Broken(panicked.to_string()), ..unread },
        }
    }

    /// The second part: starts a plugin that was read, or was active before, with the settings of this configuration.
    pub(in crate::plugin) async fn start(&self, read: Plugin) -> Plugin {
        let Plugin { settings, limits, .. } = self.unread(read.name.clone(), read.file.clone());
        let mut plugin =
            Plugin { settings, limits, rejected: None, channel: None, feedback_refused: None, runtime: None, ..read };
        if let Some(code) = &plugin.code {
            let requests = &code.manifest.requests;
            plugin.missing = grants::missing(requests, &plugin.settings);
        }
        if !is_enabled(&plugin, &self.config) {
            return Plugin { state: PluginState::Disabled, ..plugin };
        }
        // Without code, its state has the reason.
        let Some(code) = plugin.code.clone() else { return plugin };
        plugin.state = match tasks::caught(self.start_runtime(&mut plugin, &code)).await {
            Ok(Ok(())) => PluginState::Active,
            Ok(Err(why)) => PluginState::Broken(printable(&why)),
            Err(panicked) => PluginState::Broken(panicked.to_string()),
        };
        plugin
    }

    fn unread(&self, name: String, file: PathBuf) -> Plugin {
        let settings = self.config.plugins.get(&name).cloned().unwrap_or_default();
        Plugin::unread(name, file, settings, self.config.fixed.limits.clone())
    }

    /// Reads and compiles the plugin, and fills in `info` as far as possible, even after an error. Runs none of its code.
    fn prepare(&self, plugin: &mut Plugin, info: &mut ComponentInfo) -> Result<Code, String> {
        check_name(&plugin.name)?;
        let shipped = self.config.fixed.shipped.plugin_at(&plugin.file);
        let manifest_file = plugin.file.with_extension("toml");
        let (wasm, manifest_text) = match shipped {
            Some(shipped) => ((shipped.component)(), shipped.manifest.to_owned()),
            None => (read_component(&plugin.file)?, read_manifest(&manifest_file)?),
        };
        plugin.size = wasm.len() as u64;
        let code = Sha256::digest(&wasm);
        let digest = Sha256::new().chain_update(code).chain_update(&manifest_text).finalize();
        plugin.revision = HEXLOWER.encode(&digest)[..REVISION_DIGITS].to_owned();
        let signatures = &self.config.fixed.signatures;
        // A plugin without a trusted signature is not even compiled. What the program contains is trusted like the program.
        if signatures.required && shipped.is_none() {
            signature::verify(&plugin.file, &plugin.name, &wasm, &manifest_text, &signatures.keys)
                .map_err(|why| format!("{why} (plugin-signatures.required)"))?;
        }
        let compiled = match self.host.code.load(&wasm, code.into()) {
            Ok((compiled, known)) => {
                *info = known;
                compiled
            }
            Err(error) => {
                *info = *error.info;
                return Err(error.reason);
            }
        };
        plugin.namespaces = namespaces(&info.exports);
        plugin.imports.clone_from(&info.imports);
        // Cached code may have been compiled with a higher limit.
        check_memory(info.starting_memory, self.config.fixed.limits.memory, "limits.memory in ace.toml")?;
        // Read after the exports, so that a policy with a faulty manifest is known to be a policy.
        let manifest = Manifest::read(&manifest_text, Some(&manifest_file))
            .map_err(|problems| format!("its manifest is faulty: {problems}"))?;
        plugin.version = manifest.version.as_deref().map(|line| text::one_line(line, text::TEXT_BYTES_MAX));
        plugin.description = manifest.description.as_deref().map(|line| text::one_line(line, text::TEXT_BYTES_MAX));
        plugin.missing = grants::missing(&manifest.requests, &plugin.settings);
        check_interfaces(&plugin.imports, &info.exports)?;
        if plugin.namespaces.is_empty() {
            let interfaces = Namespace::ALL.map(|n| format!("openedx:ace/{}", n.interface())).join(", ");
            return Err(format!(
                "it exports none of {interfaces}: build it for the world policy-plugin, channel-plugin, resolver-plugin or \
                 feedback-plugin"
            ));
        }
        Ok(Code { compiled: Arc::new(compiled), manifest, initial_memory: info.starting_memory })
    }

    /// Checks the memory limit of the plugin, and opens its grants.
    fn open_grants(&self, plugin: &Plugin, code: &Code) -> Result<Grants, String> {
        let limit = self.limits(&plugin.namespaces, &plugin.settings, &code.manifest).memory;
        match plugin.settings.memory {
            Some(_) => {
                check_memory(code.initial_memory, limit, &format!("plugins.{}.limits.memory in ace.toml", plugin.name))?
            }
            None => check_memory(code.initial_memory, limit, "runtime.memory in its manifest")?,
        }
        Grants::open(&plugin.settings)
    }

    /// Reads, compiles and links a plugin, but runs none of its code.
    pub(in crate::plugin) async fn inspect(self, name: String, file: PathBuf) -> Inspection {
        let mut plugin = self.unread(name, file);
        let unread = plugin.clone();
        let limits_unread = self.limits(&[], &plugin.settings, &Manifest::default());
        let inspected = tasks::blocking(move || {
            let mut info = ComponentInfo::default();
            let prepared = self.prepare(&mut plugin, &mut info);
            let (manifest, mismatch) = match prepared {
                Err(why) => (Manifest::default(), Some(why)),
                Ok(code) => {
                    let mismatch = self.open_grants(&plugin, &code).err().or_else(|| self.link(&plugin, &code).err());
                    (code.manifest, mismatch)
                }
            };
            let limits = self.limits(&plugin.namespaces, &plugin.settings, &manifest);
            let ComponentInfo { exports, metadata, .. } = info;
            Inspection { plugin, manifest, exports, metadata, limits, mismatch: mismatch.map(|why| printable(&why)) }
        });
        inspected.await.unwrap_or_else(|panicked| Inspection {
            plugin: unread,
            manifest: Manifest::default(),
            exports: Vec::new(),
            metadata: ComponentInfo::default().metadata,
            limits: limits_unread,
            mismatch: Some(panicked.to_string()),
        })
    }

    /// Links the component's imports and looks up its exports. Runs none of its code.
    fn link(&self, plugin: &Plugin, code: &Code) -> Result<Linked, String> {
        let component = &code.compiled.component;
        let (pre, exports) = link(&self.host.linker, component, &plugin.imports, &plugin.namespaces)?;
        Ok(Linked { pre, exports, code: code.compiled.clone() })
    }

    /// Links the plugin, creates its first instance, and calls `describe` and `enabled`.
    async fn start_runtime(&self, plugin: &mut Plugin, code: &Arc<Code>) -> Result<(), String> {
        let (loader, unstarted, its_code) = (self.clone(), plugin.clone(), code.clone());
        let grants = tasks::blocking(move || loader.open_grants(&unstarted, &its_code))
            .await
            .map_err(|panicked| panicked.to_string())??;
        let linked = self.link(plugin, code)?;
        let settings = Settings {
            name: plugin.name.clone(),
            revision: plugin.revision.clone(),
            limits: self.limits(&plugin.namespaces, &plugin.settings, &code.manifest),
            config: merge(code.manifest.defaults.clone(), plugin.settings.config.clone()),
            secrets: plugin.settings.secrets.clone(),
        };
        let (services, is_metered) = (self.host.services.clone(), self.host.engine.is_metered);
        let runtime = Runtime::start(Arc::new(settings), Arc::new(grants), services, linked, is_metered);
        if plugin.namespaces.contains(&Namespace::Channel) {
            plugin.channel =
                Some(runtime.describe().await.answer.map_err(|fault| format!("describe: {}", fault.message))?);
        }
        for namespace in plugin.namespaces.clone() {
            let refused = match namespace {
                Namespace::Feedback if plugin.settings.grants.feedback.is_empty() => None,
                namespace => why_disabled(&runtime, namespace).await,
            };
            match refused {
                None => {}
                // A channel must not stop because its feedback is not set up.
                Some(why) if namespace == Namespace::Feedback && plugin.namespaces.len() > 1 => {
                    tracing::warn!(plugin = %plugin.name, "The plugin reads no feedback: {why}");
                    plugin.feedback_refused = Some(why);
                }
                Some(why) => return Err(why),
            }
        }
        plugin.runtime = Some(runtime);
        Ok(())
    }

    /// The plugin's limits: from ace.toml, else from the manifest, and never more than the maxima.
    fn limits(&self, namespaces: &[Namespace], settings: &config::Plugin, manifest: &Manifest) -> Limits {
        let max = &self.config.fixed.limits;
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
            circuit_breaker: circuit_breaker::Limits {
                faults: max.circuit_faults,
                window: max.circuit_window,
                pause: max.circuit_pause,
            },
        }
    }
}

/// Reads a manifest; empty if there is none.
fn read_manifest(file: &Path) -> Result<String, String> {
    match read_bounded(file, MANIFEST_BYTES_MAX).map(String::from_utf8) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(_)) => Err(format!("its manifest is not UTF-8: {}", file.display())),
        Err(io) if io.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(io) => Err(format!("its manifest cannot be read: {}: {io}", file.display())),
    }
}

/// Why a plugin's settings are not valid for one of its exports, if so.
async fn why_disabled(runtime: &Runtime, namespace: Namespace) -> Option<String> {
    match runtime.enabled(namespace).await.answer {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(fault) => Some(format!("enabled: {}", fault.message)),
    }
}

fn at_most<T: Ord + Copy>(max: T, requested: Option<T>) -> T {
    requested.unwrap_or(max).min(max)
}

fn merge(defaults: crate::message::Object, config: crate::message::Object) -> crate::message::Object {
    let mut merged = defaults;
    merged.extend(config);
    merged
}

fn check_name(name: &str) -> Result<(), String> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.len() <= 64 && name.chars().all(is_valid) {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be a plugin's name: rename the file; letters, digits, \"_\" and \"-\" are allowed, at most 64"
    ))
}
