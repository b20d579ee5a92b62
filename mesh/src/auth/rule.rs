//! Who may call an rpc: the option `(ordermesh.auth.v1.rule)`, read from the descriptors at start.

use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use super::{CUSTOMER, Caller, Denied};
use crate::ByName;

/// The rule of one rpc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Anybody may call, with or without a token.
    pub anonymous: bool,
    /// Users with one of these roles may.
    pub roles: Vec<String>,
    /// Present: a caller who is only a customer reaches what is theirs and nothing else.
    pub owner: Option<String>,
    /// These services may.
    pub services: Vec<String>,
}

/// The rules of every rpc that the descriptors know.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By `/package.Service/Method`; `None` where the contract has no rule.
    by_path: ByName<Option<Rule>>,
}

// === impl Rules ===

impl Rules {
    /// Reads the rules from an encoded `FileDescriptorSet`. A method without the option has no
    /// rule, so nobody may call it.
    ///
    /// # Errors
    /// The bytes are not a descriptor set.
    pub fn of(descriptors: &[u8]) -> Result<Self, prost_reflect::DescriptorError> {
        let pool = DescriptorPool::decode(descriptors)?;
        let Some(option) = pool.get_extension_by_name("ordermesh.auth.v1.rule") else {
            return Ok(Self::default());
        };
        let by_path = pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|method| {
                let options = method.options();
                let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
                let value = options.has_extension(&option).then(|| options.get_extension(&option));
                let rule = value.and_then(|value| value.as_message().map(Rule::read));
                (path, rule)
            })
            .collect();
        Ok(Self { by_path })
    }

    /// The rule of the method at `path`, as `/package.Service/Method`.
    #[must_use]
    pub fn rule(&self, path: &str) -> Option<&Rule> {
        self.by_path.get(path)?.as_ref()
    }

    /// The same rules, but anybody may call the method at `path`.
    #[cfg(test)]
    pub(crate) fn open(mut self, path: &str) -> Self {
        self.by_path.insert(path.to_owned(), Some(Rule { anonymous: true, ..Rule::default() }));
        self
    }

    /// The same, or why nobody is let in.
    pub(super) fn find(&self, path: &str) -> Result<&Rule, Denied> {
        self.by_path.get(path).ok_or(Denied::NoMethod)?.as_ref().ok_or(Denied::NoRule)
    }
}

// === impl Rule ===

impl Rule {
    fn read(message: &DynamicMessage) -> Self {
        let texts = |name: &str| match message.get_field_by_name(name).as_deref() {
            Some(Value::List(values)) => {
                values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(_) | None => Vec::new(),
        };
        let owner = message
            .has_field_by_name("owner")
            .then(|| message.get_field_by_name("owner"))
            .flatten()
            .and_then(|value| value.as_str().map(str::to_owned));
        let anonymous = message.get_field_by_name("anonymous").and_then(|value| value.as_bool());
        Self {
            anonymous: anonymous.unwrap_or_default(),
            roles: texts("roles"),
            owner,
            services: texts("services"),
        }
    }

    /// Whether `caller` has a role, or is a service, that this rule names.
    #[must_use]
    pub fn admits(&self, caller: &Caller) -> bool {
        self.admits_service(caller) || self.roles.iter().any(|role| caller.has(role))
    }

    /// Whether `caller` is admitted as more than a customer.
    pub(crate) fn sees_all(&self, caller: &Caller) -> bool {
        self.admits_service(caller)
            || self.roles.iter().any(|role| role != CUSTOMER && caller.has(role))
    }

    fn admits_service(&self, caller: &Caller) -> bool {
        caller.service().is_some_and(|name| self.services.iter().any(|service| service == name))
    }
}

/// Whether anybody may call `path` although the contract has no rule for it.
pub(crate) fn is_open(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_among_staff_sees_what_staff_sees() {
        let rule = Rule {
            roles: vec!["customer".to_owned(), "support".to_owned()],
            owner: Some(String::new()),
            services: vec!["payments".to_owned()],
            ..Rule::default()
        };
        for (roles, admitted, all) in [
            (&["customer"][..], true, false),
            (&["customer", "support"], true, true),
            (&["support"], true, true),
            (&["warehouse"], false, false),
            (&["service:payments"], true, true),
            (&["service:users"], false, false),
            (&[], false, false),
        ] {
            let caller = Caller::with_roles("users/1", roles);
            assert_eq!(
                (rule.admits(&caller), rule.sees_all(&caller)),
                (admitted, all),
                "{roles:?}"
            );
        }
    }
}
