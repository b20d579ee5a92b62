//! What is heard of others wakes an order's saga, which then asks what is true. An event that is
//! lost, late or told twice changes nothing but the time.

use futures_util::future::BoxFuture;
use mesh::{
    consume::{Handler, Trouble},
    log::Event,
    saga::Runner,
    store::Txn,
};
use proto::{payments::v1 as payments, shipping::v1 as shipping};

/// Wakes sagas.
#[derive(Clone, Debug)]
pub struct Wake {
    runner: Runner,
    of: Of,
}

/// Whose events.
#[derive(Clone, Copy, Debug)]
enum Of {
    Shipping,
    Payments,
}

const SHIPPING: [&str; 5] = [
    "shipment.dispatched",
    "shipment.delivered",
    "shipment.lost",
    "shipment.returned",
    "shipment.cancelled",
];

const PAYMENTS: [&str; 5] = [
    "payment.authorized",
    "payment.declined",
    "payment.captured",
    "payment.voided",
    "payment.refunded",
];

// === impl Wake ===

impl Wake {
    /// For what happens to parcels.
    #[must_use]
    pub fn for_shipping(runner: &Runner) -> Self {
        Self { runner: runner.clone(), of: Of::Shipping }
    }

    /// For what comes of payments.
    #[must_use]
    pub fn for_payments(runner: &Runner) -> Self {
        Self { runner: runner.clone(), of: Of::Payments }
    }
}

impl Handler for Wake {
    fn types(&self) -> &'static [&'static str] {
        match self.of {
            Of::Shipping => &SHIPPING,
            Of::Payments => &PAYMENTS,
        }
    }

    fn handle<'c>(&'c self, txn: &'c Txn, event: &'c Event) -> BoxFuture<'c, Result<(), Trouble>> {
        Box::pin(async move {
            let order = order(event)?;
            match self.of {
                // A step that asked just before asks again.
                Of::Shipping => self.runner.wake(txn, &order).await?,
                // The step that caused it has its answer already, as a rule.
                Of::Payments => self.runner.wake_waiting(txn, &order).await?,
            }
            Ok(())
        })
    }

    fn committed(&self, _event: &Event) {
        self.runner.nudge();
    }
}

/// Which order it is about.
fn order(event: &Event) -> Result<String, Trouble> {
    Ok(match event.kind.as_str() {
        "shipment.dispatched" => event.decode::<shipping::ShipmentDispatched>()?.order,
        "shipment.delivered" => event.decode::<shipping::ShipmentDelivered>()?.order,
        "shipment.lost" => event.decode::<shipping::ShipmentLost>()?.order,
        "shipment.returned" => event.decode::<shipping::ShipmentReturned>()?.order,
        "shipment.cancelled" => event.decode::<shipping::ShipmentCancelled>()?.order,
        "payment.authorized" => event.decode::<payments::PaymentAuthorized>()?.order,
        "payment.declined" => event.decode::<payments::PaymentDeclined>()?.order,
        "payment.captured" => event.decode::<payments::PaymentCaptured>()?.order,
        "payment.voided" => event.decode::<payments::PaymentVoided>()?.order,
        "payment.refunded" => event.decode::<payments::PaymentRefunded>()?.order,
        other => return Err(Trouble::Permanent(format!("{other} was not asked for"))),
    })
}
