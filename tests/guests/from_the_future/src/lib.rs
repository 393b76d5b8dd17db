//! A policy of a future major version, with its own WIT: whatever 2.0.0 will contain, the host must reject it and name both
//! versions.

wit_bindgen::generate!({
    inline: "
        package openedx:ace@2.0.0;
        interface policy {
            check: func(message: string) -> bool;
        }
        world policy-plugin { export policy; }
    ",
});

/// Not used without a host.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct FromTheFuture;

impl exports::openedx::ace::policy::Guest for FromTheFuture {
    fn check(message: String) -> bool {
        message.is_empty()
    }
}

// Nothing is exported natively, because a linker takes the `@` in the names for a version.
#[cfg(target_family = "wasm")]
export!(FromTheFuture);
