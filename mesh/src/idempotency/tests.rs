//! The first committed answer is the only one.

use futures_util::future::join_all;

use super::*;
use crate::{
    status::{self, Explain, Explanation, tell},
    store::{TxnError, execute, row, step},
    testing::TestDb,
};

crate::on_both_databases! {
    Tables;
    twenty_attempts_at_once_have_one_effect_and_one_answer
    an_id_that_comes_with_another_request_is_refused
    work_that_goes_on_outside_is_in_progress_until_it_is_finished
}

struct Tables;

impl Tables {
    fn migrations() -> Vec<crate::store::Migration> {
        vec![step("sample_0001", "CREATE TABLE effect (what TEXT NOT NULL)")]
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("repeated")]
    Repeated,
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl TxnError for Problem {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Repeated => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

fn request(what: &str) -> prost_types::Any {
    prost_types::Any { type_url: what.to_owned(), value: Vec::new() }
}

fn key(what: &str) -> Key {
    Key::new("users/1", "CreateThing", Uuid::from_u128(1), &request(what))
}

/// One attempt: the answer is its own number, unless another was first.
async fn attempt(db: &TestDb, number: u32) -> u32 {
    let mine = Answer::success(&request(&number.to_string()));
    let done = db.store.transaction(move |txn| {
        let mine = mine.clone();
        Box::pin(async move {
            match claim(txn, &key("a"), &mine, clock::now()).await? {
                Claim::First => {}
                Claim::Repeated => return Err(Problem::Repeated),
            }
            execute(txn, "have an effect", "INSERT INTO effect (what) VALUES ('x')", vec![])
                .await?;
            Ok(())
        })
    });
    match done.await {
        Ok(()) => number,
        Err(Problem::Repeated) => {
            let answer = stored(db.store.reader(), &key("a")).await.expect("reads").expect("kept");
            let answer: prost_types::Any = answer.replay().expect("a success");
            answer.type_url.parse().expect("a number")
        }
        Err(Problem::Failed(failure)) => panic!("{failure:?}"),
    }
}

async fn twenty_attempts_at_once_have_one_effect_and_one_answer(db: TestDb) {
    #[derive(FromQueryResult)]
    struct Count {
        n: i64,
    }
    let answers = join_all((0..20).map(|number| attempt(&db, number))).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let sql = "SELECT COUNT(*) AS n FROM effect";
    let count: Option<Count> = row(db.store.reader(), "count", sql, vec![]).await.expect("reads");
    assert_eq!(count.map(|count| count.n), Some(1));
}

async fn an_id_that_comes_with_another_request_is_refused(db: TestDb) {
    attempt(&db, 1).await;
    let refused = stored(db.store.reader(), &key("b")).await;
    assert!(matches!(refused, Err(Refused::Reused)), "{refused:?}");
    let other = Key { principal: "users/2".to_owned(), ..key("b") };
    assert!(matches!(stored(db.store.reader(), &other).await, Ok(None)));
}

async fn work_that_goes_on_outside_is_in_progress_until_it_is_finished(db: TestDb) {
    db.store
        .transaction(|txn| {
            Box::pin(async move { claim_running(txn, &key("a"), clock::now()).await })
        })
        .await
        .expect("claimed");
    let early = stored(db.store.reader(), &key("a")).await;
    assert!(matches!(early, Err(Refused::InProgress)), "{early:?}");
    let finish = |answer: &'static str| {
        db.store.transaction(move |txn| {
            Box::pin(async move {
                let Key { principal, method, request_id, .. } = key("a");
                let answer = Answer::success(&request(answer));
                finish(txn, &principal, method, request_id, &answer).await
            })
        })
    };
    assert!(finish("first").await.expect("finished"));
    assert!(!finish("second").await.expect("answered"));
    let answer = stored(db.store.reader(), &key("a")).await.expect("reads").expect("kept");
    assert_eq!(answer.replay::<prost_types::Any>().expect("a success").type_url, "first");
}

#[test]
fn a_refusal_is_kept_with_its_details_and_what_may_pass_is_not() {
    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No(Code, &'static str);

    impl Explain for No {
        const DOMAIN: &'static str = "ordermesh.sample.v1";

        fn explain(&self) -> Explanation {
            tell(self.0, self.1)
        }
    }

    for (code, reason, kept) in [
        (Code::FailedPrecondition, "OUT_OF_STOCK", true),
        (Code::Aborted, "PRICE_CHANGED", true),
        (Code::Aborted, "CONFLICT", false),
        (Code::Unavailable, "DEPENDENCY_DOWN", false),
        (Code::Internal, "INTERNAL", false),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", false),
    ] {
        let told = status::of(&No(code, reason));
        let answer = Answer::refusal(&told);
        assert_eq!(answer.is_some(), kept, "{reason}");
        if let Some(answer) = answer {
            let again = answer.replay::<prost_types::Any>().expect_err("a refusal");
            assert_eq!((again.code(), again.details()), (told.code(), told.details()));
        }
    }
}
