//! Random operations on a queue.

use proptest::option;
use proptest::prelude::*;

use super::model::*;
use super::*;

/// The numbers of messages are below this.
pub(super) const NUMBERS: u128 = 24;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// `priority`: transactional, ordinary, or one of two batches. `other`: with the other content.
    Accept {
        first: u128,
        count: u128,
        priority: usize,
        not_before: Option<i64>,
        other: bool,
        claim: bool,
    },
    Claim {
        max: usize,
        bulk_max: usize,
    },
    Settle {
        which: usize,
        outcome: Outcome,
    },
    SettleLate {
        which: usize,
        outcome: Outcome,
    },
    Retry(u128),
    Discard(u128),
    Cancel(u128),
    RetryAll(Option<u128>),
    DiscardAll(Option<u128>),
    Batch(usize, BatchChange),
    Erase {
        user: Option<u128>,
        email: Option<u128>,
    },
    Deliver {
        again: Option<i64>,
    },
    Maintain,
    LeasesEnd,
    Clock(i64),
    ClaimSuspect,
    /// `is_clean`: after an orderly shutdown.
    Reopen {
        is_clean: bool,
    },
    /// Writes that fail.
    Fail,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum BatchChange {
    Complete,
    Pause,
    Resume,
    Cancel,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let number = || 0..NUMBERS;
    let accept = (number(), 1_u128..5, 0_usize..4, option::weighted(0.3, 0..2 * HOUR), 0..20, any::<bool>());
    let turn = prop_oneof![
        Just(BatchChange::Complete),
        Just(BatchChange::Pause),
        Just(BatchChange::Resume),
        Just(BatchChange::Cancel)
    ];
    prop_oneof![
        8 => accept.prop_map(|(first, count, priority, not_before, other, claim)| Op::Accept {
            first, count, priority, not_before, other: other == 0, claim: claim && not_before.is_none()
        }),
        8 => (0_usize..12, 0_usize..12).prop_map(|(max, bulk_max)| Op::Claim { max, bulk_max }),
        10 => (any::<usize>(), outcome()).prop_map(|(which, outcome)| Op::Settle { which, outcome }),
        2 => (any::<usize>(), outcome()).prop_map(|(which, outcome)| Op::SettleLate { which, outcome }),
        1 => number().prop_map(Op::Retry),
        1 => number().prop_map(Op::Discard),
        2 => number().prop_map(Op::Cancel),
        1 => option::of(0_u128..7).prop_map(Op::RetryAll),
        1 => option::of(0_u128..7).prop_map(Op::DiscardAll),
        3 => (0_usize..2, turn).prop_map(|(batch, turn)| Op::Batch(batch, turn)),
        1 => (option::of(0_u128..7), option::of(0_u128..7)).prop_map(|(user, email)| Op::Erase { user, email }),
        2 => option::of(0..2 * HOUR).prop_map(|again| Op::Deliver { again }),
        2 => Just(Op::Maintain),
        1 => Just(Op::LeasesEnd),
        4 => prop_oneof![4 => 0..600_i64, 1 => -5 * HOUR..0, 1 => 0..8 * HOUR].prop_map(Op::Clock),
        2 => Just(Op::ClaimSuspect),
        4 => (0..3).prop_map(|n| Op::Reopen { is_clean: n == 0 }),
        1 => Just(Op::Fail),
    ]
}

pub(super) fn outcome() -> impl Strategy<Value = Outcome> {
    let state = prop_oneof![
        Just(State::Sent),
        Just(State::MaybeSent),
        Just(State::NotSent),
        Just(State::Failed),
        Just(State::Expired)
    ];
    prop_oneof![
        5 => (state, any::<bool>()).prop_map(|(state, has_event)| Outcome::Done(state, has_event)),
        3 => (0..HOUR).prop_map(Outcome::Defer),
        1 => Just(Outcome::Record),
        1 => Just(Outcome::Release),
        1 => Just(Outcome::Corrupt),
    ]
}
