//! Runs a transaction again when PostgreSQL gave it up for another one's sake.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::{DatabaseConnection, TransactionTrait};

use super::{Counters, Failure, Txn, TxnError, connection::Transaction, failed_to};
use crate::ctx::Ctx;

/// How often a transaction is run, all in all.
const TRIES: u32 = 5;

/// The longest pause before the second run; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs `work` until it commits, answers for good, or there is no time left to try again.
pub(super) async fn run<T, E, F>(
    pool: &DatabaseConnection,
    counters: &Counters,
    work: &F,
) -> Result<T, E>
where
    F: for<'c> Fn(&'c Txn) -> BoxFuture<'c, Result<T, E>>,
    E: TxnError,
{
    let mut attempt = 1;
    loop {
        let error = match once(pool, work).await {
            Ok(done) => {
                counters.committed(1);
                return Ok(done);
            }
            Err(error) => error,
        };
        counters.rolled_back(1);
        let again = error.failure().is_some_and(Failure::asks_for_another_run);
        let pause = pause(attempt);
        let in_time = Ctx::current().is_none_or(|ctx| ctx.time_left() > pause);
        if !again || attempt == TRIES || !in_time {
            return Err(error);
        }
        tracing::debug!(attempt, "a transaction is run again");
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

async fn once<T, E, F>(pool: &DatabaseConnection, work: &F) -> Result<T, E>
where
    F: for<'c> Fn(&'c Txn) -> BoxFuture<'c, Result<T, E>>,
    E: TxnError,
{
    let begun = pool.begin().await.map_err(failed_to("begin a transaction"))?;
    let txn = Txn(Transaction::Postgres(begun));
    let done = work(&txn).await;
    let Txn(Transaction::Postgres(txn)) = txn else { return done };
    match done {
        Ok(done) => {
            txn.commit().await.map_err(failed_to("commit"))?;
            Ok(done)
        }
        Err(error) => {
            if let Err(failure) = txn.rollback().await {
                // The server rolls back what its client does not finish.
                tracing::debug!(%failure, "a transaction could not be rolled back");
            }
            Err(error)
        }
    }
}

/// Random up to the whole, so that two that met do not meet again.
fn pause(attempt: u32) -> Duration {
    (PAUSE * 2_u32.pow(attempt - 1)).mul_f64(fastrand::f64())
}
