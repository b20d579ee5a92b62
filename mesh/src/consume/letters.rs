//! Dead letters: replayed once their cause is mended, and shown to operators.

use std::sync::Arc;

use super::{
    Consumer,
    judge::Fault,
    store::{self, Filter, Letter, Parked},
    take::Undone,
};
use crate::{
    log::Event,
    store::{Failure, TxnError},
};

mod service;

pub(crate) use service::DeadLetters;

/// What became of one event that was handed over again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    pub(super) id: String,
    pub(super) kind: String,
    /// Why it failed again.
    pub(super) error: Option<String>,
}

/// What one transaction of a replay came to.
enum Step {
    Done(Replayed, Box<Event>),
    Failed(Replayed),
    /// Nothing is parked any more.
    Empty,
}

/// Why a transaction of a replay was undone.
#[derive(Debug, thiserror::Error)]
enum NotReplayed {
    #[error("it failed again")]
    Again(Box<Letter>, Fault),
    /// A dry run is always undone.
    #[error("it was a dry run")]
    Dry(Vec<Replayed>),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// How many events of an aggregate a dry run looks at.
const DRY: i64 = 200;

// === impl Consumer ===

impl Consumer {
    /// Hands what is parked of an aggregate over again, in order, until one fails, none is left
    /// or `most` are done. Each has its effect and its mark in one transaction.
    pub(super) async fn replay(
        &self,
        of: &Parked,
        actor: &str,
        most: usize,
    ) -> Result<Vec<Replayed>, Failure> {
        let mut done = Vec::new();
        while done.len() < most {
            match self.replay_first(of, actor).await? {
                Step::Done(replayed, event) => {
                    self.tell(&event);
                    done.push(replayed);
                }
                Step::Failed(replayed) => {
                    done.push(replayed);
                    break;
                }
                Step::Empty => break,
            }
        }
        self.measure().await;
        Ok(done)
    }

    async fn replay_first(&self, of: &Parked, actor: &str) -> Result<Step, Failure> {
        let within = (self.clone(), Arc::new(of.clone()), Arc::<str>::from(actor));
        let done = self.store().transaction(move |txn| {
            let (consumer, of, actor) = within.clone();
            Box::pin(async move {
                // What comes in meanwhile waits, and then sees whether something is parked still.
                store::hold(txn, &consumer).await?;
                let Some(letter) = store::queue(txn, &of, 1).await?.into_iter().next() else {
                    return Ok(Step::Empty);
                };
                let event = Event::from_wire(letter.event()?);
                if let Err(undone) = consumer.hand_over(txn, &event).await {
                    return Err(match undone {
                        Undone::Failed(failure) => failure.into(),
                        other @ (Undone::Moved | Undone::Refused(_) | Undone::Panicked(_)) => {
                            NotReplayed::Again(Box::new(letter), other.fault())
                        }
                    });
                }
                store::end(txn, &letter.id, "REPLAYED", &actor, "").await?;
                Ok(Step::Done(letter.replayed(None), Box::new(event)))
            })
        });
        match done.await {
            Ok(step) => Ok(step),
            Err(NotReplayed::Again(letter, fault)) => {
                let replayed = letter.replayed(Some(fault.why().to_owned()));
                self.note(letter.id, fault).await?;
                Ok(Step::Failed(replayed))
            }
            Err(NotReplayed::Failed(failure)) => Err(failure),
            Err(NotReplayed::Dry(_)) => Ok(Step::Empty),
        }
    }

    async fn note(&self, id: String, fault: Fault) -> Result<(), Failure> {
        self.store()
            .transaction(move |txn| {
                let (id, fault) = (id.clone(), fault.clone());
                Box::pin(
                    async move { store::failed_again(txn, &id, fault.cause(), fault.why()).await },
                )
            })
            .await
    }

    /// What a replay of an aggregate would come to; changes nothing.
    pub(super) async fn rehearse(&self, of: &Parked) -> Result<Vec<Replayed>, Failure> {
        let within = (self.clone(), Arc::new(of.clone()));
        let done = self.store().transaction(move |txn| {
            let (consumer, of) = within.clone();
            Box::pin(async move {
                let mut done = Vec::new();
                for letter in store::queue(txn, &of, DRY).await? {
                    let event = Event::from_wire(letter.event()?);
                    let failed = consumer.hand_over(txn, &event).await.err();
                    let error = failed.map(|undone| undone.fault().why().to_owned());
                    let stops = error.is_some();
                    done.push(letter.replayed(error));
                    if stops {
                        break;
                    }
                }
                Err::<(), _>(NotReplayed::Dry(done))
            })
        });
        match done.await {
            Err(NotReplayed::Dry(done)) => Ok(done),
            Err(NotReplayed::Failed(failure)) => Err(failure),
            Err(NotReplayed::Again(..)) | Ok(()) => Ok(Vec::new()),
        }
    }
}

// === impl Letter ===

impl Letter {
    fn replayed(&self, error: Option<String>) -> Replayed {
        Replayed { id: self.id.clone(), kind: self.kind.clone(), error }
    }
}

// === impl NotReplayed ===

impl TxnError for NotReplayed {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Again(..) | Self::Dry(_) => None,
        }
    }
}
