use super::*;
use crate::world::sample;

#[test]
fn a_clean_world_passes_everything_that_can_be_asked() {
    for world in [sample::completed(), sample::cancelled(), sample::refunded(), sample::in_flight()]
    {
        assert_eq!(check(&world), []);
        let report = report(&world, Mode::Quiet);
        assert_eq!((report.passed.len(), report.skipped.len()), (RULES.len(), 0), "{report}");
    }
}

#[test]
fn what_nobody_exported_is_skipped_and_said() {
    let mut world = sample::completed();
    for table in ["provider", HISTORY] {
        world.tables.remove(table);
    }
    let report = report(&world, Mode::Running);
    let skipped: Vec<Invariant> = report.skipped.iter().map(|(it, _)| *it).collect();
    assert_eq!(
        skipped,
        [Invariant::I4, Invariant::I13, Invariant::I15, Invariant::L1, Invariant::L3]
    );
    assert!(report.to_string().contains("use --psp"));
}

#[test]
fn a_finding_is_told_with_the_whole_life_of_its_order() {
    let mut world = sample::completed();
    world.provider.retain(|it| it.movement != "captured");
    let report = report(&world, Mode::Running);
    assert_eq!(report.failed, [Invariant::I4]);
    let text = report.findings[0].to_string();
    assert!(text.starts_with(&format!("I4 {}: we have CAPTURED 1000", sample::payment_name())));
    for part in
        ["order.created", "hold_stock OK", "SHIPPED 2 × SKU", "DELIVERED", "ORDER_CONFIRMED"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = report.json();
    assert_eq!((json["passed"].as_u64(), json["failed"].as_u64()), (Some(11), Some(1)));
    assert!(json["findings"][0]["timeline"].as_array().unwrap().len() > 10);
}

#[test]
fn one_planted_fault_breaks_one_invariant_and_no_other() {
    for (invariant, mut world, fault) in faults() {
        fault(&mut world);
        let report = report(&world, Mode::Quiet);
        assert_eq!(report.failed, [invariant], "{report}");
        assert_eq!(report.findings.len(), 1, "{report}");
    }
}

type Fault = fn(&mut World);

/// A world for each invariant, and what breaks it there.
fn faults() -> Vec<(Invariant, World, Fault)> {
    let (completed, cancelled, in_flight) =
        (sample::completed(), sample::cancelled(), sample::in_flight());
    vec![
        (Invariant::I1, in_flight.clone(), |world| {
            world.stocks[0].on_hand = 1;
            world.movements[0].quantity = 1;
        }),
        (Invariant::I2, cancelled, |world| {
            world.movements.retain(|it| it.kind != "DEALLOCATED");
            world.stocks[0].allocated = 2;
        }),
        (Invariant::I3, completed.clone(), |world| {
            let mut posting = world.postings[0].clone();
            (posting.account, posting.amount_minor) = ("PAYABLE".to_owned(), -1);
            world.postings.push(posting);
        }),
        (Invariant::I4, completed.clone(), |world| {
            world.provider.retain(|it| it.movement != "captured");
        }),
        (Invariant::I5, completed.clone(), |world| world.lines[0].total_minor += 1),
        (Invariant::I6, completed.clone(), |world| world.lines[0].shipped = 1),
        (Invariant::I8, completed.clone(), |world| {
            world.events[4].payment_state = "AUTHORIZED".to_owned();
        }),
        (Invariant::I9, completed.clone(), |world| {
            let mut again = world.history[0].clone();
            again.answer.as_mut().unwrap().digest.push('x');
            world.history.push(again);
        }),
        (Invariant::I10, completed.clone(), |world| {
            let again = world.parcels[0].clone();
            world.parcels.push(again);
        }),
        (Invariant::I11, completed.clone(), |world| {
            world.outboxes.get_mut("orders").unwrap().last_mut().unwrap().position = Some(99);
        }),
        (Invariant::I13, completed.clone(), |world| {
            world.history[0].answer.as_mut().unwrap().revision = 99;
        }),
        (Invariant::I15, completed.clone(), |world| {
            let watch = world.history.last_mut().unwrap();
            let crate::history::Asked::Watch { seen, .. } = &mut watch.asked else { panic!() };
            seen.remove(2);
        }),
        (Invariant::L1, in_flight, |world| world.sagas[0].state = "STUCK".to_owned()),
        (Invariant::L3, completed, |world| world.cursors[3].position = 0),
    ]
}
