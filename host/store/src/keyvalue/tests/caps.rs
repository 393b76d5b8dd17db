//! Counting tokens once, places in a sliding window, and the limits of entries.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_repeated_token_gets_the_count_of_its_first_time() {
    let folder = folder();
    for kv in both(100, folder.path()) {
        let count = async |token, second| kv.count_once("b", "n", token, (1, Some(DAY)), at(second)).await;
        let counted = |at, total, is_first_time| Ok(Counted { at, total, is_first_time });
        assert_eq!(count("m1", 0).await, counted(1, 1, true));
        assert_eq!(count("m2", 1).await, counted(2, 2, true));
        assert_eq!(count("m3", 2).await, counted(3, 3, true));
        // A repeated token keeps its count.
        assert_eq!(count("m2", 3).await, counted(2, 3, false));
        assert_eq!(kv.get("b", "n", at(3)), Ok(Some(b"3".to_vec())), "a counter as any other");
        let once = Step { by: 1, ttl: KEEP, once: Some("m4") };
        assert_eq!(kv.increment("b", "n", once, at(4)).await, Ok(4));
        assert_eq!(count("m5", 5).await, counted(5, 5, true));
        assert_eq!(count("m4", 6).await, counted(5, 5, false), "increment kept no count for it: the total now");
        assert_eq!(kv.increment("b", "n", Step { by: 1, ttl: KEEP, once: Some("m1") }, at(7)).await, Ok(5));
        assert_eq!(count("m1", 86_400).await, counted(1, 1, true), "a new window");
        kv.set("b", "text", b"v".to_vec(), KEEP, at(0)).await.expect("fits");
        let wrong = kv.count_once("b", "text", "m", (1, KEEP), at(0)).await;
        assert!(matches!(wrong, Err(KeyvalueError::Unavailable(_))), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_cap_grants_as_many_places_as_its_limit() {
    let folder = folder();
    for kv in both(100, folder.path()) {
        let take = async |token, second| kv.take_place("b", "cap", token, (2, DAY), at(second)).await;
        let granted = |used| Ok(Place { is_granted: true, used, next_free: None });
        let refused = |second: i64| Ok(Place { is_granted: false, used: 2, next_free: Some(second * 1_000) });
        assert_eq!(take("m1", 0).await, granted(1));
        assert_eq!(take("m2", 10).await, granted(2));
        assert_eq!(take("m1", 11).await, granted(2), "it has one already");
        for second in 20..30 {
            assert_eq!(take("m3", second).await, refused(86_400), "and however often it asks, it uses none");
        }
        assert_eq!(kv.get("b", "cap", at(30)), Ok(Some(b"2".to_vec())));
        assert_eq!(take("m3", 86_399).await, refused(86_400));
        assert_eq!(take("m3", 86_400).await, granted(2), "the first has left the window");
        assert_eq!(take("m4", 86_401).await, refused(86_410));
        kv.give_place_back("b", "cap", "m3", at(86_402)).await.expect("given back");
        kv.give_place_back("b", "cap", "m3", at(86_402)).await.expect("none is no error");
        assert_eq!(take("m4", 86_403).await, granted(2));
        let longest = 86_403 + 86_400;
        assert_eq!(kv.get("b", "cap", at(longest - 1)), Ok(Some(b"2".to_vec())));
        assert_eq!(kv.get("b", "cap", at(longest)), Ok(None), "it goes with the last place");
    }
}

#[tokio::test]
async fn a_lowered_limit_tells_when_a_place_becomes_free() {
    let kv = memory(100);
    for (token, second) in [("1", 0), ("2", 1), ("3", 2)] {
        kv.take_place("b", "cap", token, (3, DAY), at(second)).await.expect("granted");
    }
    let place = kv.take_place("b", "cap", "4", (1, DAY), at(3)).await.expect("answered");
    assert_eq!(place, Place { is_granted: false, used: 3, next_free: Some((86_400 + 2) * 1_000) });
    let none = kv.take_place("b", "cap", "4", (0, DAY), at(3)).await;
    assert!(matches!(none, Err(KeyvalueError::Quota(_))), "{none:?}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_no_place_for_longer() {
    let kv = memory(100);
    kv.take_place("b", "cap", "1", (1, DAY), at(1_000_000)).await.expect("granted");
    let place = kv.take_place("b", "cap", "2", (1, DAY), at(500_000)).await.expect("answered");
    assert_eq!(place.next_free, Some((500_000 + 86_400) * 1_000));
}

#[tokio::test]
async fn counters_and_places_are_different_kinds() {
    let kv = memory(100);
    kv.take_place("b", "cap", "1", (1, DAY), at(0)).await.expect("granted");
    kv.increment("b", "n", step(1), at(0)).await.expect("counted");
    assert!(kv.increment("b", "cap", step(1), at(0)).await.is_err());
    assert!(kv.count_once("b", "cap", "m", (1, KEEP), at(0)).await.is_err());
    assert!(kv.take_place("b", "n", "1", (1, DAY), at(0)).await.is_err());
    assert!(kv.give_place_back("b", "n", "1", at(0)).await.is_err());
    kv.set("b", "cap", b"7".to_vec(), KEEP, at(0)).await.expect("replaced");
    assert_eq!(kv.increment("b", "cap", step(1), at(0)).await, Ok(8));
}

#[tokio::test]
async fn plugins_cannot_fill_the_store_for_applications_nor_for_each_other() {
    let folder = folder();
    for kv in both(40, folder.path()) {
        let plugin = kv.for_plugins();
        let fill = async |bucket: &str| {
            let mut n = 0;
            while plugin.set(bucket, &format!("{n}"), vec![], KEEP, at(0)).await.is_ok() {
                n += 1;
            }
            n
        };
        assert_eq!(fill("greedy").await, 10, "a quarter");
        let refused = plugin.set("greedy", "more", vec![], KEEP, at(0)).await;
        assert!(
            matches!(&refused, Err(KeyvalueError::Full(text)) if text.contains("max-bucket-entries")),
            "{refused:?}"
        );
        plugin.set("greedy", "1", b"new".to_vec(), KEEP, at(0)).await.expect("a key that is there");
        plugin.delete("greedy", "0", at(0)).await.expect("deleted");
        plugin.set("greedy", "more", vec![], KEEP, at(0)).await.expect("there is room for one again");
        assert_eq!([fill("b").await, fill("c").await, fill("d").await], [10, 10, 6], "36 of 40 in all");
        kv.set("greedy", "an opt-out", vec![], KEEP, at(0)).await.expect("what is left is for applications");
        for n in 0..3 {
            kv.set("optouts", &format!("{n}"), vec![], KEEP, at(0)).await.expect("up to the last");
        }
        let full = kv.set("optouts", "more", vec![], KEEP, at(0)).await;
        assert!(matches!(&full, Err(KeyvalueError::Full(text)) if text.contains("max-entries")), "{full:?}");
        kv.set("optouts", "1", b"new".to_vec(), KEEP, at(0)).await.expect("a key that is there");
        kv.delete("optouts", "1", at(0)).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_counter_with_tokens_is_bounded_as_keys_are() {
    let plugin = memory(40).for_plugins();
    let count = async |n: i64| plugin.count_once("b", "n", &n.to_string(), (1, KEEP), at(0)).await;
    for n in 0..9 {
        count(n).await.expect("it and its tokens are ten");
    }
    assert!(matches!(count(9).await, Err(KeyvalueError::Full(_))));
    assert!(count(8).await.is_ok_and(|counted| counted.at == 9), "a repeated one needs no room");
    assert_eq!(plugin.increment("b", "n", step(1), at(0)).await, Ok(10), "nor one without a token");
}

#[tokio::test]
async fn tables_of_version_1_are_upgraded_and_continue_to_count() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    let before = "
        CREATE TABLE entries (bucket TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires INTEGER, counter INTEGER,
            PRIMARY KEY (bucket, key)) STRICT, WITHOUT ROWID;
        CREATE INDEX expiring ON entries (expires) WHERE expires IS NOT NULL;
        CREATE TABLE tokens (counter INTEGER NOT NULL, token TEXT NOT NULL, PRIMARY KEY (counter, token)) STRICT, WITHOUT ROWID;
        CREATE TABLE store (size INTEGER NOT NULL) STRICT;
        INSERT INTO store VALUES (5);
        INSERT INTO entries VALUES ('b', 'n', X'32', NULL, 1), ('b', 'k', X'76', NULL, NULL), ('c', 'k', X'', NULL, NULL);
        INSERT INTO tokens VALUES (1, 'm1'), (1, 'm2');
        PRAGMA application_id = 1094927723;
        PRAGMA user_version = 1;
    ";
    Connection::open(&file).and_then(|db| db.execute_batch(before)).expect("made");
    let kv = Keyvalue::load(&settings(Some(&file), 24), at(0)).expect("opened");
    assert_eq!(kv.get("b", "k", at(0)), Ok(Some(b"v".to_vec())));
    let counted = kv.count_once("b", "n", "m1", (1, KEEP), at(0)).await;
    assert_eq!(counted, Ok(Counted { at: 2, total: 2, is_first_time: false }));
    let plugin = kv.for_plugins();
    plugin.set("b", "1", vec![], KEEP, at(0)).await.expect("the fifth in its bucket");
    plugin.set("b", "2", vec![], KEEP, at(0)).await.expect("the sixth");
    assert!(plugin.set("b", "3", vec![], KEEP, at(0)).await.is_err(), "a quarter of 24");
}

#[tokio::test]
async fn a_dry_call_sees_what_it_took_and_takes_nothing() {
    let kv = memory(100);
    kv.take_place("b", "cap", "m1", (2, DAY), at(0)).await.expect("granted");
    kv.count_once("b", "n", "m1", (1, KEEP), at(0)).await.expect("counted");
    let mut overlay = Overlay::default();
    overlay.max_bytes = 1_000;
    let mut take = |token, limit| overlay.take_place(&kv, "b", "cap", (token, limit, DAY), at(1)).expect("answered");
    assert_eq!(take("m2", 2), Place { is_granted: true, used: 2, next_free: None });
    assert_eq!(take("m2", 2), Place { is_granted: true, used: 2, next_free: None }, "it has one already");
    assert_eq!(take("m3", 2), Place { is_granted: false, used: 2, next_free: Some(86_400_000) });
    overlay.give_place_back(&kv, "b", "cap", "m1", at(1)).expect("given back");
    assert!(overlay.take_place(&kv, "b", "cap", ("m3", 2, DAY), at(1)).expect("answered").is_granted);
    let counted = overlay.count_once(&kv, "b", "n", ("m2", 1), at(1)).expect("counted");
    assert_eq!(counted, Counted { at: 2, total: 2, is_first_time: true });
    let again = overlay.count_once(&kv, "b", "n", ("m1", 1), at(1)).expect("counted");
    assert_eq!(again, Counted { at: 1, total: 2, is_first_time: false });
    let used = kv.take_place("b", "cap", "m9", (2, DAY), at(1)).await.expect("granted");
    assert_eq!(used.used, 2, "the store has one place in use and this one");
    assert_eq!(kv.get("b", "n", at(1)), Ok(Some(b"1".to_vec())));
}
