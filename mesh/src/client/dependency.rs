//! What an operator says of the calls to single dependencies, in place of the defaults.
//!
//! One flag, `--dependency NAME.SETTING=VALUE`, says it all; `--print-config` shows what came of it.

use std::{ops::RangeInclusive, str::FromStr, sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    balance::Balance,
    budget::Allowance,
    endpoint::Reach,
    policy::{Hedge, Policy},
};
use crate::config::duration;

mod preset;
mod told;

use preset::Preset;
use told::{millis, told};

/// One setting of the calls to one dependency, to one of its methods, or to all: as
/// `payments.timeout=2s`, `orders/ordermesh.orders.v1.OrdersService/QuoteOrder.hedge=on`,
/// `*.breaker=opossum`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Whose; `None` is everybody's.
    name: Option<String>,
    /// `package.Service/Method`, if it is about one.
    method: Option<String>,
    setting: Setting,
}

/// How one dependency is called.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Dependency {
    pub(super) policy: Policy,
    pub(super) reach: Reach,
    /// What is said of it, which counts more than any policy of its caller.
    pub(super) said: Arc<[Override]>,
}

/// A setting with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Timeout(Duration),
    Longest(Duration),
    Retries(u32),
    Places(usize),
    QueueTimeout(Duration),
    Breaker(Preset),
    Hedge(bool),
    Throttle(bool),
    /// Retries and hedges, in a hundred calls.
    Budget(u32),
    Way(Way),
}

/// How the instances of a dependency are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Balance(Balance),
    Failfast(Duration),
    Connect(Duration),
    Keepalive(Duration),
}

/// What is told of somebody outside.
const OUTSIDE: [&str; 5] = ["timeout_ms", "longest_ms", "places", "queue_timeout_ms", "breaker"];

// === impl Override ===

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not NAME.SETTING=VALUE or NAME/METHOD.SETTING=VALUE");
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let (whose, setting) = key.rsplit_once('.').ok_or_else(wrong)?;
        let (name, method) = match whose.split_once('/') {
            Some((name, method)) => (name, Some(method.to_owned())),
            None => (whose, None),
        };
        let method_is_one = method.as_ref().is_none_or(|it| it.contains('/'));
        if name.is_empty() || (method.is_some() && name == "*") || !method_is_one {
            return Err(wrong());
        }
        let setting = Setting::parse(setting, value)?;
        if method.is_some() && setting.is_of_all() {
            return Err(format!("{} is a matter of a dependency, not of a method", setting.name()));
        }
        let name = (name != "*").then(|| name.to_owned());
        Ok(Self { name, method, setting })
    }
}

impl Override {
    fn is_of(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// Whether it changes anything for somebody outside of the mesh: who has one address and no
    /// methods, and is asked once.
    fn reaches_outside(&self) -> bool {
        use Setting as S;
        self.method.is_none()
            && match self.setting {
                S::Timeout(_)
                | S::Longest(_)
                | S::Places(_)
                | S::QueueTimeout(_)
                | S::Breaker(_) => true,
                S::Retries(_) | S::Hedge(_) | S::Throttle(_) | S::Budget(_) | S::Way(_) => false,
            }
    }
}

// === impl Dependency ===

impl Dependency {
    /// How `name` is called: what is said of all, then what is said of it, then of its methods.
    /// Of two that say the same of the same, the later counts.
    pub(crate) fn of(overrides: &[Override], name: &str) -> Self {
        let about = |it: &&Override| it.name.as_deref().is_none_or(|it| it == name);
        let mut said: Vec<_> = overrides.iter().filter(about).cloned().collect();
        // What is said of all comes first, and the rest in the order in which it was said.
        said.sort_by_key(|it| it.name.is_some());
        let mut calls = Self { said: said.into(), ..Self::default() };
        calls.policy = calls.under(Policy::default());
        for it in calls.said.iter().filter(|it| it.method.is_none()) {
            if let Setting::Way(way) = it.setting {
                way.apply(&mut calls.reach);
            }
        }
        calls
    }

    /// The same under a policy of its caller: what is said of it counts more.
    pub(super) fn under(&self, mut policy: Policy) -> Policy {
        for it in self.said.iter().filter(|it| it.method.is_none()) {
            it.setting.apply(&mut policy, false);
            // A method that its caller has a policy for is one of its methods, too.
            for (_, of_method) in &mut policy.methods {
                it.setting.apply(of_method, false);
            }
        }
        for it in self.said.iter() {
            let Some(method) = &it.method else { continue };
            let mut own = policy.of(method).clone();
            own.methods.clear();
            it.setting.apply(&mut own, true);
            policy = policy.method(method, own);
        }
        policy
    }

    /// How `name`, who is outside of the mesh, is called: by `policy`, but for what is said of it.
    /// What is said of all is about callees in the mesh.
    pub(crate) fn outside(overrides: &[Override], name: &str, mut policy: Policy) -> Policy {
        for it in overrides.iter().filter(|it| it.is_of(name) && it.reaches_outside()) {
            it.setting.apply(&mut policy, false);
        }
        policy
    }

    /// What is said of `name`, who is outside of the mesh, and changes nothing there.
    pub(crate) fn idle(overrides: &[Override], name: &str) -> Vec<&'static str> {
        let idle = overrides.iter().filter(|it| it.is_of(name) && !it.reaches_outside());
        idle.map(|it| if it.method.is_some() { "a method" } else { it.setting.name() }).collect()
    }

    /// The settings in effect of somebody outside.
    pub(crate) fn told_of_outside(policy: &Policy) -> Value {
        let mut told = told(policy);
        if let Some(told) = told.as_object_mut() {
            told.retain(|name, _| OUTSIDE.contains(&name.as_str()));
        }
        told["outside"] = true.into();
        told
    }

    /// All settings in effect.
    pub(crate) fn told(&self) -> Value {
        let mut told = told(&self.policy);
        let Reach { balance, failfast, connect, keepalive } = self.reach;
        told["balance"] = balance.name().into();
        told["failfast_ms"] = millis(failfast).into();
        told["connect_ms"] = millis(connect).into();
        told["keepalive_ms"] = millis(keepalive).into();
        let methods = &self.policy.methods;
        told["methods"] =
            methods.iter().map(|(name, policy)| (name.clone(), self::told(policy))).collect();
        told
    }

    /// What `overrides` speak of that there is not: dependencies that are no callees, and methods.
    pub(crate) fn unknown(
        overrides: &[Override],
        is_callee: impl Fn(&str) -> bool,
        is_method: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let names = overrides.iter().filter_map(|it| it.name.clone()).filter(|it| !is_callee(it));
        let methods = overrides.iter().filter_map(|it| it.method.clone());
        names.chain(methods.filter(|it| !is_method(it))).collect()
    }

    /// Who is spoken of in `overrides` by name, each once.
    pub(crate) fn names(overrides: &[Override]) -> Vec<&str> {
        let mut names: Vec<_> = overrides.iter().filter_map(|it| it.name.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

// === impl Setting ===

impl Setting {
    fn parse(name: &str, value: &str) -> Result<Self, String> {
        let number = |range: RangeInclusive<u32>| {
            let number = value.parse::<u32>().ok().filter(|number| range.contains(number));
            let (least, most) = range.into_inner();
            number.ok_or_else(|| format!("`{value}` is not a number from {least} to {most}"))
        };
        let time = || match duration(value) {
            Ok(time) if time.is_zero() => Err("no time at all: no call would be made".to_owned()),
            time => time,
        };
        let switch = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("`{value}` is neither on nor off")),
        };
        Ok(match name {
            "timeout" => Self::Timeout(time()?),
            "longest" => Self::Longest(time()?),
            "retries" => Self::Retries(number(0..=10)?),
            "places" => Self::Places(usize::try_from(number(1..=100_000)?).unwrap_or(usize::MAX)),
            "queue-timeout" => Self::QueueTimeout(duration(value)?),
            "breaker" => Self::Breaker(value.parse()?),
            "hedge" => Self::Hedge(switch()?),
            "throttle" => Self::Throttle(switch()?),
            "budget" => Self::Budget(number(0..=100)?),
            "balance" => {
                Self::Way(Way::Balance(value.parse().map_err(|error| format!("{error}"))?))
            }
            "failfast" => Self::Way(Way::Failfast(time()?)),
            "connect" => Self::Way(Way::Connect(time()?)),
            "keepalive" => Self::Way(Way::Keepalive(time()?)),
            _ => {
                return Err(format!(
                    "`{name}` is not a setting of a dependency: timeout, longest, retries, places, \
                     queue-timeout, breaker, hedge, throttle, budget, balance, failfast, connect, \
                     keepalive"
                ));
            }
        })
    }

    /// Takes the place of what was said before, for a method alone or for all of them.
    fn apply(self, policy: &mut Policy, of_method: bool) {
        match self {
            Self::Timeout(timeout) => policy.timeout = Some(timeout),
            Self::Longest(longest) => policy.longest = Some(longest),
            Self::Retries(retries) => policy.backoff.retries = retries,
            Self::Places(places) if of_method => policy.method_bulkhead = Some(places),
            Self::Places(places) => policy.bulkhead = places,
            Self::QueueTimeout(timeout) => policy.queue_timeout = timeout,
            Self::Breaker(preset) => policy.breaker = preset.rule(),
            Self::Hedge(on) => policy.hedge = on.then(Hedge::default),
            Self::Throttle(on) => policy.throttle = on,
            Self::Budget(percent) => policy.budget = Allowance::percent(percent),
            Self::Way(_) => {}
        }
    }

    /// Whether it cannot be said of one method.
    fn is_of_all(self) -> bool {
        matches!(self, Self::Budget(_) | Self::Way(_))
    }

    /// As flags give it.
    fn name(self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Longest(_) => "longest",
            Self::Retries(_) => "retries",
            Self::Places(_) => "places",
            Self::QueueTimeout(_) => "queue-timeout",
            Self::Breaker(_) => "breaker",
            Self::Hedge(_) => "hedge",
            Self::Throttle(_) => "throttle",
            Self::Budget(_) => "budget",
            Self::Way(Way::Balance(_)) => "balance",
            Self::Way(Way::Failfast(_)) => "failfast",
            Self::Way(Way::Connect(_)) => "connect",
            Self::Way(Way::Keepalive(_)) => "keepalive",
        }
    }
}

// === impl Way ===

impl Way {
    fn apply(self, reach: &mut Reach) {
        match self {
            Self::Balance(how) => reach.balance = how,
            Self::Failfast(time) => reach.failfast = time,
            Self::Connect(time) => reach.connect = time,
            Self::Keepalive(time) => reach.keepalive = time,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::{Network, breaker, endpoint::Settings};

    const QUOTE: &str = "ordermesh.orders.v1.OrdersService/QuoteOrder";

    fn of(texts: &[&str], name: &str) -> Dependency {
        let overrides: Vec<Override> = texts.iter().map(|it| it.parse().expect(it)).collect();
        Dependency::of(&overrides, name)
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        assert_eq!(of(&[], "payments"), Dependency::default());
        assert_eq!(of(&["users.retries=0"], "payments"), Dependency::default());
    }

    #[test]
    fn what_is_said_of_one_counts_more_than_what_is_said_of_all_and_the_later_most() {
        let said =
            ["payments.timeout=2s", "*.timeout=1s", "*.breaker=opossum", "payments.breaker=off"];
        let payments = of(&said, "payments").policy;
        assert_eq!(payments.timeout, Some(Duration::from_secs(2)));
        assert_eq!(payments.breaker.failures_min, u32::MAX);
        let users = of(&said, "users").policy;
        assert_eq!(
            (users.timeout, users.breaker),
            (Some(Duration::from_secs(1)), breaker::opossum())
        );
        let twice = of(&["users.retries=1", "users.retries=2"], "users");
        assert_eq!(twice.policy.backoff.retries, 2);
    }

    #[test]
    fn a_method_has_what_its_dependency_has_and_what_is_said_of_it_alone() {
        let (hedge, places) =
            (format!("orders/{QUOTE}.hedge=on"), format!("orders/{QUOTE}.places=7"));
        let orders =
            of(&[&hedge, "orders.timeout=2s", &places, "orders.balance=round_robin"], "orders");
        let quote = orders.policy.of(QUOTE);
        assert_eq!(
            (quote.timeout, quote.hedge),
            (Some(Duration::from_secs(2)), Some(Hedge::default()))
        );
        assert_eq!((quote.method_bulkhead, quote.bulkhead), (Some(7), 256));
        assert_eq!((orders.policy.hedge, orders.reach.balance), (None, Balance::RoundRobin));
        assert_eq!(orders.told()["methods"][QUOTE]["method_places"], 7);
        assert_eq!(orders.told()["balance"], "round_robin");
    }

    #[test]
    fn who_is_outside_is_called_as_its_caller_says_but_for_what_is_said_of_it() {
        let said = ["*.timeout=1s", "psp.breaker=opossum_10s", "psp.places=7", "users.places=9"];
        let overrides: Vec<Override> = said.iter().map(|it| it.parse().expect(it)).collect();
        let policy = Dependency::outside(&overrides, "psp", Policy::external());
        let breaker = breaker::opossum_10s();
        assert_eq!(policy, Policy { breaker, bulkhead: 7, ..Policy::external() });
    }

    #[test]
    fn what_changes_nothing_outside_is_known_and_not_told() {
        let said = [
            "*.retries=1",
            "psp.places=7",
            "psp.retries=0",
            "psp/a.B/C.places=1",
            "psp.balance=p2c",
        ];
        let overrides: Vec<Override> = said.iter().map(|it| it.parse().expect(it)).collect();
        assert_eq!(Dependency::idle(&overrides, "psp"), ["retries", "a method", "balance"]);
        let policy = Dependency::outside(&overrides, "psp", Policy::external());
        let told = Dependency::told_of_outside(&policy);
        assert_eq!((&told["timeout_ms"], &told["places"]), (&json!(3_000), &json!(7)));
        assert!(told.get("retry").is_none(), "{told}");
    }

    #[test]
    fn what_is_said_of_a_dependency_counts_more_than_the_policy_of_its_caller() {
        let said = format!("orders/{QUOTE}.retries=5");
        let orders = of(&["orders.timeout=2s", &said], "orders");
        let own =
            Policy { bulkhead: 9, timeout: Some(Duration::from_secs(7)), ..Policy::default() };
        let theirs = Policy { longest: Some(Duration::from_secs(9)), ..own.clone() };
        let policy = orders.under(own.method("a.B/C", theirs));
        assert_eq!((policy.bulkhead, policy.timeout), (9, Some(Duration::from_secs(2))));
        let theirs = policy.of("a.B/C");
        let (longest, timeout) = (Some(Duration::from_secs(9)), Some(Duration::from_secs(2)));
        assert_eq!((theirs.longest, theirs.timeout), (longest, timeout));
        let quote = policy.of(QUOTE);
        assert_eq!((quote.backoff.retries, quote.bulkhead, quote.timeout), (5, 9, timeout));
    }

    #[test]
    fn how_instances_are_reached_is_said_of_a_dependency_and_in_effect() {
        let said = ["*.connect=3s", "users.keepalive=5s", "users.failfast=250ms"];
        let users = of(&said, "users");
        let told = users.told();
        let shown = ["connect_ms", "keepalive_ms", "failfast_ms"].map(|name| told[name].clone());
        assert_eq!(shown, [3_000, 5_000, 250].map(Value::from));
        let settings = Settings::of(users.reach, Network::Loopback, Arc::default());
        assert_eq!(settings.connect.timeout, Duration::from_secs(3));
        assert_eq!(settings.connect.keepalive, (Duration::from_secs(5), Duration::from_secs(3)));
        assert_eq!(settings.failfast, Duration::from_millis(250));
        assert_eq!(of(&said, "orders").reach, of(&["*.connect=3s"], "orders").reach);
    }

    #[test]
    fn a_budget_is_a_part_of_the_calls_and_none_is_none_at_all() {
        let budget = |said| of(&[said], "users").told()["budget"].clone();
        let part = |percent: u32, per_second: u32| json!({ "percent_of_calls": percent, "per_second": per_second });
        assert_eq!(budget("users.budget=20"), part(20, 3));
        assert_eq!(budget("users.budget=0"), part(0, 0));
        assert_eq!(budget("orders.budget=20"), part(10, 3));
    }

    #[test]
    fn a_breaker_that_slow_calls_open_has_a_name() {
        let told = of(&["users.breaker=slow_calls"], "users").told();
        assert_eq!(told["breaker"]["slow_percent"], 80);
        assert_eq!(of(&[], "users").told()["breaker"]["slow_percent"], Value::Null);
    }

    #[test]
    fn what_there_is_not_is_known() {
        let said =
            ["payment.retries=0", "orders/a.B/C.retries=0", "*.retries=0", "orders.retries=0"];
        let overrides: Vec<Override> = said.iter().map(|it| it.parse().expect(it)).collect();
        let unknown = Dependency::unknown(&overrides, |name| name == "orders", |_| false);
        assert_eq!(unknown, ["payment", "a.B/C"]);
    }

    #[test]
    fn a_method_without_a_breaker_is_judged_together_with_no_other() {
        let said = format!("orders/{QUOTE}.breaker=off");
        assert_eq!(of(&[&said], "orders").policy.of(QUOTE).breaker.calls_min, 0);
    }

    #[test]
    fn what_cannot_be_understood_says_what_could_be() {
        for (text, hint) in [
            ("payments", "NAME.SETTING=VALUE"),
            ("timeout=2s", "NAME.SETTING=VALUE"),
            (".timeout=2s", "NAME.SETTING=VALUE"),
            ("orders/QuoteOrder.timeout=2s", "NAME/METHOD"),
            ("*/a.B/C.timeout=2s", "NAME/METHOD"),
            ("payments.timeout=2", "250ms"),
            ("payments.retries=-1", "from 0 to 10"),
            ("payments.retries=4294967295", "from 0 to 10"),
            ("payments.places=0", "from 1"),
            ("payments.timeout=0s", "no time"),
            ("payments.hedge=yes", "neither on nor off"),
            ("payments.breaker=on", "seed_count"),
            ("payments.balance=random", "p2c"),
            ("payments.colour=red", "queue-timeout"),
            ("orders/a.B/C.balance=p2c", "not of a method"),
            ("orders/a.B/C.connect=1s", "not of a method"),
            ("orders.keepalive=0s", "no time at all"),
            ("orders.budget=101", "0 to 100"),
        ] {
            let error = text.parse::<Override>().expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
