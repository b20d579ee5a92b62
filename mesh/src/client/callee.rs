//! A dependency as this process sees it: its instances, its methods, and what calls to it have
//! come to lately.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use prometheus_client::metrics::histogram::Histogram;

use super::{
    breaker::{Breaker, State, Told},
    budget::{Budget, Spent},
    bulkhead::{Bulkhead, Full, Place},
    dependency::Dependency,
    endpoint::Endpoints,
    latency::Latency,
    methods::{Facts, Methods},
    policy::Policy,
    throttle::Throttle,
};
use crate::{
    ByName,
    auth::SignIn,
    clock,
    telemetry::{self, Breaker as Label, Call, Spans, names},
};

/// How many methods that the contract does not know are told apart.
const UNKNOWN_MAX: usize = 64;

/// One dependency, called under one policy.
#[derive(Debug)]
pub(super) struct Callee {
    /// What errors and the counts of its calls call it.
    pub(super) name: Arc<str>,
    /// What logs, views and breakers call it: with the part of its calls that is kept apart.
    pub(super) label: Arc<str>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) sign_in: SignIn,
    pub(super) facts: Arc<Methods>,
    pub(super) calls: Dependency,
    /// Of the methods that have few calls.
    pub(super) shared: Arc<Breaker>,
    pub(super) budget: Budget,
    pub(super) throttle: Throttle,
    pub(super) bulkhead: Bulkhead,
    spans: OnceLock<Spans>,
    methods: ArcSwap<ByName<Arc<Method>>>,
    /// New methods are taken in one after the other.
    adding: Mutex<()>,
}

/// One method of a dependency.
#[derive(Debug)]
pub(super) struct Method {
    /// `package.Service/Method`.
    pub(super) name: Arc<str>,
    pub(super) facts: Facts,
    pub(super) policy: Policy,
    pub(super) breaker: Arc<Breaker>,
    pub(super) latency: Latency,
    bulkhead: Option<Bulkhead>,
    /// Of calls that went well: found once.
    pub(super) answered: Histogram,
}

/// The places of a call: at the dependency, and of the method.
#[derive(Debug)]
pub(super) struct Places {
    _dependency: Place,
    _method: Option<Place>,
}

static ALL: Mutex<Vec<Weak<Callee>>> = Mutex::new(Vec::new());

// === impl Callee ===

impl Callee {
    pub(super) fn new(
        (name, label): (Arc<str>, Arc<str>),
        endpoints: Arc<Endpoints>,
        sign_in: SignIn,
        facts: Arc<Methods>,
        calls: Dependency,
    ) -> Arc<Self> {
        let (now, policy) = (clock::instant(), &calls.policy);
        let told = Told { dependency: Arc::clone(&label), method: "".into(), tell };
        let callee = Arc::new(Self {
            shared: Breaker::new(policy.breaker, told, now),
            budget: Budget::new(policy.budget, now),
            throttle: Throttle::new(now),
            bulkhead: Bulkhead::new(policy.bulkhead, policy.queue_timeout),
            spans: OnceLock::new(),
            methods: ArcSwap::default(),
            adding: Mutex::new(()),
            name,
            label,
            endpoints,
            sign_in,
            facts,
            calls,
        });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&callee));
        callee
    }

    /// Where spans of calls to it go.
    pub(super) fn spans(&self) -> &Spans {
        static NOWHERE: Spans = Spans::nowhere();
        self.spans.get().unwrap_or(&NOWHERE)
    }

    /// Records calls to it from here on.
    pub(super) fn record(&self, spans: &Spans) {
        // Told twice, it is told the same: one process makes the channel.
        let _first = self.spans.set(spans.clone()).is_ok();
    }

    /// Every dependency of this process.
    pub(super) fn all() -> Vec<Arc<Self>> {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// What is known of the method `package.Service/Method`.
    pub(super) fn method(&self, name: &str) -> Arc<Method> {
        if let Some(known) = self.methods.load().get(name) {
            return Arc::clone(known);
        }
        self.add(name)
    }

    pub(super) fn methods(&self) -> Vec<Arc<Method>> {
        self.methods.load().values().cloned().collect()
    }

    fn add(&self, name: &str) -> Arc<Method> {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.methods.load();
        let facts = self.facts.facts(name);
        // What a caller of the gateway makes up must not be remembered for ever.
        let name = if facts.is_none() && known.len() >= UNKNOWN_MAX { names::OTHER } else { name };
        if let Some(known) = known.get(name) {
            return Arc::clone(known);
        }
        let method = Arc::new(Method::new(self, name, facts.unwrap_or_default()));
        let mut more = ByName::clone(&known);
        more.insert(name.to_owned(), Arc::clone(&method));
        self.methods.store(Arc::new(more));
        method
    }

    /// Takes a place for a call, now or as soon as the policy lets it wait.
    pub(super) async fn enter(&self, method: &Method) -> Result<Places, Full> {
        let own = match &method.bulkhead {
            Some(bulkhead) => Some(bulkhead.enter().await?),
            None => None,
        };
        Ok(Places { _dependency: self.bulkhead.enter().await?, _method: own })
    }

    /// Pays for one attempt more, and says so once when nothing is left.
    pub(super) fn spend(&self) -> bool {
        let spent = self.budget.spend(clock::instant());
        if spent == Spent::Emptied {
            let callee = &self.label;
            tracing::warn!(callee = &**callee, "no more retries of calls to {callee} for now");
        }
        if spent != Spent::Paid {
            count(&telemetry::metrics().retries_refused, &self.name);
        }
        spent == Spent::Paid
    }
}

// === impl Method ===

impl Method {
    fn new(callee: &Callee, name: &str, facts: Facts) -> Self {
        let name: Arc<str> = name.into();
        let policy = callee.calls.policy.of(&name).clone();
        let told = Told { dependency: Arc::clone(&callee.label), method: Arc::clone(&name), tell };
        let labels = Call { rpc_method: name.to_string(), rpc_response_status_code: "OK" };
        let calls = &telemetry::metrics().client_calls;
        Self {
            breaker: Breaker::new(policy.breaker, told, clock::instant()),
            latency: Latency::new(),
            bulkhead: policy.method_bulkhead.map(|max| Bulkhead::new(max, policy.queue_timeout)),
            answered: calls.get_or_create_owned(&labels),
            name,
            facts,
            policy,
        }
    }
}

/// One log line and one metric for every change of a breaker.
pub(super) fn tell(told: &Told, state: State) {
    let Told { dependency, method, .. } = told;
    let labels = Label { dependency: dependency.to_string(), method: method.to_string() };
    telemetry::metrics().breaker_state.get_or_create(&labels).set(state.level());
    let (callee, method, state_name) = (&**dependency, &**method, state.name());
    match state {
        State::Open => {
            tracing::warn!(callee, method, state = state_name, "breaker of {callee}: {state_name}");
        }
        State::Closed | State::HalfOpen | State::Ramp => {
            tracing::info!(callee, method, state = state_name, "breaker of {callee}: {state_name}");
        }
    }
}

/// Counts something that happened to calls of a dependency.
pub(super) fn count(
    counter: &prometheus_client::metrics::family::Family<
        telemetry::Dependency,
        prometheus_client::metrics::counter::Counter,
    >,
    dependency: &str,
) {
    counter.get_or_create(&telemetry::Dependency { dependency: dependency.to_owned() }).inc();
}
