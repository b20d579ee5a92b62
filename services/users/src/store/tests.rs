use mesh::{clock, store, testing::TestDb};
use sea_orm::FromQueryResult;
use time::Duration;
use uuid::Uuid;

use super::*;
use crate::domain::{
    Actor, Changes, Event, Profile, State, customer,
    keys::Key as SigningKey,
    session::{FAILURE_WINDOW, FAILURES_MAX, REFRESH_TOKEN},
    values::{DisplayName, Email, PasswordHash, Role, Roles},
};

mesh::on_both_databases! {
    Store;
    an_account_is_read_as_it_was_written
    an_address_and_an_id_belong_to_one_account
    the_slower_of_two_writers_is_refused_and_publishes_nothing
    each_revision_has_its_event
    deleted_accounts_are_listed_on_request_and_pages_follow_each_other
    personal_data_is_erased_once_an_account_cannot_come_back
    a_stored_answer_is_the_first_one_and_undoes_the_second_effect
    a_refresh_token_is_exchanged_once_and_its_reuse_ends_the_family
    of_two_exchanges_of_one_token_at_once_one_is_granted
    a_new_password_ends_sessions_and_undoes_a_sign_in_under_way
    guesses_side_by_side_get_ten_verdicts
    sessions_and_failures_are_forgotten_when_they_end
    the_first_replica_to_make_a_key_wins
    a_client_secret_is_replaced_when_it_differs
}

#[derive(FromQueryResult)]
struct Count {
    n: i64,
}

#[derive(FromQueryResult)]
struct Published {
    kind: String,
    seq: i64,
}

async fn count(db: &TestDb, from: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) AS n FROM {from}");
    let found: Option<Count> =
        store::row(db.reader(), "count", &sql, vec![]).await.expect("a count");
    found.expect("a row").n
}

async fn published(db: &TestDb, id: Uuid) -> Vec<(String, i64)> {
    let sql = "SELECT type AS kind, seq FROM outbox WHERE aggregate = $1 ORDER BY seq";
    let found: Vec<Published> =
        store::rows(db.reader(), "read", sql, vec![format!("users/{id}").into()])
            .await
            .expect("events");
    found.into_iter().map(|event| (event.kind, event.seq)).collect()
}

fn profile(email: &str) -> Profile {
    Profile {
        display_name: DisplayName::parse("Ada Lovelace").expect("a name"),
        email: Email::parse(email).expect("an address"),
        password: PasswordHash::new("hash".to_owned()),
    }
}

fn on(db: &TestDb) -> Store {
    Store::on(db.store.clone())
}

async fn opened(store: &Store, email: &str) -> Stored {
    let at = clock::now();
    let (user, happened) = User::open(clock::id(), profile(email), customer(), at);
    store.open(user.clone(), happened, None, at).await.expect("opened");
    Stored { user, revision: 1 }
}

/// Writes what `change` does to the account as it is stored.
async fn changed(
    store: &Store,
    id: Uuid,
    change: impl Fn(&mut User) -> Result<Vec<Event>, crate::domain::Refusal>,
) -> Stored {
    let read = store.user(id).await.expect("read").expect("there");
    let mut user = read.user.clone();
    let happened = change(&mut user).expect("no refusal");
    store.save(&read, user, happened, None, clock::now()).await.expect("saved");
    store.user(id).await.expect("read").expect("there")
}

fn renamed(name: &str) -> Changes {
    Changes { display_name: Some(DisplayName::parse(name).expect("a name")), ..Changes::default() }
}

fn kept(id: u128, request: &str, answer: &str) -> Kept {
    let request = request.to_owned();
    let key = Key::new("users/1", "Test", Uuid::from_u128(id), &request);
    Kept { key, answer: Answer::success(&answer.to_owned()) }
}

async fn an_account_is_read_as_it_was_written(db: TestDb) {
    let store = on(&db);
    let written = opened(&store, "Ada@Example.com").await;
    let id = written.user.id;
    assert_eq!(store.user(id).await.expect("read"), Some(written.clone()));
    let other_case = Email::parse("ada@example.COM").expect("an address");
    assert_eq!(store.by_email(&other_case).await.expect("read"), Some(written));
    let limit = mesh::money::Money::from_parts("EUR", 100, 0).expect("money");
    let at = clock::now();
    let changes = Changes { order_limit: Some(Some(limit)), ..renamed("Countess") };
    let stored = changed(&store, id, |user| user.update(changes.clone(), Actor::Admin, at)).await;
    assert_eq!(stored.user.order_limit, Some(limit));
    assert_eq!(stored.user.display_name.as_str(), "Countess");
    assert_eq!((stored.user.updated_at, stored.revision), (at, 2));
    let both = Roles::parse(["customer", "support"]).expect("roles");
    let stored = changed(&store, id, |user| user.set_roles(both.clone(), at)).await;
    assert_eq!(stored.user.roles, both);
    let stored = changed(&store, id, |user| user.delete(at)).await;
    assert_eq!((stored.user.state, stored.user.deleted_at), (State::Deleted, Some(at)));
    assert_eq!(store.user(Uuid::nil()).await.expect("read"), None);
}

async fn an_address_and_an_id_belong_to_one_account(db: TestDb) {
    let store = on(&db);
    let ada = opened(&store, "ada@example.com").await.user;
    let eve = opened(&store, "eve@example.com").await;
    let at = clock::now();
    for (id, email, taken) in
        [(clock::id(), "ADA@example.com", "user.email"), (ada.id, "other@example.com", "user_id")]
    {
        let (user, happened) = User::open(id, profile(email), customer(), at);
        let refused = store.open(user, happened, None, at).await;
        assert!(matches!(refused, Err(WriteError::Taken(field)) if field == taken), "{refused:?}");
    }
    let mut user = eve.user.clone();
    let email = Some(Email::parse("Ada@example.com").expect("an address"));
    let changes = Changes { email, ..Changes::default() };
    let happened = user.update(changes, Actor::Owner, at).expect("no rule says no");
    let refused = store.save(&eve, user, happened, None, at).await;
    assert!(matches!(refused, Err(WriteError::Taken("user.email"))), "{refused:?}");
    assert_eq!(count(&db, "account").await, 2);
    assert_eq!(published(&db, eve.user.id).await.len(), 1);
}

async fn the_slower_of_two_writers_is_refused_and_publishes_nothing(db: TestDb) {
    let store = on(&db);
    let read = opened(&store, "ada@example.com").await;
    let id = read.user.id;
    let at = clock::now();
    changed(&store, id, |user| user.update(renamed("First"), Actor::Owner, at)).await;
    let mut slower = read.user.clone();
    let happened = slower.update(renamed("Second"), Actor::Owner, at).expect("no refusal");
    let refused = store.save(&read, slower, happened, None, at).await;
    assert!(matches!(refused, Err(WriteError::Changed)), "{refused:?}");
    let stored = store.user(id).await.expect("read").expect("there");
    assert_eq!((stored.user.display_name.as_str(), stored.revision), ("First", 2));
    assert_eq!(published(&db, id).await.len(), 2);
}

async fn each_revision_has_its_event(db: TestDb) {
    let store = on(&db);
    let id = opened(&store, "ada@example.com").await.user.id;
    let at = clock::now();
    changed(&store, id, |user| user.update(renamed("Countess"), Actor::Owner, at)).await;
    changed(&store, id, |user| user.disable(at)).await;
    changed(&store, id, |user| user.delete(at)).await;
    let last = changed(&store, id, |user| user.undelete(at)).await;
    // Nothing changes: no revision, no event.
    let same = changed(&store, id, |user| user.set_roles(customer(), at)).await;
    assert_eq!((last.revision, same.revision), (5, 5));
    let expected = ["created", "updated", "updated", "deleted", "updated"];
    let expected: Vec<_> =
        expected.iter().zip(1..).map(|(kind, seq)| (format!("user.{kind}"), seq)).collect();
    assert_eq!(published(&db, id).await, expected);
}

async fn deleted_accounts_are_listed_on_request_and_pages_follow_each_other(db: TestDb) {
    let store = on(&db);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(opened(&store, &format!("user{n}@example.com")).await.user.id);
    }
    let at = clock::now();
    changed(&store, ids[2], |user| user.delete(at)).await;
    let page = async |after: &str, deleted| {
        let found = store.list(after, deleted, 2).await.expect("a page");
        found.into_iter().map(|stored| stored.user.id).collect::<Vec<_>>()
    };
    assert_eq!(page("", false).await, ids[..2]);
    assert_eq!(page(&ids[1].to_string(), false).await, ids[3..]);
    assert_eq!(page(&ids[1].to_string(), true).await, ids[2..4]);
    assert!(page(&ids[4].to_string(), true).await.is_empty());
}

async fn personal_data_is_erased_once_an_account_cannot_come_back(db: TestDb) {
    let store = on(&db);
    let ada = opened(&store, "ada@example.com").await.user;
    let eve = opened(&store, "eve@example.com").await.user;
    let at = clock::now();
    changed(&store, ada.id, |user| user.delete(at)).await;
    assert_eq!(store.erase(at - Duration::SECOND, at).await.expect("erased"), 0, "kept 30 days");
    assert_eq!(store.erase(at, at).await.expect("erased"), 1);
    assert_eq!(store.erase(at, at).await.expect("erased"), 0);
    assert_eq!(store.user(ada.id).await.expect("read"), None);
    assert!(store.user(eve.id).await.expect("read").is_some());
    assert_eq!(store.list("", true, 10).await.expect("a page").len(), 1);
    let left = "account WHERE display_name LIKE '%Ada%' AND email LIKE '%ada%'";
    assert_eq!(count(&db, left).await, 0);
    // The address is free again, the id is not.
    opened(&store, "ada@example.com").await;
    let (user, happened) = User::open(ada.id, profile("new@example.com"), customer(), at);
    let refused = store.open(user, happened, None, at).await;
    assert!(matches!(refused, Err(WriteError::Taken("user_id"))), "{refused:?}");
}

async fn a_stored_answer_is_the_first_one_and_undoes_the_second_effect(db: TestDb) {
    let store = on(&db);
    let at = clock::now();
    let open = async |email: &str, kept: Kept| {
        let (user, happened) = User::open(clock::id(), profile(email), customer(), at);
        store.open(user, happened, Some(kept), at).await
    };
    let first = kept(1, "request", "first");
    assert!(open("ada@example.com", first.clone()).await.is_ok());
    let repeated = open("eve@example.com", kept(1, "request", "second")).await;
    assert!(matches!(repeated, Err(WriteError::Repeated)), "{repeated:?}");
    let refusal = store.refuse(kept(1, "request", "third"), at).await;
    assert!(matches!(refusal, Err(WriteError::Repeated)), "{refusal:?}");
    assert_eq!(store.answered(&first.key).await.expect("read"), Some(first.answer));
    assert_eq!(count(&db, "account").await, 1);
    let reused = store.answered(&kept(1, "another request", "").key).await;
    assert!(matches!(reused, Err(idempotency::Refused::Reused)), "{reused:?}");
    assert_eq!(store.answered(&kept(2, "request", "").key).await.expect("read"), None);
}

async fn signed_in(store: &Store, user: &User, hash: &str) -> Settled {
    let opening = Opening { family: clock::id(), hash: hash.to_owned() };
    let proved = Proved { user: user.id, password: user.password.clone(), opening };
    let attempt = Attempt { address: user.email.key(), proved: Some(proved) };
    store.settle(attempt, clock::now()).await.expect("settled")
}

async fn exchange(store: &Store, old: &str, new: &str) -> Exchanged {
    store.exchange(old.to_owned(), new.to_owned(), clock::now()).await.expect("exchanged")
}

async fn a_refresh_token_is_exchanged_once_and_its_reuse_ends_the_family(db: TestDb) {
    let store = on(&db);
    let user = opened(&store, "ada@example.com").await.user;
    let granted = Exchanged::Granted { user: user.id, roles: Roles::of(Role::Customer) };
    assert_eq!(signed_in(&store, &user, "a1").await, Settled::SignedIn);
    assert_eq!(signed_in(&store, &user, "b1").await, Settled::SignedIn);
    assert_eq!(exchange(&store, "a1", "a2").await, granted);
    assert_eq!(exchange(&store, "a2", "a3").await, granted);
    assert_eq!(exchange(&store, "a1", "a4").await, Exchanged::Reused);
    for (dead, why) in [
        ("a3", "its family was revoked"),
        ("a1", "and stays so"),
        ("a4", "was never given"),
        ("x", "is unknown"),
    ] {
        assert_eq!(exchange(&store, dead, "n").await, Exchanged::Refused, "{dead} {why}");
    }
    assert_eq!(exchange(&store, "b1", "b2").await, granted, "another sign-in goes on");
    store.revoke("b2".to_owned(), clock::now()).await.expect("revoked");
    assert_eq!(exchange(&store, "b2", "b3").await, Exchanged::Refused);
    store.revoke("unknown".to_owned(), clock::now()).await.expect("nothing to revoke is fine");
    assert_eq!(signed_in(&store, &user, "c1").await, Settled::SignedIn);
    let expired = clock::now() + REFRESH_TOKEN;
    let late = store.exchange("c1".to_owned(), "c2".to_owned(), expired).await.expect("answered");
    assert_eq!(late, Exchanged::Refused);
}

async fn of_two_exchanges_of_one_token_at_once_one_is_granted(db: TestDb) {
    let store = on(&db);
    let user = opened(&store, "ada@example.com").await.user;
    signed_in(&store, &user, "a").await;
    let both = futures_util::future::join_all((0..8).map(|n| {
        let store = store.clone();
        async move { exchange(&store, "a", &format!("n{n}")).await }
    }))
    .await;
    let granted = both.iter().filter(|e| matches!(e, Exchanged::Granted { .. })).count();
    assert_eq!(granted, 1, "{both:?}");
    let live = "refresh_family WHERE revoked_at IS NULL";
    assert_eq!(count(&db, live).await, 0, "the family ended");
}

async fn a_new_password_ends_sessions_and_undoes_a_sign_in_under_way(db: TestDb) {
    let store = on(&db);
    let user = opened(&store, "ada@example.com").await.user;
    signed_in(&store, &user, "a1").await;
    let at = clock::now();
    let password = Some(PasswordHash::new("another".to_owned()));
    let changes = Changes { password, ..Changes::default() };
    let new = changed(&store, user.id, |u| u.update(changes.clone(), Actor::Owner, at)).await.user;
    assert_eq!(exchange(&store, "a1", "a2").await, Exchanged::Refused);
    // Checked against the old hash, which was the right one then.
    assert_eq!(signed_in(&store, &user, "b1").await, Settled::Wrong);
    assert_eq!(signed_in(&store, &new, "c1").await, Settled::SignedIn);
    changed(&store, user.id, |user| user.disable(at)).await;
    assert_eq!(exchange(&store, "c1", "c2").await, Exchanged::Refused);
    assert_eq!(signed_in(&store, &new, "d1").await, Settled::Wrong);
}

async fn guesses_side_by_side_get_ten_verdicts(db: TestDb) {
    let store = on(&db);
    let user = opened(&store, "ada@example.com").await.user;
    let at = clock::now();
    let guess = || {
        let (store, address) = (store.clone(), user.email.key());
        async move { store.settle(Attempt { address, proved: None }, at).await.expect("settled") }
    };
    let told = futures_util::future::join_all((0..30).map(|_| guess())).await;
    let wrong = told.iter().filter(|settled| **settled == Settled::Wrong).count();
    assert_eq!(i64::try_from(wrong), Ok(FAILURES_MAX), "{told:?}");
    assert_eq!(store.locked(&user.email.key(), at).await.expect("read"), Some(FAILURE_WINDOW));
    let right = signed_in(&store, &user, "a1").await;
    assert!(matches!(right, Settled::Locked(_)), "not even the right password: {right:?}");
    assert_eq!(store.locked("other@example.com", at).await.expect("read"), None);
    let later = at + FAILURE_WINDOW;
    assert_eq!(store.locked(&user.email.key(), later).await.expect("read"), None);
}

async fn sessions_and_failures_are_forgotten_when_they_end(db: TestDb) {
    let store = on(&db);
    let user = opened(&store, "ada@example.com").await.user;
    let at = clock::now();
    let wrong = Attempt { address: "eve@example.com".to_owned(), proved: None };
    assert_eq!(store.settle(wrong, at).await.expect("settled"), Settled::Wrong);
    let wrong = Attempt { address: user.email.key(), proved: None };
    assert_eq!(store.settle(wrong, at).await.expect("settled"), Settled::Wrong);
    signed_in(&store, &user, "a1").await;
    assert_eq!(count(&db, "sign_in_failure").await, 1, "a right password forgets the wrong ones");
    exchange(&store, "a1", "a2").await;
    assert_eq!(store.forget_sessions(at).await.expect("forgotten"), 0);
    assert_eq!(count(&db, "refresh_token").await, 2, "used ones are kept");
    let over = clock::now() + REFRESH_TOKEN;
    assert_eq!(store.forget_sessions(over).await.expect("forgotten"), 1);
    assert_eq!(count(&db, "refresh_token").await, 0);
    assert_eq!(count(&db, "sign_in_failure").await, 0);
}

async fn the_first_replica_to_make_a_key_wins(db: TestDb) {
    let store = on(&db);
    let at = clock::now();
    let key = SigningKey { generation: 1, active_at: at };
    store.add_signing_key(key, vec![1], at).await.expect("kept");
    store.add_signing_key(key, vec![2], at).await.expect("passed over");
    let next = SigningKey { generation: 2, active_at: at };
    store.add_signing_key(next, vec![3], at).await.expect("kept");
    let kept = store.signing_keys().await.expect("read");
    assert_eq!(kept, [(key, vec![1]), (next, vec![3])]);
    store.forget_signing_key(1).await.expect("forgotten");
    assert_eq!(store.signing_keys().await.expect("read").len(), 1);
}

async fn a_client_secret_is_replaced_when_it_differs(db: TestDb) {
    let store = on(&db);
    let at = clock::now();
    let set = async |hash: u8| {
        store.set_client_secret("orders".to_owned(), vec![hash], at).await.expect("kept")
    };
    assert_eq!([set(1).await, set(1).await, set(2).await], [true, false, true]);
    assert_eq!(store.client_secret("orders").await.expect("read"), Some(vec![2]));
    assert_eq!(store.client_secret("payments").await.expect("read"), None);
}
