//! One thing that was asked of the provider, and how it comes to be decided.

use std::fmt;

use mesh::money::Money;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Method, Outcome, Pace, Probe, Refusal, Source};

/// One thing that was asked of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Names it here.
    pub id: Uuid,
    /// What was asked.
    pub kind: Kind,
    /// The how-manieth of its kind, from 1.
    pub n: usize,
    /// Names it at the provider, as key and as reference: `pay/{payment}/{kind}/{n}`.
    pub reference: String,
    /// How far it has come.
    pub state: AttemptState,
    /// How much was asked for. Never changes, so that the key never serves another amount.
    pub amount: Money,
    /// For a capture: whether nothing more will be taken.
    pub last: bool,
    /// What the customer pays with.
    pub method: Method,
    /// The provider's name for the authorization that a capture or a void is about, or for the
    /// capture that a refund is about.
    pub target: Option<String>,
    /// The provider's name for the authorization or the capture that this attempt made.
    pub provider_id: Option<String>,
    /// The refund that it is a part of.
    pub refund: Option<Uuid>,
    /// Why it was refused or had no effect.
    pub decline_code: Option<String>,
    /// Whether a refused one may be tried again.
    pub retriable: bool,
    /// Where the customer proves who they are.
    pub action_url: Option<String>,
    /// How often the provider was asked in vain what became of it.
    pub tries: usize,
    /// When the resolver looks at it next.
    pub next_try_at: Option<OffsetDateTime>,
    /// What a person said about it.
    pub evidence: Option<String>,
    /// When it was noted.
    pub created_at: OffsetDateTime,
}

/// An attempt to be: its id and its time.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Its id.
    pub id: Uuid,
    /// When.
    pub at: OffsetDateTime,
}

/// What is asked of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// To set an amount aside.
    Authorize,
    /// To take it.
    Capture,
    /// To give it back, not having been taken.
    Void,
    /// To give it back, having been taken.
    Refund,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttemptState {
    /// Committed; surely not sent.
    Created,
    /// From this commit on, it may have gone out.
    Sent,
    /// The provider did it.
    Succeeded,
    /// The provider refused.
    Declined,
    /// The provider says that it has no effect.
    Failed,
    /// Nobody knows; the resolver is finding out.
    Unknown,
    /// The provider waits for the customer.
    ActionRequired,
    /// Nobody knows, and a person has to find out.
    NeedsReview,
}

/// Why an attempt failed whose key the provider has forgotten and whose reference it never saw.
pub const NEVER_ARRIVED: &str = "never_arrived";

// === impl Attempt ===

impl Attempt {
    /// An attempt that was not sent yet.
    #[must_use]
    pub fn new(started: Started, payment: Uuid, kind: Kind, n: usize, amount: Money) -> Self {
        Self {
            id: started.id,
            kind,
            n,
            reference: format!("pay/{payment}/{kind}/{n}"),
            state: AttemptState::Created,
            amount,
            last: true,
            method: Method::kept(String::new()),
            target: None,
            provider_id: None,
            refund: None,
            decline_code: None,
            retriable: false,
            action_url: None,
            tries: 0,
            next_try_at: None,
            evidence: None,
            created_at: started.at,
        }
    }

    /// Notes that it is going to be sent: from the commit on, it may have gone out.
    pub fn send(&mut self, at: OffsetDateTime, pace: &Pace) {
        if self.state == AttemptState::Created {
            self.state = AttemptState::Sent;
            self.next_try_at = Some(at + pace.unsent_after);
        }
    }

    /// Where an outcome takes an attempt, or nothing: it knows that already, or better.
    #[must_use]
    pub fn next(&self, outcome: &Outcome, source: &Source) -> Option<AttemptState> {
        let by_person = matches!(source, Source::Review(_));
        match self.state {
            AttemptState::Created
            | AttemptState::Succeeded
            | AttemptState::Declined
            | AttemptState::Failed => None,
            AttemptState::NeedsReview => outcome.decided().filter(|_| by_person),
            AttemptState::Sent | AttemptState::Unknown | AttemptState::ActionRequired
                if by_person =>
            {
                None
            }
            AttemptState::ActionRequired => outcome.decided(),
            AttemptState::Unknown => match outcome {
                Outcome::ActionRequired { .. } => Some(AttemptState::ActionRequired),
                Outcome::Pending { .. } => {
                    self.provider_id.is_none().then_some(AttemptState::Unknown)
                }
                Outcome::Unknown => None,
                Outcome::Succeeded { .. } | Outcome::Declined { .. } | Outcome::Failed { .. } => {
                    outcome.decided()
                }
            },
            AttemptState::Sent => Some(match outcome {
                Outcome::Succeeded { .. } => AttemptState::Succeeded,
                Outcome::Declined { .. } => AttemptState::Declined,
                Outcome::Failed { .. } => AttemptState::Failed,
                Outcome::ActionRequired { .. } => AttemptState::ActionRequired,
                Outcome::Pending { .. } | Outcome::Unknown => AttemptState::Unknown,
            }),
        }
    }

    /// Takes in what became of it; whether that was news.
    ///
    /// # Errors
    /// [`Refusal::ProviderId`] if a person says that an authorization or a capture succeeded and
    /// nobody knows what the provider calls it: ask the provider for it.
    pub(super) fn take(
        &mut self,
        outcome: &Outcome,
        source: &Source,
        at: OffsetDateTime,
        pace: &Pace,
    ) -> Result<bool, Refusal> {
        let Some(next) = self.next(outcome, source) else { return Ok(false) };
        if let Source::Review(evidence) = source {
            let nameless = self.provider_id.is_none() && outcome.provider_id().is_none();
            let named = matches!(self.kind, Kind::Authorize | Kind::Capture);
            if named && next == AttemptState::Succeeded && nameless {
                return Err(Refusal::ProviderId);
            }
            self.evidence = Some(evidence.clone());
        }
        let before = self.state;
        self.settle(outcome, next);
        match next {
            AttemptState::Unknown if before != AttemptState::Unknown => {
                self.tries = 0;
                self.next_try_at = pace.schedule.first().map(|wait| at + *wait);
                if self.next_try_at.is_none() {
                    self.state = AttemptState::NeedsReview;
                }
            }
            AttemptState::ActionRequired => self.next_try_at = Some(at + pace.action_poll),
            AttemptState::Unknown
            | AttemptState::Created
            | AttemptState::Sent
            | AttemptState::Succeeded
            | AttemptState::Declined
            | AttemptState::Failed
            | AttemptState::NeedsReview => {}
        }
        Ok(true)
    }

    /// Writes an outcome down, whatever was known before.
    pub(super) fn settle(&mut self, outcome: &Outcome, next: AttemptState) {
        self.state = next;
        if next.is_final() {
            self.next_try_at = None;
            self.action_url = None;
        }
        if let Some(id) = outcome.provider_id() {
            self.provider_id = Some(id.to_owned());
        }
        match outcome {
            Outcome::Declined { code, retriable } => {
                self.decline_code = Some(code.clone());
                self.retriable = *retriable;
            }
            Outcome::Failed { code } => self.decline_code = Some(code.clone()),
            Outcome::ActionRequired { url, .. } => self.action_url = Some(url.clone()),
            Outcome::Succeeded { .. } | Outcome::Pending { .. } | Outcome::Unknown => {}
        }
    }

    /// Notes that the provider was asked in vain.
    pub(super) fn postpone(&mut self, at: OffsetDateTime, pace: &Pace) {
        match self.state {
            AttemptState::Unknown => {
                self.tries += 1;
                self.next_try_at = pace.schedule.get(self.tries).map(|wait| at + *wait);
                if self.next_try_at.is_none() {
                    self.state = AttemptState::NeedsReview;
                }
            }
            AttemptState::ActionRequired => {
                // Customers take minutes or never come back: the longer it lasts, the rarer.
                let lasted = (at - self.created_at).unsigned_abs() / 10;
                self.tries += 1;
                self.next_try_at = Some(at + pace.action_poll.max(lasted));
            }
            AttemptState::Created
            | AttemptState::Sent
            | AttemptState::Succeeded
            | AttemptState::Declined
            | AttemptState::Failed
            | AttemptState::NeedsReview => {}
        }
    }

    /// How to learn what became of it; nothing, if that is known or a person's task.
    #[must_use]
    pub fn probe(&self, at: OffsetDateTime, pace: &Pace) -> Option<Probe> {
        match self.state {
            AttemptState::Created | AttemptState::Sent | AttemptState::Unknown => {
                let known = self.provider_id.is_some();
                Some(if known || self.is_key_forgotten(at, pace) {
                    Probe::Ask
                } else {
                    Probe::Send
                })
            }
            AttemptState::ActionRequired => Some(Probe::Ask),
            AttemptState::Succeeded
            | AttemptState::Declined
            | AttemptState::Failed
            | AttemptState::NeedsReview => None,
        }
    }

    /// What it means that the provider has nothing under our reference: once the key is
    /// forgotten no late request can follow, so the attempt never arrived. Before, it proves
    /// nothing.
    #[must_use]
    pub fn absent(&self, at: OffsetDateTime, pace: &Pace) -> Outcome {
        if self.provider_id.is_none() && self.is_key_forgotten(at, pace) {
            Outcome::Failed { code: NEVER_ARRIVED.to_owned() }
        } else {
            Outcome::Unknown
        }
    }

    fn is_key_forgotten(&self, at: OffsetDateTime, pace: &Pace) -> bool {
        at - self.created_at >= pace.keys_kept
    }
}

// === impl AttemptState ===

impl AttemptState {
    /// Whether nothing can happen to it any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Declined | Self::Failed => true,
            Self::Created
            | Self::Sent
            | Self::Unknown
            | Self::ActionRequired
            | Self::NeedsReview => false,
        }
    }

    /// Whether nobody knows what the provider did.
    #[must_use]
    pub fn is_doubtful(self) -> bool {
        matches!(self, Self::Unknown | Self::NeedsReview)
    }
}

// === impl Kind ===

/// As it stands in a provider's key.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        })
    }
}
