use std::{os::unix::fs::PermissionsExt, sync::Arc};

use futures_util::future::join_all;
use sea_orm::DbBackend;
use tokio::sync::Barrier;

use super::*;
use crate::testing::{self, TestDb};

const TABLE: &str = "CREATE TABLE item (id BIGINT PRIMARY KEY, revision BIGINT NOT NULL)";

fn tables() -> Vec<Migration> {
    vec![step("test_0001_item", TABLE)]
}

#[derive(Debug, FromQueryResult, PartialEq, Eq)]
struct Item {
    id: i64,
    revision: i64,
}

async fn item(conn: &impl ConnectionTrait, id: i64) -> Result<Item, Failure> {
    let sql = "SELECT id, revision FROM item WHERE id = $1";
    let item = row(conn, "read an item", sql, vec![id.into()]).await?;
    item.ok_or_else(|| Failure::new("read an item", "there is none"))
}

async fn insert(db: &Store, id: i64) {
    db.transaction(move |txn| {
        Box::pin(async move {
            let sql = "INSERT INTO item (id, revision) VALUES ($1, 1)";
            execute(txn, "insert an item", sql, vec![id.into()]).await
        })
    })
    .await
    .unwrap();
}

/// One more revision, if it still is at `read`; answers how many rows that were.
async fn advance(txn: &Txn, id: i64, read: i64) -> Result<u64, Failure> {
    let sql = "UPDATE item SET revision = revision + 1 WHERE id = $1 AND revision = $2";
    execute(txn, "advance an item", sql, vec![id.into(), read.into()]).await
}

async fn the_slower_of_two_writers_is_refused(db: TestDb) {
    insert(&db, 1).await;
    let read = item(db.reader(), 1).await.unwrap().revision;
    let write = || db.transaction(move |txn| Box::pin(advance(txn, 1, read)));
    let mut changed = [write().await.unwrap(), write().await.unwrap()];
    changed.sort_unstable();
    assert_eq!(changed, [0, 1]);
    let (one, two) = tokio::join!(
        db.transaction(move |txn| Box::pin(advance(txn, 1, read + 1))),
        db.transaction(move |txn| Box::pin(advance(txn, 1, read + 1))),
    );
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    assert_eq!(item(db.reader(), 1).await.unwrap().revision, read + 2);
}

#[tokio::test]
async fn the_slower_of_two_writers_is_refused_on_sqlite() {
    the_slower_of_two_writers_is_refused(testing::sqlite(tables()).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn the_slower_of_two_writers_is_refused_on_postgres() {
    the_slower_of_two_writers_is_refused(testing::postgres(tables()).await).await;
}

async fn what_a_closure_refuses_is_undone(db: TestDb) {
    insert(&db, 1).await;
    let refused = db
        .transaction(|txn| {
            Box::pin(async move {
                advance(txn, 1, 1).await?;
                Err::<(), _>(Failure::new("go on", "a rule says no"))
            })
        })
        .await;
    assert_eq!(refused.unwrap_err().to_string(), "cannot go on");
    assert_eq!(item(db.reader(), 1).await.unwrap().revision, 1);
    let stats = db.stats();
    assert_eq!((stats.transactions, stats.rolled_back), (1, 1));
}

#[tokio::test]
async fn what_a_closure_refuses_is_undone_on_sqlite() {
    what_a_closure_refuses_is_undone(testing::sqlite(tables()).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn what_a_closure_refuses_is_undone_on_postgres() {
    what_a_closure_refuses_is_undone(testing::postgres(tables()).await).await;
}

async fn no_increment_of_a_hundred_at_once_is_lost(db: TestDb) {
    insert(&db, 1).await;
    let add = || {
        db.transaction(|txn| {
            Box::pin(async move {
                let sql = "UPDATE item SET revision = revision + 1 WHERE id = 1";
                execute(txn, "count", sql, vec![]).await
            })
        })
    };
    for counted in join_all((0..100).map(|_| add())).await {
        assert_eq!(counted.unwrap(), 1);
    }
    assert_eq!(item(db.reader(), 1).await.unwrap().revision, 101);
    let stats = db.stats();
    assert_eq!(stats.transactions, 101);
    if !db.is_postgres() {
        assert!(stats.commits < 101, "some were joined: {stats:?}");
    }
}

#[tokio::test]
async fn no_increment_of_a_hundred_at_once_is_lost_on_sqlite() {
    no_increment_of_a_hundred_at_once_is_lost(testing::sqlite(tables()).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn no_increment_of_a_hundred_at_once_is_lost_on_postgres() {
    no_increment_of_a_hundred_at_once_is_lost(testing::postgres(tables()).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn a_deadlock_is_run_again_until_both_succeed() {
    let db = testing::postgres(tables()).await;
    insert(&db, 1).await;
    insert(&db, 2).await;
    let meet = Arc::new(Barrier::new(2));
    let lock = |first: i64, second: i64| {
        let (meet, runs) = (Arc::clone(&meet), Arc::new(AtomicU64::new(0)));
        db.transaction(move |txn| {
            let meet = Arc::clone(&meet);
            let first_run = runs.fetch_add(1, Ordering::Relaxed) == 0;
            Box::pin(async move {
                let sql = "UPDATE item SET revision = revision + 1 WHERE id = $1";
                execute(txn, "lock one", sql, vec![first.into()]).await?;
                if first_run {
                    meet.wait().await;
                }
                execute(txn, "lock the other", sql, vec![second.into()]).await
            })
        })
    };
    let (one, two) = tokio::join!(lock(1, 2), lock(2, 1));
    one.unwrap();
    two.unwrap();
    assert_eq!(item(db.reader(), 1).await.unwrap().revision, 3);
    assert_eq!(db.stats().rolled_back, 1);
}

async fn the_clock_of_the_store_is_about_right(db: TestDb) {
    let now = db.now_micros(db.reader()).await.unwrap();
    let ours = clock::micros(clock::now());
    assert!(now.abs_diff(ours) < 60_000_000, "{now} {ours}");
}

#[tokio::test]
async fn the_clock_of_the_store_is_about_right_on_sqlite() {
    the_clock_of_the_store_is_about_right(testing::sqlite(vec![]).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn the_clock_of_the_store_is_about_right_on_postgres() {
    the_clock_of_the_store_is_about_right(testing::postgres(vec![]).await).await;
}

#[tokio::test]
async fn a_file_is_made_with_its_folders_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/c.db");
    let store = Store::connect(&format!("sqlite://{}", path.display()), tables()).await.unwrap();
    insert(&store, 1).await;
    for file in ["c.db", "c.db-wal", "c.db-shm", "c.db.lock"] {
        let mode = path.with_file_name(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused_until_the_first_is_gone() {
    let db = testing::sqlite(tables()).await;
    let refused = Store::connect(&db.url, tables()).await.unwrap_err();
    assert!(refused.source.to_string().contains("another process has"), "{}", refused.source);
    db.close().await.unwrap();
    Store::connect(&db.url, tables()).await.unwrap();
}

#[tokio::test]
async fn the_connections_of_a_sqlite_file_are_set_up_for_what_they_do() {
    #[derive(FromQueryResult)]
    struct Pragmas {
        journal_mode: String,
        synchronous: i64,
        foreign_keys: i64,
        query_only: i64,
    }
    const SQL: &str = "SELECT journal_mode, synchronous, foreign_keys, query_only FROM \
        pragma_journal_mode, pragma_synchronous, pragma_foreign_keys, pragma_query_only";
    let db = testing::sqlite(tables()).await;
    let of_writer: Pragmas = db
        .transaction(|txn| {
            Box::pin(async move {
                let pragmas = row(txn, "read settings", SQL, vec![]).await?;
                pragmas.ok_or_else(|| Failure::new("read settings", "none"))
            })
        })
        .await
        .unwrap();
    let of_reader: Pragmas = row(db.reader(), "read settings", SQL, vec![]).await.unwrap().unwrap();
    for (pragmas, query_only) in [(of_writer, 0), (of_reader, 1)] {
        assert_eq!(pragmas.journal_mode, "wal");
        assert_eq!(pragmas.synchronous, 2, "FULL");
        assert_eq!(pragmas.foreign_keys, 1);
        assert_eq!(pragmas.query_only, query_only);
    }
    let sql = "INSERT INTO item (id, revision) VALUES (1, 1)";
    execute(db.reader(), "write by a reader", sql, vec![]).await.unwrap_err();
}

async fn steps_are_applied_once_and_in_order(db: TestDb) {
    insert(&db, 1).await;
    db.close().await.unwrap();
    let next = || step("test_0002_name", "ALTER TABLE item ADD COLUMN name TEXT");
    for _start in 0..2 {
        let migrations = tables().into_iter().chain([next()]).collect();
        let store = Store::connect(&db.url, migrations).await.unwrap();
        assert_eq!(item(store.reader(), 1).await.unwrap().revision, 1);
        store.close().await.unwrap();
    }
    let older = Store::connect(&db.url, tables()).await.unwrap_err();
    let problem = older.source.to_string();
    assert!(problem.contains("a newer release changed them (test_0002_name)"), "{problem}");
}

#[tokio::test]
async fn steps_are_applied_once_and_in_order_on_sqlite() {
    steps_are_applied_once_and_in_order(testing::sqlite(tables()).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn steps_are_applied_once_and_in_order_on_postgres() {
    steps_are_applied_once_and_in_order(testing::postgres(tables()).await).await;
}

async fn a_step_that_fails_leaves_nothing_of_its_start(db: TestDb) {
    db.close().await.unwrap();
    let broken = step("test_0002_b", "CREATE TABLE b (id BIGINT); CREATE TABLE b (id BIGINT);");
    let failed = Store::connect(&db.url, tables().into_iter().chain([broken]).collect()).await;
    let problem = failed.unwrap_err().source.to_string();
    assert!(problem.contains("test_0002_b"), "{problem}");
    let mended = step("test_0002_b", "CREATE TABLE b (id BIGINT);");
    let store = Store::connect(&db.url, tables().into_iter().chain([mended]).collect()).await;
    store.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_of_its_start_on_sqlite() {
    a_step_that_fails_leaves_nothing_of_its_start(testing::sqlite(tables()).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn a_step_that_fails_leaves_nothing_of_its_start_on_postgres() {
    a_step_that_fails_leaves_nothing_of_its_start(testing::postgres(tables()).await).await;
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn replicas_that_start_at_once_migrate_once() {
    let db = testing::postgres(vec![]).await;
    let starts = join_all((0..4).map(|_| Store::connect(&db.url, tables()))).await;
    for store in starts {
        store.unwrap().close().await.unwrap();
    }
}

#[tokio::test]
async fn an_url_that_is_none_of_ours_says_what_to_write() {
    for url in ["mysql://localhost/orders", "orders.db", ""] {
        let failure = Store::connect(url, vec![]).await.unwrap_err();
        let problem = failure.source.to_string();
        assert!(problem.contains("sqlite:// or postgres://"), "{url}: {problem}");
    }
}

#[tokio::test]
async fn a_url_that_does_not_parse_keeps_its_password() {
    let failure = Store::connect("postgres://me:secret@host:port/x", vec![]).await.unwrap_err();
    let said = format!("{failure} {} {failure:?}", failure.source);
    assert!(!said.contains("secret"), "{said}");
}

#[derive(Debug, FromQueryResult, PartialEq, Eq, PartialOrd, Ord)]
struct Column {
    table_name: String,
    column_name: String,
}

async fn columns(db: &TestDb) -> Vec<Column> {
    let sql = if db.reader().get_database_backend() == DbBackend::Sqlite {
        "SELECT t.name AS table_name, c.name AS column_name \
             FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
    } else {
        "SELECT CAST(table_name AS TEXT) AS table_name, CAST(column_name AS TEXT) AS column_name \
             FROM information_schema.columns WHERE table_schema = 'public'"
    };
    let mut columns = rows(db.reader(), "read the schema", sql, vec![]).await.unwrap();
    columns.sort();
    columns
}

#[tokio::test]
#[ignore = "needs postgres"]
async fn both_databases_have_the_same_tables() {
    let (sqlite, postgres) = (testing::sqlite(tables()).await, testing::postgres(tables()).await);
    let of_sqlite = columns(&sqlite).await;
    assert!(of_sqlite.iter().any(|column| column.table_name == "saga_step"));
    assert_eq!(of_sqlite, columns(&postgres).await);
}

#[test]
fn a_database_that_is_away_is_unavailable_and_one_that_says_no_is_internal() {
    use crate::status::{self, Explain, Explanation, tell};
    use tonic::Code;

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Problem(Failure);

    impl Explain for Problem {
        const DOMAIN: &'static str = "ordermesh.sample.v1";

        fn explain(&self) -> Explanation {
            tell(Code::Internal, "INTERNAL")
        }
    }

    let told = |source| status::of(&Problem(Failure { doing: "read", source })).code();
    let timeout = DbErr::ConnectionAcquire(sea_orm::ConnAcquireErr::Timeout);
    assert_eq!(told(timeout), Code::Unavailable);
    assert_eq!(told(DbErr::RecordNotInserted), Code::Internal);
}
