//! Exports types from a component. The macros are the interface; the other items are for their expansions.

// The functions that the host calls. They do not exist in native tests, in which messages are simulated.
#[cfg(any(not(feature = "testing"), target_family = "wasm"))]
mod guests;

use crate::channel::Channel;
use crate::feedback::Feedback;
use crate::policy::Policy;
use crate::recipient_resolver::RecipientResolver;

pub use crate::bindings::{
    channel as channel_world, feedback as feedback_world, policy as policy_world, recipient_resolver as resolver_world,
};

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

/// Exports a type that implements [`Feedback`](crate::feedback::Feedback).
#[macro_export]
macro_rules! export_feedback {
    ($ty:ident) => {
        #[cfg(target_family = "wasm")]
        $crate::export::feedback_world::export_feedback_world!($ty with_types_in $crate::export::feedback_world);
        #[cfg(not(target_family = "wasm"))]
        const _: () = $crate::export::is_feedback::<$ty>();
    };
}

/// Native builds export nothing, because the names have an `@`, which linkers treat as a version. The type is still checked.
pub const fn is_policy<T: Policy>() {}
pub const fn is_channel<T: Channel>() {}
pub const fn is_recipient_resolver<T: RecipientResolver>() {}
pub const fn is_feedback<T: Feedback>() {}
