use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const BULK: Arrival = Arrival { is_transactional: false, is_returning: false };
const URGENT: Arrival = Arrival { is_transactional: true, is_returning: false };

fn rate(count: u32, per: Duration) -> Rate {
    Rate { count, per }
}

fn per_second(count: u32) -> RateLimiter {
    RateLimiter::new(&rate(count, Duration::from_secs(1)), None)
}

/// The largest number of admissions within an interval of this length, its end excluded.
fn most_within(admissions: &[Instant], per: Duration) -> usize {
    let within = |i: usize| admissions[i..].iter().take_while(|at| **at < admissions[i] + per).count();
    (0..admissions.len()).map(within).max().unwrap_or(0)
}

/// Admission times of messages that all arrive at the start. `late` says how late each one returns.
fn admissions(
    limiter: &mut RateLimiter,
    entries: &[Arrival],
    until: Duration,
    mut late: impl FnMut(Instant) -> Duration,
) -> Vec<Instant> {
    let start = Instant::now();
    let mut waiting: BinaryHeap<_> = (0..entries.len()).map(|i| Reverse((start, i, false))).collect();
    let mut admitted = Vec::new();
    while let Some(Reverse((now, i, is_returning))) = waiting.pop().filter(|Reverse((now, ..))| *now < start + until) {
        match limiter.admit(Arrival { is_returning, ..entries[i] }, now) {
            Ok(()) => admitted.push(now),
            Err(at) => {
                assert!(at > now, "it is told a moment to come");
                waiting.push(Reverse((at + late(at), i, true)));
            }
        }
    }
    admitted
}

#[test]
fn a_backlog_of_bulk_gets_95_percent_even_if_messages_return_late() {
    let seconds = 10;
    for count in [1, 2, 5, 10, 14, 33, 34, 50, 100, 500, 1_000] {
        let mut late = (0..).map(|n: u64| Duration::from_micros(n.wrapping_mul(0x9E37_79B9) % 15_000));
        let entries = vec![BULK; (count * seconds * 2) as usize];
        let until = Duration::from_secs(seconds.into());
        let admitted = admissions(&mut per_second(count), &entries, until, |_| late.next().expect("endless"));
        assert!(most_within(&admitted, Duration::from_secs(1)) <= count as usize, "{count}/s");
        let share = admitted.len() as f64 / f64::from(count * seconds);
        assert!(share >= 0.95, "{share:.3} of {count}/s");
    }
}

#[test]
fn a_stall_is_caught_up_as_far_as_the_rate_allows() {
    for (count, pause) in [(50, 200), (100, 200), (1_000, 200), (100, 900), (1_000, 900)] {
        // Twice in ten seconds, all messages that would return within `pause` return at its end.
        let mut limiter = per_second(count);
        let stalls = [3_000, 7_000].map(|at| (Duration::from_millis(at), Duration::from_millis(at + pause)));
        let start = Instant::now();
        let awake = |at: Instant| {
            let stall = stalls.iter().find(|(from, to)| (start + *from..start + *to).contains(&at));
            stall.map_or(Duration::from_millis(2), |(_, to)| start + *to - at)
        };
        let entries = vec![BULK; count as usize * 20];
        let admitted = admissions(&mut limiter, &entries, Duration::from_secs(10), awake);
        // The window allows no catching up of the stalls themselves: only the time around them is used fully.
        let possible = f64::from(count) * (10.0 - 2.0 * pause as f64 / 1e3);
        let share = admitted.len() as f64 / possible;
        assert!(share >= 0.99, "{share:.3} of what {count}/s leaves with stalls of {pause} ms");
        assert!(most_within(&admitted, Duration::from_secs(1)) <= count as usize);
    }
}

#[test]
fn bulk_is_spread_evenly_and_transactional_messages_have_the_rest() {
    let mut limiter = per_second(100);
    let start = Instant::now();
    let after = |at: Instant| at.duration_since(start).as_millis();
    assert_eq!(limiter.admit(BULK, start), Ok(()));
    let told: Vec<u128> = (0..3).map(|_| after(limiter.admit(BULK, start).expect_err("later"))).collect();
    assert_eq!(told, [10, 20, 30], "each has a moment of its own");
    let burst = (0..200).filter(|_| limiter.admit(URGENT, start).is_ok()).count();
    assert_eq!(burst, 99, "what bulk has not used");
    assert!(limiter.admit(BULK, start + Duration::from_millis(10)).is_err(), "and bulk makes up for it");
}

#[test]
fn room_is_reserved_for_a_deferred_transactional_message() {
    let mut limiter = per_second(1);
    let start = Instant::now();
    assert_eq!(limiter.admit(BULK, start), Ok(()));
    let told = limiter.admit(URGENT, start).expect_err("the second of this second");
    assert_eq!(told, start + Duration::from_secs(1));
    assert!(limiter.admit(BULK, told).is_err(), "bulk does not take its place");
    assert_eq!(limiter.admit(Arrival { is_returning: true, ..URGENT }, told), Ok(()));
    let mut limiter = per_second(1);
    assert_eq!(limiter.admit(BULK, start), Ok(()));
    limiter.admit(URGENT, start).expect_err("it never comes back");
    assert_eq!(limiter.admit(BULK, start + Duration::from_secs(3)), Ok(()), "and is not waited for");
}

#[test]
fn a_changed_rate_counts_earlier_admissions() {
    let mut before = per_second(10);
    let start = Instant::now();
    (0..10).for_each(|_| before.admit(URGENT, start).expect("within the rate"));
    let mut raised = RateLimiter::new(&rate(12, Duration::from_secs(1)), Some(&before));
    let admitted = (0..10).filter(|_| raised.admit(URGENT, start).is_ok()).count();
    assert_eq!(admitted, 2);
}

#[test]
fn a_deferral_lasts_at_most_ten_minutes() {
    let mut limiter = per_second(1);
    let start = Instant::now();
    let told = (0..10_000).filter_map(|_| limiter.admit(BULK, start).err()).max().expect("most are refused");
    assert_eq!(told, start + DEFERRAL_MAX);
}

#[test]
fn the_log_is_bounded_whatever_the_count() {
    let per = Duration::from_secs(86_400);
    let mut limiter = RateLimiter::new(&rate(1_000_000_000, per), None);
    let start = Instant::now();
    (0..200_000).for_each(|i| limiter.admit(URGENT, start + per * i / 200_000).expect("within the rate"));
    assert!(limiter.log.len() <= LOG_PARTS as usize + 1, "{}", limiter.log.len());
}

proptest! {
    #[test]
    fn no_window_sees_more_than_the_rate(
        count in 1u32..40,
        per_ms in prop::sample::select(vec![1_000u64, 60_000, 3_600_000]),
        steps in prop::collection::vec((0u64..400, any::<bool>(), any::<bool>()), 1..400),
    ) {
        let per = Duration::from_millis(per_ms);
        let mut limiter = RateLimiter::new(&rate(count, per), None);
        let (mut now, mut admitted) = (Instant::now(), Vec::new());
        for (pause, is_transactional, is_returning) in steps {
            now += Duration::from_millis(pause * per_ms / 10_000);
            if limiter.admit(Arrival { is_transactional, is_returning }, now).is_ok() {
                admitted.push(now);
            }
        }
        prop_assert!(most_within(&admitted, per) <= count as usize);
    }
}

/// On the real clock, with one task for each message in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_holds_on_a_real_clock() {
    let limiter = std::sync::Arc::new(std::sync::Mutex::new(per_second(200)));
    let until = Instant::now() + Duration::from_millis(2_500);
    let tasks = (0..600).map(|_| {
        let limiter = limiter.clone();
        tokio::spawn(async move {
            let mut is_returning = false;
            loop {
                let now = Instant::now();
                let answer = limiter.lock().expect("no panic").admit(Arrival { is_returning, ..BULK }, now);
                match answer {
                    Ok(()) => return Some(now),
                    Err(at) if at > until => return None,
                    Err(at) => tokio::time::sleep_until(at).await,
                }
                is_returning = true;
            }
        })
    });
    let mut admitted: Vec<Instant> =
        futures_util::future::join_all(tasks).await.into_iter().filter_map(|one| one.expect("no panic")).collect();
    admitted.sort();
    assert!(most_within(&admitted, Duration::from_secs(1)) <= 200);
    // 2.5 seconds; the machine may be busy.
    assert!(admitted.len() >= 400, "{}", admitted.len());
}
