//! Runs a case with a plugin, in the real runtime with its real limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ace::config::{self, Config, Credential, CredentialKind, Manifest, Secret, SecretSource};
use ace::internals::plugin::instance::{CallResult, Handover};
use ace::internals::plugin::sandbox::{Recording, exchange::Exchange};
use ace::internals::plugin::{Namespace, Plugin, PluginState, Runtime, Sandbox, StandaloneHost, standalone, world};
use ace::message::{
    AddressRecord, Attempt, DeliveryError, Earlier, Fault, Message, Object, Page, PolicyResult, ResolveError,
};
use ace_store::keyvalue::{Keyvalue, KeyvalueError};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::case::{Case, agrees};
use super::{KitError, as_requested, manifest, services};

mod feedback;

/// A plugin that cases can be run with.
pub struct Runner {
    host: StandaloneHost,
    pub file: PathBuf,
    pub name: String,
    config: Config,
    manifest: Manifest,
    /// Whether ace.toml names it. If not, it is granted what it requests.
    is_configured: bool,
    outbox: Scratch,
}

/// Where HTTP requests and mails go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// To real services. The clock and random numbers are real unless the case fixes them.
    Real,
    /// To real services, and they are recorded. The clock and random numbers are fixed.
    Recorded,
    /// Nowhere: the case contains the answers. The clock and random numbers are fixed.
    Replayed,
}

/// The result of running a case.
pub struct CaseRun {
    /// `"pass"`, `{"deny": …, "delay": …}`, `{"sent": …}`, `{"recoverable": …}`, `{"fatal": …}`, `{"skipped": …}`,
    /// `{"page": …}`, `{"received": …}`, `{"fault": …}`, `{"refused": …}`. That of a channel may have `outcomes` and `hold` too.
    pub answer: Value,
    /// The guest's stack, if it failed.
    pub backtrace: Option<String>,
    pub seen: Recording,
    /// Host calls that were refused because they are not granted.
    pub denied: Vec<String>,
    /// Exchanges of the case that the plugin did not use.
    pub unused: Vec<Exchange>,
    /// The entries that the case names in `facts_after`, with their values after the run.
    pub facts_after: Value,
    /// The fixed time, for a recording.
    pub now: Option<Timestamp>,
}

/// A loaded plugin with the state of one case.
pub(super) struct Prepared {
    pub plugin: Plugin,
    pub sandbox: Arc<Sandbox>,
    keyvalue: Arc<Keyvalue>,
    pub message: Arc<Message>,
    pub rendered: Vec<(String, String)>,
    pub attempt: Attempt,
    /// The notes of earlier attempts.
    pub earlier: Earlier,
}

impl Runner {
    /// Reads the manifest. With `is_metered`, instructions are counted.
    pub async fn new(config: &Config, file: &Path, is_metered: bool) -> Result<Runner, KitError> {
        let name = standalone::name(file);
        let host = StandaloneHost::new(config, services(config, Arc::new(world::RealWorld)).await?, is_metered)?;
        let is_configured = config.plugins.contains_key(&name);
        let (manifest, outbox) = (manifest(file)?, Scratch::new());
        Ok(Runner { host, file: file.to_owned(), name, config: config.clone(), manifest, is_configured, outbox })
    }

    /// Runs one case.
    pub async fn run(&self, case: &Case, world: World) -> Result<CaseRun, KitError> {
        let prepared = self.prepare(case, world).await?;
        let (answer, backtrace, denied) = match (&prepared.plugin.state, &prepared.plugin.runtime) {
            (PluginState::Broken(why), _) => (json!({"refused": why}), None, Vec::new()),
            _ if case.request.is_some() && prepared.plugin.feedback_refused.is_some() => {
                (json!({"refused": prepared.plugin.feedback_refused}), None, Vec::new())
            }
            (_, Some(runtime)) => self.call(runtime, case, &prepared).await?,
            (_, None) => return Err(self.fail("the plugin is disabled in ace.toml")),
        };
        let facts_after = prepared.entries(&case.facts_after, &self.file)?;
        let Prepared { sandbox, .. } = &prepared;
        Ok(CaseRun {
            answer,
            backtrace,
            seen: sandbox.recording(),
            denied,
            unused: sandbox.unused(),
            facts_after,
            now: sandbox.now,
        })
    }

    /// Measures how long the component takes to compile.
    pub(super) async fn time_compilation(&self) -> Result<std::time::Duration, KitError> {
        self.host.time_compilation(&self.file).await.map_err(|error| self.fail(&error.to_string()))
    }

    /// Loads the plugin with the case's config, secrets and key-value entries.
    pub(super) async fn prepare(&self, case: &Case, world: World) -> Result<Prepared, KitError> {
        let (message, earlier) = (case.read_message()?, self.earlier(case));
        let message = Arc::new(message.remaining(&earlier.addresses, &self.name).unwrap_or(message));
        let (config, secrets) = self.settings(case);
        let sandbox = Arc::new(self.sandbox(case, world, secrets));
        let services = services(&config, sandbox.clone()).await?;
        let keyvalue = services.keyvalue.clone();
        store_entries(&keyvalue, case, services.now()).await?;
        let plugin = self.host.with(services).load(&config, &self.file).await;
        let files = plugin.channel.iter().flat_map(|channel| &channel.template_files);
        let rendered = files.map(|file| {
            let text = case.rendered.get(&file.name).cloned().unwrap_or_else(|| file.name.clone());
            (file.name.clone(), text)
        });
        let rendered: Vec<_> = rendered.collect();
        if let Some(unknown) = case.rendered.keys().find(|name| !rendered.iter().any(|(file, _)| file == *name))
            && plugin.channel.is_some()
        {
            let message = format!("rendered: the channel has no template file {unknown:?}");
            return Err(KitError::Case { location: case.location.clone(), message });
        }
        let attempt = Attempt {
            number: case.attempt.unwrap_or(1).max(1),
            idempotency_key: format!("{}.{}", message.uuid, self.name),
        };
        Ok(Prepared { plugin, sandbox, keyvalue, message, rendered, attempt, earlier })
    }

    /// What the case says of earlier attempts.
    fn earlier(&self, case: &Case) -> Earlier {
        let own = |record: &AddressRecord| AddressRecord { channel: self.name.clone(), ..record.clone() };
        Earlier { addresses: case.noted.iter().map(own).collect(), ..Earlier::default() }
    }

    fn settings(&self, case: &Case) -> (Config, Vec<String>) {
        let mut config = self.config.clone();
        let mut plugin = if self.is_configured {
            config.plugins.get(&self.name).cloned().unwrap_or_default()
        } else {
            as_requested(&self.manifest.requests, &self.outbox.0)
        };
        plugin.config.extend(case.config.clone());
        plugin.secrets.extend(case.secrets.iter().map(|(name, value)| (name.clone(), Secret::new(value))));
        let secrets = plugin.secrets.values().map(|secret| secret.expose().to_owned()).collect();
        // Feedback's `enabled` is called only for a plugin that is tied to a channel.
        if plugin.grants.feedback.is_empty() {
            plugin.grants.feedback.push(self.name.clone());
        }
        if case.host.is_some() || !self.is_configured {
            config.credentials.extend(dummies(&plugin, &case.credentials));
        }
        config.plugins.insert(self.name.clone(), plugin);
        if case.public_url.is_some() {
            config.fixed.server.public_url.clone_from(&case.public_url);
        }
        // The lists of enabled plugins are for the operator; here the plugin is always to run.
        (config.enabled_policies, config.enabled_channels) = (None, None);
        (config, secrets)
    }

    fn sandbox(&self, case: &Case, world: World, secrets: Vec<String>) -> Sandbox {
        let exchanges = || case.host.clone().unwrap_or_default();
        let mut sandbox = match world {
            World::Real if case.host.is_some() => Sandbox::replaying(exchanges(), secrets),
            World::Real | World::Recorded => Sandbox::observing(secrets),
            World::Replayed => Sandbox::replaying(exchanges(), secrets),
        };
        (sandbox.now, sandbox.seed) = match world {
            World::Real => (case.now, case.seed),
            World::Recorded => (Some(case.now.unwrap_or_else(whole_seconds)), Some(case.seed.unwrap_or_default())),
            World::Replayed => (Some(case.fixed_now()), Some(case.seed.unwrap_or_default())),
        };
        sandbox.catches_mail = self.config.fixed.mailer.relays.is_empty();
        sandbox
    }

    async fn call(
        &self,
        runtime: &Runtime,
        case: &Case,
        prepared: &Prepared,
    ) -> Result<(Value, Option<String>, Vec<String>), KitError> {
        Ok(match self.namespace(case, &prepared.plugin)? {
            Namespace::Policy => {
                let called = runtime.check(&prepared.message, false).await;
                let (answer, backtrace) = answer_or_fault(called.answer.map(verdict));
                (answer, backtrace, called.denied)
            }
            Namespace::Channel => {
                let Prepared { message, rendered, attempt, earlier, .. } = prepared;
                let called = runtime.deliver_remaining(message, rendered, attempt, earlier.clone()).await;
                let (mut answer, backtrace) = answer_or_fault(called.answer.map(delivered));
                called.handover.iter().for_each(|handover| add_notes(&mut answer, handover));
                (answer, backtrace, called.denied)
            }
            Namespace::RecipientResolver => {
                let called = self.resolve(runtime, case).await?;
                let (answer, backtrace) = answer_or_fault(called.answer.map(resolved));
                (answer, backtrace, called.denied)
            }
            Namespace::Feedback => {
                let called = self.receive(runtime, case, prepared).await?;
                let (answer, backtrace) = answer_or_fault(called.answer.map(feedback::answer));
                (answer, backtrace, called.denied)
            }
        })
    }

    /// Calls a resolver for a page.
    pub(super) async fn resolve(
        &self,
        runtime: &Runtime,
        case: &Case,
    ) -> Result<CallResult<Result<Page, ResolveError>>, KitError> {
        let request = case.resolve.as_ref().ok_or_else(|| KitError::Case {
            location: case.location.clone(),
            message: "the case of a resolver needs \"resolve\": {\"arguments\": {…}} instead of \"message\"".to_owned(),
        })?;
        let json = |object: &Object| serde_json::to_string(object).expect("it was read from JSON");
        let (message_type, arguments) = (json(&request.message_type), json(&request.arguments));
        Ok(runtime.resolve(&message_type, &arguments, request.cursor.as_deref(), request.limit).await)
    }

    /// How the case calls the plugin: as the case says, or else as the plugin's first kind.
    pub(super) fn namespace(&self, case: &Case, plugin: &Plugin) -> Result<Namespace, KitError> {
        let resolve = case.resolve.as_ref().map(|_| Namespace::RecipientResolver);
        let receive = case.request.as_ref().map(|_| Namespace::Feedback);
        let wanted = resolve.or(receive).or(case.ask.map(Namespace::from));
        let first = plugin.namespaces.first().copied();
        let namespace =
            wanted.or(first).ok_or_else(|| self.fail("it exports no policy, channel, resolver or feedback"))?;
        if !plugin.namespaces.contains(&namespace) {
            return Err(self.fail(&format!("the case calls it as {namespace}, which it does not export")));
        }
        Ok(namespace)
    }

    pub(super) fn fail(&self, message: &str) -> KitError {
        KitError::Plugin { file: self.file.clone(), message: message.to_owned() }
    }
}

impl Prepared {
    /// The current values of the named entries.
    fn entries(&self, named: &BTreeMap<String, Object>, file: &Path) -> Result<Value, KitError> {
        let now = self.sandbox.now.unwrap_or_else(Timestamp::now);
        let mut entries = Object::new();
        for (bucket, keys) in named {
            let mut found = Object::new();
            for key in keys.keys() {
                let value = self.keyvalue.get(bucket, key, now).map_err(|e| keyvalue_error(e, file.display()))?;
                let text = value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let wanted_as_text = keys[key].is_string();
                let value = text.map_or(Value::Null, |text| match serde_json::from_str(&text) {
                    Ok(json) if !wanted_as_text => json,
                    _ => text.into(),
                });
                found.insert(key.clone(), value);
            }
            entries.insert(bucket.clone(), found.into());
        }
        Ok(entries.into())
    }
}

/// Why a case failed; empty if it passed.
pub fn failures(case: &Case, run: &CaseRun) -> Vec<String> {
    let mut failures = Vec::new();
    match &case.expect {
        Some(expected) if !agrees(expected, &run.answer) => {
            failures.push(super::diff::of_values(expected, &run.answer));
        }
        Some(_) => {}
        None => failures.push(format!("the case has no \"expect\"; the plugin answered {}", run.answer)),
    }
    let wanted: Value =
        case.facts_after.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect::<Object>().into();
    if wanted != run.facts_after {
        failures.push(format!("facts_after:\n{}", super::diff::of_values(&wanted, &run.facts_after)));
    }
    failures.extend(run.seen.unexpected.iter().map(|why| format!("{why}; `--record` records the real answer")));
    for exchange in &run.unused {
        let exchange = serde_json::to_string(exchange).unwrap_or_default();
        failures.push(format!("the plugin did not use this entry of \"host\": {exchange}"));
    }
    failures
}

/// Stores the key-value entries of a case.
async fn store_entries(keyvalue: &Keyvalue, case: &Case, now: Timestamp) -> Result<(), KitError> {
    for (bucket, entries) in &case.facts {
        for (key, value) in entries {
            let bytes = match value {
                Value::String(text) => text.clone().into_bytes(),
                other => other.to_string().into_bytes(),
            };
            let set = keyvalue.set(bucket, key, bytes, None, now).await;
            set.map_err(|e| keyvalue_error(e, format!("{}: facts.{bucket}.{key}", case.location)))?;
        }
    }
    Ok(())
}

fn keyvalue_error(error: KeyvalueError, location: impl ToString) -> KitError {
    KitError::Case { location: location.to_string(), message: error.to_string() }
}

/// The current time without fractions of a second.
fn whole_seconds() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The JSON of an answer; or of a fault, with its backtrace.
fn answer_or_fault(answer: Result<Value, Fault>) -> (Value, Option<String>) {
    match answer {
        Ok(answer) => (answer, None),
        Err(fault) => (json!({"fault": {"kind": fault.kind, "message": fault.message}}), fault.backtrace),
    }
}

fn verdict(result: PolicyResult) -> Value {
    if result.deny.is_empty() && result.delay.is_empty() { "pass".into() } else { json!(result) }
}

fn delivered(answer: Result<ace::message::Receipt, DeliveryError>) -> Value {
    match answer {
        Ok(receipt) => json!({"sent": receipt}),
        Err(DeliveryError::Recoverable { message, next_attempt_time: None }) => {
            json!({"recoverable": {"message": message}})
        }
        Err(DeliveryError::Recoverable { message, next_attempt_time }) => {
            json!({"recoverable": {"message": message, "next_attempt_time": next_attempt_time}})
        }
        Err(DeliveryError::Fatal(why)) => json!({"fatal": why}),
        Err(DeliveryError::Skipped(why)) => json!({"skipped": why}),
        Err(DeliveryError::Unavailable(why)) => json!({"unavailable": why}),
        Err(DeliveryError::MaybeSent { reason }) => json!({"maybe_sent": reason}),
        Err(DeliveryError::SentWithFault { answer, fault }) => {
            json!({"sent_with_fault": {"answer": answer, "fault": {"kind": fault.kind, "message": fault.message}}})
        }
        Err(other) => json!({"error": other.to_string()}),
    }
}

/// Adds the notes and the hold of a delivery to its answer.
fn add_notes(answer: &mut Value, handover: &Handover) {
    let as_noted = |record: &AddressRecord| AddressRecord { channel: String::new(), ..record.clone() };
    if !handover.addresses.is_empty() {
        answer["outcomes"] = json!(handover.addresses.iter().map(as_noted).collect::<Vec<_>>());
    }
    handover.hold.iter().for_each(|hold| answer["hold"] = json!(hold));
}

fn resolved(answer: Result<Page, ResolveError>) -> Value {
    match answer {
        Ok(page) => json!({"page": page}),
        Err(ResolveError::Recoverable { message, next_attempt_time: None }) => {
            json!({"recoverable": {"message": message}})
        }
        Err(ResolveError::Recoverable { message, next_attempt_time }) => {
            json!({"recoverable": {"message": message, "next_attempt_time": next_attempt_time}})
        }
        Err(ResolveError::Fatal(why)) => json!({"fatal": why}),
        Err(other) => json!({"error": other.to_string()}),
    }
}

/// A temporary folder, which is created by the first write and removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Scratch(std::env::temp_dir().join(format!("ace-outbox-{}", uuid::Uuid::new_v4())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It does not exist if the plugin requested no outbox.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Credentials that only verify signatures: for each of the plugin, with the key of the case. No request is sent with them.
fn dummies(plugin: &config::Plugin, keys: &BTreeMap<String, String>) -> BTreeMap<String, Credential> {
    let dummy = |(own, name): (&String, &String)| {
        let key = keys.get(own).cloned().unwrap_or_else(|| format!("test-{own}"));
        let token = vec![SecretSource::Value(Secret::new(key))];
        (name.clone(), Credential { urls: Vec::new(), kind: CredentialKind::Bearer { token } })
    };
    plugin.credentials.iter().map(dummy).collect()
}
