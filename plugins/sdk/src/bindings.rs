//! Bindings of the WIT: one world for all imports, and one for each interface that a plugin may export.
//!
//! The export worlds are separate, so that a policy need not export the functions of a channel. They share the types of the imports.

#![allow(missing_docs)]

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package openedx:ace-sdk;
        world imports {
            include openedx:ace/capabilities@1.1.0;
            import openedx:ace/mailer@1.1.0;
            import openedx:ace/outbox@1.1.0;
            import openedx:ace/delivery@1.1.0;
            import openedx:ace/incoming@1.1.0;
        }
    ",
    generate_all,
    generate_unused_types: true,
    additional_derives: [PartialEq, Eq, Hash],
    additional_type_attributes: { "openedx:ace/mailer@1.1.0/email": [#[derive(Default)]] },
});

pub mod policy {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package openedx:ace-sdk;
            world policy { export openedx:ace/policy@1.1.0; }
        ",
        with: {
            "openedx:ace/common@1.1.0": crate::bindings::openedx::ace::common,
            "openedx:ace/messages@1.1.0": crate::bindings::openedx::ace::messages,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_policy_world",
        default_bindings_module: "ace_plugin::export::policy",
        additional_derives: [PartialEq, Eq, Hash],
        additional_type_attributes: { "openedx:ace/policy@1.1.0/policy-result": [#[derive(Default)]] },
    });
}

pub mod channel {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package openedx:ace-sdk;
            world channel { export openedx:ace/channel@1.1.0; }
        ",
        with: {
            "openedx:ace/common@1.1.0": crate::bindings::openedx::ace::common,
            "openedx:ace/messages@1.1.0": crate::bindings::openedx::ace::messages,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_channel_world",
        default_bindings_module: "ace_plugin::export::channel",
        additional_derives: [PartialEq, Eq, Hash],
        additional_type_attributes: { "openedx:ace/channel@1.1.0/receipt": [#[derive(Default)]] },
    });
}

pub mod recipient_resolver {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package openedx:ace-sdk;
            world recipient-resolver { export openedx:ace/recipient-resolver@1.1.0; }
        ",
        with: {
            "openedx:ace/common@1.1.0": crate::bindings::openedx::ace::common,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_recipient_resolver_world",
        default_bindings_module: "ace_plugin::export::recipient_resolver",
        additional_derives: [PartialEq, Eq, Hash],
    });
}

pub mod feedback {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package openedx:ace-sdk;
            world feedback { export openedx:ace/feedback@1.1.0; }
        ",
        with: {
            "openedx:ace/common@1.1.0": crate::bindings::openedx::ace::common,
            "openedx:ace/incoming@1.1.0": crate::bindings::openedx::ace::incoming,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_feedback_world",
        default_bindings_module: "ace_plugin::export::feedback",
        additional_derives: [PartialEq, Eq, Hash],
        additional_type_attributes: { "openedx:ace/feedback@1.1.0/received": [#[derive(Default)]] },
    });
}
