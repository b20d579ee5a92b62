//! What is known of every method that is served: from the contract, and from serving it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use prost_reflect::{DescriptorError, DescriptorPool, MethodDescriptor};
use tokio::{sync::Semaphore, time::Instant};
use tonic::Code;

use super::median::{Chance, Median, Took};
use crate::{
    ByName,
    telemetry::{self, Call, names},
};

/// Less time than this is none. It is what is left of the time of the handler, which ends 1 ms before
/// that of its caller: a call that says less than 2 ms is refused.
const LEAST: Duration = Duration::from_millis(1);
/// How many status codes there are.
const CODES: usize = 17;

/// All methods, by path.
#[derive(Debug)]
pub(crate) struct Methods {
    by_path: ByName<Arc<Method>>,
    unknown: Arc<Method>,
}

/// What a process says of a method that the contract does not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Override {
    /// The longest that a call may take.
    pub(crate) longest: Option<Duration>,
    /// How many calls at once.
    pub(crate) bulkhead: Option<usize>,
}

/// One method.
#[derive(Debug)]
pub(super) struct Method {
    /// `package.Service/Method`, or `_OTHER`.
    pub(super) name: String,
    /// The longest that a call may take.
    pub(super) longest: Duration,
    /// Either side may send more than one message.
    pub(super) streaming: bool,
    /// It changes something, and says by which attempt.
    pub(super) mutation: bool,
    /// Served however much there is to do: health and reflection.
    pub(super) exempt: bool,
    /// Places, where there are only so many.
    pub(super) bulkhead: Option<Arc<Semaphore>>,
    took: Mutex<Median>,
    durations: [OnceLock<Histogram>; CODES],
}

// === impl Methods ===

impl Methods {
    /// The methods of a contract, as an encoded `FileDescriptorSet`. None takes longer than
    /// `longest`, where `overrides` says nothing else of its path.
    pub(crate) fn of(
        descriptors: &[u8],
        longest: Duration,
        overrides: &HashMap<&'static str, Override>,
    ) -> Result<Self, DescriptorError> {
        let mut by_path = ByName::default();
        for descriptors in [
            descriptors,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            let pool = DescriptorPool::decode(descriptors)?;
            for method in pool.services().flat_map(|it| it.methods().collect::<Vec<_>>()) {
                let name = format!("{}/{}", method.parent_service().full_name(), method.name());
                let path = format!("/{name}");
                let special = overrides.get(path.as_str()).copied().unwrap_or_default();
                by_path.insert(path, Arc::new(Method::of(name, &method, longest, special)));
            }
        }
        // What a service serves beside the contract has no name in the metrics; a limit it may have.
        for (path, special) in overrides {
            let beside = || Arc::new(Method::unknown(longest, *special));
            by_path.entry((*path).to_owned()).or_insert_with(beside);
        }
        Ok(Self { by_path, unknown: Arc::new(Method::unknown(longest, Override::default())) })
    }

    pub(super) fn at(&self, path: &str) -> &Arc<Method> {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }
}

// === impl Method ===

impl Method {
    fn of(name: String, method: &MethodDescriptor, longest: Duration, special: Override) -> Self {
        let request = method.input();
        let says = |field| request.get_field_by_name(field).is_some();
        Self {
            streaming: method.is_client_streaming() || method.is_server_streaming(),
            mutation: says("request_id") || says("command"),
            exempt: ["grpc.health.", "grpc.reflection."].iter().any(|it| name.starts_with(it)),
            name,
            ..Self::unknown(longest, special)
        }
    }

    fn unknown(longest: Duration, special: Override) -> Self {
        Self {
            name: names::OTHER.to_owned(),
            longest: special.longest.unwrap_or(longest),
            streaming: true,
            mutation: false,
            exempt: false,
            bulkhead: special.bulkhead.map(|calls| Arc::new(Semaphore::new(calls))),
            took: Mutex::new(Median::new()),
            durations: [const { OnceLock::new() }; CODES],
        }
    }

    /// Whether a call with so much time `left` is begun; if not, how much it would need.
    pub(super) fn admits(&self, now: Instant, left: Duration) -> Result<Chance, Duration> {
        if self.exempt {
            return Ok(Chance::Good);
        }
        if left < LEAST {
            return Err(LEAST);
        }
        self.took.lock().unwrap_or_else(PoisonError::into_inner).admits(now, left)
    }

    /// A handler took so long.
    pub(super) fn took(&self, now: Instant, took: Took, chance: Chance) {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).ended(now, took, chance);
    }

    /// A call has ended.
    pub(super) fn record(&self, code: Code, took: Duration) {
        let histogram = || {
            // Of the contract, or `_OTHER`: what a client makes up makes no series of its own.
            let rpc_method = self.name.clone();
            let labels = Call { rpc_method, rpc_response_status_code: telemetry::code(code) };
            telemetry::metrics().server_calls.get_or_create(&labels).clone()
        };
        let known = usize::try_from(i32::from(code)).ok().and_then(|code| self.durations.get(code));
        if let Some(known) = known {
            known.get_or_init(histogram).observe(took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DESCRIPTORS;

    const TOKENS: &str = "/ordermesh.auth.v1.TokensService/GetJwks";
    const SUBSCRIBE: &str = "/ordermesh.events.v1.EventLogService/Subscribe";

    #[test]
    fn the_contract_says_what_streams_and_nobody_knows_the_rest() {
        let methods = Methods::of(DESCRIPTORS, Duration::from_secs(10), &HashMap::new()).unwrap();
        for (path, streaming, exempt, name) in [
            (TOKENS, false, false, &TOKENS[1..]),
            (SUBSCRIBE, true, false, &SUBSCRIBE[1..]),
            ("/grpc.health.v1.Health/Check", false, true, "grpc.health.v1.Health/Check"),
            ("/grpc.health.v1.Health/Watch", true, true, "grpc.health.v1.Health/Watch"),
            ("/grpc.health.v1.Health/Made_up", true, false, "_OTHER"),
            ("/a/b", true, false, "_OTHER"),
        ] {
            let method = methods.at(path);
            assert_eq!((method.streaming, method.exempt), (streaming, exempt), "{path}");
            assert_eq!(method.name, name);
        }
    }

    #[test]
    fn a_call_needs_a_millisecond_or_what_half_of_all_calls_took() {
        let methods = Methods::of(DESCRIPTORS, Duration::from_secs(10), &HashMap::new()).unwrap();
        let (method, now) = (methods.at(TOKENS), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(method.admits(now, ms(1) / 2), Err(LEAST));
        assert_eq!(method.admits(now, LEAST), Ok(Chance::Good));
        (0..50).for_each(|_| method.took(now, Took::Done(ms(20)), Chance::Good));
        assert_eq!(method.admits(now, ms(19)), Err(ms(20)));
        assert_eq!(method.admits(now, ms(20)), Ok(Chance::Good));
        let health = methods.at("/grpc.health.v1.Health/Check");
        assert_eq!(health.admits(now, Duration::ZERO), Ok(Chance::Good), "it is exempt");
        let later = now + Duration::from_secs(3_600);
        assert_eq!(method.admits(later, LEAST), Ok(Chance::Good));
    }
}
