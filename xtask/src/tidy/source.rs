//! Rules about what a Rust file may mention.

use super::code::{Line, mentions};
use super::{File, Finding, Tree};

/// Rules are decided without I/O: values in, state and events or a refusal out.
pub(super) fn domain_is_pure(tree: &Tree) -> Vec<Finding> {
    let io = ["tonic", "sea_orm", "tokio", "proto", "mesh"];
    lines(
        tree,
        |path| in_module(path, "domain"),
        |line| {
            for name in io {
                // Pure value types; everything else of mesh does something.
                let bare = line.bare.replace("mesh::money", "");
                if uses(&bare, name) {
                    return Some(format!(
                        "mentions `{name}`, but rules are decided without I/O (of mesh, mesh::money alone)"
                    ));
                }
            }
            let waits = mentions(line.bare, "async") || line.bare.contains(".await");
            waits.then(|| "waits, but rules are decided without I/O".to_owned())
        },
    )
}

/// SeaORM stays in the store, in the table of errors, in migrations and in mesh's storage.
pub(super) fn database_stays_in_the_store(tree: &Tree) -> Vec<Finding> {
    let knows = |path: &str| {
        let storage =
            ["store", "idempotency", "outbox", "barrier", "saga", "testing", "migrations", "page"];
        in_module(path, "store")
            || in_module(path, "error")
            || in_module(path, "migrations")
            || path.starts_with("xtask/")
            // Its floor does the bare statements, without any of our layers.
            || path.starts_with("proof/")
            || storage.iter().any(|it| {
                path == format!("mesh/src/{it}.rs") || path.starts_with(&format!("mesh/src/{it}/"))
            })
    };
    lines(
        tree,
        |path| !knows(path),
        |line| {
            let named =
                ["sea_orm", "rusqlite", "sqlx"].into_iter().find(|name| uses(line.bare, name))?;
            Some(format!("mentions `{named}`, but only the store knows there is a database"))
        },
    )
}

/// One table per service says what callers are told.
pub(super) fn statuses_are_made_in_one_place(tree: &Tree) -> Vec<Finding> {
    let ours = |path: &str| path.starts_with("services/") || path.starts_with("gateway/");
    lines(
        tree,
        |path| ours(path) && !in_module(path, "error"),
        |line| {
            let made = ["Status::new(", "Status::with_details(", "Status::with_metadata("]
                .into_iter()
                .find(|it| line.bare.contains(it))?;
            Some(format!(
                "calls `{}`, but a failing status is made by error.rs alone: return an Error",
                made.trim_end_matches('(')
            ))
        },
    )
}

/// A call without a deadline cannot be made, because only mesh makes channels.
pub(super) fn calls_leave_through_mesh(tree: &Tree) -> Vec<Finding> {
    let tools = |path: &str| {
        path.starts_with("xtask/") || path.starts_with("mesh/") || path.starts_with("proof/")
    };
    lines(
        tree,
        |path| !tools(path),
        |line| {
            let named = [
                "hyper::client",
                "hyper_util::client",
                "tonic::transport",
                "reqwest",
                "ureq",
                "TcpStream::connect",
            ]
            .into_iter()
            .find(|it| line.bare.contains(it))?;
            Some(format!(
                "uses `{named}`, but calls leave through mesh, which gives each a deadline: App::channel"
            ))
        },
    )
}

/// A task that mesh does not know is lost on shutdown.
pub(super) fn tasks_start_through_mesh(tree: &Tree) -> Vec<Finding> {
    let tools = |path: &str| {
        path.starts_with("xtask/") || path.starts_with("mesh/") || path.starts_with("proof/")
    };
    lines(
        tree,
        |path| !tools(path),
        |line| {
            let named = [
                "tokio::spawn",
                "task::spawn",
                "spawn_blocking",
                "thread::spawn",
                "JoinSet::new",
                "Runtime::new",
            ]
            .into_iter()
            .find(|it| line.bare.contains(it))?;
            Some(format!(
                "uses `{named}`, but tasks start through mesh, so that shutdown waits for them: mesh::spawn, mesh::offload or App::task"
            ))
        },
    )
}

/// Values are bound. Names of columns, lists of `$1` and clauses may be formatted in, since a
/// statement has no other way to take them; where a value stands, nothing may.
pub(super) fn sql_is_bound(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.sources().filter(|(file, _)| !file.path.starts_with("xtask/")) {
        for name in ["format", "write", "writeln", "format_args"] {
            for (line, arguments) in code.macros(name) {
                if is_sql(arguments) && formats_values(arguments) {
                    findings.push(file.finding(
                        line,
                        "formats a value into SQL, but values are bound: write $1 and pass it",
                    ));
                }
            }
        }
    }
    findings
}

fn is_sql(text: &str) -> bool {
    let verbs = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "];
    verbs.iter().any(|verb| {
        text.match_indices(verb)
            .any(|(at, _)| text.get(..at).is_some_and(|it| !it.ends_with(char::is_alphanumeric)))
    })
}

/// Whether a placeholder of a format string stands where SQL has a value.
fn formats_values(arguments: &str) -> bool {
    let text = arguments.replace("{{", "").replace("}}", "");
    text.match_indices('{').any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let before = before.trim_end_matches(|c: char| c.is_whitespace() || c == '\\');
        let keyword = ["LIKE", "LIMIT", "OFFSET", "BETWEEN"].iter().any(|it| before.ends_with(it));
        keyword || before.ends_with(['\'', '=', '<', '>', '%', '|'])
    })
}

/// A fault of the provider's simulator strikes with a probability, which is no amount.
const CHANCES: [&str; 3] = [
    "services/payments/src/psp/control.rs",
    "services/payments/src/psp/faults.rs",
    "services/payments/src/psp/http.rs",
];

/// An amount that cannot be written exactly is charged wrongly.
pub(super) fn no_floats(tree: &Tree) -> Vec<Finding> {
    lines(
        tree,
        |path| {
            (path.starts_with("services/") && !CHANCES.contains(&path))
                || path == "mesh/src/money.rs"
        },
        |line| {
            let named = ["f32", "f64"].into_iter().find(|it| mentions(line.bare, it))?;
            Some(format!("uses `{named}`, but amounts are whole minor units: mesh::money"))
        },
    )
}

/// What every process is built on has no business words.
pub(super) fn mesh_knows_no_service(tree: &Tree) -> Vec<Finding> {
    let services = tree.services();
    // Who calls is `users/…`: the form of a subject is part of the tokens that mesh speaks itself.
    let subject = |line: &str| line.replace("\"users/", "\"").replace("`users/", "`");
    let harness = |path: &str| path.starts_with("mesh/src/testing");
    lines(
        tree,
        |path| path.starts_with("mesh/src/") && !harness(path),
        |line| {
            let text = subject(line.text);
            let named = services.iter().find(|name| mentions(&text, name))?;
            Some(format!("names the service `{named}`, but mesh knows no business word"))
        },
    )
}

/// The gateway reads descriptors: a new rpc or service needs no edit in it.
pub(super) fn gateway_knows_no_service(tree: &Tree) -> Vec<Finding> {
    let services = tree.services();
    let messages = messages(tree, &services);
    lines(
        tree,
        |path| path.starts_with("gateway/src/"),
        |line| {
            if let Some(named) = services.iter().find(|name| mentions(line.text, name)) {
                return Some(format!(
                    "names the service `{named}`, but the gateway knows descriptors alone"
                ));
            }
            let named = messages.iter().find(|name| mentions(line.text, name))?;
            Some(format!("names the message `{named}`, but the gateway knows descriptors alone"))
        },
    )
}

/// The names of the messages and services that the services' contracts declare at their top.
fn messages(tree: &Tree, services: &[&str]) -> Vec<String> {
    let of_service = |file: &&File| {
        services.iter().any(|name| file.path.starts_with(&format!("proto/ordermesh/{name}/")))
    };
    let declared = |line: &str| {
        let rest = line.strip_prefix("message ").or_else(|| line.strip_prefix("service "))?;
        let name = rest.split([' ', '{']).next()?;
        // A name of one plain word, such as `User` or `Line`, is also an ordinary word of Rust code.
        (name.chars().filter(char::is_ascii_uppercase).count() > 1).then(|| name.to_owned())
    };
    tree.files
        .iter()
        .filter(of_service)
        .flat_map(|file| file.text.lines().filter_map(declared))
        .collect()
}

/// Applies a rule to every line of the product in files that it is about.
fn lines(
    tree: &Tree,
    about: impl Fn(&str) -> bool,
    rule: impl Fn(Line<'_>) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.sources().filter(|(file, _)| about(&file.path)) {
        findings
            .extend(code.lines().filter_map(|line| Some(file.finding(line.number, rule(line)?))));
    }
    findings
}

/// Whether a file is a module of a service, or a part of it: `domain.rs`, `domain/state.rs`.
fn in_module(path: &str, module: &str) -> bool {
    let inside = path.split_once("/src").map_or("", |(_, rest)| rest);
    inside.contains(&format!("/{module}.rs")) || inside.contains(&format!("/{module}/"))
}

/// Whether a line names a crate, as `name::…` or `use name;`.
fn uses(bare: &str, name: &str) -> bool {
    let path = bare.match_indices(&format!("{name}::")).any(|(at, _)| {
        bare.get(..at)
            .is_some_and(|it| !it.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
    });
    path || bare
        .trim_start()
        .strip_prefix("use ")
        .is_some_and(|rest| rest.trim_end_matches(';').trim() == name)
}

#[cfg(test)]
mod tests {
    use super::super::{Rule, found};
    use super::*;

    const NONE: [usize; 0] = [];

    /// The lines at which a rule finds something in a file.
    fn at(rule: Rule, path: &str, text: &str) -> Vec<usize> {
        found(rule, path, text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_domain_that_does_io_is_found_and_its_tests_and_comments_are_not() {
        let text = "use mesh::money::Money;\nuse mesh::clock;\n// tokio::spawn\nasync fn f() {}\nuse sea_orm;\n#[cfg(test)]\nuse tokio::test;\n";
        assert_eq!(at(domain_is_pure, "services/orders/src/domain.rs", text), [2, 4, 5]);
        assert_eq!(
            at(domain_is_pure, "services/orders/src/domain/state.rs", "use proto::orders;"),
            [1]
        );
        assert_eq!(at(domain_is_pure, "services/orders/src/grpc.rs", text), NONE);
    }

    #[test]
    fn the_database_is_found_outside_the_store() {
        let text = "use sea_orm::DbErr;\n";
        assert_eq!(at(database_stays_in_the_store, "services/orders/src/grpc.rs", text), [1]);
        assert_eq!(at(database_stays_in_the_store, "mesh/src/client/channel.rs", text), [1]);
        for path in [
            "services/orders/src/store.rs",
            "services/orders/src/store/rows.rs",
            "services/orders/src/error.rs",
            "mesh/src/outbox.rs",
        ] {
            assert_eq!(at(database_stays_in_the_store, path, text), NONE, "{path}");
        }
    }

    #[test]
    fn statuses_calls_and_tasks_of_its_own_are_found() {
        let path = "services/orders/src/grpc.rs";
        assert_eq!(
            at(statuses_are_made_in_one_place, path, "Err(Status::new(Code::Internal, \"\"))"),
            [1]
        );
        assert_eq!(
            at(
                statuses_are_made_in_one_place,
                "services/orders/src/error.rs",
                "Status::new(code, \"\")"
            ),
            NONE
        );
        assert_eq!(
            at(calls_leave_through_mesh, path, "use hyper_util::client::legacy::Client;"),
            [1]
        );
        assert_eq!(at(tasks_start_through_mesh, path, "\nstd::thread::spawn(f);"), [2]);
    }

    #[test]
    fn a_value_in_sql_is_found_and_a_constant_is_not() {
        let path = "services/orders/src/store.rs";
        assert_eq!(
            at(sql_is_bound, path, "let q = format!(\n\"SELECT a FROM t WHERE id = '{id}'\");"),
            [1]
        );
        assert_eq!(at(sql_is_bound, path, "write!(q, \"UPDATE t SET a = {}\", a)"), [1]);
        assert_eq!(
            at(sql_is_bound, path, "format!(\"SELECT {COLUMNS} FROM t WHERE id = $1 {lock}\")"),
            NONE
        );
        assert_eq!(at(sql_is_bound, path, "format!(\"DELETE FROM t WHERE a = ${}\", n)"), NONE);
        assert_eq!(at(sql_is_bound, path, "format!(\"SELECT a FROM t LIMIT {size}\")"), [1]);
        assert_eq!(at(sql_is_bound, path, "format!(\"cannot UPDATE_{id}\")"), NONE);
    }

    #[test]
    fn floats_are_found_in_services_and_not_in_longer_words() {
        assert_eq!(
            at(no_floats, "services/orders/src/domain.rs", "let a: f64 = 1;\nlet buf64 = 2;"),
            [1]
        );
        assert_eq!(at(no_floats, CHANCES[0], "pub probability: f64,"), NONE);
        assert_eq!(at(no_floats, "mesh/src/telemetry.rs", "let a: f64 = 1;"), NONE);
    }

    #[test]
    fn mesh_and_gateway_may_not_name_a_service_in_code_or_string() {
        assert_eq!(
            at(
                mesh_knows_no_service,
                "mesh/src/app.rs",
                "call(\"orders\");\n// orders\nlet reorders = 1;"
            ),
            [1]
        );
        let tree = Tree::of(&[
            (
                "proto/ordermesh/orders/v1/orders.proto",
                "message CreateOrderRequest {\nmessage Line {\n",
            ),
            (
                "gateway/src/lib.rs",
                "use proto::orders::v1;\nlet x = CreateOrderRequest::default();\nstruct Line;\n",
            ),
        ]);
        let lines: Vec<usize> =
            gateway_knows_no_service(&tree).into_iter().map(|it| it.line).collect();
        assert_eq!(lines, [1, 2]);
    }
}
