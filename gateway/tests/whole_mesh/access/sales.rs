//! What `orders` is asked.

use serde_json::{Value, json};

use super::{
    cast::Customer,
    stage::{Case, Reach, Stage, name},
};

fn orders(rpc: &str) -> String {
    format!("ordermesh.orders.v1.OrdersService.{rpc}")
}

impl Stage {
    /// An order for one's own, waited for.
    pub fn order(&self) -> Value {
        let line = json!({"variant": self.variant, "quantity": 1});
        json!({
            "order": {"lines": [line], "paymentMethod": "tok_visa"},
            "acceptCurrentPrice": true,
            "wait": "5s",
        })
    }

    /// A confirmed order of this customer.
    pub async fn placed(&self, customer: &Customer) -> Value {
        let order = self.ok(&orders("CreateOrder"), &customer.token, &self.order()).await;
        assert_eq!(order["state"], "STATE_CONFIRMED", "{order}");
        order
    }

    pub async fn order_case(&self, rpc: &str) -> Option<Case> {
        let ada = &self.ada;
        let (request, reach) = match rpc {
            "QuoteOrder" => {
                let lines = json!([{"variant": self.variant, "quantity": 1}]);
                let request = json!({"order": {"customer": ada.name, "lines": lines}});
                (request, Reach::Named(ada.name.clone()))
            }
            "CreateOrder" => {
                let mut request = self.order();
                request["order"]["customer"] = json!(ada.name);
                (request, Reach::Named(ada.name.clone()))
            }
            "ListOrders" => {
                let order = name(&self.placed(ada).await);
                (json!({"pageSize": 1_000}), Reach::Listed(order))
            }
            "AcceptOrderChanges" => {
                let order = self.short().await;
                let (name, etag) = (name(&order), &order["etag"]);
                let total = &order["pendingAction"]["currentTotal"];
                let request = json!({"name": name, "etag": etag, "expectedTotal": total});
                (request, Reach::Named(name))
            }
            "GetOrder" | "GetOrderSummary" | "BatchGetOrders" | "CancelOrder"
            | "ListOrderEvents" | "WatchOrder" => {
                let order = self.placed(ada).await;
                let name = name(&order);
                let request = match rpc {
                    "BatchGetOrders" => json!({"names": [name]}),
                    "CancelOrder" => json!({"name": name, "etag": order["etag"]}),
                    // Whoever sees the order sees its customer.
                    "GetOrder" => json!({"name": name, "view": "ORDER_VIEW_FULL"}),
                    _ => json!({"name": name}),
                };
                (request, Reach::Named(name))
            }
            _ => return None,
        };
        Some(self.adas(request, reach))
    }

    /// An order of Ada's that waits for her: not all of it is in stock.
    pub async fn short(&self) -> Value {
        let line = json!({"variant": self.sold(1).await, "quantity": 2});
        let mut request = self.order();
        request["order"]["lines"] = json!([line]);
        request["order"]["stockPolicy"] = json!("STOCK_POLICY_PARTIAL_WITH_CONSENT");
        let order = self.ok(&orders("CreateOrder"), &self.ada.token, &request).await;
        assert_eq!(order["state"], "STATE_ACTION_REQUIRED", "{order}");
        order
    }
}
