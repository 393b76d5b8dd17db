//! `[routing] fallback`: the channel types that take over from one another.

use std::collections::BTreeMap;

use super::reader::{TableDecoder, item};
use super::values;
use crate::message::ChannelType;

const KEY: &str = "fallback";

/// The channel types to which each type falls back, in order.
pub(super) type Fallback = BTreeMap<ChannelType, Vec<ChannelType>>;

pub(super) fn fallback(s: &mut TableDecoder<'_>) -> Fallback {
    let fallback = super::decode::by_type(s, KEY, |field| field.list(values::line));
    for (channel_type, list) in &fallback {
        for (at, next) in list.iter().enumerate() {
            let problem = if next == channel_type {
                "a channel type cannot fall back to itself".to_owned()
            } else if list[..at].contains(next) {
                format!("{next:?} is in the list twice")
            } else {
                continue;
            };
            s.fail_below(&[KEY, channel_type, &item(at)], problem);
        }
    }
    if s.is_valid()
        && let Some(cycle) = cycle(&fallback)
    {
        s.fail_below(&[KEY, &cycle[0]], format!("is a cycle: {}", cycle.join(", ")));
    }
    fallback
}

/// The types before this one in each chain in which it is a fallback.
pub(crate) fn chains_before<'a>(
    fallback: &'a Fallback,
    channel_type: &'a str,
) -> impl Iterator<Item = impl Iterator<Item = &'a ChannelType>> {
    fallback.iter().filter_map(move |(first, list)| {
        let at = list.iter().position(|next| next == channel_type)?;
        Some(std::iter::once(first).chain(&list[..at]))
    })
}

/// A cycle of types that wait for one another, which starts and ends with the same type.
fn cycle(fallback: &Fallback) -> Option<Vec<ChannelType>> {
    fallback.keys().find_map(|start| {
        let mut path = vec![start.clone()];
        is_reached_again(fallback, &mut path, &mut Vec::new()).then_some(path)
    })
}

/// Whether the first type of the path waits for itself. The path is then complete.
fn is_reached_again(fallback: &Fallback, path: &mut Vec<ChannelType>, seen: &mut Vec<ChannelType>) -> bool {
    let Some(latest) = path.last().cloned() else { return false };
    let before = chains_before(fallback, &latest).flatten().cloned().collect::<Vec<_>>();
    for next in before {
        let is_first = next == path[0];
        if !is_first && seen.contains(&next) {
            continue;
        }
        seen.push(next.clone());
        path.push(next);
        if is_first || is_reached_again(fallback, path, seen) {
            return true;
        }
        path.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback(chains: &[(&str, &[&str])]) -> Fallback {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        chains.iter().map(|(first, list)| ((*first).to_owned(), owned(list))).collect()
    }

    #[test]
    fn types_that_wait_for_one_another_are_a_cycle() {
        assert_eq!(cycle(&fallback(&[("push", &["sms", "email"]), ("sms", &["email"])])), None);
        assert_eq!(cycle(&fallback(&[("a", &["c"]), ("b", &["c"])])), None);
        let two = cycle(&fallback(&[("push", &["sms"]), ("sms", &["push"])])).expect("a cycle");
        assert_eq!((two.first(), two.last(), two.len()), (Some(&"push".to_owned()), Some(&"push".to_owned()), 3));
        // In the first chain sms is before email, in the second one it is after it.
        assert!(cycle(&fallback(&[("push", &["sms", "email"]), ("email", &["sms"])])).is_some());
    }
}
