use mesh::auth::Caller;

use super::*;

const USER: &str = "users/0192f0c1-2345-7abc-8def-0123456789ab";

fn line(variant: &str, quantity: i32) -> api::OrderLine {
    api::OrderLine { variant: variant.to_owned(), quantity, ..api::OrderLine::default() }
}

fn euro(units: i64, nanos: i32) -> google::Money {
    google::Money { currency_code: "EUR".to_owned(), units, nanos }
}

fn order() -> api::Order {
    api::Order {
        lines: vec![line("variants/MUG", 2)],
        expected_total: Some(euro(19, 980_000_000)),
        payment_method: "tok_visa".to_owned(),
        ..api::Order::default()
    }
}

fn request(order: api::Order) -> api::CreateOrderRequest {
    api::CreateOrderRequest { order: Some(order), ..api::CreateOrderRequest::default() }
}

fn wrong(request: &api::CreateOrderRequest) -> Vec<(api::Reason, String)> {
    match create(request) {
        Err(Error::Malformed(violations)) => {
            violations.into_iter().map(|wrong| (wrong.reason, wrong.field)).collect()
        }
        Err(other) => panic!("{other}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn a_request_that_says_what_is_needed_is_read() {
    let create = create(&request(order())).unwrap();
    assert_eq!(create.order.wanted, [Wanted { variant: "variants/MUG".to_owned(), quantity: 2 }]);
    assert_eq!(create.order.expected_total.map(|total| total.minor), Some(1_998));
    assert_eq!((create.id, create.request_id, create.wait), (None, None, Duration::ZERO));
}

#[test]
fn every_field_that_is_wrong_is_named() {
    let field = api::Reason::FieldViolation;
    let lines = |lines| api::Order { lines, ..order() };
    let total = |total| api::Order { expected_total: total, ..order() };
    let method = |token: &str| api::Order { payment_method: token.to_owned(), ..order() };
    let to = |ship_to| api::Order { ship_to: Some(ship_to), ..order() };
    let address = || google::PostalAddress {
        region_code: "DE".to_owned(),
        ..google::PostalAddress::default()
    };
    for (order, reason, path) in [
        (lines(vec![]), api::Reason::OrderEmpty, "order.lines"),
        (lines(vec![line("variants/MUG", 1); 101]), field, "order.lines"),
        (lines(vec![line("MUG", 1)]), field, "order.lines[0].variant"),
        (lines(vec![line("", 1)]), field, "order.lines[0].variant"),
        (
            lines(vec![line("variants/MUG", 1), line("variants/MUG", 0)]),
            api::Reason::LineQuantityOutOfRange,
            "order.lines[1].quantity",
        ),
        (
            lines(vec![line("variants/MUG", 1_000)]),
            api::Reason::LineQuantityOutOfRange,
            "order.lines[0].quantity",
        ),
        (
            lines(vec![line("variants/MUG", i32::MIN)]),
            api::Reason::LineQuantityOutOfRange,
            "order.lines[0].quantity",
        ),
        (total(None), field, "order.expected_total"),
        (total(Some(euro(-1, 0))), field, "order.expected_total"),
        (total(Some(euro(1, 1))), field, "order.expected_total.nanos"),
        (total(Some(euro(i64::MAX, 0))), field, "order.expected_total.units"),
        (
            total(Some(google::Money { currency_code: "XTS".to_owned(), units: 1, nanos: 0 })),
            field,
            "order.expected_total.currency_code",
        ),
        (method(""), field, "order.payment_method"),
        (method("tok visa"), field, "order.payment_method"),
        (method("4111111111111111"), field, "order.payment_method"),
        (method(&"t".repeat(129)), field, "order.payment_method"),
        (api::Order { quote: "q".repeat(65_537), ..order() }, field, "order.quote"),
        (api::Order { stock_policy: 99, ..order() }, field, "order.stock_policy"),
        (
            to(google::PostalAddress { region_code: "Germany".to_owned(), ..address() }),
            field,
            "order.ship_to.region_code",
        ),
        (
            to(google::PostalAddress { locality: "x".repeat(201), ..address() }),
            field,
            "order.ship_to.locality",
        ),
        (
            to(google::PostalAddress { recipients: vec!["Ada".to_owned(); 11], ..address() }),
            field,
            "order.ship_to.recipients",
        ),
    ] {
        assert_eq!(wrong(&request(order)), [(reason, path.to_owned())]);
    }
}

#[test]
fn what_stands_beside_the_order_is_checked_as_well() {
    let field = |path: &str| vec![(api::Reason::FieldViolation, path.to_owned())];
    let with = |change: fn(&mut api::CreateOrderRequest)| {
        let mut request = request(order());
        change(&mut request);
        wrong(&request)
    };
    let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    assert_eq!(with(|request| request.order_id = "1".to_owned()), field("order_id"));
    let v4 = |request: &mut api::CreateOrderRequest| {
        request.order_id = "936da01f-9abd-4d9d-80c7-02af85c822a8".to_owned();
    };
    assert_eq!(with(v4), field("order_id"));
    assert_eq!(with(|request| request.request_id = "1".to_owned()), field("request_id"));
    for (wait, expected) in [
        (seconds(5, 0), vec![]),
        (seconds(5, 1), field("wait")),
        (seconds(-1, 0), field("wait")),
        (seconds(i64::MAX, 0), field("wait")),
        (seconds(0, i32::MAX), vec![]),
    ] {
        let request = api::CreateOrderRequest { wait, ..request(order()) };
        assert_eq!(wrong(&request), expected, "{wait:?}");
    }
}

#[test]
fn several_wrong_fields_are_told_at_once() {
    let bad = api::Order { lines: vec![line("MUG", 0)], payment_method: String::new(), ..order() };
    let paths: Vec<String> = wrong(&request(bad)).into_iter().map(|(_, path)| path).collect();
    let expected = ["order.lines[0].variant", "order.lines[0].quantity", "order.payment_method"];
    assert_eq!(paths, expected);
}

#[test]
fn a_total_need_not_be_said_by_those_who_were_quoted_or_take_any_price() {
    let unsaid = || api::Order { expected_total: None, ..order() };
    let quoted = request(api::Order { quote: "sealed".to_owned(), ..unsaid() });
    assert_eq!(create(&quoted).unwrap().order.expected_total, None);
    let any = api::CreateOrderRequest { accept_current_price: true, ..request(unsaid()) };
    assert_eq!(create(&any).unwrap().order.expected_total, None);
}

#[test]
fn an_order_is_the_callers_unless_staff_name_somebody() {
    let customer_of = |named: &str, caller: &Caller| customer(named, caller).ok();
    let buyer = Caller::customer(USER);
    let staff = Caller::with_roles("users/0192f0c1-2345-7abc-8def-000000000000", &["support"]);
    assert_eq!(customer_of("", &buyer).as_deref(), Some(USER));
    assert_eq!(customer_of(USER, &buyer).as_deref(), Some(USER));
    assert_eq!(customer_of(USER, &staff).as_deref(), Some(USER));
    assert_eq!(customer_of("", &staff), None);
    assert_eq!(customer_of("users/ada", &staff), None);
}

#[test]
fn names_are_one_to_a_hundred_and_each_that_is_wrong_is_named() {
    let id = "orders/0192f0c1-2345-7abc-8def-0123456789ab".to_owned();
    assert_eq!(names(&vec![id.clone(); 100]).unwrap().len(), 100);
    assert!(names(&[]).is_err());
    assert!(names(&vec![id.clone(); 101]).is_err());
    let Err(Error::Malformed(violations)) = names(&[id, "users/1".to_owned()]) else {
        panic!("a user's name is not an order's");
    };
    assert_eq!(violations[0].field, "names[1]");
}
