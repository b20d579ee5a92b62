//! What a process was told, and by whom: `--print-config`.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use serde_json::{Map, Value, json};

use crate::{
    Policy,
    client::{Dependency, Override},
};

/// Who is called outside of the mesh, and how unless an operator says otherwise.
pub(super) type Outside = Vec<(&'static str, Policy)>;

/// Every setting of `command` with its value and where that comes from, and how dependencies are
/// called.
pub(super) fn told(
    command: &Command,
    matches: &ArgMatches,
    overrides: &[Override],
    outside: Outside,
) -> Value {
    let settings = command.get_arguments().filter_map(|arg| {
        let name =
            arg.get_long().filter(|name| !["help", "version", "print-config"].contains(name));
        Some((name?.to_owned(), setting(arg, matches)))
    });
    let mut dependencies = Map::new();
    dependencies.insert("*".to_owned(), Dependency::of(overrides, "").told());
    for name in Dependency::names(overrides) {
        dependencies.insert(name.to_owned(), Dependency::of(overrides, name).told());
    }
    for (name, policy) in outside {
        let policy = Dependency::outside(overrides, name, policy);
        dependencies.insert(name.to_owned(), Dependency::told_of_outside(&policy));
    }
    json!({ "settings": settings.collect::<Map<_, _>>(), "dependencies": dependencies })
}

/// What is wrong with what is said of those outside: it would change nothing.
pub(super) fn idle(overrides: &[Override], outside: &Outside) -> Option<String> {
    outside.iter().find_map(|(name, _)| {
        let idle = Dependency::idle(overrides, name);
        (!idle.is_empty()).then(|| {
            format!(
                "--dependency: {name} is outside of the mesh and asked once, at one address; this \
                 changes nothing there: {}",
                idle.join(", ")
            )
        })
    })
}

fn setting(arg: &Arg, matches: &ArgMatches) -> Value {
    let id = arg.get_id().as_str();
    let from = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => "flag",
        Some(ValueSource::EnvVariable) => "environment",
        Some(_) | None => "default",
    };
    let raw = matches.get_raw(id).into_iter().flatten();
    let mut values = raw.map(|value| value.to_string_lossy().into_owned());
    let value = if arg.is_hide_env_values_set() {
        // A URL of a database holds a password.
        json!("(not shown)")
    } else if matches!(arg.get_action(), ArgAction::Append) {
        values.collect()
    } else if matches!(arg.get_action(), ArgAction::SetTrue) {
        (values.next().as_deref() == Some("true")).into()
    } else {
        values.next().into()
    };
    let variable = arg.get_env().map(|name| name.to_string_lossy());
    json!({ "value": value, "from": from, "variable": variable })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::config::{Config, serves_on};

    #[derive(clap::Parser)]
    #[command(mut_args = serves_on(50_054))]
    struct Process {
        #[command(flatten)]
        mesh: Config,
        #[arg(long, hide_env_values = true, default_value = "postgres://me:secret@here")]
        database_url: String,
    }

    #[test]
    fn every_setting_is_told_with_its_source_and_no_secret() {
        let flags = ["p", "--drain", "3s", "--dependency", "users.retries=0,*.breaker=off"];
        let matches = Process::command().try_get_matches_from(flags).expect("flags");
        let process = Process::from_arg_matches(&matches).expect("settings");
        assert!(process.database_url.contains("secret"));
        let overrides = &process.mesh.dependencies;
        let told = told(&Process::command(), &matches, overrides, Vec::new());
        let settings = &told["settings"];
        assert_eq!(
            settings["drain"],
            json!({ "value": "3s", "from": "flag", "variable": "MESH_DRAIN" })
        );
        assert_eq!(settings["listen"]["value"], "127.0.0.1:50054");
        assert_eq!(settings["listen"]["from"], "default");
        assert_eq!(settings["allow-plaintext"]["value"], false);
        assert_eq!(settings["dependency"]["value"], json!(["users.retries=0", "*.breaker=off"]));
        assert!(!told.to_string().contains("secret@"), "{told}");
        assert_eq!(told["dependencies"]["*"]["breaker"], "off");
        assert_eq!(told["dependencies"]["users"]["retry"]["times"], 0);
        assert_eq!(told["dependencies"]["users"]["breaker"], "off");
    }

    #[test]
    fn who_is_outside_is_told_as_it_is_called_and_nothing_idle_is_said_of_it() {
        let matches = Process::command().try_get_matches_from(["p"]).expect("flags");
        let outside = || vec![("psp", Policy::external())];
        let told_with = |said: &[&str]| {
            let overrides: Vec<Override> = said.iter().map(|it| it.parse().expect(it)).collect();
            let told = told(&Process::command(), &matches, &overrides, outside());
            (told["dependencies"]["psp"].clone(), idle(&overrides, &outside()))
        };
        let (psp, wrong) = told_with(&[]);
        assert_eq!((&psp["timeout_ms"], &psp["outside"]), (&json!(3_000), &json!(true)));
        assert_eq!((psp.get("retry"), wrong), (None, None));
        let (psp, wrong) = told_with(&["*.retries=1", "psp.breaker=off", "psp.longest=9s"]);
        assert_eq!((&psp["timeout_ms"], &psp["breaker"]), (&json!(3_000), &json!("off")));
        assert_eq!((&psp["longest_ms"], wrong), (&json!(9_000), None));
        let (_, wrong) = told_with(&["psp.retries=1", "psp.hedge=on"]);
        let wrong = wrong.expect("they change nothing");
        assert!(wrong.contains("psp") && wrong.contains("retries, hedge"), "{wrong}");
    }
}
