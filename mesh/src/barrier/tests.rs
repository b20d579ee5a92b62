//! Commands that come twice, late, or after their own undoing.

use super::*;
use crate::testing::{NoTables, TestDb};

crate::on_both_databases! {
    NoTables;
    a_command_that_comes_twice_gets_its_first_answer
    a_command_that_was_undone_before_it_came_is_refused_for_ever
    an_undo_gets_what_the_do_kept_and_its_repeat_its_own_answer
    what_is_rolled_back_was_never_begun
}

fn command() -> Command {
    Command {
        saga: "s1".to_owned(),
        step_key: "hold_stock".to_owned(),
        command_id: Uuid::new_v4(),
        fence: 1,
    }
}

async fn done(db: &TestDb, command: &Command, result: &'static [u8]) -> Begun {
    let command = command.clone();
    let begun = db.store.transaction(move |txn| {
        let command = command.clone();
        Box::pin(async move {
            let begun = begin_do(txn, &command).await?;
            if begun == Begun::First {
                finish_do(txn, &command, result).await?;
            }
            Ok::<_, Failure>(begun)
        })
    });
    begun.await.expect("the database")
}

async fn undone(db: &TestDb, command: &Command, result: &'static [u8]) -> Undo {
    let command = command.clone();
    let undone = db.store.transaction(move |txn| {
        let command = command.clone();
        Box::pin(async move {
            let undo = begin_undo(txn, &command).await?;
            if matches!(undo, Undo::First(_)) {
                finish_undo(txn, &command, result).await?;
            }
            Ok::<_, Failure>(undo)
        })
    });
    undone.await.expect("the database")
}

async fn a_command_that_comes_twice_gets_its_first_answer(db: TestDb) {
    let command = command();
    assert_eq!(done(&db, &command, b"held").await, Begun::First);
    assert_eq!(done(&db, &command, b"held again").await, Begun::Repeated(b"held".to_vec()));
    let other = Command { step_key: "authorize".to_owned(), ..command };
    assert_eq!(done(&db, &other, b"").await, Begun::First);
}

async fn a_command_that_was_undone_before_it_came_is_refused_for_ever(db: TestDb) {
    let command = command();
    assert_eq!(undone(&db, &command, b"").await, Undo::NothingDone);
    assert_eq!(done(&db, &command, b"held").await, Begun::Undone);
    assert_eq!(undone(&db, &command, b"").await, Undo::NothingDone);
    assert_eq!(done(&db, &command, b"held").await, Begun::Undone);
}

async fn an_undo_gets_what_the_do_kept_and_its_repeat_its_own_answer(db: TestDb) {
    let command = command();
    done(&db, &command, b"held").await;
    assert_eq!(undone(&db, &command, b"released").await, Undo::First(b"held".to_vec()));
    assert_eq!(undone(&db, &command, b"").await, Undo::Repeated(b"released".to_vec()));
    // A late repeat of the command finds what it did, and does nothing.
    assert_eq!(done(&db, &command, b"").await, Begun::Repeated(b"held".to_vec()));
}

async fn what_is_rolled_back_was_never_begun(db: TestDb) {
    let (command, tried) = (command(), command());
    let refused = db.store.transaction(move |txn| {
        let command = tried.clone();
        Box::pin(async move {
            begin_do(txn, &command).await?;
            Err::<(), _>(Failure::new("have the effect", "a rule said no"))
        })
    });
    assert!(refused.await.is_err());
    assert_eq!(done(&db, &command, b"held").await, Begun::First);
}
