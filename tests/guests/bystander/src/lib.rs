//! A sound component that is no plugin: it exports nothing of ours.

wit_bindgen::generate!({
    inline: "
        package acme:bystander;
        world bystander { export hello: func() -> string; }
    ",
});

/// Without a host nothing asks for it.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct Bystander;

impl Guest for Bystander {
    fn hello() -> String {
        "hello".to_owned()
    }
}

#[cfg(target_family = "wasm")]
export!(Bystander);
