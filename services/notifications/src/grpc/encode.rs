//! Values become messages.

use mesh::{clock::timestamp, resource};
use proto::notifications::v1::{self as api, notification as told};

use crate::domain::{Kind, Notification, Preferences, State};

/// A notification. What was wrong with an attempt is for the log; why it was given up is told.
pub(super) fn notification(notification: Notification) -> api::Notification {
    let failed = notification.state == State::Failed;
    api::Notification {
        name: format!("notifications/{}", notification.id),
        customer: notification.customer,
        order: format!("orders/{}", notification.order),
        shipment: notification.shipment.map_or_else(String::new, |id| format!("shipments/{id}")),
        kind: kind(notification.kind).into(),
        channel: told::Channel::Mail.into(),
        state: state(notification.state).into(),
        address: notification.address,
        subject: notification.letter.subject,
        body: notification.letter.body,
        message_id: notification.message_id,
        event_id: notification.event.to_string(),
        problem: if failed { notification.problem } else { String::new() },
        attempt_count: i32::try_from(notification.attempts).unwrap_or(i32::MAX),
        create_time: Some(timestamp(notification.created_at)),
        send_time: notification.sent_at.map(timestamp),
    }
}

/// What a person wants to be told.
pub(super) fn preferences(preferences: &Preferences, revision: i64) -> api::Preferences {
    api::Preferences {
        name: format!("preferences/{}", preferences.user),
        muted_kinds: preferences.muted.iter().map(|muted| kind(*muted).into()).collect(),
        update_time: preferences.updated_at.map(timestamp),
        etag: resource::etag(revision),
    }
}

fn kind(kind: Kind) -> told::Kind {
    match kind {
        Kind::OrderReceived => told::Kind::OrderReceived,
        Kind::OrderConfirmed => told::Kind::OrderConfirmed,
        Kind::OrderRejected => told::Kind::OrderRejected,
        Kind::OrderCancelled => told::Kind::OrderCancelled,
        Kind::OrderExpired => told::Kind::OrderExpired,
        Kind::ShipmentDispatched => told::Kind::ShipmentDispatched,
        Kind::ShipmentDelivered => told::Kind::ShipmentDelivered,
    }
}

fn state(state: State) -> told::State {
    match state {
        State::Waiting => told::State::Waiting,
        State::Pending => told::State::Pending,
        State::Sent => told::State::Sent,
        State::Suppressed => told::State::Suppressed,
        State::Failed => told::State::Failed,
    }
}
