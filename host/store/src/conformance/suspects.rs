//! Processes that end with messages in flight.

use super::*;

fn open_at(home: &Home, second: i64) -> Queue {
    home.open_with(home.settings(), at(second))
}

/// A process that ends unexpectedly, with all due messages in flight, including a suspect.
async fn crash(home: &Home, second: i64) {
    let queue = open_at(home, second);
    queue.claim(Claim { max: 500, bulk_max: 500 }, at(second)).await.expect("claimed");
    queue.claim_suspect(at(second)).await.expect("claimed");
}

pub(super) async fn a_suspect_waits_longer_each_time_and_is_finally_a_culprit(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = open_at(&home, 0);
    accept(&queue, [1], TRANSACTIONAL).await;
    drop(queue);
    for start in [2_000, 3_000] {
        crash(&home, start).await;
    }
    let queue = open_at(&home, 4_000);
    let second = claim(&queue, 9, 4_000).await;
    assert_eq!((second[0].interruptions, second[0].is_culprit), (2, false));
    assert_eq!(second[0].interrupted, [at(3_000), at(4_000)], "each end has its time");
    drop(queue);
    // The third time it waits for a second, outside its priority class.
    let queue = open_at(&home, 5_000);
    let claimed_batch = queue.claim(Claim { max: 9, bulk_max: 9 }, at(5_000)).await.expect("claimed");
    assert_eq!((claimed_batch.messages.len(), claimed_batch.next_suspect), (0, Some(at(5_001))));
    assert_eq!(queue.claim_suspect(at(5_000)).await.expect("asked"), None);
    let stats = queue.stats().await.expect("asked");
    assert_eq!((stats.waiting_transactional, stats.suspects), (1, 1));
    assert_eq!(queue.message(Uuid::from_u128(1)).await.expect("asked").expect("there").due, Some(at(5_001)));
    let third = queue.claim_suspect(at(5_001)).await.expect("asked").expect("it is due");
    assert_eq!((third.priority, third.interruptions, third.is_culprit), (TRANSACTIONAL, 3, false));
    drop(queue);
    let queue = open_at(&home, 6_000);
    assert_eq!(queue.claim_suspect(at(6_001)).await.expect("asked"), None, "longer than before");
    assert_eq!(queue.claim_suspect(at(6_002)).await.expect("asked").expect("it is due").interruptions, 4);
    drop(queue);
    let queue = open_at(&home, 7_000);
    let fifth = queue.claim_suspect(at(7_000)).await.expect("asked").expect("there is nothing to wait for");
    assert!(fifth.is_culprit && fifth.interrupted.len() == 5);
    settle(&queue, &[fifth], done(State::Failed)).await;
    queue.retry(Uuid::from_u128(1), at(8_000)).await.expect("by hand");
    let again = claim(&queue, 9, 8_000).await;
    assert_eq!((again[0].interruptions, again[0].is_in_doubt()), (0, false), "the count starts again");
}

pub(super) async fn only_unexpected_ends_are_counted(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = open_at(&home, 0);
    accept(&queue, [1], ORDINARY).await;
    drop(queue);
    for start in 1..=6 {
        let queue = open_at(&home, start * 1_000);
        let claimed = claim(&queue, 1, start * 1_000).await;
        assert_eq!(
            (claimed[0].interruptions, claimed[0].interrupted.len() as i64),
            (0, start - 1),
            "the shutdown was orderly"
        );
        queue.note_shutdown().await.expect("noted");
    }
    let queue = open_at(&home, 9_000);
    for lost in 0..5 {
        let claimed = claim(&queue, 1, 9_000).await;
        assert_eq!(
            (claimed[0].interruptions, claimed[0].interrupted.len()),
            (0, 6 + lost),
            "the end of a lease is not counted"
        );
        home.age_leases(&queue).await;
    }
}

pub(super) async fn a_finished_attempt_ends_the_suspicion(new_harness: NewHarness<'_>) {
    const CULPRIT: u128 = 33;
    let home = Home::new(new_harness);
    let queue = open_at(&home, 0);
    accept(&queue, 1..=65, ORDINARY).await;
    drop(queue);
    for start in 1..=3 {
        crash(&home, start * 1_000).await;
    }
    let (mut now, mut ends, mut sent, mut is_set_aside) = (4_000, 3, Vec::new(), false);
    'process: for _ in 0..20 {
        let queue = open_at(&home, now);
        for _ in 0..200 {
            now += 1;
            let others = claim(&queue, 100, now).await;
            assert!(others.is_empty(), "all are suspects: {:?}", numbers(&others));
            let Some(suspect) = queue.claim_suspect(at(now)).await.expect("asked") else { continue };
            let number = suspect.uuid.as_u128();
            match (number, suspect.is_culprit) {
                (CULPRIT, false) => {
                    ends += 1;
                    continue 'process;
                }
                (CULPRIT, true) => is_set_aside = true,
                _ => sent.push(number),
            }
            let how = if number == CULPRIT { State::Failed } else { State::Sent };
            settle(&queue, &[suspect], done(how)).await;
        }
        break;
    }
    sent.sort_unstable();
    assert_eq!(sent, (1..=65).filter(|n| *n != CULPRIT).collect::<Vec<_>>());
    assert!(is_set_aside && ends == 5, "{ends}");
    let queue = open_at(&home, now);
    accept(&queue, [100], ORDINARY).await;
    let claimed = claim(&queue, 9, now).await;
    settle(&queue, &claimed, again(now)).await;
    drop(queue);
    let queue = open_at(&home, now);
    assert_eq!(claim(&queue, 9, now).await[0].interruptions, 0, "an attempt finished before");
}

pub(super) async fn suspects_can_be_paused_cancelled_and_erased(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = open_at(&home, 0);
    let uuid = Uuid::from_u128(77);
    let batch = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(0)).await.expect("created");
    accept(&queue, 1..=3, batch.priority).await;
    accept(&queue, [11, 12], ORDINARY).await;
    queue.complete_batch(uuid).await.expect("complete");
    drop(queue);
    for start in 1..=3 {
        crash(&home, start * 1_000).await;
    }
    let queue = open_at(&home, 4_000);
    queue.cancel(Uuid::from_u128(11), at(4_000)).await.expect("it waits");
    let erased = queue.erase(Some("5".to_owned()), None).await.expect("erased");
    assert_eq!(erased, Erased { waiting: 1, ..Erased::default() });
    queue.pause_batch(uuid).await.expect("paused");
    assert_eq!(queue.claim_suspect(at(9_000)).await.expect("asked"), None);
    let claimed_batch = queue.claim(Claim { max: 9, bulk_max: 9 }, at(9_000)).await.expect("claimed");
    assert_eq!(claimed_batch.next_suspect, None, "it is not waited for");
    queue.resume_batch(uuid).await.expect("resumed");
    assert!(queue.claim_suspect(at(9_000)).await.expect("asked").is_some());
    let cancelled = queue.cancel_batch(uuid, at(9_000)).await.expect("cancelled");
    assert_eq!(cancelled.by_state, BTreeMap::from([(State::Queued, 1), (State::Cancelled, 2)]));
    assert_eq!(queue.stats().await.expect("asked").suspects, 0);
}

pub(super) async fn a_panic_of_a_worker_counts_like_the_end_of_a_process(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = open_at(&home, 0);
    accept(&queue, [1, 2], ORDINARY).await;
    let interrupt = async |claimed: &[Claimed], second| {
        let of = |one: &Claimed| Settled { id: one.id, claim: one.claim, settlement: Settlement::Interrupted };
        queue.settle(claimed.iter().map(of).collect(), at(second)).await.expect("settled");
    };
    for second in 2_000..2_002 {
        let claimed = claim(&queue, 9, second).await;
        assert_eq!(claimed[0].interruptions, (second - 2_000) as u32);
        interrupt(&claimed[..1], second).await;
        settle(&queue, &claimed[1..], done(State::Sent)).await;
    }
    let third = claim(&queue, 9, 2_002).await;
    assert_eq!(third[0].interrupted, [at(2_000), at(2_001)]);
    interrupt(&third, 2_002).await;
    assert_eq!(
        queue.claim(Claim { max: 9, bulk_max: 9 }, at(2_002)).await.expect("asked").next_suspect,
        Some(at(2_003))
    );
    let fourth = queue.claim_suspect(at(2_003)).await.expect("asked").expect("it is due");
    interrupt(&[fourth], 2_003).await;
    assert_eq!(queue.claim_suspect(at(2_004)).await.expect("asked"), None, "longer than before");
    let fifth = queue.claim_suspect(at(2_005)).await.expect("asked").expect("it is due");
    assert_eq!((fifth.interruptions, fifth.is_culprit), (4, false));
    interrupt(&[fifth], 2_005).await;
    let last = queue.claim_suspect(at(2_005)).await.expect("asked").expect("there is nothing to wait for");
    assert!(last.is_culprit && last.interrupted.len() == 5);
}

pub(super) async fn interruptions_in_one_millisecond_have_times_of_their_own(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = open_at(&home, 0);
    accept(&queue, [1], ORDINARY).await;
    let interrupt = async |claimed: &Claimed, now| {
        let settled = Settled { id: claimed.id, claim: claimed.claim, settlement: Settlement::Interrupted };
        queue.settle(vec![settled], now).await.expect("settled");
    };
    let (first, later) = (at(2_000), |ms| at(2_000) + jiff::SignedDuration::from_millis(ms));
    for _ in 0..2 {
        interrupt(&claim(&queue, 9, 2_000).await[0], first).await;
    }
    let suspect = queue.claim_suspect(at(2_000)).await.expect("asked");
    assert_eq!(suspect, None, "twice is no suspicion");
    let third = claim(&queue, 9, 2_000).await.remove(0);
    assert_eq!(third.interrupted, [first, later(1)]);
    interrupt(&third, first).await;
    let fourth = queue.claim_suspect(at(2_001)).await.expect("asked").expect("it is due");
    assert_eq!(fourth.interrupted, [first, later(1), later(2)]);
    // The clock was set back: the time is the clock's.
    interrupt(&fourth, at(1_000)).await;
    let fifth = queue.claim_suspect(at(2_010)).await.expect("asked").expect("it is due");
    assert_eq!(fifth.interrupted, [first, later(1), later(2), at(1_000)]);
}
