//! I9: one request has one order, and every repeat is answered as the first.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I9};
use crate::{
    history::{Asked, Outcome, Record},
    world::{World, bare},
};

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut first: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for it in world.orders.iter().filter(|it| !it.request_id.is_empty()) {
        if let Some(other) = first.insert((&it.customer, &it.request_id), &it.id) {
            let sentence = format!("request {} also made orders/{other}", it.request_id);
            findings.push(Finding::of_order(I9, &it.id, sentence));
        }
    }
    let mut requests: BTreeMap<(&str, &str), Vec<&Record>> = BTreeMap::new();
    for it in &world.history {
        if let Asked::Create { request_id } = &it.asked {
            requests.entry((&it.by, request_id)).or_default().push(it);
        }
    }
    for ((by, request_id), calls) in requests {
        let made = first.get(&(by, request_id)).copied();
        if let Some((order, problem)) = problem(&calls, made) {
            let sentence = format!("request {request_id} of {by} {problem}");
            findings.push(Finding::of_order(I9, order, sentence));
        }
    }
    findings
}

/// What is wrong with the answers to one request, and at which order.
fn problem<'a>(calls: &[&'a Record], made: Option<&'a str>) -> Option<(&'a str, String)> {
    let answers: Vec<_> = calls
        .iter()
        .filter(|it| it.outcome == Outcome::Ok)
        .filter_map(|it| it.answer.as_ref())
        .collect();
    let first = answers.first()?;
    let order = bare(&first.order);
    if let Some(other) = answers.iter().find(|it| it.order != first.order) {
        return Some((order, format!("was also answered with {}", other.order)));
    }
    if let Some(other) = answers.iter().find(|it| it.digest != first.digest) {
        let (one, two) = (first.revision, other.revision);
        return Some((order, format!("had two different answers, one of r{one}, one of r{two}")));
    }
    if let Some(refused) = calls.iter().find(|it| it.outcome == Outcome::Refused) {
        return Some((order, format!("was both granted and refused: {}", refused.why)));
    }
    let other = made.filter(|made| *made != order)?;
    Some((order, format!("was answered with it, but made orders/{other}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn a_repeat_with_the_same_answer_is_good() {
        let mut world = sample::completed();
        let again = world.history[0].clone();
        world.history.push(again);
        assert_eq!(find(&world), []);
    }

    #[test]
    fn two_orders_of_one_request_are_found() {
        let mut world = sample::completed();
        let mut other = world.orders[0].clone();
        other.id = "2".to_owned();
        world.orders.insert(0, other);
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn a_repeat_with_another_answer_is_found() {
        let changes: [fn(&mut Record); 3] = [
            |it| it.answer.as_mut().unwrap().digest.push('x'),
            |it| it.answer.as_mut().unwrap().order.push('x'),
            |it| it.outcome = Outcome::Refused,
        ];
        for change in changes {
            let mut world = sample::completed();
            let mut again = world.history[0].clone();
            change(&mut again);
            world.history.push(again);
            assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        }
    }

    #[test]
    fn an_unknown_outcome_says_nothing() {
        let mut world = sample::completed();
        let mut again = world.history[0].clone();
        again.outcome = Outcome::Unknown;
        again.answer = None;
        world.history.push(again);
        assert_eq!(find(&world), []);
    }
}
