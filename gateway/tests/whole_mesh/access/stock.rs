//! What `inventory` is asked.

use serde_json::{Value, json};

use super::stage::{Case, Stage, name};

fn inventory(rpc: &str) -> String {
    format!("ordermesh.inventory.v1.InventoryService.{rpc}")
}

impl Stage {
    /// A variant of which there are so many.
    pub async fn sold(&self, units: i64) -> String {
        let variant = name(&self.made().await);
        self.as_admin(&inventory("AdjustStock"), &received(&variant, units)).await;
        variant
    }

    pub async fn inventory_case(&self, rpc: &str) -> Option<Case> {
        let request = match rpc {
            "CreateLocation" => {
                let id = self.fresh("shelf-");
                json!({"location": {"displayName": "A shelf"}, "locationId": id})
            }
            "GetLocation" => json!({"name": "locations/main"}),
            "GetStock" => json!({"name": stock_of(&self.variant)}),
            "BatchGetStocks" => json!({"names": [stock_of(&self.variant)]}),
            "AdjustStock" => received(&self.variant, 1),
            "GetMovement" => {
                let stock = json!({"stock": stock_of(&self.variant), "pageSize": 1});
                let movements = self.as_admin(&inventory("ListMovements"), &stock).await;
                json!({"name": movements["movements"][0]["name"]})
            }
            "CreateReservation" => self.reservation(),
            "ExtendReservation" => json!({"name": self.reserved().await, "ttl": "60s"}),
            "CommitReservation" | "ReleaseReservation" | "GetReservation" => {
                json!({"name": self.reserved().await})
            }
            "FulfillReservation" => self.step_of_one(&self.committed().await),
            "RestockReservation" => {
                let sent = self.step_of_one(&self.committed().await);
                self.ok(&inventory("FulfillReservation"), &self.orders, &sent).await;
                sent
            }
            "ListLocations" | "ListStocks" | "ListMovements" | "ListReservations" => json!({}),
            _ => return None,
        };
        Some(self.anyones(request))
    }

    fn reservation(&self) -> Value {
        let line = json!({"lineId": "1", "variant": self.variant, "quantity": 1});
        json!({"reservation": {"lines": [line]}})
    }

    /// A reservation that waits for its shipment.
    async fn committed(&self) -> String {
        let name = self.reserved().await;
        self.as_admin(&inventory("CommitReservation"), &json!({"name": name})).await;
        name
    }

    /// All of it is sent, or comes back.
    fn step_of_one(&self, reservation: &str) -> Value {
        let line = json!({"lineId": "1", "quantity": 1, "location": "locations/main"});
        json!({"name": reservation, "lines": [line]})
    }

    async fn reserved(&self) -> String {
        name(&self.as_admin(&inventory("CreateReservation"), &self.reservation()).await)
    }
}

fn received(variant: &str, units: i64) -> Value {
    let reason = "ADJUSTMENT_REASON_RECEIVED";
    json!({"name": stock_of(variant), "delta": units.to_string(), "reason": reason})
}

fn stock_of(variant: &str) -> String {
    variant.replace("variants/", "stocks/main~")
}
