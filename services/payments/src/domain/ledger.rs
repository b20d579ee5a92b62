//! Double entry: what each movement of money posts to which account.

use mesh::money::Money;

/// One side of a movement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The attempt that caused it, by the name that the provider's ledger has for it, too.
    pub reference: String,
    /// Why the money moves.
    pub movement: Movement,
    /// To which account.
    pub account: Account,
    /// How much; negative for what leaves the account.
    pub amount: Money,
}

/// Why money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Movement {
    /// It is set aside.
    Authorized,
    /// It is given back, not having been taken.
    Released,
    /// It is taken.
    Captured,
    /// It is promised back, having been taken.
    RefundGranted,
    /// That promise is taken back: the provider does not pay it.
    RefundGrantRevoked,
    /// It is given back, having been taken.
    Refunded,
}

/// Where money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// With the customer.
    Customer,
    /// With the provider, for us.
    Hold,
    /// With the provider, ours.
    Receivable,
    /// With the provider, for good.
    Fees,
    /// With the provider, ours, and promised to the customer.
    Payable,
}

/// Postings that do not sum to 0: a mistake in here, kept out of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the postings of {reference} do not sum to zero")]
pub struct Unbalanced {
    /// Whose.
    pub reference: String,
}

/// Whether postings sum to 0 in every currency, movement by movement.
///
/// # Errors
/// [`Unbalanced`] names the first that do not. Nothing of it may be stored.
pub fn balanced(postings: &[Posting]) -> Result<(), Unbalanced> {
    for one in postings {
        let together = postings.iter().filter(|other| {
            other.reference == one.reference
                && other.movement == one.movement
                && other.amount.currency == one.amount.currency
        });
        if together.map(|posting| i128::from(posting.amount.minor)).sum::<i128>() != 0 {
            return Err(Unbalanced { reference: one.reference.clone() });
        }
    }
    Ok(())
}

/// An amount was set aside.
pub(super) fn authorized(reference: &str, amount: Money) -> Vec<Posting> {
    post(
        reference,
        Movement::Authorized,
        &[(Account::Hold, amount), (Account::Customer, negative(amount))],
    )
}

/// An amount was given back, not having been taken.
pub(super) fn released(reference: &str, amount: Money) -> Vec<Posting> {
    post(
        reference,
        Movement::Released,
        &[(Account::Hold, negative(amount)), (Account::Customer, amount)],
    )
}

/// An amount was taken, of which the provider keeps the fee.
pub(super) fn captured(reference: &str, amount: Money, fee: Money) -> Vec<Posting> {
    let net = Money::new(amount.minor.saturating_sub(fee.minor), amount.currency);
    post(
        reference,
        Movement::Captured,
        &[(Account::Hold, negative(amount)), (Account::Receivable, net), (Account::Fees, fee)],
    )
}

/// An amount that was taken is going to be given back.
pub(super) fn granted(reference: &str, amount: Money) -> Vec<Posting> {
    post(
        reference,
        Movement::RefundGranted,
        &[(Account::Receivable, negative(amount)), (Account::Payable, amount)],
    )
}

/// An amount that was going to be given back is not.
pub(super) fn revoked(reference: &str, amount: Money) -> Vec<Posting> {
    post(
        reference,
        Movement::RefundGrantRevoked,
        &[(Account::Payable, negative(amount)), (Account::Receivable, amount)],
    )
}

/// An amount that was promised was given back.
pub(super) fn refunded(reference: &str, amount: Money) -> Vec<Posting> {
    post(
        reference,
        Movement::Refunded,
        &[(Account::Payable, negative(amount)), (Account::Customer, amount)],
    )
}

fn post(reference: &str, movement: Movement, sides: &[(Account, Money)]) -> Vec<Posting> {
    let sides = sides.iter().filter(|(_, amount)| amount.minor != 0);
    let posting = |&(account, amount): &(Account, Money)| Posting {
        reference: reference.to_owned(),
        movement,
        account,
        amount,
    };
    sides.map(posting).collect()
}

fn negative(amount: Money) -> Money {
    Money::new(amount.minor.saturating_neg(), amount.currency)
}
