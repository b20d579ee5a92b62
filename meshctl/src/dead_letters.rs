//! `meshctl dead-letters`: events that could not be taken in, and handing them over again.

use mesh::Channel;
use proto::operator::v1::{
    DeadLetter, DiscardDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest,
    ReplayDeadLettersRequest, ReplayDeadLettersResponse, dead_letter::State,
    dead_letters_service_client::DeadLettersServiceClient,
};
use serde_json::{Map, Value, json};

use crate::{
    access::{Heard, Mesh},
    error::{Refused, if_there},
    say::{self, Table, Told, state, when},
};

/// What can be asked of dead letters.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Lists dead letters, those that wait for a replay by default.
    List {
        /// Only those in this state.
        #[arg(long, value_enum, default_value = "parked")]
        state: Standing,
        /// Only those of this aggregate, such as `orders/{uuid}`.
        #[arg(long)]
        aggregate: Option<String>,
        /// At most so many from each service.
        #[arg(long, default_value_t = 50)]
        limit: i32,
    },
    /// Shows a dead letter with its event, and why it could not be taken in.
    Show {
        /// `deadLetters/{uuid}`.
        name: String,
    },
    /// Hands parked events over again, those of an aggregate in their order.
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
    Replay {
        /// One dead letter, and what is parked before it: `deadLetters/{uuid}`.
        #[arg(group = "which")]
        name: Option<String>,
        /// Those of this consumer, such as `notifications`.
        #[arg(long, group = "which")]
        consumer: Option<String>,
        /// Those that came from this service.
        #[arg(long, group = "which")]
        source: Option<String>,
        /// Those of this aggregate, such as `orders/{uuid}`.
        #[arg(long, group = "which")]
        aggregate: Option<String>,
        /// All of every service.
        #[arg(long, group = "which")]
        all: bool,
        /// Says what would happen, and changes nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Gives one up: it is kept with the reason, and never handed over.
    Discard {
        /// `deadLetters/{uuid}`.
        name: String,
        /// Why: noted with your name.
        #[arg(long)]
        reason: String,
    },
}

/// Where a dead letter stands.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Standing {
    /// Waits for a replay.
    Parked,
    /// Was taken in by a replay.
    Replayed,
    /// Was given up.
    Discarded,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self, mesh: &Mesh) -> anyhow::Result<Told> {
        match self {
            Self::List { state, aggregate, limit } => {
                let state = state.state();
                listed(&of_all(mesh, state, &aggregate.unwrap_or_default(), limit).await?)
            }
            Self::Show { name } => shown(&find(mesh, &name).await?.1),
            Self::Replay { name, consumer, source, aggregate, all: _, dry_run } => {
                let ask = ReplayDeadLettersRequest {
                    consumer: consumer.unwrap_or_default(),
                    source: source.unwrap_or_default(),
                    aggregate: aggregate.unwrap_or_default(),
                    name: name.unwrap_or_default(),
                    dry_run,
                };
                replay(mesh, ask).await
            }
            Self::Discard { name, reason } => {
                let (channel, _) = find(mesh, &name).await?;
                let service = channel.name().to_owned();
                let mut client = DeadLettersServiceClient::new(channel);
                let ask = mesh.request(DiscardDeadLetterRequest { name, reason });
                shown(&mesh.ask(&service, client.discard_dead_letter(ask)).await?)
            }
        }
    }
}

// === impl Standing ===

impl Standing {
    fn state(self) -> State {
        match self {
            Self::Parked => State::Parked,
            Self::Replayed => State::Replayed,
            Self::Discarded => State::Discarded,
        }
    }
}

/// The dead letters of every service.
pub(crate) async fn of_all(
    mesh: &Mesh,
    state: State,
    aggregate: &str,
    page_size: i32,
) -> Result<Heard<Vec<DeadLetter>>, Refused> {
    mesh.each(async |service, channel| {
        let ask = ListDeadLettersRequest {
            page_size,
            state: state.into(),
            aggregate: aggregate.to_owned(),
            ..ListDeadLettersRequest::default()
        };
        let mut client = DeadLettersServiceClient::new(channel);
        let call = client.list_dead_letters(mesh.request(ask));
        let page = mesh.ask_if_served(service, call).await?;
        Ok(page.map(|page| page.dead_letters))
    })
    .await
}

/// The dead letter of this name, and who has it.
async fn find(mesh: &Mesh, name: &str) -> anyhow::Result<(Channel, DeadLetter)> {
    let heard = mesh
        .each(async |service, channel| {
            let mut client = DeadLettersServiceClient::new(channel);
            let ask = mesh.request(GetDeadLetterRequest { name: name.to_owned() });
            if_there(mesh.ask_if_served(service, client.get_dead_letter(ask)).await)
        })
        .await?;
    heard.only(name, "dead-letters list")
}

async fn replay(mesh: &Mesh, ask: ReplayDeadLettersRequest) -> anyhow::Result<Told> {
    let only = match ask.name.as_str() {
        "" => None,
        name => Some(find(mesh, name).await?.0.name().to_owned()),
    };
    let heard = mesh
        .each(async |service, channel| {
            if only.as_deref().is_some_and(|only| only != service) {
                return Ok(None);
            }
            let mut client = DeadLettersServiceClient::new(channel);
            let mut rounds: Vec<ReplayDeadLettersResponse> = Vec::new();
            // Each call takes what fits into its deadline; a dry run would see the same again.
            loop {
                let call = client.replay_dead_letters(mesh.request(ask.clone()));
                let Some(told) = mesh.ask_if_served(service, call).await? else { return Ok(None) };
                let goes_on = told.remaining_count > 0 && told.replayed_count > 0 && !ask.dry_run;
                rounds.push(told);
                if !goes_on {
                    return Ok(Some(rounds));
                }
            }
        })
        .await?;
    let rounds: Vec<(String, Vec<ReplayDeadLettersResponse>)> = heard
        .answers
        .iter()
        .map(|(channel, rounds)| (channel.name().to_owned(), rounds.clone()))
        .collect();
    let mut told = replayed(&rounds, ask.dry_run)?;
    told.text.push_str(&heard.notes());
    told.json = json!({ "replayed": told.json, "notAsked": heard.not_asked() });
    Ok(told)
}

fn replayed(
    services: &[(String, Vec<ReplayDeadLettersResponse>)],
    dry_run: bool,
) -> anyhow::Result<Told> {
    let mut table = Table::default();
    let (good, bad) = if dry_run { ("would do", "would fail") } else { ("done", "failed") };
    let (mut count, mut remaining) = (0, 0);
    let mut all = Map::new();
    for (service, rounds) in services {
        for it in rounds.iter().flat_map(|told| &told.results) {
            let verdict = if it.error.is_empty() { good } else { bad };
            table.row([&it.dead_letter, &it.r#type, verdict, &it.error]);
        }
        count += rounds.iter().map(|told| told.replayed_count).sum::<i32>();
        remaining += rounds.last().map_or(0, |told| told.remaining_count);
        all.insert(service.clone(), say::list(rounds)?);
    }
    let text = format!("{table}{count} {good}, {remaining} stay parked");
    Ok(Told { text, json: Value::Object(all) })
}

fn listed(heard: &Heard<Vec<DeadLetter>>) -> anyhow::Result<Told> {
    let mut table = Table::default();
    table.row(["DEAD LETTER", "CONSUMER", "EVENT", "AGGREGATE", "CAUSE", "ERROR"]);
    let letters: Vec<DeadLetter> =
        heard.answers.iter().flat_map(|(_, letters)| letters).cloned().collect();
    for it in &letters {
        let (kind, aggregate) = event(it);
        let cause = state(it.cause().as_str_name(), "CAUSE_");
        table.row([&it.name, &it.consumer, kind, aggregate, cause, &it.error]);
    }
    let text = if letters.is_empty() { "no dead letters".to_owned() } else { table.to_string() };
    let text = text.trim_end().to_owned() + &heard.notes();
    let json = json!({ "deadLetters": say::list(&letters)?, "notAsked": heard.not_asked() });
    Ok(Told { text, json })
}

fn shown(letter: &DeadLetter) -> anyhow::Result<Told> {
    let mut table = Table::indented(2);
    let (kind, aggregate) = event(letter);
    let standing = state(letter.state().as_str_name(), "STATE_");
    table.row(["consumer", &letter.consumer]);
    table.row(["event", kind]);
    table.row(["aggregate", aggregate]);
    if let Some(event) = &letter.event {
        table.row(["from", &format!("{} at {}", event.source, event.position)]);
        table.row(["event id", &event.id]);
        table.row(["trace", &event.traceparent]);
    }
    table.row(["cause", state(letter.cause().as_str_name(), "CAUSE_")]);
    table.row(["error", &letter.error]);
    table.row(["tried", &format!("{} times", letter.attempts)]);
    table.row(["parked", &when(letter.create_time.as_ref())]);
    if !letter.actor.is_empty() {
        let by = format!("{} by {}", when(letter.update_time.as_ref()), letter.actor);
        table.row([&standing.to_lowercase(), &by]);
    }
    if !letter.reason.is_empty() {
        table.row(["because", &letter.reason]);
    }
    let text = format!("{}  {standing}\n{table}", letter.name);
    Ok(Told { text: text.trim_end().to_owned(), json: say::json(letter)? })
}

fn event(letter: &DeadLetter) -> (&str, &str) {
    letter.event.as_ref().map_or(("", ""), |event| (&event.r#type, &event.aggregate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::operator::v1::replay_dead_letters_response::Result as One;

    #[test]
    fn a_replay_says_what_became_of_each_event() {
        let one = |name: &str, error: &str| One {
            dead_letter: name.to_owned(),
            r#type: "order.created".to_owned(),
            error: error.to_owned(),
        };
        let told = ReplayDeadLettersResponse {
            results: vec![one("deadLetters/1", ""), one("deadLetters/2", "no such order")],
            replayed_count: 1,
            remaining_count: 1,
        };
        let all = [("notifications".to_owned(), vec![told])];
        let text = replayed(&all, false).unwrap().text;
        assert!(text.contains("deadLetters/2  order.created  failed  no such order"), "{text}");
        assert!(text.ends_with("1 done, 1 stay parked"), "{text}");
        assert!(replayed(&all, true).unwrap().text.contains("would fail"));
    }
}
