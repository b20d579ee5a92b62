//! Amounts of money: whole minor units and a currency, computed exactly.
//!
//! No floats: sums are checked, products are computed in 128 bits, and an amount that cannot be
//! told exactly is refused rather than rounded.

use std::{cmp::Reverse, fmt};

/// An amount in whole minor units (cents, yen, fils) of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// How many minor units; negative for what is owed the other way.
    pub minor: i64,
    /// Of which currency.
    pub currency: Currency,
}

/// A currency in use, by its ISO 4217 code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    exponent: u8,
}

/// Why an amount is none, or cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// No currency in use has this code.
    #[error("`{0}` is not an ISO 4217 currency code")]
    UnknownCurrency(String),
    /// `nanos` is not within ±999,999,999.
    #[error("nanos must lie between -999999999 and 999999999")]
    NanosOutOfRange,
    /// `units` and `nanos` point in different directions.
    #[error("units and nanos must have the same sign")]
    MixedSigns,
    /// The amount is finer than the currency's minor unit.
    #[error("{currency} has {exponent} decimal places")]
    TooPrecise {
        /// The currency of the amount.
        currency: Currency,
        /// How many decimal places it has.
        exponent: u8,
    },
    /// Two amounts of different currencies were to become one.
    #[error("{0} and {1} cannot be mixed")]
    CurrencyMismatch(Currency, Currency),
    /// The result does not fit 64 bits of minor units.
    #[error("the amount is too large")]
    OutOfRange,
    /// An amount can only be spread over weights that are not negative and not all zero.
    #[error("there is nothing to spread the amount over")]
    NoWeights,
}

// === impl Money ===

impl Money {
    /// An amount of `minor` minor units.
    #[must_use]
    pub fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Nothing, in this currency.
    #[must_use]
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// Reads the three fields of a `google.type.Money`.
    ///
    /// # Errors
    /// [`MoneyError`] names the rule that is broken: an unknown currency, `nanos` out of range or
    /// of the other sign than `units`, more decimal places than the currency has, or an amount
    /// beyond 64 bits of minor units. The caller must correct the amount.
    pub fn from_parts(code: &str, units: i64, nanos: i32) -> Result<Self, MoneyError> {
        let currency = Currency::parse(code)?;
        if i64::from(nanos).abs() >= NANOS {
            return Err(MoneyError::NanosOutOfRange);
        }
        if (units > 0 && nanos < 0) || (units < 0 && nanos > 0) {
            return Err(MoneyError::MixedSigns);
        }
        let step = NANOS / currency.scale();
        if i64::from(nanos) % step != 0 {
            return Err(MoneyError::TooPrecise { currency, exponent: currency.exponent });
        }
        let minor =
            i128::from(units) * i128::from(currency.scale()) + i128::from(i64::from(nanos) / step);
        Ok(Self { minor: narrow(minor)?, currency })
    }

    /// `units` and `nanos` of a `google.type.Money`.
    #[must_use]
    pub fn parts(self) -> (i64, i32) {
        let scale = self.currency.scale();
        let nanos = self.minor % scale * (NANOS / scale);
        // Below one unit there are less than 10^9 nanos: always fits.
        (self.minor / scale, i32::try_from(nanos).unwrap_or_default())
    }

    /// The sum of two amounts.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`] or [`MoneyError::OutOfRange`].
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.with(other, i128::from(self.minor) + i128::from(other.minor))
    }

    /// The difference of two amounts.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`] or [`MoneyError::OutOfRange`].
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.with(other, i128::from(self.minor) - i128::from(other.minor))
    }

    /// This amount `times` times.
    ///
    /// # Errors
    /// [`MoneyError::OutOfRange`].
    pub fn checked_mul(self, times: i64) -> Result<Self, MoneyError> {
        let minor = narrow(i128::from(self.minor) * i128::from(times))?;
        Ok(Self { minor, ..self })
    }

    /// The sum of many amounts, in `currency` even when there are none.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`] or [`MoneyError::OutOfRange`].
    pub fn sum(
        currency: Currency,
        amounts: impl IntoIterator<Item = Self>,
    ) -> Result<Self, MoneyError> {
        amounts.into_iter().try_fold(Self::zero(currency), Self::checked_add)
    }

    /// Divides this amount by weight (an order's discount over its lines) so that the parts sum
    /// to it exactly: each gets its share cut to whole minor units, and what is left goes, one
    /// unit each, to the largest remainders; of equal ones to the first.
    ///
    /// # Errors
    /// [`MoneyError::NoWeights`] if a weight is negative or all are zero.
    pub fn spread(self, weights: &[i64]) -> Result<Vec<Self>, MoneyError> {
        let total: i128 = weights.iter().copied().map(i128::from).sum();
        if total <= 0 || weights.iter().any(|weight| *weight < 0) {
            return Err(MoneyError::NoWeights);
        }
        let amount = i128::from(self.minor);
        let whole = |weight: i64| amount * i128::from(weight) / total;
        let rest = |weight: i64| (amount * i128::from(weight) % total).abs();
        let mut parts: Vec<i128> = weights.iter().copied().map(whole).collect();
        let mut left = amount - parts.iter().sum::<i128>();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        // The sort is stable: of equal remainders the first comes first.
        order.sort_by_key(|&line| Reverse(weights.get(line).copied().map_or(0, rest)));
        for line in order {
            if left == 0 {
                break;
            }
            if let Some(part) = parts.get_mut(line) {
                *part += left.signum();
                left -= left.signum();
            }
        }
        parts.into_iter().map(|part| Ok(Self { minor: narrow(part)?, ..self })).collect()
    }

    fn with(self, other: Self, minor: i128) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch(self.currency, other.currency));
        }
        Ok(Self { minor: narrow(minor)?, ..self })
    }
}

/// `12.34 EUR`: for logs and messages.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.currency.scale().unsigned_abs();
        let (sign, size) = (if self.minor < 0 { "-" } else { "" }, self.minor.unsigned_abs());
        write!(f, "{sign}{}", size / scale)?;
        let places = usize::from(self.currency.exponent);
        if places > 0 {
            write!(f, ".{:0places$}", size % scale)?;
        }
        write!(f, " {}", self.currency)
    }
}

// === impl Currency ===

impl Currency {
    /// The currency of this ISO 4217 code: three upper-case letters.
    ///
    /// # Errors
    /// [`MoneyError::UnknownCurrency`].
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        let found = CURRENCIES.iter().find(|(_, codes)| {
            code.len() == 3 && codes.split_ascii_whitespace().any(|known| known == code)
        });
        let unknown = || MoneyError::UnknownCurrency(code.chars().take(16).collect());
        let (exponent, codes) = *found.ok_or_else(unknown)?;
        let code =
            codes.split_ascii_whitespace().find(|known| *known == code).ok_or_else(unknown)?;
        Ok(Self { code, exponent })
    }

    /// How many decimal places amounts have: 2 for EUR, 0 for JPY, 3 for KWD.
    #[must_use]
    pub fn exponent(self) -> u8 {
        self.exponent
    }

    /// The ISO 4217 code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.code
    }

    /// How many minor units make one unit.
    fn scale(self) -> i64 {
        10_i64.pow(u32::from(self.exponent))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

const NANOS: i64 = 1_000_000_000;

/// ISO 4217, the currencies that money is paid in, by their number of decimal places.
const CURRENCIES: [(u8, &str); 3] = [
    (
        2,
        "EUR USD GBP CHF AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN \
         BWP BYN BZD CAD CDF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB FJD FKP GEL GHS GIP \
         GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD \
         LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB \
         PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC \
         SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG",
    ),
    (0, "JPY KRW BIF CLP DJF GNF ISK KMF PYG RWF UGX VND VUV XAF XOF XPF"),
    (3, "KWD BHD IQD JOD LYD OMR TND"),
];

fn narrow(minor: i128) -> Result<i64, MoneyError> {
    i64::try_from(minor).map_err(|_too_large| MoneyError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    fn money(minor: i64, code: &str) -> Money {
        Money::new(minor, currency(code))
    }

    #[test]
    fn parts_become_minor_units_of_the_currency() {
        for (code, units, nanos, minor) in [
            ("EUR", 12, 340_000_000, 1_234),
            ("EUR", -12, -340_000_000, -1_234),
            ("EUR", 0, -10_000_000, -1),
            ("JPY", 500, 0, 500),
            ("KWD", 1, 1_000_000, 1_001),
            ("EUR", 92_233_720_368_547_758, 70_000_000, i64::MAX),
        ] {
            let read = Money::from_parts(code, units, nanos).unwrap();
            assert_eq!(read, money(minor, code), "{units} {nanos} {code}");
            assert_eq!(read.parts(), (units, nanos), "{units} {nanos} {code}");
        }
    }

    #[test]
    fn an_amount_that_cannot_be_told_exactly_is_refused() {
        let too_precise = |code| MoneyError::TooPrecise {
            currency: currency(code),
            exponent: currency(code).exponent(),
        };
        for (code, units, nanos, error) in [
            ("EUR", 1, 1, too_precise("EUR")),
            ("JPY", 1, 500_000_000, too_precise("JPY")),
            ("KWD", 1, 100_000, too_precise("KWD")),
            ("EUR", 1, -10_000_000, MoneyError::MixedSigns),
            ("EUR", -1, 10_000_000, MoneyError::MixedSigns),
            ("EUR", 0, 1_000_000_000, MoneyError::NanosOutOfRange),
            ("EUR", 0, i32::MIN, MoneyError::NanosOutOfRange),
            ("EUR", i64::MAX, 0, MoneyError::OutOfRange),
            ("EUR", i64::MIN, 0, MoneyError::OutOfRange),
            ("eur", 1, 0, MoneyError::UnknownCurrency("eur".to_owned())),
            ("EUR USD", 1, 0, MoneyError::UnknownCurrency("EUR USD".to_owned())),
            ("", 1, 0, MoneyError::UnknownCurrency(String::new())),
        ] {
            assert_eq!(Money::from_parts(code, units, nanos), Err(error), "{units} {nanos} {code}");
        }
    }

    #[test]
    fn sums_neither_overflow_nor_mix_currencies() {
        let (euro, yen) = (money(1, "EUR"), money(1, "JPY"));
        let mixed = Err(MoneyError::CurrencyMismatch(currency("EUR"), currency("JPY")));
        assert_eq!(euro.checked_add(yen), mixed);
        assert_eq!(euro.checked_sub(yen), mixed);
        assert_eq!(money(i64::MAX, "EUR").checked_add(euro), Err(MoneyError::OutOfRange));
        assert_eq!(money(i64::MAX, "EUR").checked_mul(2), Err(MoneyError::OutOfRange));
        assert_eq!(money(21, "EUR").checked_mul(2), Ok(money(42, "EUR")));
        assert_eq!(Money::sum(currency("EUR"), []), Ok(money(0, "EUR")));
    }

    #[test]
    fn what_cannot_be_divided_goes_to_the_largest_remainders() {
        let spread = |minor, weights: &[i64]| {
            money(minor, "EUR")
                .spread(weights)
                .map(|parts| parts.iter().map(|part| part.minor).collect::<Vec<_>>())
        };
        assert_eq!(spread(100, &[1, 1, 1]), Ok(vec![34, 33, 33]));
        assert_eq!(spread(-100, &[1, 1, 1]), Ok(vec![-34, -33, -33]));
        assert_eq!(spread(10, &[1, 3, 5]), Ok(vec![1, 3, 6]));
        assert_eq!(spread(10, &[0, 1]), Ok(vec![0, 10]));
        for weights in [&[][..], &[0, 0], &[1, -1]] {
            assert_eq!(spread(10, weights), Err(MoneyError::NoWeights), "{weights:?}");
        }
    }

    #[test]
    fn an_amount_reads_as_people_write_it() {
        for (amount, text) in [
            (money(1_234, "EUR"), "12.34 EUR"),
            (money(-5, "EUR"), "-0.05 EUR"),
            (money(5, "JPY"), "5 JPY"),
            (money(1_001, "KWD"), "1.001 KWD"),
        ] {
            assert_eq!(amount.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn every_amount_survives_the_way_through_its_parts(minor: i64, pick in any::<prop::sample::Index>()) {
            let codes: Vec<&str> =
                CURRENCIES.iter().flat_map(|(_, codes)| codes.split_ascii_whitespace()).collect();
            let code = pick.get(&codes);
            let (units, nanos) = money(minor, code).parts();
            prop_assert_eq!(Money::from_parts(code, units, nanos), Ok(money(minor, code)));
        }

        #[test]
        fn parts_of_a_spread_sum_to_the_whole_and_stray_less_than_one_unit(
            minor in -1_000_000_000_000_i64..1_000_000_000_000,
            weights in prop::collection::vec(0_i64..1_000_000_000, 1..20),
        ) {
            let total: i64 = weights.iter().sum();
            match money(minor, "EUR").spread(&weights) {
                Err(error) => prop_assert!(total == 0 && error == MoneyError::NoWeights),
                Ok(parts) => {
                    prop_assert_eq!(parts.iter().map(|part| part.minor).sum::<i64>(), minor);
                    for (part, weight) in parts.iter().zip(&weights) {
                        let exact = i128::from(minor) * i128::from(*weight);
                        let stray = i128::from(part.minor) * i128::from(total) - exact;
                        prop_assert!(stray.abs() < i128::from(total));
                    }
                }
            }
        }
    }
}
