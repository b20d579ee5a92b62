//! Events leave with what they tell of, in the call's trace.

use std::time::Duration;

use prost_types::Any;
use sea_orm::FromQueryResult;

use super::*;
use crate::{ctx, store, testing};

#[derive(FromQueryResult)]
struct Row {
    seq: i64,
    headers: Vec<u8>,
}

fn fact() -> Fact {
    Fact { kind: "sample.happened", data: Any::default() }
}

#[tokio::test]
async fn an_event_is_written_with_its_transaction_or_not_at_all() {
    let db = testing::sqlite(vec![]).await;
    let write = |seq: i64, fail: bool| {
        db.store.transaction(move |txn| {
            Box::pin(async move {
                append(txn, "orders/1", seq, fact(), clock::now()).await?;
                if fail { Err(Failure::new("go on", "a rule said no")) } else { Ok(()) }
            })
        })
    };
    let kept = Ctx::root(Duration::from_secs(5), ctx::Trace::new());
    kept.scope(write(1, false)).await.expect("written");
    assert!(write(2, true).await.is_err());
    let twice = write(1, false).await.expect_err("each revision has one event");
    assert!(twice.is_duplicate());

    let sql = "SELECT seq, headers FROM outbox ORDER BY id";
    let rows: Vec<Row> =
        store::rows(db.store.reader(), "read the outbox", sql, vec![]).await.expect("reads");
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1]);
    let headers = Headers::decode(rows[0].headers.as_slice()).expect("headers");
    assert_eq!(headers.correlation_id, kept.trace_id());
    assert_eq!(headers.traceparent, kept.traceparent());
}
