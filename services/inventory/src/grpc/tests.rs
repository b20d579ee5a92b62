//! Calls as their callers see them, on both databases.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use mesh::{
    store,
    testing::{self, TestDb, as_caller},
};
use sea_orm::FromQueryResult;
use time::Duration;
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::*;
use crate::{
    domain::{Counters, Movement, Place, Sku},
    jobs,
    store::Moved,
};

/// One test on SQLite, and the same on PostgreSQL.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::shop(super::testing::sqlite(super::Store::migrations()).await)).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs postgres"]
            async fn $name() {
                super::$name(super::shop(super::testing::postgres(super::Store::migrations()).await)).await;
            })*
        }
    };
}

on_both! {
    of_two_hundred_buyers_of_fifty_units_fifty_get_one
    holds_of_the_same_variants_in_any_order_never_wait_in_a_circle
    a_fold_of_the_movements_gives_the_counters
    a_repeated_command_is_told_the_same_whatever_has_happened_since
    a_repeated_request_is_told_the_same_and_another_one_nothing
    a_release_before_its_hold_bars_it
    a_release_reverses_what_its_step_reserved_and_nothing_else
    a_hold_that_was_refused_leaves_nothing_to_undo
    a_command_that_was_refused_may_come_again_and_ask_for_less
    a_hold_that_was_refused_and_undone_does_not_come_again
    every_short_line_is_named
    what_is_promised_cannot_be_adjusted_away
    a_hold_without_a_saga_ends_by_time_and_may_be_taken_again
    an_expired_hold_whose_stock_is_gone_cannot_be_committed
    a_late_saga_is_told_of_once_and_keeps_its_hold
    the_commands_of_its_saga_alone_change_what_a_saga_owns
    goods_leave_part_by_part_and_the_rest_is_given_back
    goods_that_came_back_are_there_again_once
    what_has_not_left_cannot_come_back_and_what_is_not_left_cannot_leave
    the_sum_of_all_places_is_a_stock_too
    every_revision_of_a_reservation_has_its_event
    a_bad_field_is_named
}

struct Shop {
    inventory: Inventory,
    db: TestDb,
}

fn shop(db: TestDb) -> Shop {
    let inventory = Inventory::new(Store::on(db.store.clone()), Pages::new([7; 32]));
    Shop { inventory, db }
}

/// A call by somebody, as the server would make it.
macro_rules! call {
    ($shop:expr, $caller:expr, $rpc:ident, $request:expr) => {
        as_caller($caller, InventoryService::$rpc(&$shop.inventory, Request::new($request)))
            .await
            .map(Response::into_inner)
    };
}

fn clerk() -> Caller {
    Caller::with_roles("users/clerk", &["warehouse"])
}

fn orders() -> Caller {
    Caller::of_service("orders")
}

fn saga_step(saga: Uuid, step: &str) -> Option<saga::Command> {
    Some(saga::Command {
        saga: saga.to_string(),
        step_key: step.to_owned(),
        command_id: clock::id().to_string(),
        fence: 1,
    })
}

fn wanted(lines: &[(&str, i32)]) -> api::CreateReservationRequest {
    let line = |(index, (sku, quantity)): (usize, &(&str, i32))| api::reservation::Line {
        line_id: (index + 1).to_string(),
        variant: format!("variants/{sku}"),
        quantity: *quantity,
        allotments: Vec::new(),
    };
    api::CreateReservationRequest {
        reservation: Some(api::Reservation {
            order: format!("orders/{}", clock::id()),
            lines: lines.iter().enumerate().map(line).collect(),
            ..api::Reservation::default()
        }),
        reservation_id: clock::id().to_string(),
        ..api::CreateReservationRequest::default()
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("a reason").reason
}

impl Shop {
    async fn stock(&self, location: &str, sku: &str, delta: i64) -> api::Stock {
        let request = api::CreateLocationRequest {
            location: Some(api::Location {
                display_name: location.to_owned(),
                ..api::Location::default()
            }),
            location_id: location.to_owned(),
            request_id: String::new(),
        };
        let _there_already = call!(self, clerk(), create_location, request);
        self.adjust(location, sku, delta).await.expect("adjusted")
    }

    async fn adjust(&self, location: &str, sku: &str, delta: i64) -> Result<api::Stock, Status> {
        let request = api::AdjustStockRequest {
            name: format!("stocks/{location}~{sku}"),
            delta,
            reason: api::AdjustmentReason::Counted.into(),
            ..api::AdjustStockRequest::default()
        };
        call!(self, clerk(), adjust_stock, request)
    }

    async fn read(&self, name: &str) -> api::Stock {
        call!(self, clerk(), get_stock, api::GetStockRequest { name: name.to_owned() })
            .expect("a stock")
    }

    async fn hold(
        &self,
        request: &api::CreateReservationRequest,
    ) -> Result<api::Reservation, Status> {
        let caller = if request.command.is_some() { orders() } else { clerk() };
        call!(self, caller, create_reservation, request.clone())
    }

    async fn commit(
        &self,
        name: &str,
        command: Option<saga::Command>,
    ) -> Result<api::Reservation, Status> {
        let (name, request_id) = (name.to_owned(), String::new());
        let request = api::CommitReservationRequest { name, request_id, command };
        call!(self, orders(), commit_reservation, request)
    }

    async fn release(
        &self,
        name: &str,
        command: Option<saga::Command>,
    ) -> Result<api::Reservation, Status> {
        let (name, request_id) = (name.to_owned(), String::new());
        let request = api::ReleaseReservationRequest { name, request_id, command };
        call!(self, orders(), release_reservation, request)
    }

    async fn fulfill(
        &self,
        name: &str,
        parts: &[(&str, &str, i32)],
        command: Option<saga::Command>,
    ) -> Result<api::Reservation, Status> {
        let line =
            |(line, place, quantity): &(&str, &str, i32)| api::fulfill_reservation_request::Line {
                line_id: (*line).to_owned(),
                quantity: *quantity,
                location: format!("locations/{place}"),
            };
        let (name, request_id) = (name.to_owned(), String::new());
        let lines = parts.iter().map(line).collect();
        let request = api::FulfillReservationRequest { name, lines, request_id, command };
        call!(self, orders(), fulfill_reservation, request)
    }

    async fn restock(
        &self,
        name: &str,
        parts: &[(&str, &str, i32)],
        command: Option<saga::Command>,
    ) -> Result<api::Reservation, Status> {
        let line =
            |(line, place, quantity): &(&str, &str, i32)| api::restock_reservation_request::Line {
                line_id: (*line).to_owned(),
                quantity: *quantity,
                location: format!("locations/{place}"),
            };
        let (name, request_id) = (name.to_owned(), String::new());
        let lines = parts.iter().map(line).collect();
        let request = api::RestockReservationRequest { name, lines, request_id, command };
        call!(self, orders(), restock_reservation, request)
    }

    async fn reservation(&self, name: &str) -> api::Reservation {
        let request = api::GetReservationRequest { name: name.to_owned() };
        call!(self, clerk(), get_reservation, request).expect("a reservation")
    }

    async fn state(&self, name: &str) -> api::reservation::State {
        self.reservation(name).await.state()
    }

    async fn at(&self, at: OffsetDateTime) {
        jobs::end_once(&self.inventory.store, at).await.expect("ended");
    }

    /// The counters, and what a fold of the movements makes of them, by stock.
    async fn ledger(&self) -> BTreeMap<String, (Counters, Counters)> {
        let store = &self.inventory.store;
        let mut all: BTreeMap<String, (Counters, Counters)> = BTreeMap::new();
        let key = |place: &Place, sku: &Sku| format!("{place}~{sku}");
        for stock in store.stocks(("", ""), None, None, 1_000).await.expect("reads") {
            all.entry(key(&stock.place, &stock.sku)).or_default().0 = stock.counters;
        }
        for moved in store.movements("", None, None, 100_000).await.expect("reads") {
            let (_, fold) = all.entry(key(&moved.place, &moved.sku)).or_default();
            *fold = fold.after(moved.movement, moved.quantity);
        }
        all
    }
}

async fn of_two_hundred_buyers_of_fifty_units_fifty_get_one(shop: Shop) {
    shop.stock("north", "MUG", 50).await;
    let shop = &shop;
    let buyers = (0..200).map(|_| async move {
        let mut request = wanted(&[("MUG", 1)]);
        request.command = saga_step(clock::id(), "hold_stock");
        shop.hold(&request).await
    });
    let told = join_all(buyers).await;
    let held = told.iter().filter(|told| told.is_ok()).count();
    assert_eq!(held, 50);
    assert!(
        told.iter().filter_map(|told| told.as_ref().err()).all(|no| reason(no) == "OUT_OF_STOCK")
    );
    let stock = shop.read("stocks/north~MUG").await;
    assert_eq!((stock.on_hand, stock.held, stock.available), (50, 50, 0));
    for (name, (counters, fold)) in shop.ledger().await {
        assert_eq!(counters, fold, "{name}");
    }
}

async fn holds_of_the_same_variants_in_any_order_never_wait_in_a_circle(shop: Shop) {
    for sku in ["a", "B", "c", "D"] {
        shop.stock("north", sku, 1_000).await;
        shop.stock("east", sku, 1_000).await;
    }
    let orders = [["a", "B", "c", "D"], ["D", "c", "B", "a"], ["c", "a", "D", "B"]];
    let shop = &shop;
    let buyers = (0..60).map(|n: usize| async move {
        let request = wanted(&orders[n % 3].map(|sku| (sku, 30)));
        let held = shop.hold(&request).await.expect("held");
        shop.release(&held.name, None).await.expect("released");
    });
    join_all(buyers).await;
    for (name, (counters, fold)) in shop.ledger().await {
        assert_eq!(counters, fold, "{name}");
        assert_eq!(counters.held, 0, "{name}");
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// The place of one of so many; 0 if there are none.
    fn pick(&mut self, of: usize) -> usize {
        let sides = u64::try_from(of.max(1)).expect("fits");
        usize::try_from(self.roll(sides)).expect("fits")
    }
}

const PLACES: [&str; 3] = ["east", "north", "west"];
const SKUS: [&str; 2] = ["A", "B"];

async fn a_fold_of_the_movements_gives_the_counters(shop: Shop) {
    for place in PLACES {
        for sku in SKUS {
            shop.stock(place, sku, 20).await;
        }
    }
    let mut dice = Dice(42);
    let mut made: Vec<String> = Vec::new();
    for _ in 0..400 {
        let some = made.get(dice.pick(made.len())).cloned();
        made.extend(something_happens(&shop, &mut dice, some).await);
    }
    for (name, (counters, fold)) in shop.ledger().await {
        assert_eq!(counters, fold, "{name}");
        assert!(counters.available() >= 0, "{name}");
    }
    let all = shop.inventory.store.movements("", None, None, 100_000).await.expect("reads");
    let total = |kind: Movement| -> i64 {
        all.iter().filter(|moved| moved.movement == kind).map(|moved| moved.quantity).sum()
    };
    use Movement::{
        Adjusted, Allocated, Deallocated, Held, HoldExpired, HoldReleased, Received, Returned,
        Shipped,
    };
    for kind in [Held, HoldReleased, HoldExpired, Allocated, Deallocated, Shipped, Returned] {
        assert!(total(kind) > 0, "{kind:?} never happened: the dice prove nothing");
    }
    assert!(total(Shipped) <= total(Received) + total(Adjusted) + total(Returned));
    // What was held ends once, and what has ended keeps nothing.
    for name in made {
        let reservation = shop.reservation(&name).await;
        let sum = |kind: Movement| -> i64 {
            let of_it = |moved: &&Moved| {
                moved.movement == kind
                    && moved.cause.is_some_and(|id| name.ends_with(&id.to_string()))
            };
            all.iter().filter(of_it).map(|moved| moved.quantity).sum()
        };
        let parts = || reservation.lines.iter().flat_map(|line| &line.allotments);
        let wanted: i64 = parts().map(|part| i64::from(part.quantity)).sum();
        let shipped: i64 = parts().map(|part| i64::from(part.shipped)).sum();
        let returned: i64 = parts().map(|part| i64::from(part.returned)).sum();
        let (held, allocated) = match reservation.state() {
            api::reservation::State::Held => (wanted, 0),
            api::reservation::State::Committed => (0, wanted - shipped),
            api::reservation::State::Unspecified
            | api::reservation::State::Fulfilled
            | api::reservation::State::Released
            | api::reservation::State::Expired => (0, 0),
        };
        let kept = sum(Held) - sum(HoldReleased) - sum(HoldExpired) - sum(Allocated);
        assert_eq!(kept, held, "{name}");
        assert_eq!(sum(Allocated) - sum(Deallocated) - sum(Shipped), allocated, "{name}");
        assert_eq!((sum(Shipped), sum(Returned)), (shipped, returned), "{name}");
    }
}

/// One call of somebody, as the dice fall, mostly about `some` reservation; the name of one that
/// was made. Whether a rule refuses it is not asked.
async fn something_happens(shop: &Shop, dice: &mut Dice, some: Option<String>) -> Option<String> {
    match (dice.roll(10), some) {
        (0 | 1, _) | (_, None) => {
            let lines: Vec<(&str, i32)> = (0..=dice.roll(2))
                .map(|_| (SKUS[dice.pick(2)], i32::try_from(dice.roll(9) + 1).expect("fits")))
                .collect();
            return shop.hold(&wanted(&lines)).await.ok().map(|held| held.name);
        }
        (2 | 3, Some(name)) => drop(shop.commit(&name, None).await),
        (4, Some(name)) => drop(shop.release(&name, None).await),
        (5 | 6, Some(name)) => {
            let part = some_part(shop, dice, &name).await;
            drop(shop.fulfill(&name, &[(&part.0, &part.1, part.2)], None).await);
        }
        (7, Some(name)) => {
            let part = some_part(shop, dice, &name).await;
            drop(shop.restock(&name, &[(&part.0, &part.1, part.2)], None).await);
        }
        (8, _) => {
            let delta = i64::try_from(dice.roll(20)).expect("fits") - 8;
            drop(shop.adjust(PLACES[dice.pick(3)], SKUS[dice.pick(2)], delta).await);
        }
        (_, Some(_)) if dice.roll(4) == 0 => {
            shop.at(clock::now() + Duration::minutes(11)).await;
        }
        (_, Some(_)) => {}
    }
    None
}

/// A line of a reservation, where it is taken from, and a quantity that may be too much.
async fn some_part(shop: &Shop, dice: &mut Dice, name: &str) -> (String, String, i32) {
    let reservation = shop.reservation(name).await;
    let line = &reservation.lines[dice.pick(reservation.lines.len())];
    let part = &line.allotments[dice.pick(line.allotments.len())];
    let place = part.location.trim_start_matches("locations/").to_owned();
    (line.line_id.clone(), place, i32::try_from(dice.roll(3) + 1).expect("fits"))
}

async fn a_repeated_command_is_told_the_same_whatever_has_happened_since(shop: Shop) {
    shop.stock("north", "MUG", 5).await;
    let owner = clock::id();
    let mut request = wanted(&[("MUG", 5)]);
    request.command = saga_step(owner, "hold_stock");
    let held = shop.hold(&request).await.expect("held");

    let commit = saga_step(owner, "commit_stock");
    let committed = shop.commit(&held.name, commit.clone()).await.expect("committed");
    assert_eq!(shop.hold(&request).await.expect("the same"), held);
    let release = saga_step(owner, "hold_stock");
    let released = shop.release(&held.name, release.clone()).await.expect("released");
    assert_eq!(released.state(), api::reservation::State::Released);
    assert_eq!(shop.release(&held.name, release).await.expect("the same"), released);
    assert_eq!(shop.commit(&held.name, commit).await.expect("the same"), committed);
    assert_eq!(shop.read("stocks/north~MUG").await.available, 5);
}

async fn a_repeated_request_is_told_the_same_and_another_one_nothing(shop: Shop) {
    shop.stock("north", "MUG", 5).await;
    let mut request = wanted(&[("MUG", 5)]);
    request.request_id = "4e0fbe22-4b7c-4c9c-9d0e-111111111111".to_owned();
    let held = shop.hold(&request).await.expect("held");
    assert_eq!(shop.hold(&request).await.expect("the same"), held);
    let mut other = wanted(&[("MUG", 1)]);
    other.request_id = request.request_id.clone();
    assert_eq!(reason(&shop.hold(&other).await.expect_err("another")), "REQUEST_ID_REUSED");
    other.request_id = "4e0fbe22-4b7c-4c9c-9d0e-222222222222".to_owned();
    assert_eq!(reason(&shop.hold(&other).await.expect_err("short")), "OUT_OF_STOCK");
    shop.release(&held.name, None).await.expect("released");
    assert_eq!(reason(&shop.hold(&other).await.expect_err("the same")), "OUT_OF_STOCK");
    let mut taken = request.clone();
    taken.request_id.clear();
    assert_eq!(reason(&shop.hold(&taken).await.expect_err("taken")), "ALREADY_EXISTS");

    // Attempts that come at once are one call.
    let mut many = wanted(&[("MUG", 1)]);
    many.request_id = "4e0fbe22-4b7c-4c9c-9d0e-333333333333".to_owned();
    let told = join_all((0..8).map(|_| shop.hold(&many))).await;
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    assert_eq!(shop.read("stocks/north~MUG").await.held, 1);
}

async fn a_release_before_its_hold_bars_it(shop: Shop) {
    shop.stock("north", "MUG", 5).await;
    let owner = clock::id();
    let mut request = wanted(&[("MUG", 1)]);
    request.command = saga_step(owner, "hold_stock");
    let name = format!("reservations/{}", request.reservation_id);
    let release = saga_step(owner, "hold_stock");
    let barred = shop.release(&name, release.clone()).await.expect("nothing to undo");
    assert_eq!(barred.state(), api::reservation::State::Released);
    assert!(barred.lines.is_empty());
    assert_eq!(shop.release(&name, release).await.expect("the same"), barred);
    for _ in 0..2 {
        let late = shop.hold(&request).await.expect_err("too late");
        assert_eq!((late.code(), reason(&late)), (Code::FailedPrecondition, "UNDONE".to_owned()));
    }
    request.command = saga_step(owner, "hold_stock#2");
    assert_eq!(reason(&shop.hold(&request).await.expect_err("the same saga")), "UNDONE");
    assert_eq!(shop.read("stocks/north~MUG").await.held, 0);
    let unknown = format!("reservations/{}", clock::id());
    assert_eq!(reason(&shop.release(&unknown, None).await.expect_err("unknown")), "NOT_FOUND");
}

async fn a_release_reverses_what_its_step_reserved_and_nothing_else(shop: Shop) {
    shop.stock("north", "MUG", 5).await;
    let owner = clock::id();
    let mut first = wanted(&[("MUG", 1)]);
    first.command = saga_step(owner, "hold_stock");
    let first_held = shop.hold(&first).await.expect("held");
    let mut second = wanted(&[("MUG", 2)]);
    second.command = saga_step(owner, "hold_stock#2");
    let second_held = shop.hold(&second).await.expect("held");
    // With one's name and the other's step, neither would be what was asked for.
    let undo = saga_step(owner, "hold_stock");
    let mixed = shop.release(&second_held.name, undo.clone()).await.expect_err("not its own");
    assert_names("name", &mixed);
    assert_eq!(shop.read("stocks/north~MUG").await.held, 3);
    shop.release(&first_held.name, undo).await.expect("its own");
    assert_eq!(shop.state(&first_held.name).await, api::reservation::State::Released);
    assert_eq!(shop.state(&second_held.name).await, api::reservation::State::Held);
    assert_eq!(shop.read("stocks/north~MUG").await.held, 2);
}

async fn a_hold_that_was_refused_leaves_nothing_to_undo(shop: Shop) {
    shop.stock("north", "MUG", 1).await;
    let owner = clock::id();
    let mut request = wanted(&[("MUG", 2)]);
    request.command = saga_step(owner, "hold_stock");
    shop.hold(&request).await.expect_err("short");
    let name = format!("reservations/{}", request.reservation_id);
    let mut less = request.clone();
    less.command = saga_step(owner, "hold_stock#2");
    less.reservation.get_or_insert_default().lines[0].quantity = 1;
    assert_eq!(shop.hold(&less).await.expect("held").name, name);
    // Backwards: the step that held gives back, the one that was refused has nothing to reverse.
    shop.release(&name, saga_step(owner, "hold_stock#2")).await.expect("released");
    let undone = shop.release(&name, saga_step(owner, "hold_stock")).await.expect("nothing");
    assert_eq!(undone.state(), api::reservation::State::Released);
    assert_eq!(shop.read("stocks/north~MUG").await.available, 1);
}

/// As `AcceptOrderChanges` does: the same step of the same saga, for what there is.
async fn a_command_that_was_refused_may_come_again_and_ask_for_less(shop: Shop) {
    shop.stock("north", "MUG", 1).await;
    let owner = clock::id();
    let mut request = wanted(&[("MUG", 2)]);
    request.command = saga_step(owner, "hold_stock");
    for _ in 0..2 {
        let short = shop.hold(&request).await.expect_err("short");
        assert_eq!(reason(&short), "OUT_OF_STOCK");
    }
    let mut less = request.clone();
    less.reservation.get_or_insert_default().lines[0].quantity = 1;
    let held = shop.hold(&less).await.expect("held");
    assert_eq!((held.state(), held.lines[0].quantity), (api::reservation::State::Held, 1));
    assert_eq!(shop.hold(&less).await.expect("the same"), held);
    assert_eq!(shop.read("stocks/north~MUG").await.held, 1);

    // What follows it can be refused, and come again, too.
    let commit = saga_step(owner, "commit_stock");
    shop.at(clock::now() + Duration::hours(25)).await;
    shop.adjust("north", "MUG", -1).await.expect("nobody holds it");
    let gone = shop.commit(&held.name, commit.clone()).await.expect_err("gone");
    assert_eq!(reason(&gone), "RESERVATION_EXPIRED");
    shop.adjust("north", "MUG", 1).await.expect("found again");
    let committed = shop.commit(&held.name, commit).await.expect("committed");
    assert_eq!(committed.state(), api::reservation::State::Committed);
    shop.release(&held.name, saga_step(owner, "hold_stock")).await.expect("released");
    assert_eq!(shop.read("stocks/north~MUG").await.available, 1);
}

async fn a_hold_that_was_refused_and_undone_does_not_come_again(shop: Shop) {
    shop.stock("north", "MUG", 1).await;
    let owner = clock::id();
    let mut request = wanted(&[("MUG", 2)]);
    request.command = saga_step(owner, "hold_stock");
    shop.hold(&request).await.expect_err("short");
    let name = format!("reservations/{}", request.reservation_id);
    let undone = shop.release(&name, saga_step(owner, "hold_stock")).await.expect("nothing");
    assert_eq!(undone.state(), api::reservation::State::Released);
    shop.adjust("north", "MUG", 5).await.expect("enough now");
    assert_eq!(reason(&shop.hold(&request).await.expect_err("too late")), "UNDONE");
    assert_eq!(shop.read("stocks/north~MUG").await.held, 0);
}

async fn every_short_line_is_named(shop: Shop) {
    shop.stock("north", "MUG", 5).await;
    shop.stock("north", "CUP", 1).await;
    let request = wanted(&[("CUP", 2), ("MUG", 5), ("JUG", 3)]);
    let status = shop.hold(&request).await.expect_err("short");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!(info.reason, "OUT_OF_STOCK");
    assert_eq!((&*info.metadata["sku"], &*info.metadata["available"]), ("CUP", "1"));
    let violations = status.get_details_precondition_failure().expect("violations").violations;
    let subjects: Vec<&str> = violations.iter().map(|it| it.subject.as_str()).collect();
    assert_eq!(subjects, ["variants/CUP", "variants/JUG"]);
    assert_eq!(shop.read("stocks/north~MUG").await.held, 0);
}

async fn what_is_promised_cannot_be_adjusted_away(shop: Shop) {
    let stocked = shop.stock("north", "MUG", 5).await;
    shop.hold(&wanted(&[("MUG", 3)])).await.expect("held");
    let status = shop.adjust("north", "MUG", -3).await.expect_err("promised");
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!((&*info.reason, &*info.metadata["available"]), ("STOCK_PROMISED", "2"));
    assert_eq!(shop.adjust("north", "MUG", -2).await.expect("free").on_hand, 3);
    let stale = api::AdjustStockRequest {
        name: stocked.name,
        delta: 1,
        reason: api::AdjustmentReason::Received.into(),
        etag: stocked.etag,
        ..api::AdjustStockRequest::default()
    };
    let status = call!(shop, clerk(), adjust_stock, stale).expect_err("stale");
    assert_eq!(reason(&status), "ETAG_MISMATCH");
    for (location, delta) in [("nowhere", 1), ("north", -1)] {
        let status = shop.adjust(location, "NEW", delta).await.expect_err("unknown");
        assert_eq!(reason(&status), "NOT_FOUND", "{location}");
    }
}

async fn a_hold_without_a_saga_ends_by_time_and_may_be_taken_again(shop: Shop) {
    shop.stock("north", "MUG", 5).await;
    let start = clock::now();
    let held = shop.hold(&wanted(&[("MUG", 2)])).await.expect("held");
    let longer = shop.hold(&wanted(&[("MUG", 1)])).await.expect("held");
    let request = api::ExtendReservationRequest {
        name: longer.name.clone(),
        ttl: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        request_id: String::new(),
    };
    call!(shop, clerk(), extend_reservation, request).expect("extended");
    shop.at(start + Duration::minutes(9)).await;
    assert_eq!(shop.state(&held.name).await, api::reservation::State::Held);
    shop.at(start + Duration::minutes(11)).await;
    assert_eq!(shop.state(&held.name).await, api::reservation::State::Expired);
    assert_eq!(shop.state(&longer.name).await, api::reservation::State::Held);
    assert_eq!(shop.read("stocks/north~MUG").await.held, 1);
    let kinds: Vec<Movement> = shop
        .inventory
        .store
        .movements("", None, None, 100)
        .await
        .expect("reads")
        .into_iter()
        .map(|moved| moved.movement)
        .collect();
    let expected = [Movement::Adjusted, Movement::Held, Movement::Held, Movement::HoldExpired];
    assert_eq!(kinds, expected);
    let taken = shop.commit(&held.name, None).await.expect("there is enough");
    assert_eq!(taken.state(), api::reservation::State::Committed);
    let stock = shop.read("stocks/north~MUG").await;
    assert_eq!((stock.held, stock.allocated), (1, 2));
    for (name, (counters, fold)) in shop.ledger().await {
        assert_eq!(counters, fold, "{name}");
    }
}

async fn an_expired_hold_whose_stock_is_gone_cannot_be_committed(shop: Shop) {
    shop.stock("north", "MUG", 2).await;
    let held = shop.hold(&wanted(&[("MUG", 2)])).await.expect("held");
    shop.at(clock::now() + Duration::minutes(11)).await;
    shop.hold(&wanted(&[("MUG", 1)])).await.expect("free again");
    let status = shop.commit(&held.name, None).await.expect_err("gone");
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!((&*info.reason, &*info.metadata["sku"]), ("RESERVATION_EXPIRED", "MUG"));
    shop.release(&held.name, None).await.expect("as it stands");
    assert_eq!(shop.read("stocks/north~MUG").await.held, 1);
}

async fn goods_leave_part_by_part_and_the_rest_is_given_back(shop: Shop) {
    shop.stock("north", "MUG", 5).await;
    let saga = clock::id();
    let mut request = wanted(&[("MUG", 4)]);
    request.command = saga_step(saga, "hold_stock");
    let held = shop.hold(&request).await.expect("held");
    shop.commit(&held.name, saga_step(saga, "commit_stock")).await.expect("committed");
    let step = saga_step(saga, "fulfil@1");
    for _again in 0..2 {
        let left = shop.fulfill(&held.name, &[("1", "north", 3)], step.clone()).await;
        assert_eq!(left.expect("left").state(), api::reservation::State::Committed);
    }
    let stock = shop.read("stocks/north~MUG").await;
    assert_eq!((stock.on_hand, stock.allocated, stock.available), (2, 1, 1));
    let undo = request.command.clone();
    let rest = shop.release(&held.name, undo).await.expect("given back");
    assert_eq!(rest.state(), api::reservation::State::Fulfilled);
    let stock = shop.read("stocks/north~MUG").await;
    assert_eq!((stock.on_hand, stock.allocated, stock.available), (2, 0, 2));
    let expected = ["1 stock.held", "2 stock.allocated", "3 stock.shipped", "4 stock.released"];
    assert_eq!(events_of(&shop, &held.name).await, expected);
    for (name, (counters, fold)) in shop.ledger().await {
        assert_eq!(counters, fold, "{name}");
    }
}

async fn goods_that_came_back_are_there_again_once(shop: Shop) {
    shop.stock("north", "MUG", 2).await;
    let saga = clock::id();
    let mut request = wanted(&[("MUG", 2)]);
    request.command = saga_step(saga, "hold_stock");
    let held = shop.hold(&request).await.expect("held");
    shop.commit(&held.name, saga_step(saga, "commit_stock")).await.expect("committed");
    let all = [("1", "north", 2)];
    let left = shop.fulfill(&held.name, &all, saga_step(saga, "fulfil@1")).await.expect("left");
    assert_eq!(left.state(), api::reservation::State::Fulfilled);
    let back = saga_step(saga, "restock@1");
    for _again in 0..2 {
        shop.restock(&held.name, &all, back.clone()).await.expect("back");
    }
    let stock = shop.read("stocks/north~MUG").await;
    assert_eq!((stock.on_hand, stock.available), (2, 2));
    let expected = ["1 stock.held", "2 stock.allocated", "3 stock.shipped", "4 stock.returned"];
    assert_eq!(events_of(&shop, &held.name).await, expected);
    let found = shop.reservation(&held.name).await;
    assert_eq!(found.state(), api::reservation::State::Fulfilled);
    let part = &found.lines[0].allotments[0];
    assert_eq!((part.quantity, part.shipped, part.returned), (2, 2, 2));
    let more = shop.restock(&held.name, &[("1", "north", 1)], saga_step(saga, "restock@2")).await;
    assert_eq!(reason(&more.expect_err("all is back")), "RESERVATION_STATE");
}

async fn what_has_not_left_cannot_come_back_and_what_is_not_left_cannot_leave(shop: Shop) {
    shop.stock("north", "MUG", 2).await;
    let saga = clock::id();
    let mut request = wanted(&[("MUG", 1)]);
    request.command = saga_step(saga, "hold_stock");
    let held = shop.hold(&request).await.expect("held");
    let early = shop.fulfill(&held.name, &[("1", "north", 1)], saga_step(saga, "a")).await;
    assert_eq!(reason(&early.expect_err("only held")), "RESERVATION_STATE");
    shop.commit(&held.name, saga_step(saga, "commit_stock")).await.expect("committed");
    for (line, place, quantity) in [("1", "north", 2), ("2", "north", 1), ("1", "south", 1)] {
        let part = [(line, place, quantity)];
        let refused = shop.fulfill(&held.name, &part, saga_step(saga, "b")).await;
        assert_eq!(reason(&refused.expect_err("too much")), "RESERVATION_STATE");
    }
    let back = shop.restock(&held.name, &[("1", "north", 1)], saga_step(saga, "c")).await;
    assert_eq!(reason(&back.expect_err("nothing left")), "RESERVATION_STATE");
    let foreign = shop.fulfill(&held.name, &[("1", "north", 1)], None).await;
    assert_eq!(reason(&foreign.expect_err("not theirs")), "RESERVATION_OWNED");
}

async fn a_late_saga_is_told_of_once_and_keeps_its_hold(shop: Shop) {
    shop.stock("north", "MUG", 2).await;
    let mut request = wanted(&[("MUG", 1)]);
    request.command = saga_step(clock::id(), "hold_stock");
    let held = shop.hold(&request).await.expect("held");
    let start = clock::now();
    for hours in [1, 2] {
        shop.at(start + Duration::hours(hours)).await;
    }
    assert_eq!(events_of(&shop, &held.name).await, ["1 stock.held", "2 stock.hold_overdue"]);
    assert_eq!(shop.state(&held.name).await, api::reservation::State::Held);
    shop.at(start + Duration::hours(25)).await;
    assert_eq!(shop.state(&held.name).await, api::reservation::State::Expired);
    assert_eq!(shop.read("stocks/north~MUG").await.held, 0);
}

async fn the_commands_of_its_saga_alone_change_what_a_saga_owns(shop: Shop) {
    shop.stock("north", "MUG", 2).await;
    let mut request = wanted(&[("MUG", 1)]);
    request.command = saga_step(clock::id(), "hold_stock");
    let held = shop.hold(&request).await.expect("held");
    let by_hand = shop.release(&held.name, None).await.expect_err("owned");
    assert_eq!(reason(&by_hand), "RESERVATION_OWNED");
    let other = shop.commit(&held.name, saga_step(clock::id(), "commit_stock")).await;
    assert_eq!(reason(&other.expect_err("owned")), "RESERVATION_OWNED");
    // Another saga that never held anything here undoes nothing.
    shop.release(&held.name, saga_step(clock::id(), "hold_stock")).await.expect("nothing");
    assert_eq!(shop.state(&held.name).await, api::reservation::State::Held);
    let person = call!(shop, clerk(), create_reservation, request).expect_err("no service");
    assert_eq!(person.code(), Code::InvalidArgument);
}

async fn the_sum_of_all_places_is_a_stock_too(shop: Shop) {
    shop.stock("east", "MUG", 3).await;
    shop.stock("north", "MUG", 4).await;
    shop.hold(&wanted(&[("MUG", 6)])).await.expect("from both");
    let names = ["stocks/-~MUG", "stocks/north~MUG", "stocks/-~NONE", "stocks/-~MUG"];
    let request = api::BatchGetStocksRequest { names: names.map(str::to_owned).to_vec() };
    let found = call!(shop, orders(), batch_get_stocks, request).expect("found").stocks;
    let told: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.held, it.available)).collect();
    let expected = [(names[0], 6, 1), (names[1], 4, 0), (names[2], 0, 0), (names[3], 6, 1)];
    assert_eq!(told, expected);
    assert!(found[0].etag.is_empty() && found[0].location.is_empty());
    let request = api::BatchGetStocksRequest { names: vec!["stocks/west~MUG".to_owned()] };
    let status = call!(shop, orders(), batch_get_stocks, request).expect_err("unknown");
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!((&*info.reason, &*info.metadata["name"]), ("NOT_FOUND", "stocks/west~MUG"));

    let mut token = String::new();
    let mut seen = Vec::new();
    loop {
        let request = api::ListStocksRequest {
            page_size: 1,
            page_token: token,
            variant: "variants/MUG".to_owned(),
            location: String::new(),
        };
        let page = call!(shop, clerk(), list_stocks, request).expect("a page");
        seen.extend(page.stocks.into_iter().map(|stock| stock.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["stocks/east~MUG", "stocks/north~MUG"]);
}

#[derive(FromQueryResult)]
struct Published {
    seq: i64,
    r#type: String,
}

async fn events_of(shop: &Shop, aggregate: &str) -> Vec<String> {
    let sql = "SELECT seq, type FROM outbox WHERE aggregate = $1 ORDER BY seq";
    let found: Vec<Published> =
        store::rows(shop.db.store.reader(), "read the outbox", sql, vec![aggregate.into()])
            .await
            .expect("reads");
    found.into_iter().map(|event| format!("{} {}", event.seq, event.r#type)).collect()
}

async fn every_revision_of_a_reservation_has_its_event(shop: Shop) {
    shop.stock("north", "MUG", 3).await;
    let held = shop.hold(&wanted(&[("MUG", 1)])).await.expect("held");
    shop.commit(&held.name, None).await.expect("committed");
    shop.commit(&held.name, None).await.expect("as it stands");
    shop.release(&held.name, None).await.expect("released");
    let expected = ["1 stock.held", "2 stock.allocated", "3 stock.released"];
    assert_eq!(events_of(&shop, &held.name).await, expected);
    shop.stock("north", "MUG", 1).await;
    // Reservations changed it three times in between: held, allocated, given back.
    let expected = ["1 stock.adjusted", "5 stock.adjusted"];
    assert_eq!(events_of(&shop, "stocks/north~MUG").await, expected);
    let request = api::ListReservationsRequest { order: held.order, ..Default::default() };
    let listed = call!(shop, clerk(), list_reservations, request).expect("listed").reservations;
    assert_eq!(listed.len(), 1);
    let request = api::ListMovementsRequest { cause: held.name, ..Default::default() };
    let moved = call!(shop, clerk(), list_movements, request).expect("listed").movements;
    let kinds: Vec<_> = moved.iter().map(api::Movement::kind).collect();
    let expected = [
        api::movement::Kind::Held,
        api::movement::Kind::Allocated,
        api::movement::Kind::Deallocated,
    ];
    assert_eq!(kinds, expected);
}

async fn a_bad_field_is_named(shop: Shop) {
    type Spoil = fn(&mut api::CreateReservationRequest);
    let spoils: [(&str, Spoil); 19] = [
        ("reservation", |r| r.reservation = None),
        ("reservation_id", |r| r.reservation_id = "MINE".to_owned()),
        ("reservation_id", |r| r.reservation_id.clear()),
        ("reservation.order", |r| edit(r).order = "order".to_owned()),
        ("reservation.order", |r| edit(r).order.clear()),
        ("reservation.lines", |r| edit(r).lines.clear()),
        ("reservation.lines[1].line_id", |r| edit(r).lines[1].line_id = "1".to_owned()),
        ("reservation.lines[0].line_id", |r| edit(r).lines[0].line_id.clear()),
        ("reservation.lines[0].line_id", |r| edit(r).lines[0].line_id = "a\0b".to_owned()),
        ("reservation.lines[0].line_id", |r| edit(r).lines[0].line_id = "x".repeat(65)),
        ("reservation.lines[0].variant", |r| edit(r).lines[0].variant = "MUG".to_owned()),
        ("reservation.lines[1].quantity", |r| edit(r).lines[1].quantity = 0),
        ("reservation.lines[1].quantity", |r| edit(r).lines[1].quantity = -1),
        ("reservation.lines[1].quantity", |r| edit(r).lines[1].quantity = i32::MAX),
        ("reservation.lines", |r| {
            let line = edit(r).lines[0].clone();
            edit(r).lines = vec![line; 101];
        }),
        ("command.saga", |r| r.command.get_or_insert_default().saga = "mine".to_owned()),
        ("command.step_key", |r| r.command.get_or_insert_default().step_key.clear()),
        ("command.step_key", |r| r.command.get_or_insert_default().step_key = "\0".to_owned()),
        ("request_id", |r| r.request_id = "again".to_owned()),
    ];
    for (field, spoil) in spoils {
        let mut request = wanted(&[("MUG", 1), ("CUP", 1)]);
        request.command = saga_step(clock::id(), "hold_stock");
        spoil(&mut request);
        assert_names(field, &shop.hold(&request).await.expect_err(field));
    }
    for (field, name, delta, why) in [
        ("name", "stocks/-~MUG", 1, api::AdjustmentReason::Counted),
        ("name", "stocks/north", 1, api::AdjustmentReason::Counted),
        ("delta", "stocks/north~MUG", 0, api::AdjustmentReason::Counted),
        ("delta", "stocks/north~MUG", 1, api::AdjustmentReason::Lost),
        ("reason", "stocks/north~MUG", 1, api::AdjustmentReason::Unspecified),
    ] {
        let request = api::AdjustStockRequest {
            name: name.to_owned(),
            delta,
            reason: why.into(),
            ..api::AdjustStockRequest::default()
        };
        assert_names(field, &call!(shop, clerk(), adjust_stock, request).expect_err(field));
    }
    for (field, note, why) in [
        ("note", "a\0b", api::AdjustmentReason::Counted.into()),
        ("note", &*"x".repeat(501), api::AdjustmentReason::Counted.into()),
        ("reason", "", 99),
    ] {
        let request = api::AdjustStockRequest {
            name: "stocks/north~MUG".to_owned(),
            delta: 1,
            reason: why,
            note: note.to_owned(),
            ..api::AdjustStockRequest::default()
        };
        assert_names(field, &call!(shop, clerk(), adjust_stock, request).expect_err(field));
    }
    let name = format!("reservations/{}", clock::id());
    for (field, line, place, quantity) in [
        ("lines[0].line_id", "", "north", 1),
        ("lines[0].quantity", "1", "north", 0),
        ("lines[0].quantity", "1", "north", i32::MAX),
        ("lines[0].location", "1", "North", 1),
    ] {
        let part = [(line, place, quantity)];
        assert_names(field, &shop.fulfill(&name, &part, None).await.expect_err(field));
        assert_names(field, &shop.restock(&name, &part, None).await.expect_err(field));
    }
    assert_names("lines", &shop.fulfill(&name, &[], None).await.expect_err("no lines"));
    for seconds in [0, -1, 86_401, i64::MAX] {
        let request = api::ExtendReservationRequest {
            name: format!("reservations/{}", clock::id()),
            ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
            request_id: String::new(),
        };
        assert_names("ttl", &call!(shop, clerk(), extend_reservation, request).expect_err("ttl"));
    }
}

fn edit(request: &mut api::CreateReservationRequest) -> &mut api::Reservation {
    request.reservation.get_or_insert_default()
}

fn assert_names(field: &str, status: &Status) {
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
    let violations = status.get_details_bad_request().expect("violations").field_violations;
    assert_eq!(violations.first().map(|it| it.field.as_str()), Some(field));
}
