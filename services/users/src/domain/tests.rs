use mesh::money::Currency;
use time::macros::datetime;

use super::{
    values::{DisplayName, Email, PasswordHash, Role, Roles},
    *,
};

const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
const LATER: OffsetDateTime = datetime!(2026-03-02 12:00 UTC);
const STATES: [State; 3] = [State::Active, State::Disabled, State::Deleted];

fn user(state: State) -> User {
    let profile = Profile {
        display_name: DisplayName::parse("Ada").expect("a name"),
        email: Email::parse("ada@example.com").expect("an address"),
        password: PasswordHash::new("hash".to_owned()),
    };
    let (mut user, events) = User::open(Uuid::nil(), profile, customer(), NOON);
    assert_eq!(events, [Event::Created { at: NOON }]);
    match state {
        State::Active => {}
        State::Disabled => assert!(user.disable(NOON).is_ok()),
        State::Deleted => assert!(user.delete(NOON).is_ok()),
    }
    user
}

fn updated(field: Field) -> Result<Vec<Event>, Refusal> {
    Ok(vec![Event::Updated { fields: vec![field], at: LATER }])
}

#[test]
fn an_account_moves_between_states_only_as_the_table_says() {
    type Move = fn(&mut User, OffsetDateTime) -> Result<Vec<Event>, Refusal>;
    let deleted = Event::Deleted { at: LATER, purge_at: LATER + Duration::days(30) };
    let moves: [(&str, Move, [Option<State>; 3]); 4] = [
        ("disable", User::disable, [Some(State::Disabled), None, None]),
        ("enable", User::enable, [None, Some(State::Active), None]),
        ("delete", User::delete, [Some(State::Deleted), Some(State::Deleted), None]),
        ("undelete", User::undelete, [None, None, Some(State::Active)]),
    ];
    for (name, act, ends) in moves {
        for (from, to) in STATES.into_iter().zip(ends) {
            let mut user = user(from);
            let before = user.clone();
            let happened = act(&mut user, LATER);
            let Some(to) = to else {
                assert_eq!(happened, Err(Refusal::State(from)), "{name} {from}");
                assert_eq!(user, before, "{name} {from}: a refusal changes nothing");
                continue;
            };
            let expected = if to == State::Deleted {
                Ok(vec![deleted.clone()])
            } else {
                updated(Field::State)
            };
            assert_eq!(happened, expected, "{name} {from}");
            assert_eq!((user.state, user.updated_at), (to, LATER), "{name} {from}");
            assert_eq!(user.deleted_at.is_some(), to == State::Deleted, "{name} {from}");
            assert_eq!(user.may_sign_in(), to == State::Active, "{name} {from}");
        }
    }
}

#[test]
fn an_update_tells_what_changed_and_a_deleted_account_takes_none() {
    let name = || DisplayName::parse("Countess").expect("a name");
    let changes = || Changes { display_name: Some(name()), ..Changes::default() };
    for (state, expected) in [
        (State::Active, updated(Field::DisplayName)),
        (State::Disabled, updated(Field::DisplayName)),
        (State::Deleted, Err(Refusal::State(State::Deleted))),
    ] {
        assert_eq!(user(state).update(changes(), Actor::Owner, LATER), expected, "{state}");
    }
}

#[test]
fn an_update_that_changes_nothing_is_no_event() {
    let mut user = user(State::Active);
    let same = Changes {
        display_name: Some(user.display_name.clone()),
        email: Some(user.email.clone()),
        password: None,
        order_limit: Some(None),
    };
    assert_eq!(user.update(same, Actor::Owner, LATER), Ok(vec![]));
    assert_eq!(user.updated_at, NOON);
}

#[test]
fn only_staff_change_an_order_limit() {
    let limit = Money { minor: 10_000, currency: Currency::parse("EUR").expect("a currency") };
    let changes = |limit| Changes { order_limit: Some(limit), ..Changes::default() };
    for (actor, expected) in [
        (Actor::Owner, Err(Refusal::StaffOnly)),
        (Actor::Support, updated(Field::OrderLimit)),
        (Actor::Admin, updated(Field::OrderLimit)),
    ] {
        let mut user = user(State::Active);
        assert_eq!(user.update(changes(Some(limit)), actor, LATER), expected, "{actor:?}");
    }
    let mut same = user(State::Active);
    assert_eq!(same.update(changes(None), Actor::Owner, LATER), Ok(vec![]), "as it is");
}

#[test]
fn support_changes_accounts_of_customers_and_no_others() {
    let mut clerk = user(State::Active);
    let both = Roles::parse(["customer", "warehouse"]).expect("roles");
    assert!(clerk.set_roles(both, LATER).is_ok());
    for (actor, customers, staffs) in [
        (Actor::Owner, Ok(()), Ok(())),
        (Actor::Support, Ok(()), Err(Refusal::AdminOnly)),
        (Actor::Admin, Ok(()), Ok(())),
    ] {
        assert_eq!(user(State::Active).open_to(actor), customers, "{actor:?}");
        assert_eq!(clerk.open_to(actor), staffs, "{actor:?}");
    }
}

#[test]
fn roles_are_replaced_unless_the_account_is_deleted() {
    let roles = Roles::of(Role::Support);
    for (state, expected) in [
        (State::Active, updated(Field::Roles)),
        (State::Disabled, updated(Field::Roles)),
        (State::Deleted, Err(Refusal::State(State::Deleted))),
    ] {
        assert_eq!(user(state).set_roles(roles.clone(), LATER), expected, "{state}");
    }
    assert_eq!(user(State::Active).set_roles(customer(), LATER), Ok(vec![]));
}

#[test]
fn a_new_password_a_ban_and_a_deletion_end_sessions_a_new_name_does_not() {
    for (event, expected) in [
        (Event::Created { at: NOON }, false),
        (Event::Updated { fields: vec![Field::DisplayName, Field::Email], at: NOON }, false),
        (Event::Updated { fields: vec![Field::Roles, Field::OrderLimit], at: NOON }, false),
        (Event::Updated { fields: vec![Field::Password], at: NOON }, true),
        (Event::Updated { fields: vec![Field::State], at: NOON }, true),
        (Event::Deleted { at: NOON, purge_at: LATER }, true),
    ] {
        assert_eq!(event.ends_sessions(), expected, "{event:?}");
    }
}
