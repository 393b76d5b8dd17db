//! A valid component that is not a plugin: it exports none of ACE's interfaces.

wit_bindgen::generate!({
    inline: "
        package acme:bystander;
        world bystander { export hello: func() -> string; }
    ",
});

/// Not used without a host.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct Bystander;

impl Guest for Bystander {
    fn hello() -> String {
        "hello".to_owned()
    }
}

#[cfg(target_family = "wasm")]
export!(Bystander);
