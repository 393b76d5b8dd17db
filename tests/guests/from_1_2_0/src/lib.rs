//! A policy built against tests/compat/wit-1.2.0. It uses nothing that is newer than 1.0.0.

wit_bindgen::generate!({ path: "../../compat/wit-1.2.0", world: "policy-plugin" });

use exports::openedx::ace::policy::{Denial, Guest, PolicyResult};
use openedx::ace::messages::Message;

/// Not used without a host.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct Newer;

impl Guest for Newer {
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    fn check(message: Message) -> Result<PolicyResult, String> {
        let denial = Denial { channel_type: "push".to_owned(), reason: Some(message.unique_name()) };
        Ok(PolicyResult { deny: vec![denial], delay: Vec::new() })
    }
}

// Nothing is exported natively, because a linker takes the `@` in the names for a version.
#[cfg(target_family = "wasm")]
export!(Newer);
