use std::sync::Arc;

use futures_util::future::join_all;
use mesh::testing::{self, TestDb, as_caller, as_nobody};
use prost_types::FieldMask;
use proto::{google::r#type::Money, users::v1::users_service_server::UsersService as _};
use tonic::{Code, Request, Response};
use tonic_types::StatusExt as _;

use super::*;

const PASSWORD: &str = "correct horse battery";

/// The service on a database of its own.
struct Shop {
    users: Users,
    _db: TestDb,
}

async fn shop() -> Shop {
    let db = testing::sqlite(Store::migrations()).await;
    let passwords = Passwords::new().await.expect("ready");
    let users = Users::new(Store::on(db.store.clone()), passwords, Pages::new([7; 32]));
    Shop { users, _db: db }
}

fn ada() -> api::User {
    api::User {
        display_name: "Ada Lovelace".to_owned(),
        email: "ada@example.com".to_owned(),
        password: PASSWORD.to_owned(),
        ..api::User::default()
    }
}

fn admin() -> Caller {
    Caller::with_roles("users/00000000-0000-7000-8000-000000000001", &["admin"])
}

fn support() -> Caller {
    Caller::with_roles("users/00000000-0000-7000-8000-000000000002", &["support"])
}

fn creation(user: api::User, request_id: &str) -> api::CreateUserRequest {
    api::CreateUserRequest {
        user: Some(user),
        request_id: request_id.to_owned(),
        ..api::CreateUserRequest::default()
    }
}

fn an_id() -> String {
    "7f8c1f0e-2d2b-4e0a-9d5c-0123456789ab".to_owned()
}

/// Code, reason, and the field that is named, if one is.
fn told(status: &Status) -> (Code, String, Option<String>) {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let field = status
        .get_details_bad_request()
        .and_then(|bad| bad.field_violations.first().map(|violation| violation.field.clone()));
    (status.code(), reason, field)
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let (code, reason, _) = told(&answer.expect_err("a refusal"));
    (code, reason)
}

fn is(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

impl Shop {
    async fn create(&self, request: api::CreateUserRequest) -> Result<api::User, Status> {
        as_nobody(self.users.create_user(Request::new(request))).await.map(Response::into_inner)
    }

    async fn ada(&self) -> api::User {
        self.create(creation(ada(), "")).await.expect("opened")
    }

    async fn get(&self, caller: Caller, name: &str) -> Result<api::User, Status> {
        let request = Request::new(api::GetUserRequest { name: name.to_owned() });
        as_caller(caller, self.users.get_user(request)).await.map(Response::into_inner)
    }

    async fn update(
        &self,
        caller: Caller,
        user: api::User,
        paths: &[&str],
    ) -> Result<api::User, Status> {
        let mask = FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() };
        let request = api::UpdateUserRequest {
            user: Some(user),
            update_mask: Some(mask),
            request_id: String::new(),
        };
        let call = self.users.update_user(Request::new(request));
        as_caller(caller, call).await.map(Response::into_inner)
    }

    async fn delete(&self, caller: Caller, name: &str) -> Result<api::User, Status> {
        let request =
            api::DeleteUserRequest { name: name.to_owned(), ..api::DeleteUserRequest::default() };
        let call = self.users.delete_user(Request::new(request));
        as_caller(caller, call).await.map(Response::into_inner)
    }

    async fn set_roles(&self, name: &str, roles: &[&str], etag: &str) -> Result<api::User, Status> {
        let request = api::SetRolesRequest {
            name: name.to_owned(),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            etag: etag.to_owned(),
            request_id: String::new(),
        };
        let call = self.users.set_roles(Request::new(request));
        as_caller(admin(), call).await.map(Response::into_inner)
    }

    async fn check(&self, name: &str) -> Result<api::CheckCustomerResponse, Status> {
        let request = Request::new(api::CheckCustomerRequest { name: name.to_owned() });
        let orders = Caller::of_service("orders");
        as_caller(orders, self.users.check_customer(request)).await.map(Response::into_inner)
    }
}

#[tokio::test]
async fn an_account_starts_active_as_a_customers_and_its_password_is_never_told() {
    let shop = shop().await;
    let user = shop.ada().await;
    assert_eq!(user.state(), api::user::State::Active);
    assert_eq!(
        (user.roles.as_slice(), user.etag.as_str()),
        (&["customer".to_owned()][..], "\"v1\"")
    );
    assert_eq!((user.password.as_str(), user.create_time), ("", user.update_time));
    let read = shop.get(Caller::customer(&user.name), &user.name).await.expect("read");
    assert_eq!(read, user);
}

#[tokio::test]
async fn every_bad_field_of_a_new_account_is_named() {
    let shop = shop().await;
    let with = |change: fn(&mut api::CreateUserRequest, &mut api::User)| {
        let mut user = ada();
        let mut request = api::CreateUserRequest::default();
        change(&mut request, &mut user);
        request.user = Some(user);
        request
    };
    for (request, field) in [
        (api::CreateUserRequest::default(), "user"),
        (with(|_, user| user.display_name.clear()), "user.display_name"),
        (with(|_, user| user.display_name = "x".repeat(101)), "user.display_name"),
        (with(|_, user| user.display_name = "a\nb".to_owned()), "user.display_name"),
        (with(|_, user| user.email.clear()), "user.email"),
        (with(|_, user| user.email = "ada".to_owned()), "user.email"),
        (with(|_, user| user.email = format!("{}@a.b", "x".repeat(300))), "user.email"),
        (with(|_, user| user.password.clear()), "user.password"),
        (with(|_, user| user.password = "short".to_owned()), "user.password"),
        (with(|_, user| user.password = "x".repeat(201)), "user.password"),
        (with(|_, user| user.order_limit = Some(Money::default())), "user.order_limit"),
        (with(|request, _| request.user_id = "ada".to_owned()), "user_id"),
        (with(|request, _| request.request_id = "1".to_owned()), "request_id"),
    ] {
        let status = shop.create(request).await.expect_err(field);
        let expected =
            (Code::InvalidArgument, "FIELD_VIOLATION".to_owned(), Some(field.to_owned()));
        assert_eq!(told(&status), expected);
        assert!(!status.message().contains("xxxx"), "no value is echoed: {}", status.message());
    }
    let users = api::ListUsersRequest::default();
    let listed = as_caller(admin(), shop.users.list_users(Request::new(users))).await;
    assert_eq!(listed.expect("a list").into_inner().users, [], "nothing half-written");
}

#[tokio::test]
async fn every_bad_field_of_a_change_is_named() {
    let shop = shop().await;
    let user = shop.ada().await;
    let owner = || Caller::customer(&user.name);
    let euros = |units, nanos| Some(Money { currency_code: "EUR".to_owned(), units, nanos });
    let with = |change: &dyn Fn(&mut api::User)| {
        let mut changed = api::User { name: user.name.clone(), ..api::User::default() };
        change(&mut changed);
        changed
    };
    let dollars = |code: &str| Some(Money { currency_code: code.to_owned(), units: 1, nanos: 0 });
    for (caller, changed, path, field) in [
        (owner(), with(&|u| u.name = "users/1".to_owned()), "email", "user.name"),
        (owner(), with(&|u| u.name.clear()), "email", "user.name"),
        (owner(), with(&|_| {}), "display_name", "user.display_name"),
        (owner(), with(&|u| u.email = "@".to_owned()), "email", "user.email"),
        (owner(), with(&|u| u.password = "short".to_owned()), "password", "user.password"),
        (owner(), with(&|_| {}), "password", "user.password"),
        (owner(), with(&|_| {}), "nickname", "update_mask"),
        (owner(), with(&|_| {}), "order_limit.units", "update_mask"),
        (owner(), with(&|u| u.etag = "v1".to_owned()), "email", "user.email"),
        (support(), with(&|u| u.display_name = "x".to_owned()), "display_name", "user.etag"),
        (admin(), with(&|u| u.order_limit = euros(-1, 0)), "order_limit", "user.order_limit"),
        (admin(), with(&|u| u.order_limit = euros(1, -1)), "order_limit", "user.order_limit"),
        (admin(), with(&|u| u.order_limit = euros(i64::MAX, 0)), "order_limit", "user.order_limit"),
        (admin(), with(&|u| u.order_limit = euros(0, 1)), "order_limit", "user.order_limit"),
        (admin(), with(&|u| u.order_limit = dollars("XTS")), "order_limit", "user.order_limit"),
    ] {
        let status = shop.update(caller, changed, &[path]).await.expect_err(field);
        let expected =
            (Code::InvalidArgument, "FIELD_VIOLATION".to_owned(), Some(field.to_owned()));
        assert_eq!(told(&status), expected, "{path}");
    }
    for (roles, etag, field) in [
        (&[][..], "\"v1\"", "roles"),
        (&["root"], "\"v1\"", "roles"),
        (&["admin", "admin"], "\"v1\"", "roles"),
        (&["admin"], "", "etag"),
        (&["admin"], "*", "etag"),
    ] {
        let status = shop.set_roles(&user.name, roles, etag).await.expect_err(field);
        assert_eq!(told(&status).2.as_deref(), Some(field), "{roles:?} {etag}");
    }
    assert_eq!(shop.get(owner(), &user.name).await.expect("read"), user, "nothing half-written");
}

#[tokio::test]
async fn the_same_request_twenty_times_at_once_opens_one_account() {
    let shop = Arc::new(shop().await);
    let answers = join_all((0..20).map(|_| shop.create(creation(ada(), &an_id())))).await;
    let first = answers.first().expect("twenty").clone().expect("opened");
    for answer in answers {
        assert_eq!(answer.expect("the same answer"), first);
    }
}

#[tokio::test]
async fn a_request_id_is_bound_to_its_request_the_password_included() {
    let shop = shop().await;
    shop.create(creation(ada(), &an_id())).await.expect("opened");
    for changed in [
        api::User { display_name: "Eve".to_owned(), ..ada() },
        api::User { password: "another horse battery".to_owned(), ..ada() },
    ] {
        let answer = shop.create(creation(changed, &an_id())).await;
        assert_eq!(refusal(answer), is(Code::InvalidArgument, "REQUEST_ID_REUSED"));
    }
}

#[tokio::test]
async fn a_refusal_is_repeated_although_the_reason_for_it_is_gone() {
    let shop = shop().await;
    let first = shop.ada().await;
    let refused = shop.create(creation(ada(), &an_id())).await.expect_err("taken");
    assert_eq!(told(&refused), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned(), None));
    let renamed = api::User { email: "countess@example.com".to_owned(), ..first.clone() };
    shop.update(Caller::customer(&first.name), renamed, &["email"]).await.expect("renamed");
    let again = shop.create(creation(ada(), &an_id())).await.expect_err("as before");
    assert_eq!((again.code(), again.message()), (refused.code(), refused.message()));
    assert_eq!(again.details(), refused.details());
    shop.create(creation(ada(), "")).await.expect("another request is another matter");
}

#[tokio::test]
async fn another_customers_account_is_denied_whether_it_exists_or_not() {
    let shop = shop().await;
    let user = shop.ada().await;
    let eve = || Caller::customer("users/00000000-0000-7000-8000-00000000000e");
    let denied = is(Code::PermissionDenied, "PERMISSION_DENIED");
    for name in [user.name.as_str(), "users/00000000-0000-7000-8000-00000000000f"] {
        let changed = api::User { name: name.to_owned(), ..ada() };
        assert_eq!(refusal(shop.get(eve(), name).await), denied);
        assert_eq!(refusal(shop.update(eve(), changed, &["email"]).await), denied);
        assert_eq!(refusal(shop.delete(eve(), name).await), denied);
    }
    let unknown = shop.get(support(), "users/00000000-0000-7000-8000-00000000000f").await;
    assert_eq!(refusal(unknown), is(Code::NotFound, "NOT_FOUND"));
    assert_eq!(shop.get(support(), &user.name).await.expect("staff read all"), user);
}

#[tokio::test]
async fn a_mask_says_what_changes() {
    let shop = shop().await;
    let user = shop.ada().await;
    let owner = || Caller::customer(&user.name);
    let new = api::User {
        name: user.name.clone(),
        display_name: "Countess".to_owned(),
        email: "countess@example.com".to_owned(),
        roles: vec!["admin".to_owned()],
        ..api::User::default()
    };
    let one = shop.update(owner(), new.clone(), &["display_name", "roles"]).await.expect("changed");
    assert_eq!((one.display_name.as_str(), one.email.as_str()), ("Countess", "ada@example.com"));
    assert_eq!((one.roles.as_slice(), one.etag.as_str()), (&user.roles[..], "\"v2\""));
    let set = shop.update(owner(), new.clone(), &[]).await.expect("what is set");
    assert_eq!((set.email.as_str(), set.etag.as_str()), ("countess@example.com", "\"v3\""));
    let same = shop.update(owner(), new, &["*"]).await.expect("nothing left to change");
    assert_eq!(same, set);
}

#[tokio::test]
async fn only_staff_change_a_limit_and_staff_must_know_the_account_they_change() {
    let shop = shop().await;
    let user = shop.ada().await;
    let limit = Some(Money { currency_code: "EUR".to_owned(), units: 100, nanos: 500_000_000 });
    let limited = |etag: &str| api::User {
        name: user.name.clone(),
        order_limit: limit.clone(),
        etag: etag.to_owned(),
        ..api::User::default()
    };
    let paths = &["order_limit"];
    let own = shop.update(Caller::customer(&user.name), limited(""), paths).await;
    assert_eq!(refusal(own), is(Code::PermissionDenied, "PERMISSION_DENIED"));
    let stale = shop.update(support(), limited("\"v7\""), paths).await;
    assert_eq!(refusal(stale), is(Code::Aborted, "ETAG_MISMATCH"));
    let changed = shop.update(support(), limited(&user.etag), paths).await.expect("changed");
    assert_eq!(changed.order_limit, limit);
    assert_eq!(shop.check(&user.name).await.expect("checked").order_limit, limit);
    let cleared = api::User { order_limit: None, ..limited(&changed.etag) };
    let cleared = shop.update(support(), cleared, paths).await.expect("changed");
    assert_eq!(cleared.order_limit, None);
}

#[tokio::test]
async fn support_does_not_change_accounts_of_the_staff() {
    let shop = shop().await;
    let user = shop.ada().await;
    let clerk = shop.set_roles(&user.name, &["warehouse", "customer"], &user.etag).await;
    let clerk = clerk.expect("changed");
    assert_eq!(clerk.roles, ["customer", "warehouse"]);
    let password = api::User { password: "another horse battery".to_owned(), ..clerk.clone() };
    let denied = is(Code::PermissionDenied, "PERMISSION_DENIED");
    let taken_over = shop.update(support(), password.clone(), &["password"]).await;
    assert_eq!(refusal(taken_over), denied);
    assert_eq!(refusal(shop.delete(support(), &user.name).await), denied);
    shop.update(admin(), password, &["password"]).await.expect("admin does");
}

#[tokio::test]
async fn a_deleted_account_cannot_order_or_change_and_comes_back() {
    let shop = shop().await;
    let user = shop.ada().await;
    let owner = || Caller::customer(&user.name);
    assert!(shop.check(&user.name).await.expect("checked").active);
    let disable = api::DisableUserRequest { name: user.name.clone(), ..Default::default() };
    let disabled = as_caller(support(), shop.users.disable_user(Request::new(disable))).await;
    assert_eq!(disabled.expect("disabled").get_ref().state(), api::user::State::Disabled);
    assert!(!shop.check(&user.name).await.expect("checked").active);
    let deleted = shop.delete(owner(), &user.name).await.expect("deleted");
    let (at, purge) = (deleted.delete_time.expect("when"), deleted.purge_time.expect("when"));
    assert_eq!(purge.seconds - at.seconds, 30 * 24 * 3_600);
    assert_eq!(refusal(shop.check(&user.name).await), is(Code::NotFound, "NOT_FOUND"));
    let again = shop.delete(owner(), &user.name).await.expect_err("deleted already");
    assert_eq!(told(&again).1, "USER_STATE");
    let metadata = again.get_details_error_info().expect("facts").metadata;
    assert_eq!((&*metadata["name"], &*metadata["state"]), (&*user.name, "DELETED"));
    let enable = api::EnableUserRequest { name: user.name.clone(), ..Default::default() };
    let enabled = as_caller(support(), shop.users.enable_user(Request::new(enable))).await;
    assert_eq!(refusal(enabled), is(Code::FailedPrecondition, "USER_STATE"));
    let undelete = api::UndeleteUserRequest { name: user.name.clone(), ..Default::default() };
    let back = as_caller(support(), shop.users.undelete_user(Request::new(undelete))).await;
    let back = back.expect("undeleted").into_inner();
    assert_eq!((back.state(), back.delete_time), (api::user::State::Active, None));
    assert_eq!(back.etag, "\"v4\"");
}

#[tokio::test]
async fn a_repeated_change_is_made_once() {
    let shop = shop().await;
    let user = shop.ada().await;
    let request = api::DeleteUserRequest {
        name: user.name.clone(),
        etag: user.etag.clone(),
        request_id: an_id(),
    };
    let call = || {
        let call = shop.users.delete_user(Request::new(request.clone()));
        as_caller(Caller::customer(&user.name), call)
    };
    let first = call().await.expect("deleted").into_inner();
    assert_eq!(call().await.expect("the same answer").into_inner(), first);
}

#[tokio::test]
async fn pages_follow_each_other_and_a_token_belongs_to_its_list() {
    let shop = shop().await;
    for n in 0..3 {
        let user = api::User { email: format!("user{n}@example.com"), ..ada() };
        shop.create(creation(user, "")).await.expect("opened");
    }
    let list = async |page_size, page_token: &str, show_deleted| {
        let page_token = page_token.to_owned();
        let request = api::ListUsersRequest { page_size, page_token, show_deleted };
        let answer = as_caller(support(), shop.users.list_users(Request::new(request))).await;
        answer.map(Response::into_inner)
    };
    let first = list(2, "", false).await.expect("a page");
    let emails = |page: &api::ListUsersResponse| {
        page.users.iter().map(|user| user.email.clone()).collect::<Vec<_>>()
    };
    assert_eq!(emails(&first), ["user0@example.com", "user1@example.com"]);
    let token = first.next_page_token;
    let second = list(2, &token, false).await.expect("a page");
    assert_eq!(emails(&second), ["user2@example.com"]);
    assert_eq!(second.next_page_token, "");
    assert_eq!(list(3, "", false).await.expect("a page").next_page_token, "");
    for (answer, field) in [
        (list(-1, "", false).await, "page_size"),
        (list(2, &token, true).await, "page_token"),
        (list(2, "made up", false).await, "page_token"),
    ] {
        let status = answer.expect_err(field);
        assert_eq!(
            (status.code(), told(&status).2.as_deref()),
            (Code::InvalidArgument, Some(field))
        );
    }
}

#[tokio::test]
async fn a_chosen_id_is_taken_once() {
    let shop = shop().await;
    let chosen = |email: &str| api::CreateUserRequest {
        user_id: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
        user: Some(api::User { email: email.to_owned(), ..ada() }),
        request_id: String::new(),
    };
    let user = shop.create(chosen("a@example.com")).await.expect("opened");
    assert_eq!(user.name, "users/0192f0c1-2345-7abc-8def-0123456789ab");
    let taken = shop.create(chosen("b@example.com")).await.expect_err("taken");
    let info = taken.get_details_error_info().expect("facts");
    assert_eq!((taken.code(), &*info.metadata["field"]), (Code::AlreadyExists, "user_id"));
}
