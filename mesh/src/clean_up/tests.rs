//! What is old and has ended goes, in pieces; what is young or has not ended stays.

use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::*;
use crate::{
    barrier::{self, Begun, Command},
    idempotency::{self, Answer, Claim, Key, Refused},
    store::{Failure, execute, row},
    testing::{NoTables, TestDb},
};

crate::on_both_databases! {
    NoTables;
    an_answer_is_known_for_a_week_and_work_in_progress_for_ever
    a_command_is_known_for_a_month
    a_dead_letter_goes_a_month_after_it_was_dealt_with_and_never_before
    a_transaction_deletes_no_more_than_a_batch
}

const MINUTE: Duration = Duration::from_secs(60);

fn key(number: u128) -> Key {
    Key::new("users/1", "CreateThing", Uuid::from_u128(number), &String::new())
}

async fn answer(db: &TestDb, number: u128, at: OffsetDateTime) {
    let done = db.store.transaction(move |txn| {
        Box::pin(async move {
            let mine = Answer::success(&"done".to_owned());
            idempotency::claim(txn, &key(number), &mine, at).await
        })
    });
    let claim: Result<Claim, Failure> = done.await;
    assert_eq!(claim.expect("a row"), Claim::First);
}

async fn an_answer_is_known_for_a_week_and_work_in_progress_for_ever(db: TestDb) {
    let at = clock::now();
    answer(&db, 1, at).await;
    let begun = db.store.transaction(move |txn| {
        Box::pin(async move { idempotency::claim_running(txn, &key(2), at).await })
    });
    let claim: Result<Claim, Failure> = begun.await;
    assert_eq!(claim.expect("a row"), Claim::First);

    let week = at + REQUEST_KEYS;
    assert_eq!(pass(&db.store, week, BATCH).await.expect("looks"), Deleted::default());
    let known = idempotency::stored(db.store.reader(), &key(1)).await;
    assert!(matches!(known, Ok(Some(_))), "{known:?}");

    let deleted = pass(&db.store, week + MINUTE, BATCH).await.expect("deletes");
    assert_eq!(deleted, Deleted { request_keys: 1, ..Deleted::default() });
    let gone = idempotency::stored(db.store.reader(), &key(1)).await;
    assert!(matches!(gone, Ok(None)), "{gone:?}");
    let at_work = idempotency::stored(db.store.reader(), &key(2)).await;
    assert!(matches!(at_work, Err(Refused::InProgress)), "{at_work:?}");
}

async fn a_command_is_known_for_a_month(db: TestDb) {
    let command = Command {
        saga: "saga".to_owned(),
        step_key: "hold".to_owned(),
        command_id: Uuid::from_u128(7),
        fence: 1,
    };
    let begin = async || {
        let command = command.clone();
        let begun = db.store.transaction(move |txn| {
            let command = command.clone();
            Box::pin(async move { barrier::begin_do(txn, &command).await })
        });
        let begun: Result<Begun, Failure> = begun.await;
        begun.expect("a row")
    };
    let at = clock::now();
    assert_eq!(begin().await, Begun::First);
    let month = at + BARRIERS;
    assert_eq!(pass(&db.store, month - MINUTE, BATCH).await.expect("looks"), Deleted::default());
    assert!(matches!(begin().await, Begun::Repeated(_)));
    let deleted = pass(&db.store, month + MINUTE, BATCH).await.expect("deletes");
    assert_eq!(deleted, Deleted { barriers: 1, ..Deleted::default() });
}

async fn a_dead_letter_goes_a_month_after_it_was_dealt_with_and_never_before(db: TestDb) {
    let at = clock::now();
    for (id, state) in [("a", "PARKED"), ("b", "REPLAYED"), ("c", "DISCARDED")] {
        let sql = "INSERT INTO dead_letter (id, consumer, source, position, event_id, aggregate, \
                   type, event, state, cause, error, attempts, created_at, updated_at) \
                   VALUES ($1, 'c', 's', 1, $1, 'things/1', 't', $4, $2, 'BUG', '', 1, 0, $3)";
        let parked = db.store.transaction(move |txn| {
            Box::pin(async move {
                let bytes: Vec<u8> = Vec::new();
                let at = clock::micros(at).into();
                execute(txn, "park", sql, vec![id.into(), state.into(), at, bytes.into()]).await
            })
        });
        let parked: Result<u64, Failure> = parked.await;
        parked.expect("a row");
    }
    let month = at + DEAD_LETTERS;
    assert_eq!(pass(&db.store, month, BATCH).await.expect("looks"), Deleted::default());
    let deleted = pass(&db.store, month + 100 * DAY, BATCH).await.expect("deletes");
    assert_eq!(deleted, Deleted { dead_letters: 2, ..Deleted::default() });
    #[derive(FromQueryResult)]
    struct Left {
        id: String,
    }
    let left = row::<Left, _>(db.store.reader(), "read", "SELECT id FROM dead_letter", vec![]);
    assert_eq!(left.await.expect("reads").expect("one stays").id, "a");
}

async fn a_transaction_deletes_no_more_than_a_batch(db: TestDb) {
    let at = clock::now();
    for number in 1..=7 {
        answer(&db, number, at).await;
    }
    let before = db.store.stats().transactions;
    let deleted = pass(&db.store, at + 8 * DAY, 3).await.expect("deletes");
    assert_eq!(deleted.request_keys, 7);
    // Three, three, one; then one look each at the others.
    assert_eq!(db.store.stats().transactions - before, 5);
}
