//! The WIT as Rust. The world of the host contains every interface; a component may import and export only some of them.

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package host:ace;
        world host {
            import openedx:ace/common@1.1.0;
            import openedx:ace/messages@1.1.0;
            import openedx:ace/config@1.1.0;
            import openedx:ace/logging@1.1.0;
            import openedx:ace/keyvalue@1.1.0;
            import openedx:ace/http@1.1.0;
            import openedx:ace/authorized-http@1.1.0;
            import openedx:ace/signatures@1.1.0;
            import openedx:ace/mailer@1.1.0;
            import openedx:ace/outbox@1.1.0;
            import openedx:ace/delivery@1.1.0;
            import openedx:ace/time-zones@1.1.0;
            import openedx:ace/incoming@1.1.0;
            export openedx:ace/policy@1.1.0;
            export openedx:ace/channel@1.1.0;
            export openedx:ace/recipient-resolver@1.1.0;
            export openedx:ace/feedback@1.1.0;
        }
    ",
    imports: {
        "openedx:ace/keyvalue@1.1.0": async | trappable,
        "openedx:ace/http@1.1.0": async | trappable,
        "openedx:ace/authorized-http@1.1.0": async | trappable,
        "openedx:ace/signatures@1.1.0": async | trappable,
        "openedx:ace/mailer@1.1.0": async | trappable,
        "openedx:ace/outbox@1.1.0": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "openedx:ace/messages.message": super::state::MessageHandle,
        "openedx:ace/incoming.request": super::state::RequestHandle,
    },
});

pub(in crate::plugin) use exports::openedx::ace::{channel, feedback, policy, recipient_resolver};
pub(in crate::plugin) use openedx::ace::{
    authorized_http, common, config, delivery, http, incoming, keyvalue, logging, mailer, messages, outbox, signatures,
    time_zones,
};
