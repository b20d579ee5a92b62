//! What `payments` is asked.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Case, Reach, Stage, name};
use crate::lives::euros;

/// How long it may take until a person has to find out what became of a payment.
const PATIENCE: Duration = Duration::from_secs(10);

fn payments(rpc: &str) -> String {
    format!("ordermesh.payments.v1.PaymentsService.{rpc}")
}

impl Stage {
    pub async fn payment_case(&self, rpc: &str) -> Option<Case> {
        let request = match rpc {
            "CreatePayment" => self.payment("tok_visa"),
            "AuthorizePayment" => self.step(&self.noted("tok_visa").await, "authorize_payment"),
            "CapturePayment" => self.step(&self.authorized("tok_visa").await, "capture_payment"),
            // What is undone is the step that did it.
            "VoidPayment" => self.step(&self.authorized("tok_visa").await, "authorize_payment"),
            "GetPayment" | "ListPayments" => {
                let name = self.noted("tok_visa").await;
                return Some(if rpc == "GetPayment" {
                    self.adas(json!({"name": name}), Reach::Named(name))
                } else {
                    self.adas(json!({"pageSize": 1_000}), Reach::Listed(name))
                });
            }
            "ListAttempts" | "ListLedgerEntries" => {
                json!({"payment": self.authorized("tok_visa").await})
            }
            "CreateRefund" => {
                let saga = mesh::clock::id().to_string();
                let command = Some(command(&saga, "refund"));
                return Some(Case { command, ..self.anyones(self.refund().await) });
            }
            "GetRefund" => {
                let refund = self.refund().await;
                let refund = self.as_admin(&payments("CreateRefund"), &refund).await;
                json!({"name": refund["name"]})
            }
            "ListRefunds" => json!({"payment": self.captured().await}),
            "ResolvePayment" => {
                let payment = self.doubtful().await;
                json!({
                    "name": payment["name"],
                    "etag": payment["etag"],
                    "outcome": "OUTCOME_FAILED",
                    "evidence": "a letter of the provider's",
                })
            }
            _ => return None,
        };
        Some(self.anyones(request))
    }

    /// A payment of Ada's to be.
    fn payment(&self, method: &str) -> Value {
        let id = mesh::clock::id().to_string();
        json!({
            "payment": {
                "order": format!("orders/{id}"),
                "customer": self.ada.name,
                "amount": euros((9, 99)),
                "paymentMethod": method,
            },
            "paymentId": id,
            "command": command(&id, "create_payment"),
        })
    }

    /// A call of the saga whose id is the payment's.
    fn step(&self, name: &str, key: &str) -> Value {
        let saga = name.trim_start_matches("payments/");
        json!({"name": name, "command": command(saga, key)})
    }

    async fn noted(&self, method: &str) -> String {
        let payment = self.payment(method);
        name(&self.ok(&payments("CreatePayment"), &self.orders, &payment).await)
    }

    async fn authorized(&self, method: &str) -> String {
        let name = self.noted(method).await;
        let step = self.step(&name, "authorize_payment");
        self.ok(&payments("AuthorizePayment"), &self.orders, &step).await;
        name
    }

    async fn captured(&self) -> String {
        let name = self.authorized("tok_visa").await;
        let mut step = self.step(&name, "capture_payment");
        step["final"] = json!(true);
        self.ok(&payments("CapturePayment"), &self.orders, &step).await;
        name
    }

    /// A refund of one euro to be.
    async fn refund(&self) -> Value {
        let payment = self.captured().await;
        json!({"refund": {"payment": payment, "amount": euros((1, 0)), "reason": "a dent"}})
    }

    /// A payment of which the provider cannot tell what became.
    async fn doubtful(&self) -> Value {
        let name = self.authorized("tok_pending").await;
        let given_up = async {
            loop {
                let of = json!({"payment": name});
                let attempts = self.as_admin(&payments("ListAttempts"), &of).await;
                if attempts["attempts"][0]["state"] == "STATE_NEEDS_REVIEW" {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, given_up).await.expect("the provider is given up");
        self.as_admin(&payments("GetPayment"), &json!({"name": name})).await
    }
}

fn command(saga: &str, key: &str) -> Value {
    let id = mesh::clock::id().to_string();
    json!({"saga": saga, "stepKey": key, "commandId": id, "fence": "1"})
}
