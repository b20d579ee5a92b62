//! What is written about orders: stock, ledgers, mails, and what happened.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{PATIENCE, PAUSE};
use crate::bed::Bed;

impl Bed {
    /// A page of a list.
    pub async fn listed(&self, collection: &str, query: &str, token: &str) -> Vec<Value> {
        let path = format!("/v1/{collection}?pageSize=1000&{query}");
        let reply = self.get(&path, Some(token)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body[collection].as_array().cloned().unwrap_or_default()
    }

    /// What happened to an order, by revision.
    pub async fn history(&self, order: &str, token: &str) -> Vec<(i64, String)> {
        let reply = self.get(&format!("/v1/{order}:listEvents?pageSize=1000"), Some(token)).await;
        let events = reply.body["orderEvents"].as_array().cloned().unwrap_or_default();
        let entry = |event: &Value| {
            (count(&event["revision"]), event["type"].as_str().unwrap_or_default().to_owned())
        };
        events.iter().map(entry).collect()
    }

    /// `on_hand`, `held`, `allocated` of a variant.
    pub async fn counters(&self, sku: &str) -> [i64; 3] {
        let stock = self.get(&format!("/v1/stocks/-~{sku}"), Some(&self.admin)).await;
        assert_eq!(stock.status, 200, "{}", stock.body);
        ["onHand", "held", "allocated"].map(|key| count(&stock.body[key]))
    }

    /// What moved in the stock of a variant, the oldest first.
    pub async fn movements(&self, sku: &str) -> Vec<String> {
        let query = format!("stock=stocks/main~{sku}");
        let movements = self.listed("movements", &query, &self.admin).await;
        let kind = |movement: &Value| movement["kind"].as_str().unwrap_or_default().to_owned();
        movements.iter().map(kind).collect()
    }

    /// Asserts what of an order's money is where, in cents: nothing is held, the customer is so
    /// much poorer, and the provider took, and gave back, so much.
    pub async fn paid(&self, order: &str, taken: i64, given_back: i64) {
        let payment = order.replace("orders/", "payments/");
        let entries =
            self.listed("ledgerEntries", &format!("payment={payment}"), &self.admin).await;
        let mut accounts = BTreeMap::<&str, i64>::new();
        for entry in &entries {
            let account = entry["account"].as_str().expect("an account");
            *accounts.entry(account).or_default() += cents(&entry["amount"]);
        }
        let on = |account: &str| accounts.get(account).copied().unwrap_or_default();
        assert_eq!(accounts.values().sum::<i64>(), 0, "{accounts:?}");
        assert_eq!(on("ACCOUNT_HOLD"), 0, "{accounts:?}");
        assert_eq!(on("ACCOUNT_CUSTOMER"), given_back - taken, "{accounts:?}");

        let read = self.get(&format!("/v1/{payment}"), Some(&self.admin)).await;
        let amounts = ["captured", "refunded"].map(|key| cents(&read.body[key]));
        assert_eq!(amounts, [taken, given_back], "{}", read.body);
        assert_eq!(self.provider_took(&payment).await, [taken, given_back]);
    }

    /// What the provider's own ledger says that it took and gave back.
    pub async fn provider_took(&self, payment: &str) -> [i64; 2] {
        let uri = format!("http://127.0.0.1:{}/v1/ledger", self.port("psp-simulator"));
        let reply = self.send_to(http::Method::GET, &uri, None, &[], bytes::Bytes::new()).await;
        let ours = payment.replace("payments/", "pay/");
        let lines = reply.body["entries"].as_array().expect("a ledger");
        ["captured", "refunded"].map(|movement| {
            let is_it = |line: &&Value| {
                let reference = line["reference"].as_str().unwrap_or_default();
                reference.starts_with(&ours) && line["movement"] == movement
            };
            lines.iter().filter(is_it).map(|line| count(&line["amount"]).abs()).sum()
        })
    }

    /// Waits until the provider has taken so much, whoever knows of it.
    pub async fn provider_takes(&self, order: &str, taken: i64) {
        let payment = order.replace("orders/", "payments/");
        let looking = async {
            while self.provider_took(&payment).await[0] != taken {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("money is taken in time");
    }

    pub async fn provider_misbehaves(&self, rule: &Value) {
        let uri = format!("http://127.0.0.1:{}/control/faults", self.port("psp-simulator"));
        let rule = rule.to_string().into();
        let reply = self.send_to(http::Method::POST, &uri, None, &[], rule).await;
        assert_eq!(reply.status, 204, "{}", reply.body);
    }

    /// The kinds of the mails that were written, once as many are sent.
    pub async fn mailed(&self, order: &str, token: &str, number: usize) -> Vec<String> {
        let looking = async {
            loop {
                let told = self.listed("notifications", &format!("order={order}"), token).await;
                let sent = told.iter().filter(|it| it["state"] == "STATE_SENT").count();
                if sent >= number && sent == told.len() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("mails in time");
        let kind = |mail: &String| {
            let line = mail.lines().find_map(|line| line.strip_prefix("Ordermesh-Kind: "));
            line.expect("a kind").to_owned()
        };
        let mut kinds: Vec<String> = self.mails().iter().map(kind).collect();
        kinds.sort();
        kinds
    }
}

/// A number, which is not there if it is 0, and a text if it has 64 bits.
pub fn count(value: &Value) -> i64 {
    if value.is_null() {
        return 0;
    }
    let number = value.as_str().map_or_else(|| value.as_i64(), |text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{value} is no number"))
}

pub fn cents(amount: &Value) -> i64 {
    count(&amount["units"]) * 100 + count(&amount["nanos"]) / 10_000_000
}
