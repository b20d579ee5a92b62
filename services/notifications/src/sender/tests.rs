use mesh::{clock, testing::TestDb};

use super::*;
use crate::{
    domain::{Kind, Preferences, State},
    harness::{NO_TIME, Order, World},
    store::Stored,
};

mesh::on_both_databases! { Store;
    the_same_event_twice_is_one_mail
    an_order_is_confirmed_by_one_mail_whatever_events_say_so
    a_crash_between_writing_and_recording_leaves_one_mail
    a_crash_before_writing_loses_no_mail
    a_mail_of_a_shipment_waits_for_the_address_of_its_order
    an_address_that_comes_at_the_same_moment_is_not_missed
    what_is_muted_is_not_mailed_and_the_confirmation_is
    muting_does_not_recall_what_was_begun
    a_folder_that_cannot_be_used_loses_nothing
    a_full_disk_puts_a_mail_off_and_no_other
    an_address_that_is_none_is_given_up_and_holds_nothing_up
    two_senders_begin_a_mail_once
    mails_are_sent_as_events_come_until_the_process_leaves
}

async fn the_same_event_twice_is_one_mail(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    let created = order.created();
    world.took(&created).await;
    world.took(&created).await;
    assert_eq!(world.pass().await, Pass { begun: 1, put_off: 0 });
    world.took(&created).await;
    assert_eq!(world.pass().await, Pass::default());
    let [mail] = &world.mails()[..] else { panic!("one mail") };
    assert!(mail.contains("Subject: We have received your order"), "{mail}");
    assert!(mail.contains("2 =C3=97 A mug: 19.98 EUR"), "{mail}");
    let [told] = &world.told(&order).await[..] else { panic!("one notification") };
    assert_eq!((told.state, told.attempts, told.event.to_string()), (State::Sent, 1, created.id));
    assert!(mail.contains(&format!("Message-ID: <{}>", told.message_id)));
}

async fn an_order_is_confirmed_by_one_mail_whatever_events_say_so(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    world.took(&order.created()).await;
    world.took(&order.confirmed()).await;
    world.pass().await;
    // Another event, not the same one again.
    world.took(&order.confirmed()).await;
    world.pass().await;
    let kinds: Vec<_> = world.told(&order).await.iter().map(|told| told.kind).collect();
    assert_eq!(kinds, [Kind::OrderReceived, Kind::OrderConfirmed]);
    let name = format!("order-confirmed.{}.ordermesh.example", order.id);
    assert_eq!(world.files("new").iter().filter(|file| **file == name).count(), 1);
    let confirmed = |mail: &&String| mail.contains("Subject: Your order is confirmed");
    let mails = world.mails();
    let mails: Vec<_> = mails.iter().filter(confirmed).collect();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("A mug: 19.98 EUR"), "it lists what was ordered: {}", mails[0]);
}

async fn a_crash_between_writing_and_recording_leaves_one_mail(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    world.took(&order.confirmed()).await;
    world.sender.maildir.prepare().await.unwrap();
    for crash in 0..3 {
        // The process dies here, each time: what it has begun is nobody's soon.
        let begun = world.store.begin(NO_TIME, BEGUN).await.unwrap();
        assert_eq!(begun.len(), 1);
        assert_eq!(world.sender.write(begun).await[0].1, Sent::Done);
        assert_eq!(world.states(&order).await, [State::Pending], "after crash {crash}");
    }
    // The customer reads the mail before the process is back.
    let [name] = &world.files("new")[..] else { panic!("one mail") };
    let read = world.path("cur").join(format!("{name}:2,S"));
    std::fs::rename(world.path("new").join(name), read).unwrap();
    assert_eq!(world.pass().await, Pass { begun: 1, put_off: 0 });
    assert_eq!(world.states(&order).await, [State::Sent]);
    assert_eq!((world.files("new").len(), world.files("cur").len()), (0, 1));
}

async fn a_crash_before_writing_loses_no_mail(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    world.took(&order.confirmed()).await;
    assert_eq!(world.store.begin(NO_TIME, BEGUN).await.unwrap().len(), 1);
    // It died with half a mail on the disk.
    world.sender.maildir.prepare().await.unwrap();
    let name = mail::file_name(&world.told(&order).await[0].message_id);
    std::fs::write(world.path("tmp").join(format!("{name}.1")), "Date: ").unwrap();
    assert_eq!(world.pass().await, Pass { begun: 1, put_off: 0 });
    assert_eq!((world.mails().len(), world.files("tmp").len()), (1, 0));
    assert_eq!(world.states(&order).await, [State::Sent]);
}

async fn a_mail_of_a_shipment_waits_for_the_address_of_its_order(db: TestDb) {
    let world = World::on(db);
    let (order, shipment) = (Order::new(), clock::id());
    world.took(&order.dispatched(shipment)).await;
    world.took(&order.delivered(shipment)).await;
    assert_eq!(world.pass().await, Pass::default());
    assert_eq!(world.states(&order).await, [State::Waiting, State::Waiting]);
    // An event that does not know the address either changes nothing.
    world.took(&Order { email: String::new(), ..order.clone() }.created()).await;
    assert_eq!(world.pass().await, Pass::default());
    world.took(&order.confirmed()).await;
    assert_eq!(world.pass().await.begun, 4);
    assert_eq!(world.states(&order).await, [State::Sent; 4]);
    let mails = world.mails();
    assert!(mails.iter().all(|mail| mail.contains("\r\nTo: ada@example.com\r\n")));
    let dispatched = mails.iter().find(|mail| mail.contains("Ordermesh-Kind: SHIPMENT_DISPATCHED"));
    let dispatched = dispatched.unwrap();
    assert!(dispatched.contains("Carrier: Parcel Post"), "{dispatched}");
    assert!(dispatched.contains("Tracking number: PP-1"), "{dispatched}");
    // A later shipment finds the address, and what its goods are called.
    world.took(&order.dispatched(clock::id())).await;
    assert_eq!(world.pass().await.begun, 1);
    let told = world.told(&order).await;
    assert_eq!(told.last().unwrap().state, State::Sent);
    assert!(told.last().unwrap().letter.body.contains("2 × A mug"));
}

async fn an_address_that_comes_at_the_same_moment_is_not_missed(db: TestDb) {
    let world = World::on(db);
    let orders: Vec<_> = (0..40).map(|_| Order::new()).collect();
    let coming = orders.iter().map(async |order| {
        // By two logs, each in a transaction of its own.
        let (created, dispatched) = (order.created(), order.dispatched(clock::id()));
        futures_util::future::join(world.took(&dispatched), world.took(&created)).await;
    });
    futures_util::future::join_all(coming).await;
    while world.pass().await.begun > 0 {}
    for order in &orders {
        assert_eq!(world.states(order).await, [State::Sent; 2]);
    }
}

async fn what_is_muted_is_not_mailed_and_the_confirmation_is(db: TestDb) {
    let world = World::on(db);
    let (order, other) = (Order::new(), Order::new());
    mute(&world, &order, &[Kind::OrderReceived, Kind::ShipmentDelivered]).await;
    for event in [order.created(), order.confirmed(), order.delivered(clock::id())] {
        world.took(&event).await;
    }
    world.took(&other.created()).await;
    world.pass().await;
    assert_eq!(world.states(&order).await, [State::Suppressed, State::Sent, State::Suppressed]);
    assert_eq!(world.states(&other).await, [State::Sent], "what one mutes, another gets");
    assert_eq!(world.mails().len(), 2);
    assert_eq!(world.pass().await, Pass::default());
}

async fn muting_does_not_recall_what_was_begun(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    world.took(&order.created()).await;
    world.store.begin(NO_TIME, BEGUN).await.unwrap();
    mute(&world, &order, &[Kind::OrderReceived]).await;
    // It may have been sent: to say that it was not would be a guess.
    world.pass().await;
    assert_eq!(world.states(&order).await, [State::Sent]);
}

async fn a_folder_that_cannot_be_used_loses_nothing(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    // Something else stands in its place; not even root can use it.
    std::fs::write(world.mail(), "not a folder").unwrap();
    world.took(&order.created()).await;
    world.took(&order.confirmed()).await;
    for _ in 0..3 {
        let stopped = world.sender.pass().await.unwrap_err();
        assert!(matches!(stopped, Stopped::Folder(_)), "{stopped:?}");
    }
    let told = world.told(&order).await;
    assert!(told.iter().all(|told| (told.state, told.attempts) == (State::Pending, 0)));
    std::fs::remove_file(world.mail()).unwrap();
    assert_eq!(world.pass().await, Pass { begun: 2, put_off: 0 });
    assert_eq!(world.mails().len(), 2);
}

async fn a_full_disk_puts_a_mail_off_and_no_other(db: TestDb) {
    let world = World::on(db);
    let (unlucky, lucky) = (Order::new(), Order::new());
    world.took(&unlucky.confirmed()).await;
    world.took(&lucky.confirmed()).await;
    world.sender.maildir.prepare().await.unwrap();
    // A device that is always full, in place of the first attempt's file.
    let name = mail::file_name(&world.told(&unlucky).await[0].message_id);
    let full = world.path("tmp").join(format!("{name}.1"));
    std::os::unix::fs::symlink("/dev/full", full).unwrap();
    assert_eq!(world.pass().await, Pass { begun: 2, put_off: 1 });
    assert_eq!(world.states(&lucky).await, [State::Sent]);
    let [told] = &world.told(&unlucky).await[..] else { panic!("one notification") };
    assert_eq!((told.state, told.attempts), (State::Pending, 1));
    assert!(told.problem.contains("cannot write the mail"), "{}", told.problem);
    assert!(!told.problem.contains(&unlucky.email), "what is logged says nothing of people");
    // It is due again when its pause is over, not before.
    let due = world.store.next_due().await.unwrap().unwrap();
    assert!(due > Duration::ZERO && due <= Duration::from_secs(1), "{due:?}");
    world.change("UPDATE notification SET next_try_at = 0 WHERE state = 'PENDING'").await;
    assert_eq!(world.pass().await, Pass { begun: 1, put_off: 0 });
    assert_eq!((world.states(&unlucky).await, world.mails().len()), (vec![State::Sent], 2));
}

async fn an_address_that_is_none_is_given_up_and_holds_nothing_up(db: TestDb) {
    let world = World::on(db);
    let bad = Order { email: "ada@example.com\r\nBcc: eve@example.com".to_owned(), ..Order::new() };
    let good = Order::new();
    world.took(&bad.created()).await;
    world.took(&good.created()).await;
    assert_eq!(world.pass().await, Pass { begun: 2, put_off: 0 });
    let [told] = &world.told(&bad).await[..] else { panic!("one notification") };
    assert_eq!((told.state, told.problem.as_str()), (State::Failed, "the address is not valid"));
    assert_eq!(world.states(&good).await, [State::Sent]);
    assert_eq!(world.mails().len(), 1);
}

async fn two_senders_begin_a_mail_once(db: TestDb) {
    let world = World::on(db);
    for _ in 0..20 {
        world.took(&Order::new().created()).await;
    }
    let (one, two) = (world.sender.clone(), world.sender.clone());
    let (one, two) = futures_util::future::join(one.pass(), two.pass()).await;
    assert_eq!(one.unwrap().begun + two.unwrap().begun, 20);
    assert_eq!(world.mails().len(), 20);
}

async fn mails_are_sent_as_events_come_until_the_process_leaves(db: TestDb) {
    use mesh::consume::Handler as _;

    let world = World::on(db);
    let draining = Draining::default();
    let running = world.sender.clone().run(draining.clone());
    let order = Order::new();
    let coming = async {
        let mut commits = world.store.mesh().commits();
        for event in [order.created(), order.confirmed(), order.cancelled()] {
            world.took(&event).await;
            world.inbox.committed(&event);
        }
        while world.states(&order).await != [State::Sent; 3] {
            commits.changed().await.unwrap();
        }
        draining.begin();
    };
    let both = futures_util::future::join(running, coming);
    let (ran, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    ran.unwrap();
    assert_eq!(world.mails().len(), 3);
}

async fn mute(world: &World, order: &Order, kinds: &[Kind]) {
    let mut preferences = Preferences::of(order.user);
    preferences.mute(kinds.iter().copied().collect(), clock::now()).unwrap();
    world.store.save_preferences(Stored { preferences, revision: 0 }, None).await.unwrap();
}
