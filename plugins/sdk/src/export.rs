//! How a type becomes the exports of a component. The macros are the interface; the rest serves what they expand to.

// What the host calls. Where tests of plugins run nobody does, and a message is not the host's.
#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
mod guests;

use crate::channel::Channel;
use crate::policy::Policy;
use crate::recipient_resolver::RecipientResolver;

pub use crate::bindings::{channel as channel_world, policy as policy_world, recipient_resolver as resolver_world};

/// Exports a type that implements [`Policy`](crate::policy::Policy).
#[macro_export]
macro_rules! export_policy {
    ($ty:ident) => {
        #[cfg(target_family = "wasm")]
        $crate::export::policy_world::export_policy_world!($ty with_types_in $crate::export::policy_world);
        #[cfg(not(target_family = "wasm"))]
        const _: () = $crate::export::is_policy::<$ty>();
    };
}

/// Exports a type that implements [`Channel`](crate::channel::Channel).
#[macro_export]
macro_rules! export_channel {
    ($ty:ident) => {
        #[cfg(target_family = "wasm")]
        $crate::export::channel_world::export_channel_world!($ty with_types_in $crate::export::channel_world);
        #[cfg(not(target_family = "wasm"))]
        const _: () = $crate::export::is_channel::<$ty>();
    };
}

/// Exports a type that implements [`RecipientResolver`](crate::recipient_resolver::RecipientResolver).
#[macro_export]
macro_rules! export_recipient_resolver {
    ($ty:ident) => {
        #[cfg(target_family = "wasm")]
        $crate::export::resolver_world::export_recipient_resolver_world!(
            $ty with_types_in $crate::export::resolver_world
        );
        #[cfg(not(target_family = "wasm"))]
        const _: () = $crate::export::is_recipient_resolver::<$ty>();
    };
}

/// Natively nothing is exported (the names hold an `@`, which a linker takes for a version); the type is still checked.
pub const fn is_policy<T: Policy>() {}
pub const fn is_channel<T: Channel>() {}
pub const fn is_recipient_resolver<T: RecipientResolver>() {}
