use mesh::money::Currency;

use super::*;

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::parse("EUR").unwrap())
}

fn mug(title: &str) -> Line {
    Line { id: "1".to_owned(), title: title.to_owned(), quantity: 2, total: Some(euro(1_998)) }
}

fn parcel(carrier: &str, tracking: &str) -> Parcel {
    let lines = vec![Line { total: None, ..mug("MUG") }];
    let (carrier, tracking) = (carrier.to_owned(), tracking.to_owned());
    Parcel { shipment: Uuid::from_u128(3), lines, carrier, tracking }
}

fn received(title: &str) -> News {
    let totals = Totals {
        discount: None,
        shipping: Some(euro(400)),
        tax: Some(euro(0)),
        total: euro(2_398),
    };
    News::Received { lines: vec![mug(title)], totals }
}

fn notice(news: News) -> Notice {
    Notice {
        event: Uuid::from_u128(1),
        at: OffsetDateTime::UNIX_EPOCH,
        order: Uuid::from_u128(2),
        customer: "users/1".to_owned(),
        email: "ada@example.com".to_owned(),
        news,
        traceparent: String::new(),
    }
}

fn said(news: News, known: &[Line]) -> String {
    let (_, letter) = notice(news).letter(known).unwrap();
    format!("{}\n{}", letter.subject, letter.body)
}

#[test]
fn each_kind_is_told_with_what_it_is_about() {
    let order = "orders/00000000-0000-0000-0000-000000000002";
    let known = [mug("A mug")];
    let dispatched = News::Dispatched(parcel("Post", "P1"));
    for (news, kind, told) in [
        (
            received("A mug"),
            Kind::OrderReceived,
            &["2 × A mug: 19.98 EUR", "Shipping: 4.00 EUR", "Total: 23.98 EUR"][..],
        ),
        (
            News::Confirmed { total: euro(2_398) },
            Kind::OrderConfirmed,
            &["2 × A mug", "Total: 23.98 EUR"],
        ),
        (
            News::Rejected { reason: "OUT_OF_STOCK".to_owned() },
            Kind::OrderRejected,
            &["not everything is in stock"],
        ),
        (
            News::Rejected { reason: "NEW_ONE".to_owned() },
            Kind::OrderRejected,
            &["could not be fulfilled"],
        ),
        (News::Cancelled, Kind::OrderCancelled, &["is cancelled"]),
        (News::Expired, Kind::OrderExpired, &["was not done in time"]),
        (dispatched, Kind::ShipmentDispatched, &["2 × A mug\n", "Carrier: Post", "number: P1"]),
        (News::Delivered(parcel("", "")), Kind::ShipmentDelivered, &["2 × A mug\n"]),
    ] {
        assert_eq!(news.kind(), Some(kind));
        let text = said(news, &known);
        for part in told.iter().chain(&[order]) {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        assert!(!text.contains("Tax"), "what is nothing is not told");
    }
    assert_eq!(notice(News::Revised { lines: Vec::new() }).letter(&[]), None);
}

#[test]
fn what_a_shipment_holds_is_called_as_the_order_calls_it_if_that_is_known() {
    let delivered = || News::Delivered(parcel("", ""));
    assert!(said(delivered(), &[mug("A mug")]).contains("2 × A mug\n"));
    assert!(said(delivered(), &[]).contains("2 × MUG\n"));
}

#[test]
fn nothing_that_others_wrote_takes_a_line_of_its_own() {
    for end in ["\n", "\r\n", "\r", "\u{2028}", "\u{2029}", "\u{85}", "\u{b}", "\0"] {
        let title = format!("A mug{end}{end}Pay at evil.example");
        let text = said(received(&title), &[]);
        assert!(text.contains("\n  2 × A mug Pay at evil.example: 19.98 EUR\n"), "{text}");
        let text = said(News::Dispatched(parcel(&title, &title)), &[]);
        assert!(text.contains("\n  Carrier: A mug Pay at evil.example\n"), "{text}");
    }
    // Marks that turn the direction of reading could make one word pass for another.
    assert_eq!(plain("a\u{202e}gpj.exe\u{2066}b"), "a gpj.exe b");
    assert_eq!(plain("  a \t b  "), "a b");
    assert_eq!(plain(&"x".repeat(300)).chars().count(), 200);
}

#[test]
fn the_same_event_makes_the_same_mail_and_an_order_has_one_confirmation() {
    let id = |event: u128, news: News| {
        let notice = Notice { event: Uuid::from_u128(event), ..notice(news) };
        let kind = notice.news.kind().unwrap();
        notice.message_id(kind, "ordermesh.example")
    };
    let confirmed = || News::Confirmed { total: euro(1) };
    assert_eq!(id(1, confirmed()), id(9, confirmed()));
    assert_eq!(id(1, News::Cancelled), id(1, News::Cancelled));
    assert_ne!(id(1, News::Cancelled), id(9, News::Cancelled));
    assert_eq!(
        id(1, News::Delivered(parcel("", ""))),
        "shipment-delivered.00000000-0000-0000-0000-000000000001@ordermesh.example"
    );
}

#[test]
fn everything_can_be_muted_but_the_confirmation() {
    let at = OffsetDateTime::UNIX_EPOCH;
    for kind in Kind::ALL {
        let mut preferences = Preferences::of(Uuid::nil());
        let muted = preferences.mute([kind].into(), at);
        if kind == Kind::OrderConfirmed {
            assert_eq!((muted, preferences.updated_at), (Err(AlwaysMailed(kind)), None));
        } else {
            assert_eq!((muted, preferences.updated_at), (Ok(()), Some(at)));
        }
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert!(Kind::ALL.is_sorted());
    assert_eq!((Kind::parse("MAIL"), State::parse("OPEN")), (None, None));
}

#[test]
fn attempts_get_rarer_up_to_one_a_minute() {
    let seconds: Vec<_> = (0..9).map(|attempts| pause(attempts).as_secs()).collect();
    assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(pause(i64::MAX).as_secs(), 60);
}
