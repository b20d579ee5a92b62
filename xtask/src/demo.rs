//! `cargo xtask demo`: one order, placed as a customer would, followed to its end.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::api::Api;
use crate::run_file::Run;
use crate::seed::{ADA, BASKET, GRACE};
use crate::site::Site;
use crate::{clock, say};

xflags::xflags! {
    /// Places one order as the demo's customer would, follows it to its end, and shows what happened where.
    ///
    /// Signs in as ada@example.com, asks for a quote, orders, and watches the order until it is COMPLETED (its
    /// goods are with the customer, its money with the shop) or has ended otherwise. Then it reads, as the
    /// operator, what the other services did for it. Succeeds only if the order was COMPLETED.
    ///
    ///   cargo xtask demo
    ///   cargo xtask demo --json    {"order","state","trace_id","elapsed_ms":{"accepted","confirmed","completed"}}
    ///
    /// `confirmed` and `completed` are null if the order did not get there. Kill what you like meanwhile:
    /// `cargo xtask kill payments`.
    cmd demo {
        /// Print one JSON object on stdout; the shape is stable.
        optional --json
    }
}

/// How long an order may take: longer than whoever is killed meanwhile needs to come back.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where an order does not move any more.
const ENDS: [&str; 4] = ["COMPLETED", "REJECTED", "CANCELLED", "EXPIRED"];

/// An order that was followed to where it does not move any more.
struct Outcome {
    order: Value,
    trace: Option<String>,
    accepted: Duration,
    confirmed: Option<Duration>,
    completed: Option<Duration>,
}

pub(crate) fn run(flags: &Demo) -> Result<ExitCode> {
    let site = Site::from_env()?;
    Run::required(&site)?;
    let gateway = Api::new(&site.gateway());
    let say = |line: &str| if flags.json { say::note(line) } else { println!("{line}") };
    let ada = gateway
        .sign_in(ADA.email, ADA.password)
        .context("has `cargo xtask up` put in the demo data?")?;
    say(&format!("signed in as {}", ADA.email));
    let outcome = order(&ada, &say)?;
    let state = state(&outcome.order);
    if flags.json {
        println!("{}", summary(&outcome));
    } else {
        tell(&gateway, &ada, &outcome)?;
    }
    Ok(if state == "COMPLETED" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Quotes, orders, and follows the order.
fn order(ada: &Api, say: &dyn Fn(&str)) -> Result<Outcome> {
    let lines: Vec<Value> = BASKET
        .iter()
        .map(
            |(sku, quantity)| json!({ "variant": format!("variants/{sku}"), "quantity": quantity }),
        )
        .collect();
    let quote = ada
        .post("/v1/orders:quote", &json!({ "order": { "lines": lines } }))?
        .ok("ask for a quote")?
        .body;
    for line in quote["lines"].as_array().into_iter().flatten() {
        say(&format!(
            "  {} × {}, {}",
            line["quantity"],
            line["title"].as_str().unwrap_or("?"),
            money(&line["total"])
        ));
    }
    say(&format!("quoted at {}", money(&quote["totals"]["total"])));
    let body = json!({
        "lines": lines, "quote": quote["quote"], "paymentMethod": "tok_visa",
        "shipTo": {
            "regionCode": "GB", "postalCode": "W1K 3AA", "locality": "London",
            "addressLines": ["12 St James's Square"], "recipients": ["Ada Lovelace"],
        },
    });
    let begun = clock::now();
    let placed = ada.post("/v1/orders", &body)?.ok("place the order")?;
    let accepted = begun.elapsed();
    let name = placed.body["name"].as_str().context("the order has no name")?.to_owned();
    say(&format!("{name} was accepted after {}", clock::spoken(accepted)));
    let mut outcome = Outcome {
        order: placed.body,
        trace: placed.trace,
        accepted,
        confirmed: None,
        completed: None,
    };
    follow(ada, &name, begun, &mut outcome, say)?;
    outcome.order = ada.get(&format!("/v1/{name}"))?.ok("read the order")?.body;
    Ok(outcome)
}

/// Watches the order to its end; a watch that breaks off goes on where it was.
fn follow(
    ada: &Api,
    name: &str,
    begun: std::time::Instant,
    outcome: &mut Outcome,
    say: &dyn Fn(&str),
) -> Result<()> {
    let (mut token, mut over) = (String::new(), false);
    loop {
        let resume = if token.is_empty() { String::new() } else { format!("?resumeToken={token}") };
        let watched = ada.watch(&format!("/v1/{name}:watch{resume}"), |update| {
            if let Some(newer) = update["resumeToken"].as_str() {
                token = newer.to_owned();
            }
            let event =
                [&update["orderEvent"], &update["order"]].into_iter().find(|it| it.is_object());
            let Some(event) = event else { return Ok(true) };
            let now = begun.elapsed();
            if let Some(kind) = event["type"].as_str() {
                say(&format!("  {:>9}  {kind}", clock::spoken(now)));
            }
            let state = state(event);
            if state == "CONFIRMED" {
                outcome.confirmed.get_or_insert(now);
            }
            if state == "COMPLETED" {
                outcome.completed.get_or_insert(now);
            }
            over |= ENDS.contains(&state.as_str());
            Ok(true)
        });
        match watched {
            Ok(_) | Err(_) if over => return Ok(()),
            Ok(_) | Err(_) if begun.elapsed() < PATIENCE => clock::nap(200),
            Ok(_) => bail!(
                "{name} has not ended after {}: `cargo xtask ops order explain {name}` says why",
                clock::spoken(PATIENCE)
            ),
            Err(error) => return Err(error),
        }
    }
}

fn summary(outcome: &Outcome) -> Value {
    let state = state(&outcome.order);
    json!({
        "order": outcome.order["name"], "state": state, "trace_id": outcome.trace,
        "elapsed_ms": {
            "accepted": milliseconds(outcome.accepted),
            "confirmed": outcome.confirmed.map(milliseconds),
            "completed": outcome.completed.map(milliseconds),
        },
    })
}

/// What happened where: the order's own trail, and what stands in the other services.
fn tell(gateway: &Api, ada: &Api, outcome: &Outcome) -> Result<()> {
    let name = outcome.order["name"].as_str().unwrap_or_default();
    let id = name.rsplit('/').next().unwrap_or_default();
    println!("\n{}", say::bold("What happened in orders"));
    let events = ada.get(&format!("/v1/{name}:listEvents"))?.ok("list what happened")?.body;
    let mut rows = Vec::new();
    for event in events["orderEvents"].as_array().into_iter().flatten() {
        let at = event["eventTime"]
            .as_str()
            .and_then(|it| it.split_once('T'))
            .map_or("", |(_, time)| time);
        let words = ["type", "state", "paymentState", "actor", "note"].map(|key| bare(&event[key]));
        rows.push([vec![at.trim_end_matches('Z').to_owned()], words.to_vec()].concat());
    }
    print!("{}", say::table(&rows));
    // The operator may look into the other services; each answers for itself.
    let operator = gateway.sign_in(GRACE.email, GRACE.password)?;
    println!("\n{}", say::bold("What stands in the other services"));
    let mut rows = Vec::new();
    let hold = operator.get(&format!("/v1/reservations/{id}"))?;
    rows.push(vec![
        "inventory".to_owned(),
        format!("reservations/{id}"),
        bare(&hold.body["state"]),
    ]);
    let payment = ada.get(&format!("/v1/payments/{id}"))?;
    let amount = money(&payment.body["amount"]);
    rows.push(vec![
        "payments".to_owned(),
        format!("payments/{id}"),
        format!("{} {amount}", bare(&payment.body["state"])),
    ]);
    let shipments = ada.get(&format!("/v1/shipments?order={name}"))?;
    for shipment in shipments.body["shipments"].as_array().into_iter().flatten() {
        rows.push(vec![
            "shipping".to_owned(),
            bare(&shipment["name"]),
            format!("{} {}", bare(&shipment["state"]), bare(&shipment["tracking"])),
        ]);
    }
    let mails = ada.get(&format!("/v1/notifications?order={name}"))?;
    for mail in mails.body["notifications"].as_array().into_iter().flatten() {
        rows.push(vec![
            "notifications".to_owned(),
            bare(&mail["name"]),
            format!("{} {}", bare(&mail["state"]), bare(&mail["subject"])),
        ]);
    }
    print!("{}", say::table(&rows));
    if let Some(trace) = &outcome.trace {
        println!("\nIts trace is {trace}: `cargo xtask logs --json --tail 500 | grep {trace}`");
    }
    if let Some(rejection) = outcome.order["rejection"]["reason"].as_str() {
        println!("It was rejected: {rejection} {}", outcome.order["rejection"]["metadata"]);
    }
    Ok(())
}

/// `CONFIRMED` of `STATE_CONFIRMED`.
fn state(order: &Value) -> String {
    bare(&order["state"])
}

/// An enum's value without the name of its enum, any other text as it is.
fn bare(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let text = text.strip_prefix("PAYMENT_").unwrap_or(text);
    text.strip_prefix("STATE_").unwrap_or(text).to_owned()
}

/// `7.95 EUR` of google.type.Money.
fn money(value: &Value) -> String {
    let units = value["units"].as_str().unwrap_or("0");
    let cents = value["nanos"].as_i64().unwrap_or(0) / 10_000_000;
    format!("{units}.{cents:02} {}", value["currencyCode"].as_str().unwrap_or_default())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_promised_shape() {
        let mut outcome = Outcome {
            order: json!({ "name": "orders/1", "state": "STATE_CONFIRMED" }),
            trace: Some("t".into()),
            accepted: Duration::from_millis(12),
            confirmed: Some(Duration::from_millis(80)),
            completed: None,
        };
        let confirmed = json!({
            "order": "orders/1", "state": "CONFIRMED", "trace_id": "t",
            "elapsed_ms": { "accepted": 12, "confirmed": 80, "completed": null },
        });
        assert_eq!(summary(&outcome), confirmed);
        outcome.completed = Some(Duration::from_secs(3));
        assert_eq!(summary(&outcome)["elapsed_ms"]["completed"], 3_000);
        outcome.confirmed = None;
        assert_eq!(summary(&outcome)["elapsed_ms"]["confirmed"], Value::Null);
    }

    #[test]
    fn money_is_read_as_people_write_it() {
        assert_eq!(
            money(&json!({ "currencyCode": "EUR", "units": "7", "nanos": 950_000_000 })),
            "7.95 EUR"
        );
        assert_eq!(money(&json!({ "currencyCode": "EUR", "units": "12" })), "12.00 EUR");
    }
}
