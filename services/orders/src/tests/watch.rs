//! Following an order.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use proto::{orders::v1::watch_order_response::Update, shipping::v1::shipment};

use super::*;
use crate::grpc::Watching;

type Watch = Pin<Box<dyn Stream<Item = Result<api::WatchOrderResponse, Status>> + Send>>;

impl Place {
    async fn watch(&self, name: &str, resume_token: &str) -> Result<Watch, Status> {
        let request =
            api::WatchOrderRequest { name: name.to_owned(), resume_token: resume_token.to_owned() };
        let call = self.orders.watch_order(Request::new(request));
        let watch = testing::as_caller(Caller::customer(ADA), call).await?;
        Ok(Box::pin(watch.into_inner()))
    }
}

/// What a message tells: the revision, and the type if it is an event.
fn told(message: &api::WatchOrderResponse) -> (i64, String) {
    let kind = match message.update.as_ref().unwrap() {
        Update::Order(order) => {
            assert_eq!(order.revision, message.revision);
            "snapshot".to_owned()
        }
        Update::OrderEvent(event) => {
            assert_eq!(event.revision, message.revision);
            event.r#type.clone()
        }
        Update::Heartbeat(_) => "heartbeat".to_owned(),
    };
    (message.revision, kind)
}

#[tokio::test]
async fn a_watch_begins_with_the_order_and_ends_after_its_end() {
    let place = Place::new().await;
    place.shop.state().script.push_back(Provider::Hangs);
    let placed = place.create(request(mugs())).await.unwrap();
    place.shop.called("AuthorizePayment", 1).await;
    let mut watch = place.watch(&placed.name, "").await.unwrap();
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!(told(&first), (2, "snapshot".to_owned()));
    place.cancel(&placed.name).await.unwrap();
    place.shop.gate.notify_one();
    let rest: Vec<_> = watch.map(|message| told(&message.unwrap())).collect().await;
    let kinds = ["order.cancelling", "order.payment_changed", "order.cancelled"];
    let expected: Vec<_> = (3..).zip(kinds.map(str::to_owned)).collect();
    assert_eq!(rest, expected);

    let mut again = place.watch(&placed.name, "").await.unwrap();
    assert_eq!(told(&again.next().await.unwrap().unwrap()), (5, "snapshot".to_owned()));
    assert!(again.next().await.is_none(), "it has ended");
    let mut behind = place.watch(&placed.name, "r5").await.unwrap();
    assert!(behind.next().await.is_none(), "there is nothing more");
}

async fn a_watcher_who_is_cut_off_a_hundred_times_sees_every_revision_once(place: Place) {
    let placed = place.create(request(mugs())).await.unwrap();
    let name = placed.name.as_str();
    let (mut seen, mut token, mut cuts) = (Vec::new(), "r0".to_owned(), 0);
    let moves = async {
        place.settled(name).await;
        place.shop.called("CreateShipment", 1).await;
        for to in [shipment::State::Dispatched, shipment::State::Delivered] {
            place.shop.carry("BER", to);
            super::delivery::progress(&place, name, to).await;
        }
    };
    let watches = async {
        loop {
            let mut watch = place.watch(name, &token).await.unwrap();
            // Cut off at once, or after a message.
            if cuts % 3 == 0 {
                drop(watch);
                cuts += 1;
                continue;
            }
            match watch.next().await {
                Some(message) => {
                    let message = message.unwrap();
                    token.clone_from(&message.resume_token);
                    seen.push(told(&message));
                }
                None if cuts >= 100 => break,
                None => {}
            }
            cuts += 1;
        }
    };
    let both = async { tokio::join!(watches, moves) };
    tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
    let trail: Vec<_> = place.types(name).await;
    let trail: Vec<_> = (1..).zip(trail.iter().map(|kind| format!("order.{kind}"))).collect();
    assert_eq!(seen, trail);
    assert!(cuts >= 100);
}

async fn any_replica_serves_any_watcher(place: Place) {
    // Another process on the same database: it is not told in memory, it reads the log.
    let other = Store::on(place.orders.store.mesh().clone());
    let leaving = Draining::default();
    let mut replica = place.orders.clone();
    replica.store = other.clone();
    place.shop.state().script.push_back(Provider::Hangs);
    let placed = place.create(request(mugs())).await.unwrap();
    place.shop.called("AuthorizePayment", 1).await;
    let watch_request =
        api::WatchOrderRequest { name: placed.name.clone(), resume_token: String::new() };
    let call = replica.watch_order(Request::new(watch_request));
    let watch = testing::as_caller(Caller::customer(ADA), call).await.unwrap().into_inner();
    place.cancel(&placed.name).await.unwrap();
    place.shop.gate.notify_one();
    let told = async {
        let ended: Vec<_> = watch.map(|message| told(&message.unwrap()).0).collect().await;
        assert_eq!(ended, [2, 3, 4, 5]);
        leaving.begin();
    };
    let positions = async {
        while !leaving.is_draining() {
            mesh::log::sequence(place.orders.store.mesh()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let follows = other.follow(Draining::default(), leaving.clone());
    let all = async { tokio::join!(told, positions, follows) };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap().2.unwrap();
}

#[tokio::test]
async fn a_silent_watch_says_that_it_is_alive_and_ends_in_time() {
    let mut place = Place::new().await;
    place.orders.watching = Watching {
        heartbeat: Duration::from_millis(30),
        longest: Duration::from_millis(200),
        ..Watching::default()
    };
    let placed = place.create(request(mugs())).await.unwrap();
    place.settled(&placed.name).await;
    let watch = place.watch(&placed.name, "").await.unwrap();
    let all: Vec<_> = watch.map(|message| told(&message.unwrap())).collect().await;
    assert_eq!(all[0].1, "snapshot");
    assert!(all.len() > 2, "{all:?}");
    assert!(all[1..].iter().all(|(_, kind)| kind == "heartbeat"), "{all:?}");
}

#[tokio::test]
async fn who_does_not_read_is_told_so_and_can_go_on() {
    let mut place = Place::new().await;
    place.orders.watching =
        Watching { patience: Duration::from_millis(50), ahead: 1, ..Watching::default() };
    let placed = place.create(request(mugs())).await.unwrap();
    place.settled(&placed.name).await;
    let watch = place.watch(&placed.name, "r0").await.unwrap();
    // Until its patience is over, twice: nothing is read meanwhile.
    tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>())
        .await
        .unwrap_err();
    let mut read: Vec<_> = watch.collect().await;
    let slow = read.pop().unwrap().unwrap_err();
    let info = status::reason(&slow).unwrap();
    assert_eq!((slow.code(), info.reason.as_str()), (Code::ResourceExhausted, "SLOW_READER"));
    assert_eq!(read.len(), 1);
    let token = read.pop().unwrap().unwrap().resume_token;
    let mut next = place.watch(&placed.name, &token).await.unwrap();
    assert_eq!(next.next().await.unwrap().unwrap().revision, 2);
}

#[tokio::test]
async fn a_token_that_leads_nowhere_is_refused() {
    let place = Place::new().await;
    let placed = place.create(request(mugs())).await.unwrap();
    place.settled(&placed.name).await;
    for token in ["r99", "r-1", "1", "x"] {
        let refused = place.watch(&placed.name, token).await.map(|_watch| ());
        assert_eq!(why(refused), reason(Code::InvalidArgument, "FIELD_VIOLATION"), "{token}");
    }
    let cut = place.orders.store.mesh().transaction::<u64, mesh::store::Failure, _>(|txn| {
        let sql = "DELETE FROM order_event WHERE revision <= 2";
        Box::pin(mesh::store::execute(txn, "forget", sql, vec![]))
    });
    assert_eq!(cut.await.unwrap(), 2);
    let refused = place.watch(&placed.name, "r1").await.map(|_watch| ());
    assert_eq!(why(refused), reason(Code::OutOfRange, "RESUME_TOKEN_TOO_OLD"));
    assert!(place.watch(&placed.name, "r2").await.is_ok());
    let request = api::WatchOrderRequest { name: placed.name.clone(), ..Default::default() };
    let call = place.orders.watch_order(Request::new(request));
    let denied = testing::as_caller(Caller::customer(BOB), call).await.map(|_watch| ());
    assert_eq!(why(denied), reason(Code::PermissionDenied, "PERMISSION_DENIED"));
}

#[tokio::test]
async fn watches_end_when_the_process_leaves() {
    let place = Place::new().await;
    let placed = place.create(request(mugs())).await.unwrap();
    place.settled(&placed.name).await;
    let mut watch = place.watch(&placed.name, "").await.unwrap();
    watch.next().await.unwrap().unwrap();
    place.orders.leaving.begin();
    let left = watch.next().await.unwrap();
    assert_eq!(why(left), reason(Code::Unavailable, "DRAINING"));
}

mod on_sqlite {
    use super::Place;

    #[tokio::test]
    async fn a_watcher_who_is_cut_off_a_hundred_times_sees_every_revision_once() {
        super::a_watcher_who_is_cut_off_a_hundred_times_sees_every_revision_once(
            Place::new().await,
        )
        .await;
    }

    #[tokio::test]
    async fn any_replica_serves_any_watcher() {
        super::any_replica_serves_any_watcher(Place::new().await).await;
    }
}

mod on_postgres {
    use super::Place;

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_watcher_who_is_cut_off_a_hundred_times_sees_every_revision_once() {
        super::a_watcher_who_is_cut_off_a_hundred_times_sees_every_revision_once(
            Place::on_postgres().await,
        )
        .await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn any_replica_serves_any_watcher() {
        super::any_replica_serves_any_watcher(Place::on_postgres().await).await;
    }
}
