//! What is sent from where, and by which ids: decided once, by the reservation, and kept with the
//! step that committed it.

use std::collections::BTreeMap;

use mesh::saga::Outcome;
use proto::{inventory::v1::Reservation, saga::v1::Command};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fulfilment, unsure};
use crate::domain::Units;

/// What is sent from one location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Planned {
    /// That of its shipment.
    pub(super) id: Uuid,
    /// `locations/{code}`.
    pub(super) location: String,
    /// What is in it.
    pub(super) units: Vec<Units>,
}

/// What can be done to a parcel besides creating its shipment. Each is a step key of its own, so
/// that it has its effect once, however often the step around it is repeated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Fulfil,
    Capture,
    Restock,
    Refund,
}

/// The goods of an order are sent once: what is lost is not sent again, it is paid back.
const WAVE: &str = "1";

// === impl Planned ===

impl Planned {
    /// The step that creates the shipment, and calls it back.
    pub(super) fn step_key(&self) -> String {
        format!("ship@{}", self.location.rsplit('/').next().unwrap_or_default())
    }
}

// === impl Fulfilment ===

impl Fulfilment {
    /// What commit_stock kept.
    pub(super) fn plan(&self) -> Result<Vec<Planned>, Outcome> {
        let kept = self.run.reply("commit_stock").unwrap_or_default();
        serde_json::from_slice(kept).map_err(|error| unsure(&format!("no plan: {error}")))
    }

    /// The command of a part of this step. The same at every try, also of another process, and
    /// when the step is intended anew.
    pub(super) fn part(&self, step_key: String) -> Command {
        let saga = self.run.command.saga.clone();
        let command_id = derived(&["command", &saga, &step_key]).to_string();
        Command { saga, step_key, command_id, fence: self.run.command.fence }
    }
}

// === impl Part ===

impl Part {
    pub(super) fn of(self, parcel: Uuid) -> String {
        let part = match self {
            Self::Fulfil => "fulfil",
            Self::Capture => "capture",
            Self::Restock => "restock",
            Self::Refund => "refund",
        };
        format!("{part}@{parcel}")
    }
}

/// One parcel for each location that a reservation takes from. `None` if it does not say where.
pub(super) fn plan(order: Uuid, reservation: &Reservation) -> Option<Vec<Planned>> {
    let mut by_location: BTreeMap<&str, Vec<Units>> = BTreeMap::new();
    for line in &reservation.lines {
        let mut placed = 0;
        for part in line.allotments.iter().filter(|part| part.quantity > 0) {
            let units = Units { line_id: line.line_id.clone(), quantity: i64::from(part.quantity) };
            by_location.entry(&part.location).or_default().push(units);
            placed += part.quantity;
        }
        if placed != line.quantity {
            return None;
        }
    }
    let parcels: Vec<Planned> = by_location
        .into_iter()
        .map(|(location, units)| Planned {
            id: derived(&["shipment", &order.to_string(), location, WAVE]),
            location: location.to_owned(),
            units,
        })
        .collect();
    if parcels.is_empty() { None } else { Some(parcels) }
}

/// An id that everybody derives alike.
pub(super) fn derived(parts: &[&str]) -> Uuid {
    let hash = mesh::page::args(parts);
    let mut bytes = [0; 16];
    for (byte, digest) in bytes.iter_mut().zip(hash) {
        *byte = digest;
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use proto::inventory::v1::reservation::{Allotment, Line};

    use super::*;

    fn line(id: &str, quantity: i32, parts: &[(&str, i32)]) -> Line {
        let allotments = parts.iter().map(|(location, quantity)| Allotment {
            location: (*location).to_owned(),
            quantity: *quantity,
            ..Allotment::default()
        });
        Line {
            line_id: id.to_owned(),
            quantity,
            allotments: allotments.collect(),
            ..Line::default()
        }
    }

    #[test]
    fn there_is_one_parcel_for_each_location_with_an_id_that_is_the_same_each_time() {
        let reservation = Reservation {
            lines: vec![
                line("1", 3, &[("locations/BER", 2), ("locations/HAM", 1)]),
                line("2", 1, &[("locations/HAM", 1)]),
            ],
            ..Reservation::default()
        };
        let order = Uuid::from_u128(7);
        let parcels = plan(order, &reservation).unwrap();
        let keys: Vec<String> = parcels.iter().map(Planned::step_key).collect();
        assert_eq!(keys, ["ship@BER", "ship@HAM"]);
        assert_eq!(parcels[1].units.len(), 2);
        assert_eq!(plan(order, &reservation).unwrap(), parcels);
        assert_ne!(plan(Uuid::from_u128(8), &reservation).unwrap()[0].id, parcels[0].id);
        assert_ne!(parcels[0].id, parcels[1].id);
    }

    #[test]
    fn a_reservation_that_does_not_say_where_is_no_plan() {
        for lines in [vec![], vec![line("1", 2, &[("locations/BER", 1)])], vec![line("1", 2, &[])]]
        {
            let reservation = Reservation { lines, ..Reservation::default() };
            assert_eq!(plan(Uuid::nil(), &reservation), None);
        }
    }
}
