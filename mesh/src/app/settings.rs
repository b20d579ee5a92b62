//! What a process was told, and by whom: `--print-config`.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use serde_json::{Map, Value, json};

use crate::client::{Dependency, Override};

/// Every setting of `command` with its value and where that comes from, and how dependencies are
/// called.
pub(super) fn told(command: &Command, matches: &ArgMatches, overrides: &[Override]) -> Value {
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
    json!({ "settings": settings.collect::<Map<_, _>>(), "dependencies": dependencies })
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
        let told = told(&Process::command(), &matches, &process.mesh.dependencies);
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
}
