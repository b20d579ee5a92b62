//! What the provider does with money: values in, state and ledger entries out.

use mesh::money::Money;
use time::{Duration, OffsetDateTime};

/// Money of a customer that is set aside, or was to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The provider's own name for it.
    pub id: String,
    /// The merchant's name for it.
    pub reference: String,
    /// How much was asked for.
    pub amount: Money,
    /// What the customer pays with.
    pub token: String,
    /// How far it has come.
    pub status: Status,
    /// Whether it was authorized, ever.
    pub approved: bool,
    /// Minor units that are set aside or were taken.
    pub authorized: i64,
    /// Minor units of those that were taken.
    pub captured: i64,
    /// Why it was declined.
    pub decline_code: Option<String>,
    /// The name of what the customer has to do.
    pub action: Option<String>,
    /// When what is left is given back.
    pub expires_at: OffsetDateTime,
}

/// Money that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The provider's own name for it.
    pub id: String,
    /// Of which authorization.
    pub hold: String,
    /// How much.
    pub amount: Money,
    /// Minor units of it that were given back.
    pub refunded: i64,
}

/// How far an authorization has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not decided.
    Pending,
    /// Waits for the customer.
    ActionRequired,
    /// Set aside.
    Authorized,
    /// Refused.
    Declined,
    /// Given back, or given up undecided.
    Voided,
    /// Taken, and nothing left.
    Captured,
}

/// What is decided about a customer's money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is set aside.
    Approve,
    /// It is not.
    Decline(String),
    /// The customer is asked first.
    AskCustomer,
    /// Nothing, for ever.
    Wait,
}

/// A line of the provider's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Why the money moved.
    pub movement: Movement,
    /// How much.
    pub amount: Money,
    /// What the provider keeps of it, in minor units.
    pub fee: i64,
}

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movement {
    /// It was set aside.
    Authorized,
    /// It was taken.
    Captured,
    /// It was given back, not having been taken.
    Released,
    /// It was given back, having been taken.
    Refunded,
}

/// What cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such authorization or capture.
    #[error("not_found")]
    NotFound,
    /// It is not, or no longer, authorized.
    #[error("not_authorized")]
    NotAuthorized,
    /// More than is left.
    #[error("amount_exceeds_authorization")]
    Exceeds,
    /// More than was taken and not given back.
    #[error("amount_exceeds_capture")]
    ExceedsCapture,
    /// Given back by the passing of time.
    #[error("authorization_expired")]
    Expired,
}

/// How long money is set aside.
const KEPT: Duration = Duration::days(7);

// === impl Hold ===

impl Hold {
    /// Decides about an authorization.
    #[must_use]
    pub fn new(
        id: String,
        reference: String,
        token: String,
        amount: Money,
        verdict: Verdict,
        at: OffsetDateTime,
    ) -> (Self, Vec<Entry>) {
        let mut hold = Self {
            id,
            reference,
            amount,
            token,
            status: Status::Pending,
            approved: false,
            authorized: 0,
            captured: 0,
            decline_code: None,
            action: None,
            expires_at: at + KEPT,
        };
        let entries = match verdict {
            Verdict::Approve => hold.approve(),
            Verdict::Decline(code) => {
                hold.status = Status::Declined;
                hold.decline_code = Some(code);
                Vec::new()
            }
            Verdict::AskCustomer => {
                hold.status = Status::ActionRequired;
                hold.action = Some(hold.id.replacen("auth_", "act_", 1));
                Vec::new()
            }
            Verdict::Wait => Vec::new(),
        };
        (hold, entries)
    }

    /// Takes `amount` minor units; after the `last` time the rest is given back.
    ///
    /// # Errors
    /// [`Refused`], and nothing was taken.
    pub fn capture(
        &mut self,
        amount: i64,
        last: bool,
        fee_basis_points: i64,
        at: OffsetDateTime,
    ) -> Result<Vec<Entry>, Refused> {
        if self.status != Status::Authorized {
            return Err(Refused::NotAuthorized);
        }
        if at >= self.expires_at {
            return Err(Refused::Expired);
        }
        if amount <= 0 || amount > self.left() {
            return Err(Refused::Exceeds);
        }
        self.captured += amount;
        let fee = fee(amount, fee_basis_points);
        let mut entries = vec![self.entry(Movement::Captured, amount, fee)];
        if last && self.left() > 0 {
            entries.push(self.entry(Movement::Released, self.left(), 0));
            self.authorized = self.captured;
        }
        if self.left() == 0 {
            self.status = Status::Captured;
        }
        Ok(entries)
    }

    /// Gives back what is left, or gives up what is not decided; says how much was given back.
    ///
    /// # Errors
    /// [`Refused::NotAuthorized`] if there is nothing to give back.
    pub fn void(&mut self) -> Result<(i64, Vec<Entry>), Refused> {
        match self.status {
            Status::Pending | Status::ActionRequired => {
                self.status = Status::Voided;
                Ok((0, Vec::new()))
            }
            Status::Authorized => {
                let left = self.left();
                let entry = self.entry(Movement::Released, left, 0);
                self.authorized = self.captured;
                self.status = if self.captured > 0 { Status::Captured } else { Status::Voided };
                Ok((left, vec![entry]))
            }
            Status::Declined | Status::Voided | Status::Captured => Err(Refused::NotAuthorized),
        }
    }

    /// The customer did what was asked, or failed to. Nothing, if that is settled already.
    pub fn act(&mut self, succeeded: bool) -> Vec<Entry> {
        if self.status != Status::ActionRequired {
            return Vec::new();
        }
        if succeeded {
            return self.approve();
        }
        self.status = Status::Declined;
        self.decline_code = Some("authentication_failed".to_owned());
        Vec::new()
    }

    /// What became of the authorization itself, whatever was done with it afterwards.
    #[must_use]
    pub fn outcome(&self) -> Status {
        match self.status {
            Status::Captured => Status::Authorized,
            Status::Voided if self.approved => Status::Authorized,
            status @ (Status::Pending
            | Status::ActionRequired
            | Status::Authorized
            | Status::Declined
            | Status::Voided) => status,
        }
    }

    fn approve(&mut self) -> Vec<Entry> {
        self.status = Status::Authorized;
        self.approved = true;
        self.authorized = self.amount.minor;
        vec![self.entry(Movement::Authorized, self.amount.minor, 0)]
    }

    fn left(&self) -> i64 {
        self.authorized - self.captured
    }

    fn entry(&self, movement: Movement, minor: i64, fee: i64) -> Entry {
        Entry { movement, amount: Money::new(minor, self.amount.currency), fee }
    }
}

// === impl Capture ===

impl Capture {
    /// Gives back `amount` minor units. The fee is kept.
    ///
    /// # Errors
    /// [`Refused::ExceedsCapture`], and nothing was given back.
    pub fn refund(&mut self, amount: i64) -> Result<Entry, Refused> {
        if amount <= 0 || amount > self.amount.minor - self.refunded {
            return Err(Refused::ExceedsCapture);
        }
        self.refunded += amount;
        let amount = Money::new(amount, self.amount.currency);
        Ok(Entry { movement: Movement::Refunded, amount, fee: 0 })
    }
}

// === impl Verdict ===

impl Verdict {
    /// What a token stands for. What is not magic is good.
    #[must_use]
    pub fn of_token(token: &str) -> Self {
        match token {
            "tok_declined" => Self::Decline("do_not_honor".to_owned()),
            "tok_insufficient_funds" => Self::Decline("insufficient_funds".to_owned()),
            "tok_expired_card" => Self::Decline("expired_card".to_owned()),
            "tok_fraud" => Self::Decline("fraud".to_owned()),
            "tok_action_required" => Self::AskCustomer,
            "tok_pending" => Self::Wait,
            _ => Self::Approve,
        }
    }
}

/// Whether a declined authorization may be tried again, with another card or later.
#[must_use]
pub fn is_retriable(decline_code: &str) -> bool {
    matches!(decline_code, "insufficient_funds" | "expired_card" | "authentication_failed")
}

/// What is kept of an amount, rounded down in the merchant's favour.
fn fee(amount: i64, basis_points: i64) -> i64 {
    let fee = i128::from(amount) * i128::from(basis_points) / 10_000;
    // At most the amount itself: always fits.
    i64::try_from(fee).unwrap_or(amount)
}

#[cfg(test)]
mod tests {
    use mesh::money::Currency;

    use super::*;

    const NOON: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn euro(minor: i64) -> Money {
        Money::new(minor, Currency::parse("EUR").unwrap())
    }

    fn hold(verdict: Verdict) -> (Hold, Vec<Entry>) {
        let id = "auth_1".to_owned();
        Hold::new(id, "pay/1".to_owned(), "tok_visa".to_owned(), euro(1_000), verdict, NOON)
    }

    fn movements(entries: &[Entry]) -> Vec<(Movement, i64, i64)> {
        entries.iter().map(|entry| (entry.movement, entry.amount.minor, entry.fee)).collect()
    }

    #[test]
    fn money_moves_only_when_it_is_approved() {
        for (verdict, status, moved) in [
            (Verdict::Approve, Status::Authorized, 1),
            (Verdict::Decline("fraud".to_owned()), Status::Declined, 0),
            (Verdict::AskCustomer, Status::ActionRequired, 0),
            (Verdict::Wait, Status::Pending, 0),
        ] {
            let (hold, entries) = hold(verdict);
            assert_eq!((hold.status, entries.len()), (status, moved));
        }
    }

    #[test]
    fn the_last_capture_gives_the_rest_back() {
        let (mut hold, _) = hold(Verdict::Approve);
        let first = hold.capture(300, false, 150, NOON).unwrap();
        assert_eq!(movements(&first), [(Movement::Captured, 300, 4)]);
        let last = hold.capture(500, true, 150, NOON).unwrap();
        assert_eq!(movements(&last), [(Movement::Captured, 500, 7), (Movement::Released, 200, 0)]);
        assert_eq!((hold.status, hold.outcome()), (Status::Captured, Status::Authorized));
        assert_eq!(hold.capture(1, true, 150, NOON), Err(Refused::NotAuthorized));
        assert_eq!(hold.void(), Err(Refused::NotAuthorized));
    }

    #[test]
    fn no_more_is_taken_than_is_set_aside_and_nothing_after_it_expired() {
        let (mut hold, _) = hold(Verdict::Approve);
        assert_eq!(hold.capture(1_001, false, 0, NOON), Err(Refused::Exceeds));
        assert_eq!(hold.capture(0, false, 0, NOON), Err(Refused::Exceeds));
        assert_eq!(hold.capture(1, false, 0, NOON + KEPT), Err(Refused::Expired));
    }

    #[test]
    fn a_void_gives_back_what_was_authorized_and_gives_up_what_was_not() {
        let (mut approved, _) = hold(Verdict::Approve);
        let (released, entries) = approved.void().unwrap();
        assert_eq!((released, movements(&entries)), (1_000, vec![(Movement::Released, 1_000, 0)]));
        assert_eq!(approved.outcome(), Status::Authorized);
        for verdict in [Verdict::Wait, Verdict::AskCustomer] {
            let (mut undecided, _) = hold(verdict);
            assert_eq!(undecided.void(), Ok((0, Vec::new())));
            assert_eq!(undecided.outcome(), Status::Voided);
            assert_eq!(undecided.act(true), Vec::new());
        }
    }

    #[test]
    fn no_more_is_given_back_than_was_taken() {
        let (id, hold) = ("cap_1".to_owned(), "auth_1".to_owned());
        let mut capture = Capture { id, hold, amount: euro(500), refunded: 0 };
        let entry = capture.refund(300).unwrap();
        assert_eq!(movements(&[entry]), [(Movement::Refunded, 300, 0)]);
        for amount in [201, 0, -1] {
            assert_eq!(capture.refund(amount), Err(Refused::ExceedsCapture), "{amount}");
        }
        capture.refund(200).unwrap();
        assert_eq!(capture.refunded, 500);
    }

    #[test]
    fn the_customer_decides_once() {
        let (mut hold, _) = hold(Verdict::AskCustomer);
        assert_eq!(movements(&hold.act(true)), [(Movement::Authorized, 1_000, 0)]);
        assert_eq!(hold.act(false), Vec::new());
        assert_eq!(hold.status, Status::Authorized);
    }
}
