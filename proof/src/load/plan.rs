//! What a load will do, drawn from a seed: the same seed gives the same calls at the same times.

use std::time::Duration;

use fastrand::Rng;
use uuid::Uuid;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// When, from the beginning.
    pub(super) after: Duration,
    /// Which customer does it.
    pub(super) customer: usize,
    /// What.
    pub(super) task: Task,
}

/// What to do. Orders are counted in the order of their creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// To place this order, again if it was placed before.
    Create(usize),
    /// To call an order off.
    Cancel {
        /// Which.
        order: usize,
        /// Under which id.
        request_id: Uuid,
    },
    /// To follow an order, cut off after so many updates each time.
    Watch {
        /// Which.
        order: usize,
        /// After how many updates the connection is dropped; then it is read to its end.
        cuts: Vec<usize>,
    },
}

/// An order to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Who places it.
    pub(super) customer: usize,
    /// Under which id.
    pub(super) request_id: Uuid,
    /// Which variants, and how many units of each.
    pub(super) lines: Vec<(usize, i32)>,
    /// What it is paid with.
    pub(super) payment_method: &'static str,
    /// What goes wrong with its parcel; empty for nothing.
    pub(super) parcel: &'static str,
}

/// What shapes a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) seed: u64,
    /// Calls a second.
    pub(super) rate: u32,
    pub(super) lasts: Duration,
    pub(super) customers: usize,
    pub(super) variants: usize,
    /// Whether payments and parcels go wrong now and then.
    pub(super) faults: bool,
}

/// The calls in their order, and the orders that they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) dues: Vec<Due>,
    pub(super) wishes: Vec<Wish>,
}

/// Of a hundred orders, so many are paid with these.
const TOKENS: [(u32, &str); 7] = [
    (4, "tok_declined"),
    (4, "tok_apply_drop"),
    (3, "tok_drop"),
    (3, "tok_reset"),
    (3, "tok_500_applied"),
    (3, "tok_500"),
    (80, GOOD),
];

/// Of a hundred orders, so many parcels have this fate.
const FATES: [(u32, &str); 6] = [
    (4, "carrier:lost"),
    (4, "carrier:returned"),
    (4, "carrier:refuses"),
    (4, "carrier:slow"),
    (4, "carrier:drops_answer"),
    (80, ""),
];

const GOOD: &str = "tok_visa";

/// Draws a load.
pub(super) fn draw(shape: Shape) -> Plan {
    let mut rng = Rng::with_seed(shape.seed);
    let popular = Zipf::new(shape.variants);
    let mut plan = Plan { dues: Vec::new(), wishes: Vec::new() };
    let gap = Duration::from_secs(1) / shape.rate.max(1);
    let mut after = Duration::ZERO;
    while after < shape.lasts {
        let due = draw_one(&mut plan, &mut rng, &popular, shape);
        plan.dues.push(Due { after, ..due });
        after += gap;
    }
    plan
}

fn draw_one(plan: &mut Plan, rng: &mut Rng, popular: &Zipf, shape: Shape) -> Due {
    let kind = rng.u32(0..100);
    let placed = plan.wishes.len();
    if placed == 0 || kind < 65 {
        let wish = wish(rng, popular, shape);
        let customer = wish.customer;
        plan.wishes.push(wish);
        return Due { after: Duration::ZERO, customer, task: Task::Create(placed) };
    }
    // People act on what they did last.
    let order = rng.usize(placed.saturating_sub(50)..placed);
    let customer = plan.wishes.get(order).map_or(0, |wish| wish.customer);
    let task = match kind {
        65..80 => Task::Create(order),
        80..88 => Task::Cancel { order, request_id: uuid(rng) },
        _ => {
            let cuts = (0..rng.usize(0..4)).map(|_| rng.usize(1..4)).collect();
            Task::Watch { order, cuts }
        }
    };
    Due { after: Duration::ZERO, customer, task }
}

fn wish(rng: &mut Rng, popular: &Zipf, shape: Shape) -> Wish {
    let mut lines: Vec<(usize, i32)> = Vec::new();
    for _ in 0..rng.usize(1..=3) {
        let variant = popular.draw(rng);
        if lines.iter().all(|(known, _)| *known != variant) {
            lines.push((variant, rng.i32(1..=3)));
        }
    }
    // Drawn in any case: the same seed orders the same, with and without faults.
    let (token, fate) = (weighted(&TOKENS, rng), weighted(&FATES, rng));
    Wish {
        customer: rng.usize(0..shape.customers.max(1)),
        request_id: uuid(rng),
        lines,
        payment_method: if shape.faults { token } else { GOOD },
        parcel: if shape.faults { fate } else { "" },
    }
}

fn weighted(choices: &[(u32, &'static str)], rng: &mut Rng) -> &'static str {
    let mut left = rng.u32(0..choices.iter().map(|(weight, _)| weight).sum::<u32>().max(1));
    for (weight, choice) in choices {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return choice,
        }
    }
    ""
}

/// A UUID of version 4, drawn.
fn uuid(rng: &mut Rng) -> Uuid {
    let bits = rng.u128(..);
    let version = 0x4_u128 << 76;
    let variant = 0x2_u128 << 62;
    Uuid::from_u128(bits & !(0xf_u128 << 76) & !(0x3_u128 << 62) | version | variant)
}

/// Few things are wanted by many, many by few: the nth has the weight 1/n.
struct Zipf {
    /// Sums of the weights so far.
    sums: Vec<f64>,
}

// === impl Zipf ===

impl Zipf {
    fn new(items: usize) -> Self {
        let mut sum = 0.0;
        let rank = |item: usize| f64::from(u32::try_from(item).unwrap_or(u32::MAX)) + 1.0;
        let sums = (0..items.max(1)).map(|item| {
            sum += 1.0 / rank(item);
            sum
        });
        Self { sums: sums.collect() }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let point = rng.f64() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum <= point).min(self.sums.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        seed: 7,
        rate: 100,
        lasts: Duration::from_secs(30),
        customers: 4,
        variants: 10,
        faults: true,
    };

    #[test]
    fn a_seed_gives_the_same_load_again_and_another_seed_another() {
        assert_eq!(draw(SHAPE), draw(SHAPE));
        assert_ne!(draw(SHAPE), draw(Shape { seed: 8, ..SHAPE }));
    }

    #[test]
    fn calls_are_due_at_a_constant_rate_and_are_of_every_kind() {
        let plan = draw(SHAPE);
        assert_eq!(plan.dues.len(), 3_000);
        let at = |index: usize| plan.dues[index].after;
        assert_eq!((at(0), at(100)), (Duration::ZERO, Duration::from_secs(1)));
        let first = |order: &usize| {
            plan.dues.iter().position(|due| due.task == Task::Create(*order)).unwrap()
        };
        let mut kinds = [0_usize; 4];
        for (index, due) in plan.dues.iter().enumerate() {
            let kind = match &due.task {
                Task::Create(order) => usize::from(first(order) < index),
                Task::Cancel { order, .. } => 2 + usize::from(first(order) > index) * 10,
                Task::Watch { order, .. } => 3 + usize::from(first(order) > index) * 10,
            };
            kinds[kind] += 1;
        }
        assert!(kinds.iter().all(|count| *count > 100), "{kinds:?}");
    }

    #[test]
    fn the_first_product_is_wanted_about_twice_as_often_as_the_second() {
        let mut counts = [0_u32; 10];
        for wish in draw(Shape { faults: false, ..SHAPE }).wishes {
            assert_eq!((wish.payment_method, wish.parcel), (GOOD, ""));
            counts[wish.lines[0].0] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.5..2.7).contains(&ratio), "{counts:?}");
    }

    #[test]
    fn a_request_id_is_a_uuid_of_version_4() {
        for wish in draw(SHAPE).wishes {
            assert_eq!(wish.request_id.get_version_num(), 4);
            assert_eq!(wish.request_id.get_variant(), uuid::Variant::RFC4122);
        }
    }
}
