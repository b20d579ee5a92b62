//! Group commit for SQLite: one writer that joins waiting transactions into one commit.
//!
//! Each is a savepoint of its own and is rolled back alone when its closure fails. All are
//! answered after the commit, those that failed too: what they saw may have been a neighbour's
//! work, which is true only once it is on the disk. While a commit waits for the disk, the next
//! group gathers by itself; nobody is made to wait for company.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{
    Counters, Failure, Txn, TxnError, connection::Transaction, failed_to, open::SqliteFile,
    sqlite::Sqlite,
};
use crate::{clock, ctx::Ctx};

/// The queue in front of the writer.
#[derive(Debug)]
pub(super) struct Group {
    queue: mpsc::Sender<Box<dyn Member>>,
    closing: CancellationToken,
    closed: CancellationToken,
}

/// What owns the one connection that writes, on a thread of its own: statements and the disk hold
/// up nobody but those who wait for them.
struct Writer {
    file: SqliteFile,
    connection: Sqlite,
    queue: mpsc::Receiver<Box<dyn Member>>,
    counters: Arc<Counters>,
    limits: Limits,
}

/// One waiting transaction.
trait Member: Send {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// Runs the closure and says whether its work is to be kept.
    fn run<'c>(&'c mut self, savepoint: &'c Txn) -> BoxFuture<'c, Fate>;
    /// Tells the caller, once the group's commit is decided.
    fn answer(self: Box<Self>, committed: Result<(), &Failure>);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Undo,
}

struct Call<T, E, F> {
    work: F,
    ctx: Option<Ctx>,
    span: Span,
    outcome: Option<Outcome<T, E>>,
    answer: oneshot::Sender<Outcome<T, E>>,
}

enum Outcome<T, E> {
    Done(Result<T, E>),
    /// Goes on in the caller's task, where it would have been without a writer between.
    Panicked(Box<dyn Any + Send>),
}

/// How far a group may grow.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Transactions that one commit may join.
    joined_max: usize,
    /// How long a group may gather while others keep coming.
    gather: Duration,
    /// How long one closure may keep all others waiting.
    work: Duration,
}

const LIMITS: Limits =
    Limits { joined_max: 64, gather: Duration::from_millis(10), work: Duration::from_secs(5) };

/// Callers that may wait in the queue; the next ones wait in front of it.
const QUEUE: usize = 1_024;

const REOPEN_PAUSE: Duration = Duration::from_millis(100);

// === impl Group ===

impl Group {
    /// Starts the writer.
    pub(super) fn new(
        file: SqliteFile,
        connection: Sqlite,
        counters: Arc<Counters>,
    ) -> Result<Self, Failure> {
        Self::with_limits(file, connection, counters, LIMITS)
    }

    fn with_limits(
        file: SqliteFile,
        connection: Sqlite,
        counters: Arc<Counters>,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let writer = Writer { file, connection, queue, counters, limits };
        let (ends, ended) = (closing.clone(), closed.clone().drop_guard());
        let runtime = Handle::current();
        let serve = move || {
            let _ended = ended;
            runtime.block_on(writer.serve(ends));
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        thread.spawn(serve).map_err(|error| Failure::new("start the writer", error.to_string()))?;
        Ok(Self { queue: sender, closing, closed })
    }

    /// Runs `work` in the next group.
    pub(super) async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c Txn) -> BoxFuture<'c, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: TxnError + Send + 'static,
    {
        let closed = || Failure::new("begin a transaction", "the store is closed");
        let (answer, outcome) = oneshot::channel();
        let (ctx, span) = (Ctx::current(), Span::current());
        let call = Box::new(Call { work, ctx, span, outcome: None, answer });
        if self.queue.send(call).await.is_err() {
            return Err(closed().into());
        }
        match outcome.await {
            Ok(Outcome::Done(done)) => done,
            Ok(Outcome::Panicked(payload)) => std::panic::resume_unwind(payload),
            Err(_gone) => Err(closed().into()),
        }
    }

    /// Lets what waits finish and ends the writer.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }
}

// === impl Writer ===

impl Writer {
    async fn serve(mut self, closing: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                first = self.queue.recv() => first,
                () = closing.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            };
            let Some(first) = first else { break };
            if let Err(failure) = self.group(first).await {
                // A statement that failed half-way leaves in doubt where the transaction stands;
                // a new connection has none.
                tracing::warn!(error = %failure.source, "{failure}; opening the database anew");
                self.reopen().await;
            }
        }
    }

    /// Runs `first` and whoever waits behind it, commits, and answers them.
    async fn group(&mut self, first: Box<dyn Member>) -> Result<(), Failure> {
        let mut members = Vec::new();
        let mut kept = 0;
        let committed = self.commit(first, &mut members, &mut kept).await;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let undone = if committed.is_ok() { members.len() - kept } else { members.len() };
        if committed.is_ok() && kept > 0 {
            self.counters.committed(count(kept));
        }
        self.counters.rolled_back(count(undone));
        for member in members {
            member.answer(committed.as_ref().copied());
        }
        committed
    }

    async fn commit(
        &mut self,
        first: Box<dyn Member>,
        members: &mut Vec<Box<dyn Member>>,
        kept: &mut usize,
    ) -> Result<(), Failure> {
        let began = clock::instant();
        let mut next = Some(first);
        // At once a writer: a reader that turns into a writer fails if another wrote meanwhile.
        if let Err(error) = self.connection.run("BEGIN IMMEDIATE") {
            members.extend(next);
            return Err(failed_to("begin a transaction")(error));
        }
        while let Some(mut member) = next.take() {
            if !member.is_abandoned() {
                let fate = joined(&self.connection, member.as_mut(), self.limits.work).await;
                members.push(member);
                // On failure the connection is given up, and the whole transaction with it.
                *kept += usize::from(fate? == Fate::Keep);
            }
            if members.len() < self.limits.joined_max && began.elapsed() < self.limits.gather {
                next = self.queue.try_recv().ok();
            }
        }
        self.connection.run("COMMIT").map_err(failed_to("commit"))
    }

    async fn reopen(&mut self) {
        if self.connection.run("ROLLBACK").is_err() {
            tracing::debug!("there was no transaction to roll back");
        }
        loop {
            match self.file.writer() {
                Ok(connection) => {
                    self.connection = connection;
                    return;
                }
                Err(failure) => {
                    tracing::error!(error = %failure.source, "{failure}; trying again");
                    tokio::time::sleep(REOPEN_PAUSE).await;
                }
            }
        }
    }
}

/// Runs one member in a savepoint. An error means that the whole transaction is lost: SQLite
/// gives up all of it when a disk is full or broken, and then knows of no savepoint either.
async fn joined(
    connection: &Sqlite,
    member: &mut dyn Member,
    max: Duration,
) -> Result<Fate, Failure> {
    connection.run("SAVEPOINT member").map_err(failed_to("begin a savepoint"))?;
    let txn = Txn(Transaction::Sqlite(connection.clone()));
    let fate = match timeout(max, member.run(&txn)).await {
        Ok(fate) => fate,
        Err(_elapsed) => {
            tracing::error!("a transaction took longer than {max:?} and is rolled back");
            Fate::Undo
        }
    };
    if fate == Fate::Undo {
        connection.run("ROLLBACK TO member").map_err(failed_to("roll back a savepoint"))?;
    }
    connection.run("RELEASE member").map_err(failed_to("release a savepoint"))?;
    Ok(fate)
}

// === impl Call ===

impl<T, E, F> Member for Call<T, E, F>
where
    F: for<'c> Fn(&'c Txn) -> BoxFuture<'c, Result<T, E>> + Send,
    T: Send,
    E: TxnError + Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run<'c>(&'c mut self, savepoint: &'c Txn) -> BoxFuture<'c, Fate> {
        // The closure itself may panic as well as the future it makes.
        let work = std::panic::catch_unwind(AssertUnwindSafe(|| (self.work)(savepoint)));
        let (ctx, span, outcome) = (self.ctx.clone(), self.span.clone(), &mut self.outcome);
        Box::pin(async move {
            let done = match work {
                Ok(work) => {
                    let work = AssertUnwindSafe(work).catch_unwind().instrument(span);
                    match ctx {
                        Some(ctx) => ctx.scope(work).await,
                        None => work.await,
                    }
                }
                Err(payload) => Err(payload),
            };
            let done = done.map_or_else(Outcome::Panicked, Outcome::Done);
            let fate = if matches!(done, Outcome::Done(Ok(_))) { Fate::Keep } else { Fate::Undo };
            *outcome = Some(done);
            fate
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), &Failure>) {
        let outcome = match (committed, self.outcome) {
            (Err(failure), None | Some(Outcome::Done(_))) => {
                Outcome::Done(Err(failure.clone().into()))
            }
            (Ok(()) | Err(_), Some(outcome)) => outcome,
            (Ok(()), None) => {
                let problem = "it took too long and was rolled back";
                Outcome::Done(Err(Failure::new("finish a transaction", problem).into()))
            }
        };
        // A caller who went away needs no answer.
        drop(self.answer.send(outcome));
    }
}

#[cfg(test)]
mod tests;
