use mesh::{clock, testing};
use time::Duration as Span;

use super::*;
use crate::{
    domain::{
        Profile, User, customer,
        keys::{PUBLISHED_AFTER, PUBLISHED_AHEAD},
        values::{DisplayName, Email, PasswordHash},
    },
    signing::Grant,
};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_key_is_made_once_rotated_by_age_and_forgotten_when_nothing_it_signed_is_valid() {
    let db = testing::sqlite(Store::migrations()).await;
    let (store, ring) = (Store::on(db.store.clone()), Ring::default());
    let start = clock::now();
    let keys = async |at| {
        rotate_keys(&store, &ring, HOUR, at).await.expect("rotated");
        ring.public().into_iter().map(|key| key.kid).collect::<Vec<_>>()
    };
    let first = keys(start).await;
    assert_eq!(first.len(), 1);
    assert_eq!(keys(start + HOUR - Span::SECOND).await, first);
    let both = keys(start + HOUR).await;
    assert_eq!((both.len(), both.first()), (2, first.first()));
    let switched = start + HOUR + PUBLISHED_AHEAD;
    let rotated = keys(switched + PUBLISHED_AFTER).await;
    assert!(!rotated.contains(&first[0]) && rotated.contains(&both[1]), "{rotated:?}");
}

#[tokio::test]
async fn two_replicas_sign_with_the_same_key() {
    let db = testing::sqlite(Store::migrations()).await;
    let store = Store::on(db.store.clone());
    let (one, two) = (Ring::default(), Ring::default());
    let at = clock::now();
    let both = futures_util::future::join(
        rotate_keys(&store, &one, HOUR, at),
        rotate_keys(&store, &two, HOUR, at),
    );
    let (first, second) = both.await;
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(one.public(), two.public());
    let grant = Grant { subject: "users/1".to_owned(), roles: vec![], lifetime: Span::MINUTE };
    let token = one.sign(&grant, uuid::Uuid::nil(), at).expect("signed");
    assert_eq!(two.sign(&grant, uuid::Uuid::nil(), at).expect("signed"), token);
}

#[tokio::test]
async fn a_deleted_account_is_erased_after_thirty_days_and_not_before() {
    let db = testing::sqlite(Store::migrations()).await;
    let store = Store::on(db.store.clone());
    let at = clock::now();
    let profile = Profile {
        display_name: DisplayName::parse("Ada").expect("a name"),
        email: Email::parse("ada@example.com").expect("an address"),
        password: PasswordHash::new("hash".to_owned()),
    };
    let (mut user, happened) = User::open(clock::id(), profile, customer(), at);
    let id = user.id;
    store.open(user.clone(), happened, None, at).await.expect("opened");
    let read = store.user(id).await.expect("read").expect("there");
    let happened = user.delete(at).expect("was active");
    store.save(&read, user, happened, None, at).await.expect("saved");
    let month = Span::days(30);
    forget_once(&store, at + month - Span::SECOND).await.expect("done");
    assert!(store.user(id).await.expect("read").is_some());
    forget_once(&store, at + month).await.expect("done");
    assert!(store.user(id).await.expect("read").is_none());
}
