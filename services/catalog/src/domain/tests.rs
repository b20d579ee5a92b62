//! The rules of the catalog, one claim each.

use time::macros::datetime;

use super::*;

const NOON: OffsetDateTime = datetime!(2026-01-31 12:00 UTC);
const ONE: OffsetDateTime = datetime!(2026-01-31 13:00 UTC);

fn product() -> Product {
    let title = Title::parse("Mug").expect("a title");
    Product::create(Uuid::from_u128(1), title, Description::default(), NOON).0
}

fn amount(minor: i64, code: &str) -> Amount {
    let currency = Currency::parse(code).expect("a currency");
    Amount::parse(Money::new(minor, currency)).expect("a price")
}

fn variant() -> Variant {
    let (sku, title) = (Sku::parse("MUG").expect("a SKU"), Title::parse("Mug").expect("a title"));
    let price = amount(999, "EUR");
    product().variant(sku, title, price, Uuid::from_u128(2), NOON).expect("on sale").0
}

#[test]
fn a_deleted_product_can_be_brought_back_and_nothing_else() {
    let mut product = product();
    assert_eq!(product.undelete(ONE), Err(Refusal::State(State::Active)));
    assert_eq!(product.delete(ONE), Ok(ProductEvent::Deleted));
    assert_eq!(product.delete(ONE), Err(Refusal::State(State::Deleted)));
    assert_eq!(product.update(None, None, ONE), Err(Refusal::State(State::Deleted)));
    let (sku, title) = (Sku::parse("A").expect("a SKU"), Title::parse("A").expect("a title"));
    let refused = product.variant(sku, title, amount(1, "EUR"), Uuid::from_u128(3), ONE);
    assert_eq!(refused.err(), Some(Refusal::State(State::Deleted)));
    assert_eq!(product.undelete(ONE), Ok(ProductEvent::Updated));
    assert_eq!(product.state(), State::Active);
}

#[test]
fn a_price_of_the_future_does_not_hold_yet() {
    let mut variant = variant();
    let version = Uuid::from_u128(9);
    variant.set_price(version, amount(1_099, "EUR"), Some(ONE), NOON).expect("a price");
    assert_eq!(variant.price, amount(999, "EUR"));
    variant.set_price(version, amount(1_199, "EUR"), None, NOON).expect("a price");
    assert_eq!((variant.price, variant.price_version), (amount(1_199, "EUR"), version));
}

#[test]
fn a_price_keeps_the_currency_and_does_not_begin_in_the_past() {
    let mut variant = variant();
    let eur = variant.price.money().currency;
    let version = Uuid::from_u128(9);
    let refused = variant.set_price(version, amount(1, "JPY"), None, NOON);
    assert_eq!(refused.err(), Some(Refusal::Currency(eur)));
    let refused = variant.set_price(version, amount(1, "EUR"), Some(NOON), ONE);
    assert_eq!(refused.err(), Some(Refusal::Past));
}

#[test]
fn what_is_no_sku_title_or_price_does_not_become_one() {
    let long = "x".repeat(201);
    for (text, sku, title) in [
        ("MUG-1_a.b", true, true),
        ("", false, false),
        (" ", false, false),
        ("-MUG", false, true),
        ("MUG/1", false, true),
        ("MÜG", false, true),
        ("a\nb", false, false),
        (&long, false, false),
        (&long[..200], false, true),
        (&long[..64], true, true),
        (&long[..65], false, true),
    ] {
        assert_eq!((Sku::parse(text).is_ok(), Title::parse(text).is_ok()), (sku, title), "{text}");
    }
    let eur = Currency::parse("EUR").expect("a currency");
    for (minor, good) in
        [(-1, false), (0, true), (1_000_000_000_000, true), (1_000_000_000_001, false)]
    {
        assert_eq!(Amount::parse(Money::new(minor, eur)).is_ok(), good, "{minor}");
    }
}
