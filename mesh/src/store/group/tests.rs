use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use sea_orm::FromQueryResult;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::Notify};

use super::*;
use crate::{
    ctx::Trace,
    store::{execute, row, sqlite::Readers},
};

/// A writer on a file of its own that joins all that waits, however slow the machine is.
struct Bed {
    group: Arc<Group>,
    reader: Readers,
    counters: Arc<Counters>,
    folder: TempDir,
}

#[derive(FromQueryResult)]
struct Total {
    n: i64,
}

#[derive(Debug)]
enum Problem {
    Said(&'static str),
    Failed(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl TxnError for Problem {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Said(_) => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

impl Bed {
    async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), LIMITS.work).await
    }

    async fn at(folder: TempDir, work: Duration) -> Self {
        let path = folder.path().join("test.db");
        let claim = || SqliteFile::claim(path.to_str().unwrap());
        // Whoever had it before is on its way out.
        let file = std::iter::repeat_with(claim).find_map(Result::ok).unwrap();
        let connection = file.writer().unwrap();
        let sql = "CREATE TABLE IF NOT EXISTS t (id BIGINT PRIMARY KEY)";
        execute(&connection, "make a table", sql, vec![]).await.unwrap();
        let reader = file.readers().unwrap();
        let counters = Arc::new(Counters::default());
        let limits = Limits { gather: Duration::from_secs(60), work, ..LIMITS };
        let group = Group::with_limits(file, connection, Arc::clone(&counters), limits).unwrap();
        let group = Arc::new(group);
        Self { group, reader, counters, folder }
    }

    async fn insert(&self, id: i64) -> Result<(), Problem> {
        self.group.run(move |txn| Box::pin(insert(txn, id))).await
    }

    /// Holds the writer until `go`, and tells by `begun` that it does.
    async fn hold(&self, begun: Arc<Notify>, go: Arc<Notify>) -> Result<(), Problem> {
        self.group
            .run(move |_txn| {
                let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
                Box::pin(async move {
                    begun.notify_one();
                    go.notified().await;
                    Ok(())
                })
            })
            .await
    }

    async fn rows(&self) -> i64 {
        let reader = self.reader.free().unwrap();
        let total = row::<Total, _>(&reader, "count", "SELECT COUNT(*) AS n FROM t", vec![]);
        total.await.unwrap().unwrap().n
    }
}

async fn insert(txn: &Txn, id: i64) -> Result<(), Problem> {
    execute(txn, "insert", "INSERT INTO t (id) VALUES ($1)", vec![id.into()]).await?;
    Ok(())
}

/// Polls `future` once, so that it stands in the queue; answers whether it is done.
async fn queued<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready()))
        .await
}

#[tokio::test]
async fn what_waits_is_joined_into_one_commit() {
    let bed = Bed::new().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut hold = pin!(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
    queued(&mut hold).await;
    begun.notified().await;
    let mut waiting: Vec<_> = (0..63).map(|id| Box::pin(bed.insert(id))).collect();
    for call in &mut waiting {
        assert!(!queued(call).await);
    }
    go.notify_one();
    hold.await.unwrap();
    for call in waiting {
        call.await.unwrap();
    }
    assert_eq!(bed.counters.commits.load(Ordering::Relaxed), 1);
    assert_eq!(bed.counters.transactions.load(Ordering::Relaxed), 64);
    assert_eq!(bed.rows().await, 63);
}

#[tokio::test]
async fn a_group_has_at_most_64_members() {
    let bed = Bed::new().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut hold = pin!(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
    queued(&mut hold).await;
    begun.notified().await;
    let mut waiting: Vec<_> = (0..64).map(|id| Box::pin(bed.insert(id))).collect();
    for call in &mut waiting {
        queued(call).await;
    }
    go.notify_one();
    for call in waiting {
        call.await.unwrap();
    }
    assert_eq!(bed.counters.commits.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_transaction_alone_does_not_wait_for_company() {
    let bed = Bed::new().await;
    // The bed would gather for a minute.
    tokio::time::timeout(Duration::from_secs(20), bed.insert(1)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failing_member_is_undone_alone() {
    let bed = Bed::new().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut hold = pin!(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
    queued(&mut hold).await;
    begun.notified().await;
    let mut before = pin!(bed.insert(1));
    queued(&mut before).await;
    let mut failing = pin!(bed.group.run(|txn| {
        Box::pin(async move {
            insert(txn, 2).await?;
            Err::<(), _>(Problem::Said("no"))
        })
    }));
    queued(&mut failing).await;
    let mut broken = pin!(bed.group.run(|txn| {
        Box::pin(async move {
            insert(txn, 3).await?;
            insert(txn, 3).await
        })
    }));
    queued(&mut broken).await;
    let mut after = pin!(bed.insert(4));
    queued(&mut after).await;
    go.notify_one();
    hold.await.unwrap();
    before.await.unwrap();
    assert!(matches!(failing.await, Err(Problem::Said("no"))));
    let broken = broken.await.unwrap_err();
    assert!(broken.failure().is_some_and(Failure::is_duplicate), "{broken:?}");
    after.await.unwrap();
    assert_eq!(bed.rows().await, 2, "what the failing ones inserted is gone");
    assert_eq!(bed.counters.rolled_back.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn nobody_is_answered_before_the_commit_not_even_who_failed() {
    let bed = Bed::new().await;
    let (first, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (on, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut before = pin!(bed.hold(Arc::clone(&first), Arc::clone(&on)));
    queued(&mut before).await;
    first.notified().await;
    let mut kept = pin!(bed.insert(1));
    // Sees the row of its neighbour, which is not on the disk yet.
    let mut repeated = pin!(bed.insert(1));
    let mut hold = pin!(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
    queued(&mut kept).await;
    queued(&mut repeated).await;
    queued(&mut hold).await;
    on.notify_one();
    begun.notified().await;
    assert!(!queued(&mut kept).await);
    assert!(!queued(&mut repeated).await);
    assert_eq!(bed.rows().await, 0);
    go.notify_one();
    kept.await.unwrap();
    assert_eq!(bed.rows().await, 1);
    assert!(repeated.await.is_err());
}

#[test]
fn a_process_that_dies_before_the_commit_leaves_nothing_of_the_group() {
    let runtime = Runtime::new().unwrap();
    let folder = runtime.block_on(async {
        let bed = Bed::new().await;
        bed.insert(1).await.unwrap();
        let (first, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (on, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        {
            let mut before = pin!(bed.hold(Arc::clone(&first), Arc::clone(&on)));
            queued(&mut before).await;
            first.notified().await;
            let mut lost = pin!(bed.insert(2));
            let mut hold = pin!(bed.hold(Arc::clone(&begun), never));
            queued(&mut lost).await;
            queued(&mut hold).await;
            on.notify_one();
            begun.notified().await;
        }
        bed.folder
    });
    drop(runtime);
    Runtime::new().unwrap().block_on(async {
        let bed = Bed::at(folder, LIMITS.work).await;
        assert_eq!(bed.rows().await, 1);
        bed.insert(2).await.unwrap();
    });
}

#[tokio::test]
async fn a_panic_goes_on_in_its_caller_and_the_writer_lives() {
    let bed = Bed::new().await;
    let group = Arc::clone(&bed.group);
    let panicking = crate::ctx::spawn("panic", async move {
        let work = group.run(|txn| {
            Box::pin(async move {
                insert(txn, 1).await?;
                let zero = "".len();
                Ok::<_, Problem>(1 / zero)
            })
        });
        work.await
    });
    assert!(panicking.await.unwrap_err().is_panic());
    bed.insert(2).await.unwrap();
    assert_eq!(bed.rows().await, 1);
}

#[tokio::test]
async fn work_of_a_caller_who_left_the_queue_is_not_done() {
    let bed = Bed::new().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ran = Arc::new(AtomicBool::new(false));
    let mut hold = pin!(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
    queued(&mut hold).await;
    begun.notified().await;
    {
        let ran = Arc::clone(&ran);
        let mut left = Box::pin(bed.group.run(move |txn| {
            ran.store(true, Ordering::Relaxed);
            Box::pin(insert(txn, 1))
        }));
        queued(&mut left).await;
    }
    go.notify_one();
    bed.insert(2).await.unwrap();
    assert!(!ran.load(Ordering::Relaxed));
    assert_eq!(bed.rows().await, 1);
}

#[tokio::test]
async fn a_caller_who_leaves_while_at_work_disturbs_nobody() {
    let bed = Bed::new().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    {
        let mut left = Box::pin(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
        queued(&mut left).await;
        begun.notified().await;
    }
    go.notify_one();
    bed.insert(1).await.unwrap();
    assert_eq!(bed.rows().await, 1);
}

#[tokio::test]
async fn work_that_does_not_end_is_rolled_back_and_others_go_on() {
    let bed = Bed::at(tempfile::tempdir().unwrap(), Duration::from_millis(20)).await;
    let endless = bed.group.run(|txn| {
        Box::pin(async move {
            insert(txn, 1).await?;
            std::future::pending::<Result<(), Problem>>().await
        })
    });
    let problem = endless.await.unwrap_err();
    assert_eq!(problem.failure().unwrap().doing, "finish a transaction");
    bed.insert(2).await.unwrap();
    assert_eq!(bed.rows().await, 1);
}

#[tokio::test]
async fn a_transaction_that_the_database_gave_up_fails_all_its_members_and_the_writer_recovers() {
    let bed = Bed::new().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut hold = pin!(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
    queued(&mut hold).await;
    begun.notified().await;
    let mut lost = pin!(bed.insert(1));
    queued(&mut lost).await;
    // As SQLite does by itself when the disk is full.
    let mut giving_up = pin!(bed.group.run(|txn| {
        Box::pin(async move {
            execute(txn, "roll back", "ROLLBACK", vec![]).await?;
            insert(txn, 2).await
        })
    }));
    queued(&mut giving_up).await;
    let mut behind = pin!(bed.insert(3));
    queued(&mut behind).await;
    go.notify_one();
    hold.await.unwrap_err();
    lost.await.unwrap_err();
    giving_up.await.unwrap_err();
    behind.await.unwrap();
    // The insert after the ROLLBACK was a commit of its own: unknown to us, as after any crash.
    assert_eq!(bed.rows().await, 2);
    bed.insert(4).await.unwrap();
}

#[tokio::test]
async fn the_closure_runs_in_the_context_of_its_call() {
    let bed = Bed::new().await;
    let ctx = Ctx::root(Duration::from_secs(5), Trace::new());
    let seen = ctx
        .scope(bed.group.run(|_txn| {
            Box::pin(async { Ok::<_, Problem>(Ctx::current().map(|ctx| ctx.trace_id())) })
        }))
        .await;
    assert_eq!(seen.unwrap(), Some(ctx.trace_id()));
}

#[tokio::test]
async fn closing_finishes_what_waits_and_refuses_what_comes_later() {
    let bed = Bed::new().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut hold = pin!(bed.hold(Arc::clone(&begun), Arc::clone(&go)));
    queued(&mut hold).await;
    begun.notified().await;
    let mut waiting = pin!(bed.insert(1));
    queued(&mut waiting).await;
    let mut close = pin!(bed.group.close());
    assert!(!queued(&mut close).await);
    go.notify_one();
    close.await;
    hold.await.unwrap();
    waiting.await.unwrap();
    let late = bed.insert(2).await.unwrap_err();
    assert_eq!(late.failure().unwrap().doing, "begin a transaction");
    assert_eq!(bed.rows().await, 1);
}
