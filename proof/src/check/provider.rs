//! I4: our ledger and the provider's are the same, in both directions.
//!
//! What only the provider has is an orphan charge, what only we have a phantom one. An attempt
//! whose outcome is not known yet is excused; so is what the provider noted after our own ledger
//! was read.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I4};
use crate::world::World;

/// An amount and the provider's fee, in minor units.
type Amount = (i64, i64);

pub(super) fn find(world: &World) -> Vec<Finding> {
    let ours = ours(world);
    let mut theirs: BTreeMap<(&str, String), Amount> = BTreeMap::new();
    let mut settled: BTreeMap<(&str, String), bool> = BTreeMap::new();
    for it in &world.provider {
        let key = (it.reference.as_str(), movement(&it.movement));
        let sum = theirs.entry(key.clone()).or_default();
        sum.0 += it.amount_minor;
        sum.1 += it.fee_minor;
        let all = settled.entry(key).or_insert(true);
        *all &= it.settled;
    }
    let open: BTreeMap<&str, &str> = world
        .attempts
        .iter()
        .filter(|it| !matches!(it.state.as_str(), "SUCCEEDED" | "DECLINED" | "FAILED"))
        .map(|it| (it.reference.as_str(), it.state.as_str()))
        .collect();
    let mut findings = Vec::new();
    for ((reference, movement), their) in &theirs {
        let key = (*reference, movement.clone());
        let excused = open.contains_key(reference) || settled.get(&key) == Some(&false);
        let problem = match ours.get(&key) {
            Some(our) if our == their => continue,
            Some(our) => format!(
                "the provider has {movement} {} (fee {}), we have {} (fee {}), for {reference}",
                their.0, their.1, our.0, our.1
            ),
            None if excused => continue,
            None => format!("the provider has {movement} {} for {reference}, we have not", their.0),
        };
        findings.push(Finding::new(I4, subject(reference), problem));
    }
    for ((reference, movement), our) in &ours {
        if !theirs.contains_key(&(*reference, movement.clone())) {
            let problem =
                format!("we have {movement} {} for {reference}, the provider has not", our.0);
            findings.push(Finding::new(I4, subject(reference), problem));
        }
    }
    findings
}

/// What moved by each attempt: the sum of what any account gained, and of it the fee.
fn ours(world: &World) -> BTreeMap<(&str, String), Amount> {
    let mut ours: BTreeMap<(&str, String), Amount> = BTreeMap::new();
    // What is promised to a customer is between us and them: the provider hears of what is paid.
    for it in world.postings.iter().filter(|it| !it.movement.contains("GRANT")) {
        let sum = ours.entry((&it.reference, movement(&it.movement))).or_default();
        sum.0 += it.amount_minor.max(0);
        if it.account == "FEES" {
            sum.1 += it.amount_minor;
        }
    }
    ours
}

/// Both spell movements their own way.
fn movement(name: &str) -> String {
    let name = name.to_uppercase();
    if name.starts_with("REFUND") { "REFUNDED".to_owned() } else { name }
}

/// `pay/{payment}/{kind}/{n}` is about a payment.
fn subject(reference: &str) -> String {
    let payment = reference.split('/').nth(1).unwrap_or(reference);
    format!("payments/{payment}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn ledgers_that_agree_are_good() {
        for world in [sample::completed(), sample::cancelled(), sample::refunded()] {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn a_charge_that_only_the_provider_knows_is_found_unless_it_is_being_resolved() {
        let mut world = sample::completed();
        world.postings.retain(|it| it.movement != "CAPTURED");
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
        let capture = world.attempts.iter_mut().find(|it| it.kind == "CAPTURE").unwrap();
        capture.state = "UNKNOWN".to_owned();
        assert_eq!(find(&world), []);
    }

    #[test]
    fn a_charge_that_only_we_know_is_found() {
        let mut world = sample::completed();
        world.provider.retain(|it| it.movement != "captured");
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
    }

    #[test]
    fn what_the_provider_noted_after_we_were_asked_is_excused() {
        let mut world = sample::completed();
        let mut late = world.provider[0].clone();
        late.reference = "pay/2/authorize/1".to_owned();
        late.settled = false;
        world.provider.push(late);
        assert_eq!(find(&world), []);
        world.provider.last_mut().unwrap().settled = true;
        assert_eq!(sample::subjects(&find(&world)), ["payments/2"]);
    }

    #[test]
    fn another_amount_is_found() {
        let mut world = sample::completed();
        world.provider[0].amount_minor += 1;
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
    }
}
