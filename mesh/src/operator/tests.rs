//! Operator services on real databases.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use prost_types::value::Kind;
use tonic::{Code, Request, Status};

use super::{audit::AuditExport, outbox::Outbox, sagas::Sagas, *};
use crate::{
    clock, log,
    outbox::{self as events, Fact},
    page::Pages,
    saga::{New, Outcome, Retriable, Runner, Settings, history},
    status,
    store::{Failure, Migration, Store, execute, step},
    testing::{self, TestDb},
    wire::ordermesh::operator::v1::{
        ExportRequest, ExportResponse, GetBacklogRequest, GetSagaRequest, ListSagasRequest,
        PauseSagaRequest, ResumeSagaRequest, RetrySagaStepRequest, Saga,
        audit_export_service_server::AuditExportService as _,
        outbox_service_server::OutboxService as _, saga::State,
        sagas_service_server::SagasService as _,
    },
};

crate::on_both_databases! {
    Tables;
    an_export_has_every_row_of_every_table_as_it_was_at_one_moment
    a_backlog_counts_what_has_no_position
    a_paused_saga_is_left_alone_and_goes_on_when_it_is_resumed
    a_saga_that_is_tried_again_is_due_now_with_its_tries_counted_from_zero
    sagas_are_listed_by_what_they_are_and_a_page_at_a_time
}

struct Tables;

impl Tables {
    fn migrations() -> Vec<Migration> {
        let sql = "CREATE TABLE sample (id TEXT PRIMARY KEY, amount BIGINT, fresh BOOLEAN NOT NULL, \
                   raw BLOB)";
        vec![step("sample_0001", sql)]
    }
}

const SAMPLE: Table = Table { name: "sample", sql: "SELECT * FROM sample ORDER BY id" };

async fn write(store: &Store, sql: &'static str) {
    let done = store.transaction(move |txn| Box::pin(execute(txn, "write", sql, vec![])));
    let _changed: u64 = done.await.map_err(|failure: Failure| failure).expect("written");
}

fn admin<F: Future>(future: F) -> impl Future<Output = F::Output> {
    testing::as_caller(Caller::with_roles("users/1", &["admin"]), future)
}

async fn an_export_has_every_row_of_every_table_as_it_was_at_one_moment(db: TestDb) {
    let sql = "INSERT INTO sample (id, amount, fresh, raw) VALUES ('a', 1700000000123456, TRUE, NULL), \
               ('b', 9223372036854775807, FALSE, NULL), ('c', NULL, TRUE, NULL)";
    write(&db.store, sql).await;
    db.store
        .transaction(|txn| {
            Box::pin(async move {
                let sql = "UPDATE sample SET raw = $1 WHERE id = 'c'";
                execute(txn, "write", sql, vec![vec![0_u8, 255].into()]).await?;
                let fact = Fact { kind: "thing.made", data: prost_types::Any::default() };
                events::append(txn, "things/1", 1, fact, clock::now()).await
            })
        })
        .await
        .map_err(|failure: Failure| failure)
        .expect("written");
    let export = AuditExport::new(&db.store, vec![SAMPLE]);
    // Twice: the second time its statements are known.
    for _ in 0..2 {
        let asked = admin(export.export(Request::new(ExportRequest::default()))).await;
        let rows: Vec<Result<ExportResponse, Status>> =
            asked.expect("an answer").into_inner().collect().await;
        let rows: Vec<_> = rows.into_iter().map(|row| row.expect("a row")).collect();
        let tables: Vec<_> = rows.iter().map(|row| &*row.table).collect();
        assert_eq!(tables, ["sample", "sample", "sample", "outbox"]);
        let fields = |row: &ExportResponse| -> BTreeMap<String, Kind> {
            let fields = row.row.clone().expect("a row").fields;
            fields.into_iter().map(|(name, value)| (name, value.kind.expect("a kind"))).collect()
        };
        let text = |text: &str| Kind::StringValue(text.to_owned());
        let none = || Kind::NullValue(0);
        let expect = |id, amount, fresh, raw| {
            BTreeMap::from([
                ("id".to_owned(), text(id)),
                ("amount".to_owned(), amount),
                ("fresh".to_owned(), Kind::NumberValue(fresh)),
                ("raw".to_owned(), raw),
            ])
        };
        assert_eq!(
            fields(&rows[0]),
            expect("a", Kind::NumberValue(1_700_000_000_123_456.0), 1.0, none())
        );
        assert_eq!(fields(&rows[1]), expect("b", text("9223372036854775807"), 0.0, none()));
        assert_eq!(fields(&rows[2]), expect("c", none(), 1.0, text("AP8=")));
        assert_eq!(fields(&rows[3])["aggregate"], text("things/1"));
    }
    let request = ExportRequest { tables: vec!["secrets".to_owned()] };
    let refused = admin(export.export(Request::new(request))).await.err().expect("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn a_backlog_counts_what_has_no_position(db: TestDb) {
    let outbox = Outbox::new(&db.store);
    let asked = async || {
        let backlog = outbox.get_backlog(Request::new(GetBacklogRequest {})).await;
        let found = backlog.expect("an answer").into_inner();
        (found.unsequenced, found.head, found.oldest, found.oldest_unsequenced_time.is_some())
    };
    assert_eq!(asked().await, (0, 0, 1, false));
    db.store
        .transaction(|txn| {
            Box::pin(async move {
                let fact = Fact { kind: "thing.made", data: prost_types::Any::default() };
                events::append(txn, "things/1", 1, fact, clock::now()).await
            })
        })
        .await
        .map_err(|failure: Failure| failure)
        .expect("written");
    assert_eq!(asked().await, (1, 0, 1, true));
    log::sequence(&db.store).await.expect("gives");
    assert_eq!(asked().await, (0, 1, 1, false));
}

/// Sagas that nobody works on.
async fn sagas(store: &Store, keys: &[&str]) -> Sagas {
    let definition: crate::saga::Saga<(), Retriable> = crate::saga::Saga::<()>::named("sample.v1")
        .pivot("confirm", |()| Box::pin(async { Outcome::done() }));
    let runner = Runner::new(store.clone(), definition, Settings::default(), |_| ());
    for key in keys {
        let new = New {
            key: (*key).to_owned(),
            data: Vec::new(),
            deadline: clock::now() + Duration::from_secs(60),
        };
        let within = (runner.clone(), new);
        store
            .transaction(move |txn| {
                let (runner, new) = within.clone();
                Box::pin(async move { runner.create(txn, &new).await })
            })
            .await
            .map(drop)
            .expect("created");
    }
    Sagas::new(store, vec![runner], Pages::new([7; 32]))
}

async fn only(sagas: &Sagas) -> Saga {
    let listed = sagas.list_sagas(Request::new(ListSagasRequest::default())).await;
    listed.expect("a list").into_inner().sagas.remove(0)
}

async fn a_paused_saga_is_left_alone_and_goes_on_when_it_is_resumed(db: TestDb) {
    let sagas = sagas(&db.store, &["things/1"]).await;
    let Saga { name, .. } = only(&sagas).await;
    let pause = |reason: &str| {
        let request = PauseSagaRequest { name: name.clone(), reason: reason.to_owned() };
        admin(sagas.pause_saga(Request::new(request)))
    };
    let resume = || {
        let request = ResumeSagaRequest { name: name.clone(), reason: "mended".to_owned() };
        admin(sagas.resume_saga(Request::new(request)))
    };
    assert_eq!(pause("").await.expect_err("no reason").code(), Code::InvalidArgument);
    let paused = pause("to look").await.expect("paused").into_inner();
    assert_eq!(paused.state(), State::Paused);
    assert_eq!(paused.explanation, "is held by a person at step `confirm`");
    assert_eq!(paused.steps.len(), 1);
    // Again is no other thing; what works on it has lost it.
    assert_eq!(pause("again").await.expect("as it is").into_inner().state(), State::Paused);
    let retry = RetrySagaStepRequest { name: name.clone(), reason: "why not".to_owned() };
    let refused = admin(sagas.retry_saga_step(Request::new(retry))).await.expect_err("paused");
    let why = status::reason(&refused).expect("a reason");
    assert_eq!((&*why.reason, &*why.metadata["state"]), ("SAGA_STATE", "PAUSED"));
    assert_eq!(resume().await.expect("resumed").into_inner().state(), State::Running);
    assert_eq!(resume().await.expect("as it is").into_inner().state(), State::Running);
    write(&db.store, "UPDATE saga SET state = 'DONE'").await;
    assert_eq!(resume().await.expect_err("ended").code(), Code::FailedPrecondition);
    // Who did what is kept, once each.
    let export = AuditExport::new(&db.store, Vec::new());
    let request = ExportRequest { tables: vec!["operator_action".to_owned()] };
    let asked = admin(export.export(Request::new(request))).await.expect("an answer");
    assert_eq!(asked.into_inner().count().await, 2);
}

async fn a_saga_that_is_tried_again_is_due_now_with_its_tries_counted_from_zero(db: TestDb) {
    let sagas = sagas(&db.store, &["things/1"]).await;
    let sql = "UPDATE saga SET state = 'STUCK', attempts = 12, next_run_at = next_run_at + \
               3600000000, last_error = 'no route'";
    write(&db.store, sql).await;
    let stuck = only(&sagas).await;
    let before = history(db.store.reader(), "sample.v1", "things/1").await.expect("reads");
    let request = RetrySagaStepRequest { name: stuck.name, reason: "mended".to_owned() };
    let tried =
        admin(sagas.retry_saga_step(Request::new(request))).await.expect("due").into_inner();
    assert_eq!((tried.state(), tried.attempts), (State::Stuck, 0));
    assert!(tried.explanation.starts_with("needs a person at step `confirm`: no route"));
    let after = history(db.store.reader(), "sample.v1", "things/1").await.expect("reads");
    let due = |it: Option<crate::saga::History>| it.expect("a saga").next_run_at;
    assert!(due(after) < due(before));
    let unknown = GetSagaRequest { name: format!("sagas/{}", clock::id()) };
    let missing = admin(sagas.get_saga(Request::new(unknown))).await.expect_err("none");
    assert_eq!(missing.code(), Code::NotFound);
}

async fn sagas_are_listed_by_what_they_are_and_a_page_at_a_time(db: TestDb) {
    let sagas = sagas(&db.store, &["things/1", "things/2", "things/3"]).await;
    write(&db.store, "UPDATE saga SET state = 'STUCK' WHERE key <> 'things/2'").await;
    let list = async |request: ListSagasRequest| {
        let listed = sagas.list_sagas(Request::new(request)).await.map(tonic::Response::into_inner);
        listed.map(|page| {
            let keys: Vec<_> = page.sagas.into_iter().map(|saga| saga.key).collect();
            (keys, page.next_page_token)
        })
    };
    let stuck = ListSagasRequest { state: State::Stuck.into(), page_size: 1, ..Default::default() };
    let (first, token) = list(stuck.clone()).await.expect("a page");
    assert_eq!(first, ["things/1"]);
    let next = ListSagasRequest { page_token: token.clone(), ..stuck };
    let (second, end) = list(next).await.expect("a page");
    assert_eq!((second, &*end), (vec!["things/3".to_owned()], ""));
    let other = ListSagasRequest { page_token: token, ..Default::default() };
    assert_eq!(list(other).await.expect_err("another list").code(), Code::InvalidArgument);
    let by_key = ListSagasRequest { key: "things/2".to_owned(), ..Default::default() };
    assert_eq!(list(by_key).await.expect("a page").0, ["things/2"]);
}
