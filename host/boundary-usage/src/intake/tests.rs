//! Promises of the intake as its two users see it: threads that push, the owner who sweeps.

use std::convert::Infallible;

use uuid::Uuid;

use super::*;

fn activity(id: u128) -> Activity {
    Activity { workspace: Uuid::from_u128(id), owner: Uuid::from_u128(2), allowed: 1, denied: 0 }
}

/// Takes what waits; answers the activities, and what they stand for.
fn swept(intake: &Intake) -> Vec<Activity> {
    let (mut swept, mut buffer) = (Vec::new(), Vec::new());
    let drain = intake.drain(&mut buffer, async |activities: &[Activity]| {
        swept.extend_from_slice(activities);
        Ok::<_, Infallible>(())
    });
    let Ok(()) = futures_util::FutureExt::now_or_never(drain).expect("a drain waits for its hand-on alone");
    swept
}

#[test]
fn a_full_intake_refuses_and_accepts_again_once_swept() {
    let intake = Intake::new(2);
    assert_eq!(intake.try_push(activity(1)), Ok(()));
    assert_eq!(intake.try_push(activity(2)), Ok(()));
    assert_eq!(intake.try_push(activity(3)), Err(TrackError::Full { capacity: 2 }));
    assert_eq!(intake.depth(), 2);
    assert_eq!((swept(&intake).len(), intake.depth()), (2, 0));
    assert_eq!(intake.try_push(activity(3)), Ok(()));
    assert_eq!((intake.accepted(), intake.forwarded()), (3, 2));
}

#[test]
fn a_full_intake_still_accepts_the_pairs_that_wait_in_it() {
    let intake = Intake::new(1);
    (0..10).for_each(|_| intake.try_push(activity(1)).unwrap());
    let swept = swept(&intake);
    assert_eq!((swept.len(), swept[0].allowed), (1, 10));
    assert_eq!((intake.accepted(), intake.forwarded()), (10, 10));
}

#[test]
fn a_push_into_a_full_intake_waits_for_room_and_loses_nothing() {
    let intake = Intake::new(1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let intake = &intake;
            scope.spawn(move || (0..100).for_each(|id| intake.push(activity((thread << 64) | (id + 1))).unwrap()));
        }
        let mut total = 0;
        while total < 400 {
            let swept = swept(&intake).len();
            // Capacity is free for others as soon as a shard has been swept, and the drain goes on with their shards.
            assert!(swept <= intake.shards.len());
            total += swept;
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_closed_intake_refuses_also_those_who_wait() {
    let intake = Intake::new(1);
    intake.push(activity(1)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| intake.push(activity(2)));
        intake.close();
        assert_eq!(waiting.join().unwrap(), Err(TrackError::Stopped));
    });
    assert!(intake.is_closed());
    assert_eq!(swept(&intake).len(), 1);
}

#[test]
fn one_burst_leaves_no_large_buffers_behind() {
    let intake = Intake::new(10_000);
    let mut buffer = Vec::new();
    for size in [9_000, 10, 10, 10] {
        (1..=size).for_each(|id| intake.push(activity(id)).unwrap());
        let drain = intake.drain(&mut buffer, async |_: &[Activity]| Ok::<_, Infallible>(()));
        let Ok(()) = futures_util::FutureExt::now_or_never(drain).expect("a drain waits for its hand-on alone");
    }
    assert!(buffer.capacity() < 100, "{}", buffer.capacity());
}
