//! What every `.proto` file of ours keeps to, beyond what `buf lint` and api-linter know.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FileDescriptor, MessageDescriptor,
    MethodDescriptor, Value,
};

/// The canonical codes with which a call can fail.
const CODES: &[&str] = &[
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

#[test]
fn every_rpc_says_who_may_call_it_and_anonymous_stands_alone() {
    let contract = Contract::read();
    assert_eq!(contract.wrong_rpcs(|rpc| option(&rpc.options(), RULE).is_none()), NONE);
    assert_eq!(
        contract.wrong_rpcs(|rpc| {
            let rule = option(&rpc.options(), RULE);
            let anonymous = rule.as_ref().is_some_and(|rule| is_set(rule, "anonymous"));
            let named = ["roles", "owner", "services"]
                .iter()
                .any(|field| rule.as_ref().is_some_and(|rule| is_set(rule, field)));
            anonymous == named
        }),
        NONE
    );
}

#[test]
fn a_customer_changes_nothing_without_an_owner_duty() {
    // The duty is what keeps one customer from another's rows. What only reads may show every
    // customer the same.
    assert_eq!(
        Contract::read().wrong_rpcs(|rpc| {
            let rule = option(&rpc.options(), RULE);
            let by_customers = rule.is_some_and(|rule| {
                strings(&rule, "roles").contains("customer") && !is_set(&rule, "owner")
            });
            let routes = option(&rpc.options(), HTTP).iter().flat_map(routes).collect::<Vec<_>>();
            by_customers && routes.iter().any(|(verb, _)| verb != "get")
        }),
        NONE
    );
}

#[test]
fn an_owner_named_by_a_rule_is_a_field_of_the_request() {
    assert_eq!(
        Contract::read().wrong_rpcs(|rpc| {
            option(&rpc.options(), RULE)
                .and_then(|rule| Some(rule.get_field_by_name("owner")?.as_str()?.to_owned()))
                .is_some_and(|path| !path.is_empty() && !leads_to_a_string(rpc.input(), &path))
        }),
        NONE
    );
}

#[test]
fn every_rpc_is_called_by_http_or_says_why_not() {
    let contract = Contract::read();
    assert_eq!(
        contract.wrong_rpcs(|rpc| {
            let why_not = contract.comment(&rpc.parent_file(), rpc.path()).contains("No HTTP: ");
            option(&rpc.options(), HTTP).is_some() == why_not
        }),
        NONE
    );
}

#[test]
fn no_two_rpcs_answer_to_the_same_method_and_path() {
    let mut rpcs = BTreeMap::<String, Vec<String>>::new();
    for rpc in Contract::read().rpcs() {
        for (verb, path) in option(&rpc.options(), HTTP).iter().flat_map(routes) {
            // A field's name in the path does not tell one route from another.
            let shape = path.split('=').next_back().unwrap_or_default().to_owned();
            let front = path.split('{').next().unwrap_or_default();
            let route = if path.contains('{') { format!("{front}{{{shape}") } else { path };
            rpcs.entry(format!("{verb} {route}")).or_default().push(rpc.full_name().to_owned());
        }
    }
    rpcs.retain(|_, rpcs| rpcs.len() > 1);
    assert_eq!(rpcs, BTreeMap::new());
}

#[test]
fn the_errors_of_an_rpc_are_codes_and_reasons_of_its_package() {
    let contract = Contract::read();
    let mut wrong = Vec::new();
    for rpc in contract.rpcs() {
        let comment = contract.comment(&rpc.parent_file(), rpc.path());
        let Some((_, errors)) = comment.split_once("Errors: ") else {
            wrong.push(format!("{}: no `Errors:`", rpc.full_name()));
            continue;
        };
        let package = rpc.parent_file().package_name().to_owned();
        let mut known = contract.values(&package);
        known.extend(CODES.iter().map(|&code| code.to_owned()));
        let unknown = constants(errors).filter(|constant| !known.contains(*constant));
        wrong.extend(unknown.map(|constant| format!("{}: {constant}", rpc.full_name())));
    }
    assert_eq!(wrong, NONE);
}

#[test]
fn every_package_with_a_service_has_its_reasons() {
    let contract = Contract::read();
    let packages: BTreeSet<_> =
        contract.rpcs().map(|rpc| rpc.parent_file().package_name().to_owned()).collect();
    let without = packages.iter().filter(|package| {
        contract.pool.get_enum_by_name(&format!("{package}.Reason")).is_none_or(|reasons| {
            reasons.values().len() < 2 || reasons.default_value().name() != "REASON_UNSPECIFIED"
        })
    });
    assert_eq!(without.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn every_field_of_a_request_says_whether_it_must_be_given() {
    let contract = Contract::read();
    let mut requests = BTreeMap::new();
    for rpc in contract.rpcs() {
        reach(rpc.input(), &mut requests);
    }
    let silent = requests
        .values()
        .flat_map(MessageDescriptor::fields)
        .filter(|field| !field.options().has_extension(&contract.extension(BEHAVIOR)))
        .map(|field| field.full_name().to_owned());
    assert_eq!(silent.collect::<Vec<_>>(), NONE);
}

#[test]
fn everything_has_a_comment() {
    let contract = Contract::read();
    let mut parts = Vec::new();
    for service in contract.pool.services().filter(|service| is_ours(service.full_name())) {
        parts.push((
            service.parent_file(),
            service.path().to_vec(),
            service.full_name().to_owned(),
        ));
    }
    for rpc in contract.rpcs() {
        parts.push((rpc.parent_file(), rpc.path().to_vec(), rpc.full_name().to_owned()));
    }
    for message in contract.pool.all_messages().filter(written) {
        let file = message.parent_file();
        parts.push((file.clone(), message.path().to_vec(), message.full_name().to_owned()));
        for field in message.fields() {
            parts.push((file.clone(), field.path().to_vec(), field.full_name().to_owned()));
        }
        for choice in message.oneofs().filter(|choice| !choice.is_synthetic()) {
            parts.push((file.clone(), choice.path().to_vec(), choice.full_name().to_owned()));
        }
    }
    for values in contract.pool.all_enums().filter(|values| is_ours(values.full_name())) {
        let file = values.parent_file();
        parts.push((file.clone(), values.path().to_vec(), values.full_name().to_owned()));
        for value in values.values() {
            parts.push((file.clone(), value.path().to_vec(), value.full_name().to_owned()));
        }
    }
    let silent =
        parts.into_iter().filter(|(file, path, _)| contract.comment(file, path).is_empty());
    assert_eq!(silent.map(|(.., name)| name).collect::<Vec<_>>(), NONE);
}

#[test]
fn the_descriptors_keep_options_under_the_numbers_that_everybody_uses() {
    let contract = Contract::read();
    for (name, number, on) in [
        (HTTP, 72_295_728, "google.protobuf.MethodOptions"),
        ("google.api.method_signature", 1051, "google.protobuf.MethodOptions"),
        (RULE, 50_101, "google.protobuf.MethodOptions"),
        ("google.api.default_host", 1049, "google.protobuf.ServiceOptions"),
        (BEHAVIOR, 1052, "google.protobuf.FieldOptions"),
        ("google.api.field_info", 291_403_980, "google.protobuf.FieldOptions"),
        ("google.api.resource_reference", 1055, "google.protobuf.FieldOptions"),
        ("google.api.resource", 1053, "google.protobuf.MessageOptions"),
        ("google.api.resource_definition", 1053, "google.protobuf.FileOptions"),
    ] {
        let extension = contract.extension(name);
        assert_eq!(extension.number(), number, "{name}");
        assert_eq!(extension.containing_message().full_name(), on, "{name}");
    }
    let issue = contract.rpcs().find(|rpc| rpc.name() == "IssueToken");
    let route = issue.and_then(|rpc| option(&rpc.options(), HTTP)).map(|rule| routes(&rule));
    assert_eq!(route, Some(vec![("post".to_owned(), "/v1/tokens:issue".to_owned())]));
}

const HTTP: &str = "google.api.http";
const RULE: &str = "ordermesh.auth.v1.rule";
const BEHAVIOR: &str = "google.api.field_behavior";
const NONE: Vec<String> = Vec::new();

/// The descriptors with their comments.
struct Contract {
    pool: DescriptorPool,
    comments: BTreeMap<(String, Vec<i32>), String>,
}

impl Contract {
    fn read() -> Self {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
        let mut comments = BTreeMap::new();
        for file in pool.file_descriptor_protos() {
            for location in file.source_code_info.iter().flat_map(|info| &info.location) {
                let comment = without_notes(location.leading_comments()).trim().to_owned();
                comments.insert((file.name().to_owned(), location.path.clone()), comment);
            }
        }
        Self { pool, comments }
    }

    /// Every rpc of ours.
    fn rpcs(&self) -> impl Iterator<Item = MethodDescriptor> {
        let services = self.pool.services().filter(|service| is_ours(service.full_name()));
        services.flat_map(|service| service.methods().collect::<Vec<_>>())
    }

    /// The names of the rpcs that `wrong` holds for.
    fn wrong_rpcs(&self, wrong: impl Fn(&MethodDescriptor) -> bool) -> Vec<String> {
        self.rpcs().filter(wrong).map(|rpc| rpc.full_name().to_owned()).collect()
    }

    /// What is written above a part of a file, less notes for the linter.
    fn comment(&self, file: &FileDescriptor, path: &[i32]) -> &str {
        self.comments.get(&(file.name().to_owned(), path.to_vec())).map_or("", String::as_str)
    }

    /// The values of every enum in a package: its reasons, and the states that explain them.
    fn values(&self, package: &str) -> BTreeSet<String> {
        let enums = self.pool.all_enums().filter(|values| values.package_name() == package);
        enums
            .flat_map(|values| values.values().map(|v| v.name().to_owned()).collect::<Vec<_>>())
            .collect()
    }

    fn extension(&self, name: &str) -> prost_reflect::ExtensionDescriptor {
        self.pool.get_extension_by_name(name).unwrap()
    }
}

/// Everything that can be part of a request, less what Google defines.
fn reach(message: MessageDescriptor, into: &mut BTreeMap<String, MessageDescriptor>) {
    if written(&message) && into.insert(message.full_name().to_owned(), message.clone()).is_none() {
        for field in message.fields() {
            if let Some(message) = field.kind().as_message() {
                reach(message.clone(), into);
            }
        }
    }
}

/// Whether a message stands in a file of ours, and is not what the compiler makes of a map.
fn written(message: &MessageDescriptor) -> bool {
    is_ours(message.full_name()) && !message.is_map_entry()
}

fn is_ours(name: &str) -> bool {
    name.starts_with("ordermesh.")
}

/// The value of an option that is a message.
fn option(options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let (_, value) = options.extensions().find(|(extension, _)| extension.full_name() == name)?;
    value.as_message().cloned()
}

fn is_set(message: &DynamicMessage, field: &str) -> bool {
    message.has_field_by_name(field)
}

fn strings(message: &DynamicMessage, field: &str) -> BTreeSet<String> {
    let value = message.get_field_by_name(field);
    let list = value.as_deref().and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether the path `a.b` leads through messages to one string.
fn leads_to_a_string(mut message: MessageDescriptor, path: &str) -> bool {
    let mut names = path.split('.').peekable();
    while let Some(field) = names.next().and_then(|name| message.get_field_by_name(name)) {
        match (names.peek(), field.kind().as_message()) {
            (None, _) => return is_one_string(&field),
            (Some(_), Some(inner)) => message = inner.clone(),
            (Some(_), None) => return false,
        }
    }
    false
}

fn is_one_string(field: &FieldDescriptor) -> bool {
    !field.is_list() && matches!(field.kind(), prost_reflect::Kind::String)
}

/// The methods and paths of an HTTP rule, its own first.
fn routes(rule: &DynamicMessage) -> Vec<(String, String)> {
    let own = ["get", "put", "post", "delete", "patch"].iter().filter_map(|&verb| {
        let path = rule.get_field_by_name(verb)?.as_str()?.to_owned();
        (!path.is_empty()).then(|| (verb.to_owned(), path))
    });
    let mut routes: Vec<_> = own.collect();
    let more = rule.get_field_by_name("additional_bindings");
    let more = more.as_deref().and_then(Value::as_list).unwrap_or_default();
    routes.extend(more.iter().filter_map(Value::as_message).flat_map(self::routes));
    routes
}

/// What stands in backticks and upper case: `OUT_OF_STOCK`, but not `sku`.
fn constants(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| {
        word.chars().any(|letter| letter.is_ascii_uppercase())
            && word.chars().all(|letter| {
                letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'
            })
    })
}

/// A comment without what is between `(--` and `--)`.
fn without_notes(comment: &str) -> String {
    let mut pieces = comment.split("(--");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |kept, piece| kept + piece.split_once("--)").map_or("", |(_, rest)| rest))
}
