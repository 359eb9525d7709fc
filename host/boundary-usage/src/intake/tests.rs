//! Tests of the intake from the view of its users: threads that push, and a worker that drains.

use std::convert::Infallible;

use uuid::Uuid;

use super::*;

fn activity(id: u128) -> Activity {
    Activity { workspace: Uuid::from_u128(id), owner: Uuid::from_u128(2), allowed: 1, denied: 0 }
}

/// Drains the intake and returns the forwarded activities.
fn drained(intake: &Intake) -> Vec<Activity> {
    let (mut drained, mut buffer) = (Vec::new(), Vec::new());
    let drain = intake.drain(&mut buffer, async |activities: &[Activity]| {
        drained.extend_from_slice(activities);
        Ok::<_, Infallible>(())
    });
    let Ok(()) = futures_util::FutureExt::now_or_never(drain).expect("a drain waits only for its closure");
    drained
}

#[test]
fn a_full_intake_refuses_until_it_is_drained() {
    let intake = Intake::new(2);
    assert_eq!(intake.try_push(activity(1)), Ok(()));
    assert_eq!(intake.try_push(activity(2)), Ok(()));
    assert_eq!(intake.try_push(activity(3)), Err(TrackError::Full { capacity: 2 }));
    assert_eq!(intake.depth(), 2);
    assert_eq!((drained(&intake).len(), intake.depth()), (2, 0));
    assert_eq!(intake.try_push(activity(3)), Ok(()));
    assert_eq!((intake.accepted(), intake.forwarded()), (3, 2));
}

#[test]
fn a_full_intake_still_accepts_its_waiting_pairs() {
    let intake = Intake::new(1);
    (0..10).for_each(|_| intake.try_push(activity(1)).unwrap());
    let drained = drained(&intake);
    assert_eq!((drained.len(), drained[0].allowed), (1, 10));
    assert_eq!((intake.accepted(), intake.forwarded()), (10, 10));
}

#[test]
fn a_push_into_a_full_intake_waits_and_loses_nothing() {
    let intake = Intake::new(1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let intake = &intake;
            scope.spawn(move || (0..100).for_each(|id| intake.push(activity((thread << 64) | (id + 1))).unwrap()));
        }
        let mut total = 0;
        while total < 400 {
            let drained = drained(&intake).len();
            // A drain takes at most one activity per shard, because the capacity is one. After a shard is drained,
            // threads of later shards can use its capacity.
            assert!(drained <= intake.shards.len());
            total += drained;
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_closed_intake_refuses_waiting_threads_too() {
    let intake = Intake::new(1);
    intake.push(activity(1)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| intake.push(activity(2)));
        intake.close();
        assert_eq!(waiting.join().unwrap(), Err(TrackError::Stopped));
    });
    assert!(intake.is_closed());
    assert_eq!(drained(&intake).len(), 1);
}

#[test]
fn buffers_shrink_after_a_burst() {
    let intake = Intake::new(10_000);
    let mut buffer = Vec::new();
    for size in [9_000, 10, 10, 10] {
        (1..=size).for_each(|id| intake.push(activity(id)).unwrap());
        let drain = intake.drain(&mut buffer, async |_: &[Activity]| Ok::<_, Infallible>(()));
        let Ok(()) = futures_util::FutureExt::now_or_never(drain).expect("a drain waits only for its closure");
    }
    assert!(buffer.capacity() < 100, "{}", buffer.capacity());
}
