//! What `shipping` is asked.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Case, Reach, Stage, name};

/// How long it may take until the carrier has answered.
const PATIENCE: Duration = Duration::from_secs(10);

fn shipping(rpc: &str) -> String {
    format!("ordermesh.shipping.v1.ShippingService.{rpc}")
}

impl Stage {
    pub async fn shipment_case(&self, rpc: &str) -> Option<Case> {
        let request = match rpc {
            "CreateShipment" => self.shipment(),
            "GetShipment" => {
                let name = self.booked().await;
                return Some(self.adas(json!({"name": name}), Reach::Named(name)));
            }
            "ListShipments" => {
                let name = self.booked().await;
                return Some(self.adas(json!({"pageSize": 1_000}), Reach::Listed(name)));
            }
            "CancelShipment" | "DispatchShipment" => json!({"name": self.booked().await}),
            "RecordCarrierEvent" => {
                let event = self.fresh("event-");
                json!({"name": self.booked().await, "eventId": event, "kind": "KIND_PICKED_UP"})
            }
            _ => return None,
        };
        Some(self.anyones(request))
    }

    /// A shipment to Ada that is to be.
    fn shipment(&self) -> Value {
        let line = json!({"lineId": "1", "variant": self.variant, "quantity": 1});
        json!({
            "shipment": {
                "order": format!("orders/{}", mesh::clock::id()),
                "customer": self.ada.name,
                "lines": [line],
                "location": "locations/main",
            },
            "shipmentId": mesh::clock::id().to_string(),
        })
    }

    /// A shipment that waits to be handed over.
    async fn booked(&self) -> String {
        let name =
            name(&self.ok(&shipping("CreateShipment"), &self.orders, &self.shipment()).await);
        let booked = async {
            loop {
                let of = json!({"name": name});
                let shipment = self.as_admin(&shipping("GetShipment"), &of).await;
                if shipment["state"] == "STATE_BOOKED" {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, booked).await.expect("the carrier answers");
        name
    }
}
