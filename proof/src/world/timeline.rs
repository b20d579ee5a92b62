//! All that happened to one order, from every service and ledger, by time.

use std::collections::BTreeSet;

use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

use super::World;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// When, in microseconds since 1970.
    pub at: i64,
    /// Who says so.
    pub who: &'static str,
    /// What.
    pub what: String,
}

const CLOCK: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");

/// The order's moments, the oldest first; what one service says of one moment keeps its order.
#[must_use]
pub fn timeline(world: &World, order: &str) -> Vec<Moment> {
    let mut moments = Vec::new();
    of_the_order(world, order, &mut moments);
    of_stock(world, order, &mut moments);
    of_money(world, order, &mut moments);
    of_parcels(world, order, &mut moments);
    of_mails(world, order, &mut moments);
    of_clients(world, order, &mut moments);
    moments.sort_by_key(|moment| moment.at);
    moments
}

/// A time as people read it.
#[must_use]
pub fn clock(at: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000);
    at.ok().and_then(|at| at.format(CLOCK).ok()).unwrap_or_else(|| "?".to_owned())
}

fn of_the_order(world: &World, order: &str, moments: &mut Vec<Moment>) {
    for it in world.events.iter().filter(|it| it.order_id == order) {
        let note = if it.note.is_empty() { String::new() } else { format!(": {}", it.note) };
        let what = format!(
            "r{} {} by {}, {} / {}{note}",
            it.revision, it.kind, it.actor, it.state, it.payment_state
        );
        moments.push(Moment { at: it.at, who: "orders", what });
    }
    let sagas: BTreeSet<&str> =
        world.sagas.iter().filter(|it| it.key == order).map(|it| it.id.as_str()).collect();
    for it in world.steps.iter().filter(|it| sagas.contains(it.saga.as_str())) {
        let undo = if it.direction == "UNDO" { "undo " } else { "" };
        let what = format!("{undo}{} begun", it.step_key);
        moments.push(Moment { at: it.started_at, who: "saga", what });
        if let Some(at) = it.ended_at {
            let what = format!("{undo}{} {}", it.step_key, it.state);
            moments.push(Moment { at, who: "saga", what });
        }
    }
}

fn of_stock(world: &World, order: &str, moments: &mut Vec<Moment>) {
    for hold in world.reservations.iter().filter(|it| it.order_id == order) {
        for it in world.movements.iter().filter(|it| it.cause == hold.id) {
            let what = format!("{} {} × {} at {}", it.kind, it.quantity, it.sku, it.location);
            moments.push(Moment { at: it.at, who: "inventory", what });
        }
    }
}

fn of_money(world: &World, order: &str, moments: &mut Vec<Moment>) {
    for payment in world.payments.iter().filter(|it| it.order_name == order || it.id == order) {
        for it in world.attempts.iter().filter(|it| it.payment == payment.id) {
            let what = format!("{} of {} is {}", it.reference, it.amount_minor, it.state);
            moments.push(Moment { at: it.created_at, who: "payments", what });
        }
        for it in world.refunds.iter().filter(|it| it.payment == payment.id) {
            let what = format!("refunds/{} of {} is {}", it.id, it.amount_minor, it.state);
            moments.push(Moment { at: it.created_at, who: "payments", what });
        }
        for it in world.postings.iter().filter(|it| it.payment == payment.id) {
            let what = format!(
                "{} {} {:+} {} ({})",
                it.movement, it.account, it.amount_minor, it.currency, it.reference
            );
            moments.push(Moment { at: it.at, who: "ledger", what });
        }
        let ours = format!("pay/{}/", payment.id);
        for it in world.provider.iter().filter(|it| it.reference.starts_with(&ours)) {
            let what =
                format!("{} {} {} ({})", it.movement, it.amount_minor, it.currency, it.reference);
            moments.push(Moment { at: it.at.saturating_mul(1_000_000), who: "provider", what });
        }
    }
}

fn of_parcels(world: &World, order: &str, moments: &mut Vec<Moment>) {
    for shipment in world.shipments.iter().filter(|it| it.order_name == order) {
        let what = format!("shipments/{} from {} made", shipment.id, shipment.location);
        moments.push(Moment { at: shipment.created_at, who: "shipping", what });
        let name = format!("shipments/{}", shipment.id);
        let log = world.outboxes.get("shipping").into_iter().flatten();
        for it in log.filter(|it| it.aggregate == name) {
            let what = format!("r{} {} of {name}", it.seq, it.kind);
            moments.push(Moment { at: it.created_at, who: "shipping", what });
        }
        for parcel in world.parcels.iter().filter(|it| it.shipment() == shipment.id) {
            let of = world.carrier_events.iter().filter(|it| it.reference == parcel.reference);
            for it in of {
                let what = format!("{} {}", parcel.tracking, it.kind);
                moments.push(Moment { at: it.at, who: "carrier", what });
            }
        }
    }
}

fn of_mails(world: &World, order: &str, moments: &mut Vec<Moment>) {
    for it in world.notifications.iter().filter(|it| it.order_id == order) {
        let what = format!("{} by {} is {}", it.kind, it.channel, it.state);
        moments.push(Moment { at: it.created_at, who: "notifications", what });
    }
}

fn of_clients(world: &World, order: &str, moments: &mut Vec<Moment>) {
    for it in world.history.iter().filter(|it| it.order() == Some(order)) {
        let (asked, told) = it.spoken();
        moments.push(Moment { at: it.invoke, who: "client", what: asked });
        moments.push(Moment { at: it.complete, who: "client", what: told });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn a_timeline_merges_every_source_by_time() {
        let world = sample::completed();
        let moments = timeline(&world, sample::ORDER);
        assert!(moments.is_sorted_by_key(|moment| moment.at));
        let who: BTreeSet<&str> = moments.iter().map(|moment| moment.who).collect();
        let all = [
            "carrier",
            "client",
            "inventory",
            "ledger",
            "notifications",
            "orders",
            "payments",
            "provider",
            "saga",
            "shipping",
        ];
        assert_eq!(who, BTreeSet::from(all));
    }

    #[test]
    fn a_moment_is_told_in_utc_to_the_microsecond() {
        assert_eq!(clock(1_714_564_800_000_001), "2024-05-01 12:00:00.000001");
    }
}
