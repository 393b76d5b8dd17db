//! Runs tables of cases natively, each case in a separate process of the test's own program.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::case::{Case, agrees};
use super::manifest::Manifest;
use super::world::{self, World};
use crate::RecoverableError;
use crate::channel::{Attempt, Channel, DeliveryError, Receipt, Rendered};
use crate::feedback::{Feedback, Request};
use crate::policy::{Policy, PolicyResult};
use crate::recipient_resolver::{Page, RecipientResolver, ResolveError};

/// The environment variable with the index of a process's case.
const CASE: &str = "ACE_TABLE_CASE";
/// The prefix of a process's result.
const RESULT: &str = "ace-table: ";
/// The time limit of a case.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The faults that a native test can find.
const NATIVE_FAULTS: [&str; 3] = ["error", "trap", "answer"];

/// The cases of a plugin, and its manifest.
#[derive(Debug, Clone)]
pub struct Table {
    name: String,
    manifest: Manifest,
    cases: Vec<(String, Value)>,
    has_exact_headers: bool,
}

impl Table {
    /// The cases in `FOLDER/tests/*.json` of the plugin with the manifest `FOLDER/NAME.toml`. Without a manifest, it requests nothing.
    ///
    /// # Panics
    /// If a file cannot be read.
    #[must_use]
    pub fn of_project(folder: &str, name: &str) -> Self {
        let manifest = std::fs::read_to_string(Path::new(folder).join(format!("{name}.toml"))).unwrap_or_default();
        let tests = Path::new(folder).join("tests");
        let entries = std::fs::read_dir(&tests).unwrap_or_else(|e| panic!("{}: {e}", tests.display()));
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|e| e == "json"));
        files.sort();
        let cases = files.iter().flat_map(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{name}: {e}"));
            match serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: not JSON: {e}")) {
                Value::Array(list) => {
                    list.into_iter().enumerate().map(|(n, one)| (format!("{name}[{n}]"), one)).collect()
                }
                one => vec![(name, one)],
            }
        });
        Table { cases: cases.collect(), ..Table::of_cases(name, &manifest, []) }
    }

    /// Cases from code, for a plugin with this name and this manifest (TOML).
    ///
    /// # Panics
    /// If the manifest is invalid.
    #[must_use]
    pub fn of_cases(name: &str, manifest: &str, cases: impl IntoIterator<Item = Value>) -> Self {
        let manifest = Manifest::read(manifest).unwrap_or_else(|e| panic!("the manifest of {name}: {e}"));
        let cases = cases.into_iter().enumerate().map(|(n, case)| (format!("case {n}"), case));
        Table { name: name.to_owned(), manifest, cases: cases.collect(), has_exact_headers: false }
    }

    /// Requests must have no headers that their case does not list, if it lists any.
    #[must_use]
    pub fn exact_headers(self) -> Self {
        Table { has_exact_headers: true, ..self }
    }

    /// Runs the cases of a policy. `test` is the path of the calling test, including its crate: `concat!(module_path!(), "::table")`.
    pub fn policy<P: Policy>(self, test: &str) {
        self.run(test, "policy", |_, case| {
            let message = world::message(case)?;
            Ok(asked(None, P::enabled, || P::check(&message), verdict))
        });
    }

    /// Runs the cases of a channel. `test` is that of [`policy`](Self::policy).
    pub fn channel<C: Channel>(self, test: &str) {
        self.run(test, "channel", |name, case| {
            let message = world::message(case)?;
            let info = match guarded(C::describe) {
                Ok(info) => info,
                Err(panic) => return Ok(json!({"refused": format!("describe: {panic}")})),
            };
            let files = info.template_files.iter().map(|file| {
                let text = case.rendered.get(&file.name).unwrap_or(&file.name);
                (file.name.clone(), text.clone())
            });
            let files: Vec<_> = files.collect();
            if let Some(unknown) = case.rendered.keys().find(|name| !files.iter().any(|(file, _)| file == *name)) {
                return Err(format!("rendered: the channel asks for no file {unknown:?}"));
            }
            let idempotency_key = format!("{}.{name}", message.uuid());
            let attempt = Attempt { number: case.attempt.unwrap_or(1).max(1), idempotency_key };
            let deliver = || {
                world::with(|world| world.delivery_key = Some(attempt.idempotency_key.clone()));
                Ok(C::deliver(&message, Rendered::new(files.clone()), &attempt))
            };
            let mut answer = asked(None, C::enabled, deliver, delivered);
            world::with(|world| world.add_notes(&mut answer));
            Ok(answer)
        });
    }

    /// Runs the cases of a resolver. `test` is that of [`policy`](Self::policy).
    pub fn resolver<R: RecipientResolver>(self, test: &str) {
        self.run(test, "resolver", |_, case| {
            let asks = case.resolve.clone().ok_or("a resolver is asked by \"resolve\", not by \"message\"")?;
            let (message_type, arguments) = (json!(asks.message_type).to_string(), json!(asks.arguments).to_string());
            let resolve = || Ok(R::resolve(&message_type, &arguments, asks.cursor.as_deref(), asks.limit));
            Ok(asked(Some(asks.limit), R::enabled, resolve, resolved))
        });
    }

    /// Runs the cases of a plugin that reads feedback. `test` is that of [`policy`](Self::policy).
    pub fn feedback<F: Feedback>(self, test: &str) {
        self.run(test, "feedback", |name, case| {
            let request = case.request.clone().ok_or("feedback is read from a \"request\", not from a \"message\"")?;
            let request = Request::new(world::imports::incoming::Request(request, name.to_owned()));
            Ok(asked(None, F::enabled, || Ok(F::receive(&request)), feedback::received))
        });
    }

    /// Runs each case in a process, or in such a process its case. Skips cases of another kind of plugin.
    fn run(mut self, test: &str, kind: &str, ask: fn(&str, &Case) -> Result<Value, String>) {
        let kind_of = |entry: &Value| match entry.get("request") {
            Some(_) => Some("feedback".to_owned()),
            None => entry.get("ask").and_then(Value::as_str).map(str::to_owned),
        };
        self.cases.retain(|(_, entry)| kind_of(entry).is_none_or(|of| of == kind));
        if let Ok(index) = std::env::var(CASE) {
            let index: usize = index.parse().expect("the number of a case");
            return self.report(index, ask);
        }
        // The harness knows the test by its path within the crate.
        let test = test.split_once("::").map_or(test, |(_, path)| path);
        let failures: Vec<String> = (0..self.cases.len()).filter_map(|index| self.failure(test, index)).collect();
        let (failed, all) = (failures.len(), self.cases.len());
        assert!(all > 0, "there are no cases; a case is {{\"message\": {{…}}, \"expect\": …}}");
        assert!(failures.is_empty(), "{failed} of {all} cases of {} failed\n{}", self.name, failures.join("\n"));
    }

    /// Runs one case in a separate process and returns its failure.
    fn failure(&self, test: &str, index: usize) -> Option<String> {
        let (place, entry) = &self.cases[index];
        let title = entry.get("name").and_then(Value::as_str).unwrap_or(place);
        let program = std::env::current_exe().expect("the test's own program");
        let mut process = Command::new(program);
        process.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CASE, index.to_string());
        let output = process.output().unwrap_or_else(|e| panic!("{place}: no process: {e}"));
        let stdout = String::from_utf8_lossy(&output.stdout);
        let result = stdout.lines().find_map(|line| line.split_once(RESULT));
        let faults = match result.and_then(|(_, json)| serde_json::from_str::<Vec<String>>(json).ok()) {
            Some(faults) => faults,
            None => vec![format!("it ended without an answer ({})", output.status)],
        };
        let logs = String::from_utf8_lossy(&output.stderr);
        (!faults.is_empty()).then(|| format!("FAILED  {title} ({place})\n    {}\n{logs}", faults.join("\n    ")))
    }

    /// Runs one case and prints its failures.
    fn report(&self, index: usize, ask: fn(&str, &Case) -> Result<Value, String>) {
        std::thread::spawn(|| {
            std::thread::sleep(TIME_LIMIT);
            eprintln!("it took longer than {TIME_LIMIT:?}");
            std::process::exit(1);
        });
        let faults = self.faults(&self.cases[index].1, ask).unwrap_or_else(|why| vec![why]);
        println!("\n{RESULT}{}", json!(faults));
    }

    fn faults(&self, entry: &Value, ask: fn(&str, &Case) -> Result<Value, String>) -> Result<Vec<String>, String> {
        let mut case = Case::read(entry)?;
        if let Some(fault) = case.expect.as_mut().and_then(|e| e.get_mut("fault")).and_then(Value::as_object_mut) {
            let kind = fault.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            if !NATIVE_FAULTS.contains(&kind.as_str()) {
                return Ok(Vec::new());
            }
            // The text of a trap depends on the runtime.
            if kind == "trap" {
                fault.remove("message");
            }
        }
        world::enter(World { has_exact_headers: self.has_exact_headers, ..World::new(&self.manifest, &case)? });
        let mut answer = ask(&self.name, &case)?;
        Ok(world::with(|world| {
            world.redact(&mut answer);
            let mut faults = std::mem::take(&mut world.unexpected);
            match &case.expect {
                Some(expected) if agrees(expected, &answer) => {}
                Some(expected) => faults.push(format!("expected {expected}\n    answered {answer}")),
                None => faults.push(format!("the case has no \"expect\"; it answered {answer}")),
            }
            let (wanted, actual) = (json!(case.facts_after), world.facts(&case.facts_after));
            if wanted != actual {
                faults.push(format!("facts_after: expected {wanted}\n    found {actual}"));
            }
            if world.left_over() > 0 {
                faults.push(format!("the last {} requests of \"host\" were not made", world.left_over()));
            }
            world.logs.iter().for_each(|line| eprintln!("    logged {line}"));
            faults
        }))
    }
}

/// Calls `enabled`, and then the function of the case. `limit` is that of a page.
fn asked<T>(
    limit: Option<u32>,
    enabled: impl FnOnce() -> Result<(), String>,
    question: impl FnOnce() -> Result<T, String>,
    written: fn(T, Option<u32>) -> Result<Value, String>,
) -> Value {
    let fault = |kind: &str, message: String| json!({"fault": {"kind": kind, "message": message}});
    match guarded(enabled) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return json!({"refused": format!("it says it cannot work: {why}")}),
        Err(panic) => return json!({"refused": format!("enabled: {panic}")}),
    }
    match guarded(question) {
        Ok(Ok(answer)) => written(answer, limit).unwrap_or_else(|why| fault("answer", why)),
        Ok(Err(why)) => fault("error", why),
        Err(panic) => fault("trap", panic),
    }
}

/// Catches a panic, which is a trap in a host.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

fn moment(ms: u64) -> Result<String, String> {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.to_string()).ok_or_else(|| format!("{ms} milliseconds is not a valid time"))
}

fn verdict(result: PolicyResult, _: Option<u32>) -> Result<Value, String> {
    if result.deny.is_empty() && result.delay.is_empty() {
        return Ok("pass".into());
    }
    let mut verdict = json!({});
    if !result.deny.is_empty() {
        let deny = result.deny.iter().map(|d| json!({"channel_type": d.channel_type, "reason": d.reason}));
        verdict["deny"] = deny.collect();
    }
    if !result.delay.is_empty() {
        let delay = result.delay.iter().map(|d| {
            Ok(json!({"channel_type": d.channel_type, "not_before": moment(d.not_before)?, "reason": d.reason}))
        });
        verdict["delay"] = delay.collect::<Result<Value, String>>()?;
    }
    Ok(verdict)
}

fn recoverable(error: RecoverableError) -> Result<Value, String> {
    Ok(match error.next_attempt_time {
        None => json!({"recoverable": {"message": error.message}}),
        Some(at) => json!({"recoverable": {"message": error.message, "next_attempt_time": moment(at)?}}),
    })
}

fn delivered(answer: Result<Receipt, DeliveryError>, _: Option<u32>) -> Result<Value, String> {
    match answer {
        Ok(receipt) => {
            let mut fields = json!({});
            if let Some(id) = receipt.provider_id {
                fields["provider_id"] = id.into();
            }
            if let Some(detail) = receipt.detail {
                let read = serde_json::from_str(&detail);
                fields["detail"] = read.map_err(|e| format!("the receipt's detail is not JSON: {e}"))?;
            }
            Ok(json!({"sent": fields}))
        }
        Err(DeliveryError::Recoverable(error)) => recoverable(error),
        Err(DeliveryError::Fatal(why)) => Ok(json!({"fatal": why})),
        Err(DeliveryError::Skipped(why)) => Ok(json!({"skipped": why})),
    }
}

fn resolved(answer: Result<Page, ResolveError>, limit: Option<u32>) -> Result<Value, String> {
    let page = match answer {
        Ok(page) => page,
        Err(ResolveError::Recoverable(error)) => return recoverable(error),
        Err(ResolveError::Fatal(why)) => return Ok(json!({"fatal": why})),
    };
    let (is, max) = (page.items.len(), limit.unwrap_or(u32::MAX));
    if is > max as usize {
        return Err(format!("it returned {is} recipients; the limit is {max}"));
    }
    let items = page.items.iter().map(|item| {
        let mut fields = json!({"recipient": world::recipient(&item.recipient)});
        if let Some(key) = &item.key {
            fields["key"] = key.as_str().into();
        }
        if let Some(language) = &item.language {
            fields["language"] = language.as_str().into();
        }
        if let Some(context) = &item.user_context {
            let read: Result<serde_json::Map<String, Value>, _> = serde_json::from_str(context);
            fields["user_context"] = read.map_err(|e| format!("the user context is not a JSON object: {e}"))?.into();
        }
        Ok(fields)
    });
    let mut fields = json!({"items": items.collect::<Result<Vec<_>, String>>()?});
    if let Some(next) = page.next {
        fields["next"] = next.into();
    }
    Ok(json!({"page": fields}))
}

mod feedback;
#[cfg(test)]
mod tests;
