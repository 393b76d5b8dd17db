//! A compatible policy, except that it imports an interface that no host provides.

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

/// Not used without a host.
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

// Nothing is exported natively, because a linker takes the `@` in the names for a version.
#[cfg(target_family = "wasm")]
export!(Stranger);
