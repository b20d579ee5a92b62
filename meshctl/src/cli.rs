//! What can be asked for.

use crate::{access::Access, dead_letters, explain, outbox, sagas};

const EXAMPLES: &str = "\
Examples:
  meshctl order explain orders/01900000-0000-7000-8000-000000000001
  meshctl sagas list --state stuck
  meshctl sagas retry sagas/01900000-0000-7000-8000-000000000002 --reason 'provider is back'
  meshctl dead-letters list
  meshctl dead-letters replay --consumer notifications --dry-run
  meshctl outbox backlog --json

Settings may be given once, in the environment:
  MESHCTL_REGISTRY=static://?orders=127.0.0.1:50054&users=127.0.0.1:50051
  MESHCTL_EMAIL=admin@ordermesh.example MESHCTL_PASSWORD_FILE=admin-password";

/// Explains an order, and looks after sagas, dead letters and the outbox of a running mesh.
///
/// Asks each service for itself. Whoever asks needs the role `admin`; what they change is noted
/// with their name and reason.
#[derive(Debug, clap::Parser)]
#[command(name = "meshctl", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// Where the mesh is, and who asks.
    #[command(flatten)]
    pub access: Access,
    /// Prints JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What is asked for.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked for.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Orders, as everybody knows them.
    #[command(subcommand)]
    Order(explain::Command),
    /// Events that a consumer could not take in.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// What leads orders and other things step by step.
    #[command(subcommand)]
    Sagas(sagas::Command),
    /// Events on their way out.
    #[command(subcommand)]
    Outbox(outbox::Command),
}

/// Does what `cli` asks for; the answer is for standard output.
///
/// # Errors
/// The mesh cannot be reached, or refuses it. [`crate::error::advice`] says what to do.
pub async fn run(cli: Cli) -> anyhow::Result<String> {
    let mesh = cli.access.sign_in().await?;
    let told = match cli.command {
        Command::Order(command) => command.run(&mesh).await?,
        Command::DeadLetters(command) => command.run(&mesh).await?,
        Command::Sagas(command) => command.run(&mesh).await?,
        Command::Outbox(command) => command.run(&mesh).await?,
    };
    if cli.json { Ok(serde_json::to_string_pretty(&told.json)?) } else { Ok(told.text) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_can_be_asked() {
        let lines = EXAMPLES.lines().filter_map(|line| line.trim().strip_prefix("meshctl "));
        let mut count = 0;
        for line in lines {
            let words = line.replace("'provider is back'", "back");
            let words = std::iter::once("meshctl").chain(words.split_whitespace());
            let words = words.chain(["--registry", "static://?"]);
            <Cli as clap::Parser>::try_parse_from(words).expect(line);
            count += 1;
        }
        assert_eq!(count, 6);
    }
}
