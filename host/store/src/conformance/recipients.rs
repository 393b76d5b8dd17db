//! Finding the messages of a person: the index, lists and erasure agree on the normal form.

use super::*;
use crate::person::normal_address;

fn to(number: u128, user: Option<&str>, email: Option<&str>) -> New {
    New { user: user.map(str::to_owned), email: email.map(str::to_owned), ..new(number, ORDINARY) }
}

async fn listed(queue: &Queue, email: &str) -> Vec<u128> {
    let filter = Filter { email: Some(email.to_owned()), ..Filter::default() };
    let mut found: Vec<u128> =
        queue.messages(filter, None, 100).await.expect("listed").messages.iter().map(|m| m.uuid.as_u128()).collect();
    found.sort_unstable();
    found
}

/// Addresses as they are stored, and as they are queried.
const FORMS: [(&str, &str); 9] = [
    ("éva@example.com", "ÉVA@example.com"),
    ("ÉVA@example.com", "éva@example.com"),
    ("E\u{301}va@example.com", "éva@EXAMPLE.com"),
    ("a@example.com\u{a0}", "a@example.com"),
    ("\u{feff}b@example.com", "\u{a0}b@example.com "),
    ("c@bücher.example", "c@xn--bcher-kva.example"),
    ("d@XN--BCHER-KVA.example", "D@bücher.example"),
    ("Zoë <e@example.com>", "e@example.com"),
    ("\"john doe\"@example.com", "\"John Doe\"@example.com"),
];

pub(super) async fn a_person_is_found_and_erased_by_any_form_of_the_address(new_harness: NewHarness<'_>) {
    for held in [true, false] {
        let home = Home::new(new_harness);
        let queue = home.open();
        let news = FORMS.iter().enumerate().map(|(n, (stored, _))| to(n as u128 + 1, None, Some(stored))).collect();
        queue.accept(news, at(1_000)).await.expect("accepted");
        queue.accept(vec![to(50, None, Some("other@example.com"))], at(1_000)).await.expect("accepted");
        // With the keys in memory, and in the index.
        let queue = if held {
            queue
        } else {
            drop(queue);
            home.open()
        };
        for (stored, asked) in FORMS {
            let is_one = |form: &str| normal_address(form) == normal_address(asked);
            let all: Vec<u128> = (1..).zip(FORMS).filter(|(_, (stored, _))| is_one(stored)).map(|(n, _)| n).collect();
            let before = listed(&queue, asked).await;
            let erased = queue.erase(None, Some(asked.to_owned())).await.expect("erased");
            assert_eq!(erased.waiting as usize, before.len(), "{stored} asked for as {asked}");
            assert!(before == all || before.is_empty(), "{stored} asked for as {asked}: {before:?}, not {all:?}");
            assert_eq!(listed(&queue, asked).await, [0_u128; 0]);
        }
        let left = queue.messages(Filter::default(), None, 100).await.expect("listed").messages;
        assert_eq!(left.iter().map(|m| m.uuid.as_u128()).collect::<Vec<_>>(), [50], "and no others");
    }
}
