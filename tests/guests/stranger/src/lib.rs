//! A policy that fits, but for one interface it imports and no host serves.

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package acme:billing@1.0.0;
        interface ledger {
            balance: func(account: string) -> s64;
        }
        world stranger {
            import ledger;
            export openedx:ace/policy@1.1.0;
        }
    ",
    generate_all,
});

use acme::billing::ledger;
use exports::openedx::ace::policy::{Guest, PolicyResult};
use openedx::ace::messages::Message;

/// Without a host nothing asks for it.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct Stranger;

impl Guest for Stranger {
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    fn check(message: Message) -> Result<PolicyResult, String> {
        match ledger::balance(&message.uuid()) {
            0.. => Ok(PolicyResult { deny: Vec::new(), delay: Vec::new() }),
            debt => Err(format!("{debt}")),
        }
    }
}

// Natively nothing is exported: the names hold an `@`, which a linker takes for a version.
#[cfg(target_family = "wasm")]
export!(Stranger);
