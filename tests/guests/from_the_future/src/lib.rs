//! A policy of a major version that is not there yet. Its WIT is its own: whatever 2.0.0 will hold, the host must name both
//! versions and refuse it.

wit_bindgen::generate!({
    inline: "
        package openedx:ace@2.0.0;
        interface policy {
            check: func(message: string) -> bool;
        }
        world policy-plugin { export policy; }
    ",
});

/// Without a host nothing asks for it.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct FromTheFuture;

impl exports::openedx::ace::policy::Guest for FromTheFuture {
    fn check(message: String) -> bool {
        message.is_empty()
    }
}

// Natively nothing is exported: the names hold an `@`, which a linker takes for a version.
#[cfg(target_family = "wasm")]
export!(FromTheFuture);
