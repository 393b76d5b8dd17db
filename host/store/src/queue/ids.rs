//! Ids that the store assigns, each a type of its own.

use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(super) $inner);

        impl $name {
            /// As a plain number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                $name(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = <$inner as FromStr>::Err;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

number! {
    /// A message's id in the store. Later messages have higher ids.
    MessageId(i64)
}

number! {
    /// The number of a claim. Settlements are fenced by it.
    ClaimNo(u64)
}

number! {
    /// An event's id. Later events have higher ids.
    EventId(i64)
}

impl ClaimNo {
    /// The claim of a message that is claimed while it is accepted.
    pub const FIRST: ClaimNo = ClaimNo(0);
}

impl EventId {
    /// Before every event.
    pub const START: EventId = EventId(0);
    /// After every event.
    pub const END: EventId = EventId(i64::MAX);
}

/// The priority class of a message. Transactional messages are claimed first; the other classes take turns. Each batch has a class of
/// its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub(super) i64);

impl Priority {
    /// Transactional messages.
    pub const TRANSACTIONAL: Priority = Priority(0);
    /// Other single messages.
    pub const ORDINARY: Priority = Priority(1);

    /// Whether it is the class of transactional messages.
    pub fn is_transactional(self) -> bool {
        self == Priority::TRANSACTIONAL
    }

    /// Whether it is the class of a batch.
    pub fn is_batch(self) -> bool {
        self > Priority::ORDINARY
    }
}
