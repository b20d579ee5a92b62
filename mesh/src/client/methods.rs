//! What the contract says of methods: read once at start.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use prost_reflect::{DescriptorError, DescriptorPool, MethodDescriptor, Value};

/// What is known of a method. A method of which nothing is known is a stream, and may not be
/// repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// One request, one answer.
    pub(crate) unary: bool,
    /// Sent twice it does what it does once: the option `idempotency_level`.
    pub(crate) idempotent: bool,
}

/// The facts of every method that the descriptors know.
#[derive(Debug, Default)]
pub(crate) struct Methods {
    /// By `package.Service/Method`.
    by_name: HashMap<String, Facts>,
}

// === impl Methods ===

impl Methods {
    /// Reads them from an encoded `FileDescriptorSet`.
    ///
    /// # Errors
    /// The bytes are not a descriptor set.
    pub(crate) fn of(descriptors: &[u8]) -> Result<Self, DescriptorError> {
        let pool = DescriptorPool::decode(descriptors)?;
        let by_name = pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|method| {
                let name = format!("{}/{}", method.parent_service().full_name(), method.name());
                (name, Facts::of(&method))
            })
            .collect();
        Ok(Self { by_name })
    }

    /// Those of the contract that mesh itself speaks: all that a tool without an `App` knows.
    pub(crate) fn of_mesh() -> Arc<Self> {
        static MESH: LazyLock<Arc<Methods>> =
            LazyLock::new(|| Arc::new(Methods::of(crate::wire::DESCRIPTORS).unwrap_or_default()));
        Arc::clone(&MESH)
    }

    /// What is known of the method `package.Service/Method`.
    pub(crate) fn facts(&self, name: &str) -> Option<Facts> {
        self.by_name.get(name).copied()
    }
}

// === impl Facts ===

impl Facts {
    fn of(method: &MethodDescriptor) -> Self {
        /// `NO_SIDE_EFFECTS` and `IDEMPOTENT` of `google.protobuf.MethodOptions`.
        const REPEATABLE: [i32; 2] = [1, 2];
        let options = method.options();
        let level = options.get_field_by_name("idempotency_level");
        let level = level.as_deref().and_then(Value::as_enum_number);
        Self {
            unary: !method.is_client_streaming() && !method.is_server_streaming(),
            idempotent: level.is_some_and(|level| REPEATABLE.contains(&level)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_contract_and_what_it_does_not_know_is_not_repeated() {
        let methods = Methods::of_mesh();
        let facts = |name| methods.facts(name).unwrap_or_default();
        let (read, write) =
            (Facts { unary: true, idempotent: true }, Facts { unary: true, idempotent: false });
        for (name, expected) in [
            ("ordermesh.operator.v1.SagasService/GetSaga", read),
            ("ordermesh.auth.v1.TokensService/GetJwks", read),
            ("ordermesh.auth.v1.TokensService/RefreshToken", write),
            ("ordermesh.events.v1.EventLogService/Subscribe", Facts::default()),
            ("ordermesh.events.v1.EventLogService/Nothing", Facts::default()),
        ] {
            assert_eq!(facts(name), expected, "{name}");
        }
    }

    #[test]
    fn bytes_that_are_no_descriptors_are_an_error() {
        assert!(Methods::of(b"no").is_err());
    }
}
