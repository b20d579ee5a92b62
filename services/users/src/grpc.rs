//! `UsersService`: decode, decide, store, encode.

mod decode;
mod encode;
mod service;
mod tokens;

use mesh::{
    auth::Caller,
    clock,
    idempotency::{Answer, Key},
    page::{self, Pages},
};
use proto::users::v1 as api;
use time::OffsetDateTime;
use tonic::Status;
use uuid::Uuid;

use self::encode::encode;
use crate::{
    domain::{Actor, Changes, Event, Profile, Refusal, State, User, customer},
    error::Error,
    passwords::{Passwords, Salt},
    store::{Kept, Store, Stored, WriteError},
};

pub use tokens::Tokens;

/// Serves accounts. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    store: Store,
    passwords: Passwords,
    pages: Pages,
}

/// A call that changes an account.
struct Change {
    /// Which account.
    id: Uuid,
    /// On whose behalf.
    actor: Actor,
    /// The revision that the caller knows, where they say so.
    revision: Option<i64>,
    /// Under which `request_id`.
    key: Option<Key>,
    /// When.
    at: OffsetDateTime,
}

/// The part of a request that all changes of an account share.
struct Target<'r> {
    name: &'r str,
    etag: &'r str,
    request_id: &'r str,
    etag_needed: bool,
}

// === impl Users ===

impl Users {
    /// Serves the accounts of `store`.
    #[must_use]
    pub fn new(store: Store, passwords: Passwords, pages: Pages) -> Self {
        Self { store, passwords, pages }
    }

    async fn create(
        &self,
        mut request: api::CreateUserRequest,
        at: OffsetDateTime,
    ) -> Result<api::User, Error> {
        let decode::NewUser { id, display_name, email, password } = decode::new_user(&request)?;
        let request_id = decode::request_id(&request.request_id)?;
        let salt = Salt::for_call(request_id, &email)?;
        let password = self.passwords.hash(password, salt).await?;
        // What the password was is told from what it was not by its hash alone.
        if let Some(user) = &mut request.user {
            user.password = password.as_str().to_owned();
        }
        request.request_id.clear();
        // Anyone may call; of two who do not say who they are, a random id tells one from the other.
        let caller = Caller::current();
        let principal = caller.as_ref().map_or("anonymous", Caller::principal);
        let key = request_id.map(|id| Key::new(principal, "CreateUser", id, &request));
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Ok(answer);
        }
        let id = id.unwrap_or_else(clock::id);
        let profile = Profile { display_name, email, password };
        let (user, happened) = User::open(id, profile, customer(), at);
        let answer = encode(&user, 1);
        let written = self.store.open(user, happened, kept(key.as_ref(), &answer), at).await;
        self.ended(id, key, answer, written, at).await
    }

    async fn get(&self, name: &str) -> Result<api::User, Error> {
        let id = decode::name("name", name)?;
        Caller::current()?.owns(name)?;
        let Stored { user, revision } = self.store.user(id).await?.ok_or(Error::NotFound(id))?;
        Ok(encode(&user, revision))
    }

    async fn list(&self, request: &api::ListUsersRequest) -> Result<api::ListUsersResponse, Error> {
        let size = page::size(request.page_size)
            .map_err(|negative| Error::malformed("page_size", negative))?;
        let deleted = if request.show_deleted { "with deleted" } else { "without deleted" };
        let args = page::args(&["ListUsers", deleted]);
        let after = match request.page_token.as_str() {
            "" => String::new(),
            token => self.pages.open(token, &args)?,
        };
        // One more than asked for: whether there is a next page.
        let mut found = self.store.list(&after, request.show_deleted, size + 1).await?;
        let more = u64::try_from(found.len()).is_ok_and(|found| found > size);
        if more {
            found.pop();
        }
        let next_page_token = match found.last() {
            Some(last) if more => self.pages.seal(&last.user.id.to_string(), &args),
            Some(_) | None => String::new(),
        };
        let users = found.iter().map(|stored| encode(&stored.user, stored.revision)).collect();
        Ok(api::ListUsersResponse { users, next_page_token })
    }

    async fn update(
        &self,
        mut request: api::UpdateUserRequest,
        at: OffsetDateTime,
    ) -> Result<api::User, Error> {
        let user = request.user.as_ref().ok_or_else(|| Error::malformed("user", "is required"))?;
        let (id, caller) = addressed("user.name", &user.name)?;
        let actor = actor(&caller, &user.name);
        let mask = request.update_mask.as_ref();
        let decode::Draft { display_name, email, password, order_limit } =
            decode::draft(user, mask)?;
        let revision = decode::etag("user.etag", &user.etag, actor != Actor::Owner)?;
        let request_id = decode::request_id(&request.request_id)?;
        let password = match password {
            Some(password) => {
                let salt = match request_id {
                    Some(request_id) => Salt::of(request_id, &user.name),
                    None => Salt::random()?,
                };
                Some(self.passwords.hash(password, salt).await?)
            }
            None => None,
        };
        if let Some(user) = &mut request.user {
            user.password = password.as_ref().map(|p| p.as_str().to_owned()).unwrap_or_default();
        }
        request.request_id.clear();
        let key = request_id.map(|id| Key::new(caller.principal(), "UpdateUser", id, &request));
        let changes = Changes { display_name, email, password, order_limit };
        self.change(Change { id, actor, revision, key, at }, |user| {
            user.update(changes.clone(), actor, at)
        })
        .await
    }

    /// A change that a request asks for by its method alone, or by little more. `bare` is the
    /// request without its `request_id`.
    async fn turn<M: prost::Message>(
        &self,
        method: &'static str,
        target: Target<'_>,
        bare: M,
        at: OffsetDateTime,
        decide: impl Fn(&mut User) -> Result<Vec<Event>, Refusal> + Send + Sync,
    ) -> Result<api::User, Error> {
        let Target { name, etag, request_id, etag_needed } = target;
        let (id, caller) = addressed("name", name)?;
        let revision = decode::etag("etag", etag, etag_needed)?;
        let request_id = decode::request_id(request_id)?;
        let key = request_id.map(|id| Key::new(caller.principal(), method, id, &bare));
        let actor = actor(&caller, name);
        self.change(Change { id, actor, revision, key, at }, decide).await
    }

    /// Reads an account, decides, and writes it with the answer of the call.
    async fn change(
        &self,
        change: Change,
        decide: impl Fn(&mut User) -> Result<Vec<Event>, Refusal> + Send + Sync,
    ) -> Result<api::User, Error> {
        let Change { id, actor, revision, key, at } = change;
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Ok(answer);
        }
        let decided = self.decided(id, actor, revision, decide).await;
        let (read, user, happened) = match decided {
            Ok(decided) => decided,
            Err(error) => return self.refused(key, error, at).await,
        };
        let taken = i64::try_from(happened.len()).unwrap_or(i64::MAX);
        let answer = encode(&user, read.revision + taken);
        let kept = kept(key.as_ref(), &answer);
        let written = self.store.save(&read, user, happened, kept, at).await;
        self.ended(id, key, answer, written, at).await
    }

    async fn decided(
        &self,
        id: Uuid,
        actor: Actor,
        revision: Option<i64>,
        decide: impl Fn(&mut User) -> Result<Vec<Event>, Refusal> + Send + Sync,
    ) -> Result<(Stored, User, Vec<Event>), Error> {
        let refused = |refusal| Error::Refused { user: id, refusal };
        let read = self.store.user(id).await?.ok_or(Error::NotFound(id))?;
        read.user.open_to(actor).map_err(refused)?;
        if revision.is_some_and(|revision| revision != read.revision) {
            return Err(Error::EtagMismatch(id));
        }
        let mut user = read.user.clone();
        let happened = decide(&mut user).map_err(refused)?;
        Ok((read, user, happened))
    }

    async fn check(&self, name: &str) -> Result<api::CheckCustomerResponse, Error> {
        let id = decode::name("name", name)?;
        let Stored { user, .. } = self.store.user(id).await?.ok_or(Error::NotFound(id))?;
        let active = match user.state {
            State::Active => true,
            State::Disabled => false,
            State::Deleted => return Err(Error::NotFound(id)),
        };
        Ok(encode::customer(&user, active))
    }

    /// The answer that this call was given before.
    async fn answered(&self, key: Option<&Key>) -> Result<Option<api::User>, Error> {
        let Some(key) = key else { return Ok(None) };
        match self.store.answered(key).await? {
            Some(answer) => match answer.replay() {
                Ok(user) => Ok(Some(user)),
                Err(refusal) => Err(Error::Again(Box::new(refusal))),
            },
            None => Ok(None),
        }
    }

    /// What the call is told after `answer` was written, or was not.
    async fn ended(
        &self,
        id: Uuid,
        key: Option<Key>,
        answer: api::User,
        written: Result<(), WriteError>,
        at: OffsetDateTime,
    ) -> Result<api::User, Error> {
        let Err(error) = written else { return Ok(answer) };
        match Error::of_write(id, error) {
            Some(error) => self.refused(key, error, at).await,
            // Somebody was faster with the same request: the first answer is the only one.
            None => self.answered(key.as_ref()).await?.ok_or(Error::Changed(id)),
        }
    }

    /// Tells a refusal, and keeps it if it is one to keep.
    async fn refused(
        &self,
        key: Option<Key>,
        error: Error,
        at: OffsetDateTime,
    ) -> Result<api::User, Error> {
        let Some(key) = key else { return Err(error) };
        let status = Status::from(error);
        let Some(answer) = Answer::refusal(&status) else {
            return Err(Error::Again(Box::new(status)));
        };
        match self.store.refuse(Kept { key: key.clone(), answer }, at).await {
            Err(WriteError::Failed(failure)) => Err(failure.into()),
            Err(WriteError::Repeated | WriteError::Changed | WriteError::Taken(_)) => {
                self.answered(Some(&key)).await?.ok_or(Error::Again(Box::new(status)))
            }
            Ok(()) => Err(Error::Again(Box::new(status))),
        }
    }
}

/// The account that a request names, and who asks; refused if it is not theirs.
fn addressed(field: &'static str, name: &str) -> Result<(Uuid, Caller), Error> {
    let id = decode::name(field, name)?;
    let caller = Caller::current()?;
    caller.owns(name)?;
    Ok((id, caller))
}

fn actor(caller: &Caller, name: &str) -> Actor {
    if caller.has("admin") {
        Actor::Admin
    } else if *caller.subject == *name {
        Actor::Owner
    } else {
        Actor::Support
    }
}

fn kept(key: Option<&Key>, answer: &api::User) -> Option<Kept> {
    key.map(|key| Kept { key: key.clone(), answer: Answer::success(answer) })
}

#[cfg(test)]
mod tests;
