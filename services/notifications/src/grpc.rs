//! Decode, ask the store, encode. No rule lives here.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use mesh::{
    auth::{Caller, Scope},
    clock,
    idempotency::{Answer, Key},
    page::Pages,
};
use proto::notifications::v1::{self as api, notifications_service_server::NotificationsService};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    error::Error,
    store::{Kept, Store, Stored},
};

/// Serves `ordermesh.notifications.v1.NotificationsService`.
#[derive(Clone)]
pub struct Notifications {
    store: Store,
    pages: Pages,
}

// === impl Notifications ===

impl Notifications {
    /// Serves what is in `store`.
    #[must_use]
    pub fn new(store: Store, pages: Pages) -> Self {
        Self { store, pages }
    }

    async fn get_notification(
        &self,
        request: api::GetNotificationRequest,
        _: OffsetDateTime,
    ) -> Result<api::Notification, Error> {
        let id = decode::notification(&request.name)?;
        let found = self.store.notification(id).await?;
        // Permission before existence: nobody owns what is not there.
        Caller::current()?.owns(found.as_ref().map_or("", |found| &found.customer))?;
        found.map(encode::notification).ok_or(Error::NotFound(id))
    }

    async fn list_notifications(
        &self,
        request: api::ListNotificationsRequest,
        _: OffsetDateTime,
    ) -> Result<api::ListNotificationsResponse, Error> {
        let customer = match Caller::current()?.scope() {
            Scope::All => None,
            Scope::Own(customer) => Some(customer),
        };
        let customer = customer.as_deref();
        let order = decode::order(&request.order)?;
        let args = ["ListNotifications", customer.unwrap_or_default(), &request.order];
        let page = self.pages.page(request.page_size, &request.page_token, &args)?;
        let mut found =
            self.store.notifications(customer, order, &page.after, page.size + 1).await?;
        let next_page_token = self.pages.cut(&page, &mut found, |last| last.id.to_string());
        let notifications = found.into_iter().map(encode::notification).collect();
        Ok(api::ListNotificationsResponse { notifications, next_page_token })
    }

    async fn get_preferences(
        &self,
        request: api::GetPreferencesRequest,
        _: OffsetDateTime,
    ) -> Result<api::Preferences, Error> {
        let user = decode::preferences("name", &request.name)?;
        Caller::current()?.owns(&format!("users/{user}"))?;
        let Stored { preferences, revision } = self.store.preferences(user).await?;
        Ok(encode::preferences(&preferences, revision))
    }

    async fn update_preferences(
        &self,
        mut request: api::UpdatePreferencesRequest,
        at: OffsetDateTime,
    ) -> Result<api::Preferences, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let asked = request.preferences.as_ref();
        let asked = asked.ok_or_else(|| Error::malformed("preferences", "must be given"))?;
        let user = decode::preferences("preferences.name", &asked.name)?;
        let caller = Caller::current()?;
        caller.owns(&format!("users/{user}"))?;
        let kinds = decode::muted(asked, request.update_mask.as_ref())?;
        let expected = decode::etag(&asked.etag)?;
        let key = decode::request_id(&request_id)?
            .map(|id| Key::new(caller.principal(), "UpdatePreferences", id, &request));
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Ok(answer);
        }
        let name = asked.name.clone();
        let Stored { mut preferences, revision } = self.store.preferences(user).await?;
        if expected.is_some_and(|expected| expected != revision) {
            return Err(Error::EtagMismatch { name, revision });
        }
        let kinds = kinds.unwrap_or_else(|| preferences.muted.clone());
        preferences
            .mute(kinds, at)
            .map_err(|refusal| Error::malformed("preferences.muted_kinds", refusal))?;
        let answer = encode::preferences(&preferences, revision + 1);
        let kept = key.clone().map(|key| Kept { key, answer: Answer::success(&answer) });
        let written = self.store.save_preferences(Stored { preferences, revision }, kept).await;
        match written.map_err(|error| Error::of_write(&name, error)) {
            Ok(()) => Ok(answer),
            Err(Some(error)) => Err(error),
            // Somebody was faster with the same request: the first answer is the only one.
            Err(None) => self.answered(key.as_ref()).await?.ok_or(Error::Changed(name)),
        }
    }

    /// The answer that this call was given before.
    async fn answered(&self, key: Option<&Key>) -> Result<Option<api::Preferences>, Error> {
        let Some(key) = key else { return Ok(None) };
        let answer = self.store.answered(key).await?;
        let replayed = answer.map(|answer| answer.replay());
        replayed.transpose().map_err(|refusal| Error::Again(Box::new(refusal)))
    }
}

/// Hands each rpc over to the method that carries it out, with the time it came in.
macro_rules! hand_over {
    ($($rpc:ident($request:ty) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl NotificationsService for Notifications {
            $(async fn $rpc(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$answer>, Status> {
                let at = clock::now();
                Ok(Response::new(Notifications::$rpc(self, request.into_inner(), at).await?))
            })*
        }
    };
}

hand_over! {
    get_notification(api::GetNotificationRequest) -> api::Notification;
    list_notifications(api::ListNotificationsRequest) -> api::ListNotificationsResponse;
    get_preferences(api::GetPreferencesRequest) -> api::Preferences;
    update_preferences(api::UpdatePreferencesRequest) -> api::Preferences;
}
