use std::sync::{Arc, atomic::Ordering};

use mesh::{app::Draining, testing::TestDb};
use proto::shipping::v1::shipment::State;

use super::*;
use crate::harness::{PATIENT, Parcel, SWIFT, World, resolver};

mesh::on_both_databases! { Store;
    two_bookers_share_the_work
    what_is_taken_on_is_not_due_before_its_lease_is_over
    a_crash_after_sent_resumes_with_the_same_key
    a_carrier_that_is_late_is_asked_again
    news_that_come_twice_are_taken_in_once
    a_shipment_arrives_by_itself
}

async fn two_bookers_share_the_work(db: TestDb) {
    let world = World::new(db, SWIFT);
    let mut parcels = Vec::new();
    for _ in 0..40 {
        let parcel = Parcel::new("");
        world.create(&parcel).await.unwrap();
        parcels.push(parcel);
    }
    let other = resolver(&world.store, Arc::clone(&world.counting));
    let booker = async |booker: &Resolver| {
        let mut booked = 0;
        loop {
            match booker.pass().await.unwrap() {
                0 => return booked,
                count => booked += count,
            }
        }
    };
    let (one, two) = tokio::join!(booker(&world.resolver), booker(&other));
    assert_eq!((one + two, world.counting.asked()), (40, 40));
    assert!(one > 0 && two > 0, "{one} and {two}");
    assert_eq!(world.parcels().await, 40);
    // Two carriers move them, and two trackers take the same news in.
    let carrier = world.carrier.clone();
    for _ in 0..4 {
        let (one, two) = tokio::join!(world.carrier.pass(), carrier.pass());
        assert!(one.is_ok() && two.is_ok());
        let (one, two) = tokio::join!(world.resolver.collect(), other.collect());
        assert!(one.is_ok() && two.is_ok());
    }
    for _ in 0..4 {
        world.stage().await;
    }
    for parcel in &parcels {
        assert_eq!(world.state(parcel).await, State::Delivered);
        assert_eq!(world.told(parcel).await.len(), 5);
    }
    assert_eq!(world.count("SELECT COUNT(*) AS count FROM carrier_event").await, 120);
}

/// Whoever finds something due that another one works on would ask the database without end.
async fn what_is_taken_on_is_not_due_before_its_lease_is_over(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = Parcel::new("");
    world.create(&parcel).await.unwrap();
    assert_eq!(world.store.next_due().await.unwrap(), Some(Duration::ZERO));
    let taken = world.store.take_due("another process", LEASE, 64).await.unwrap();
    assert_eq!(taken.iter().map(|due| due.shipment).collect::<Vec<_>>(), [parcel.id]);
    let due = world.store.next_due().await.unwrap().unwrap();
    assert!(due > LEASE / 2 && due <= LEASE, "{due:?}");
    assert_eq!(world.resolver.pass().await.unwrap(), 0);
    // It may be being asked: nothing is cancelled behind its back.
    let wait = world.undo(&parcel).await.unwrap_err();
    assert_eq!(crate::harness::reason(&wait), "REQUEST_IN_PROGRESS");
}

async fn a_crash_after_sent_resumes_with_the_same_key(db: TestDb) {
    let world = World::new(db, PATIENT);
    for did_go_out in [false, true] {
        let parcel = Parcel::new("");
        world.create(&parcel).await.unwrap();
        // The process that took it on is gone at once.
        world.store.take_due("another process", Duration::ZERO, 64).await.unwrap();
        if did_go_out {
            let shipment = world.store.shipment(parcel.id).await.unwrap().unwrap();
            let lost = world.resolver.ask(&shipment, Kind::Book).await;
            assert!(matches!(lost, Outcome::Done(_)));
        }
        let before = world.parcels().await;
        world.ask().await;
        assert_eq!(world.state(&parcel).await, State::Booked);
        assert_eq!(world.parcels().await - before, i64::from(!did_go_out));
        assert_eq!(world.told(&parcel).await, ["shipment.created", "shipment.booked"]);
    }
}

async fn a_carrier_that_is_late_is_asked_again(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = Parcel::new("");
    world.create(&parcel).await.unwrap();
    world.counting.mute.store(true, Ordering::SeqCst);
    let carrier = Arc::clone(&world.counting);
    let hurried = Resolver::new(world.store.clone(), carrier, Duration::from_millis(300));
    hurried.pass().await.unwrap();
    let shipment = world.store.shipment(parcel.id).await.unwrap().unwrap();
    assert_eq!(shipment.attempts[0].state, AttemptState::Unknown);
    assert_eq!((world.state(&parcel).await, world.parcels().await), (State::Pending, 1));
    world.counting.mute.store(false, Ordering::SeqCst);
    world.ask().await;
    assert_eq!((world.state(&parcel).await, world.parcels().await), (State::Booked, 1));
}

async fn news_that_come_twice_are_taken_in_once(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = world.booked("").await;
    world.carrier.pass().await.unwrap();
    let news = crate::carrier::Carrier::news(&world.carrier, 10).await.unwrap();
    assert_eq!(news.len(), 1);
    for _ in 0..2 {
        world.store.take_in(parcel.id, news[0].clone()).await.unwrap();
    }
    // And once more, for nobody has acknowledged them.
    assert_eq!(world.resolver.collect().await.unwrap(), 1);
    assert_eq!(world.resolver.collect().await.unwrap(), 0);
    assert_eq!(world.told(&parcel).await.len(), 3);
}

async fn a_shipment_arrives_by_itself(db: TestDb) {
    let world = World::new(db, SWIFT);
    let draining = Draining::default();
    let tasks = async {
        let (resolver, tracker) = (world.resolver.clone(), world.resolver.clone());
        tokio::join!(
            resolver.run(draining.clone()),
            tracker.track(draining.clone()),
            world.carrier.clone().run(draining.clone()),
        )
    };
    let customer = async {
        let mut commits = world.db.store.commits();
        let parcel = Parcel::new("");
        world.create(&parcel).await.unwrap();
        while world.state(&parcel).await != State::Delivered {
            commits.changed().await.unwrap();
        }
        draining.begin();
    };
    let ((one, two, three), ()) = tokio::join!(tasks, customer);
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
}
