//! Compares a component's imports and exports with the interfaces of this host.

use wasmtime::component::{Component, InstancePre, Linker};

use crate::plugin::runtime::bindings::{channel, feedback, policy, recipient_resolver};
use crate::plugin::runtime::errors;
use crate::plugin::runtime::instance::ExportIndices;
use crate::plugin::runtime::state::State;
use crate::plugin::{INTERFACE_VERSION, Namespace};

/// Links a component's imports and looks up its exports. Runs none of its code.
pub(super) fn link(
    linker: &Linker<State>,
    component: &Component,
    imports: &[String],
    namespaces: &[Namespace],
) -> Result<(InstancePre<State>, ExportIndices), String> {
    let pre =
        linker.instantiate_pre(component).map_err(|e| format!("{}: {}", mismatch(imports), errors::describe(&e)))?;
    let is = |namespace| namespaces.contains(&namespace);
    let wrong_export = |e| format!("an export differs from openedx:ace@{INTERFACE_VERSION}: {}", errors::describe(&e));
    let exports = ExportIndices {
        policy: is(Namespace::Policy).then(|| policy::GuestIndices::new(&pre)).transpose().map_err(wrong_export)?,
        channel: is(Namespace::Channel).then(|| channel::GuestIndices::new(&pre)).transpose().map_err(wrong_export)?,
        resolver: is(Namespace::RecipientResolver)
            .then(|| recipient_resolver::GuestIndices::new(&pre))
            .transpose()
            .map_err(wrong_export)?,
        feedback: is(Namespace::Feedback)
            .then(|| feedback::GuestIndices::new(&pre))
            .transpose()
            .map_err(wrong_export)?,
    };
    Ok((pre, exports))
}

/// The parts of a name such as `openedx:ace/policy@1.1.0`.
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
/// The interfaces of `openedx:ace` that a guest may import.
const PROVIDED: [&str; 13] = [
    "common",
    "messages",
    "config",
    "logging",
    "keyvalue",
    "http",
    "authorized-http",
    "signatures",
    "mailer",
    "outbox",
    "delivery",
    "time-zones",
    "incoming",
];
/// The WASI packages that are linked; what is not granted does nothing.
const WASI_PROVIDED: [&str; 7] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:io", "wasi:random", "wasi:sockets"];

/// The namespaces of a component, according to its exports.
pub(super) fn namespaces(exports: &[String]) -> Vec<Namespace> {
    let exported = |namespace: &Namespace| {
        exports.iter().map(|e| parse(e)).any(|e| e.package == OURS && e.interface == namespace.interface())
    };
    Namespace::ALL.into_iter().filter(exported).collect()
}

/// Why a component cannot be linked: most likely it needs a later minor version of the interface.
fn mismatch(imports: &[String]) -> String {
    let host: semver::Version = INTERFACE_VERSION.parse().expect("a version");
    let ours = imports.iter().map(|name| parse(name)).filter(|i| i.package == OURS);
    match ours.filter_map(|i| i.version).max() {
        Some(newest) if newest > host => {
            format!(
                "it was built against {OURS}@{newest}, and this host provides {OURS}@{host}, which lacks a function that it calls"
            )
        }
        _ => "it does not fit this host".to_owned(),
    }
}

/// Checks all imports, so that the error lists every unknown one; wasmtime would report only the first.
pub(super) fn check_interfaces(imports: &[String], exports: &[String]) -> Result<(), String> {
    let host: semver::Version = INTERFACE_VERSION.parse().expect("a version");
    let mut unknown = Vec::new();
    for name in imports.iter().chain(exports) {
        let parsed = parse(name);
        if let (OURS, Some(version)) = (parsed.package, &parsed.version)
            && version.major != host.major
        {
            return Err(format!(
                "it was built for {OURS}@{version}, and this host provides {OURS}@{host}: build it against the host's WIT"
            ));
        }
    }
    for name in imports {
        let parsed = parse(name);
        let is_provided = match parsed.package {
            OURS => PROVIDED.contains(&parsed.interface),
            package => WASI_PROVIDED.contains(&package) && parsed.version.is_some_and(|v| v.major == 0 && v.minor == 2),
        };
        if !is_provided {
            unknown.push(name.as_str());
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!("it imports interfaces that this host does not provide: {}", unknown.join(", ")))
}
