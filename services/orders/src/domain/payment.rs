//! Where an order's money stands, derived from what is known of its payment.

use mesh::money::Money;

/// What is known of the payment of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payment {
    /// How the last attempt to authorize stands.
    pub attempt: Attempt,
    /// How much is authorized, alive and not taken, in minor units of the order's currency.
    pub authorized_minor: i64,
    /// How much was taken.
    pub captured_minor: i64,
    /// How much of it was paid back.
    pub refunded_minor: i64,
    /// It was voided, or barred from ever being authorized.
    pub voided: bool,
}

/// How the last attempt to authorize stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attempt {
    /// There was none.
    #[default]
    None,
    /// The provider or the customer is being asked.
    Open,
    /// The provider's answer is not known.
    Unknown,
    /// The provider said yes.
    Succeeded,
    /// The provider said no, or that nothing came of it.
    Failed,
}

/// Where an order's money stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaymentState {
    /// Nothing was asked of the provider.
    Unpaid,
    /// The provider or the customer is being asked.
    Authorizing,
    /// The amount is set aside.
    Authorized,
    /// The provider's answer is not known.
    InDoubt,
    /// Given back, or barred.
    Voided,
    /// Declined, or failed without effect.
    Failed,
    /// A part of what is due was taken.
    PartiallyCaptured,
    /// All of it was.
    Captured,
    /// A part of what was taken was paid back.
    PartiallyRefunded,
    /// All of it was.
    Refunded,
    /// More was taken than is due: a refund is owed.
    Overcharged,
}

// === impl Payment ===

impl Payment {
    /// Somebody is being asked.
    #[must_use]
    pub fn open(self) -> Self {
        Self { attempt: Attempt::Open, authorized_minor: 0, ..self }
    }

    /// The answer is not known.
    #[must_use]
    pub fn in_doubt(self) -> Self {
        Self { attempt: Attempt::Unknown, authorized_minor: 0, ..self }
    }

    /// Authorized, over this amount.
    #[must_use]
    pub fn authorized(self, amount: Money) -> Self {
        Self { attempt: Attempt::Succeeded, authorized_minor: amount.minor, ..self }
    }

    /// Declined, or failed without effect.
    #[must_use]
    pub fn failed(self) -> Self {
        Self { attempt: Attempt::Failed, authorized_minor: 0, ..self }
    }

    /// Given back, or barred from ever being authorized.
    #[must_use]
    pub fn void(self) -> Self {
        Self { attempt: Attempt::None, authorized_minor: 0, voided: true, ..self }
    }

    /// So much was taken, so much of it paid back, and so much can still be taken.
    #[must_use]
    pub fn taken(self, captured_minor: i64, refunded_minor: i64, authorized_minor: i64) -> Self {
        let attempt = Attempt::Succeeded;
        Self { attempt, authorized_minor, captured_minor, refunded_minor, ..self }
    }

    /// What became of taking it is not known.
    #[must_use]
    pub fn taken_in_doubt(self) -> Self {
        Self { attempt: Attempt::Unknown, ..self }
    }

    /// The first row that holds, in the order of the table of states; `due` is what is to be paid
    /// for what is kept.
    #[must_use]
    pub fn state(&self, due: Money) -> PaymentState {
        let (captured, refunded) = (self.captured_minor, self.refunded_minor);
        if self.attempt == Attempt::Unknown {
            PaymentState::InDoubt
        } else if captured.saturating_sub(refunded) > due.minor {
            PaymentState::Overcharged
        } else if captured > 0 && refunded == captured {
            PaymentState::Refunded
        } else if refunded > 0 {
            PaymentState::PartiallyRefunded
        } else if captured > 0 && captured >= due.minor {
            PaymentState::Captured
        } else if captured > 0 {
            PaymentState::PartiallyCaptured
        } else if self.authorized_minor > 0 {
            PaymentState::Authorized
        } else if self.attempt == Attempt::Open {
            PaymentState::Authorizing
        } else if self.voided {
            PaymentState::Voided
        } else if self.attempt == Attempt::Failed {
            PaymentState::Failed
        } else {
            PaymentState::Unpaid
        }
    }

    /// Whether what is authorized pays for `total`. A free order needs no authorization.
    #[must_use]
    pub fn covers(&self, total: Money) -> bool {
        self.attempt != Attempt::Unknown && !self.voided && self.authorized_minor >= total.minor
    }

    /// Whether exactly `due` was taken and kept, and nothing more can be.
    #[must_use]
    pub fn is_settled(&self, due: Money) -> bool {
        self.attempt != Attempt::Unknown
            && self.authorized_minor == 0
            && self.captured_minor.saturating_sub(self.refunded_minor) == due.minor
    }
}
