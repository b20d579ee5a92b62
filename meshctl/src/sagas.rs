//! `meshctl sagas`: which there are, what they wait for, and trying again.

use mesh::Channel;
use proto::operator::v1::{
    GetSagaRequest, ListSagasRequest, RetrySagaStepRequest, Saga,
    saga::{State, step},
    sagas_service_client::SagasServiceClient,
};
use serde_json::json;

use crate::{
    access::{Heard, Mesh},
    error::{Refused, if_there},
    say::{self, Table, Told, state, took, when},
};

/// What can be asked of sagas.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Lists sagas, without their steps.
    List {
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<Standing>,
        /// Only those about this, such as `orders/{uuid}`.
        #[arg(long)]
        about: Option<String>,
        /// At most so many from each service.
        #[arg(long, default_value_t = 50)]
        limit: i32,
    },
    /// Shows a saga with its steps, and what it waits for.
    Show {
        /// `sagas/{uuid}`, or what it is about: `orders/{uuid}`.
        name: String,
    },
    /// Makes a saga due at once, its tries counted anew: after the cause was mended.
    Retry {
        /// `sagas/{uuid}`.
        name: String,
        /// Why: noted with your name.
        #[arg(long)]
        reason: String,
    },
}

/// Where a saga stands.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Standing {
    /// Its steps are being done.
    Running,
    /// Its steps are being undone.
    Compensating,
    /// Every step is done.
    Done,
    /// Every step is undone.
    Compensated,
    /// Waits for a person.
    Stuck,
    /// A person holds it.
    Paused,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self, mesh: &Mesh) -> anyhow::Result<Told> {
        match self {
            Self::List { state, about, limit } => {
                let state = state.map_or(State::Unspecified, Standing::state);
                listed(&of_all(mesh, state, &about.unwrap_or_default(), limit).await?)
            }
            Self::Show { name } if name.starts_with("sagas/") => shown(&find(mesh, &name).await?.1),
            Self::Show { name } => {
                let found = of_all(mesh, State::Unspecified, &name, 50).await?;
                let mut all = Vec::new();
                for saga in found.answers.iter().flat_map(|(_, sagas)| sagas) {
                    all.push(find(mesh, &saga.name).await?.1);
                }
                anyhow::ensure!(!all.is_empty(), "no saga is about {name}{}", found.notes());
                let text = all.iter().map(told).collect::<Vec<_>>().join("\n");
                Ok(Told { text: text.trim_end().to_owned(), json: say::list(&all)? })
            }
            Self::Retry { name, reason } => {
                let (channel, _) = find(mesh, &name).await?;
                let service = channel.name().to_owned();
                let mut client = SagasServiceClient::new(channel);
                let ask = mesh.request(RetrySagaStepRequest { name, reason });
                shown(&mesh.ask(&service, client.retry_saga_step(ask)).await?)
            }
        }
    }
}

// === impl Standing ===

impl Standing {
    fn state(self) -> State {
        match self {
            Self::Running => State::Running,
            Self::Compensating => State::Compensating,
            Self::Done => State::Done,
            Self::Compensated => State::Compensated,
            Self::Stuck => State::Stuck,
            Self::Paused => State::Paused,
        }
    }
}

/// The sagas of every service.
async fn of_all(
    mesh: &Mesh,
    state: State,
    key: &str,
    page_size: i32,
) -> Result<Heard<Vec<Saga>>, Refused> {
    mesh.each(async |service, channel| {
        let ask = ListSagasRequest {
            page_size,
            state: state.into(),
            key: key.to_owned(),
            ..ListSagasRequest::default()
        };
        let mut client = SagasServiceClient::new(channel);
        let page = mesh.ask_if_served(service, client.list_sagas(mesh.request(ask))).await?;
        Ok(page.map(|page| page.sagas))
    })
    .await
}

/// The saga of this name with its steps, and who leads it.
async fn find(mesh: &Mesh, name: &str) -> anyhow::Result<(Channel, Saga)> {
    let heard = mesh
        .each(async |service, channel| {
            let mut client = SagasServiceClient::new(channel);
            let ask = mesh.request(GetSagaRequest { name: name.to_owned() });
            if_there(mesh.ask_if_served(service, client.get_saga(ask)).await)
        })
        .await?;
    heard.only(name, "sagas list")
}

fn listed(heard: &Heard<Vec<Saga>>) -> anyhow::Result<Told> {
    let mut table = Table::default();
    table.row(["SAGA", "ABOUT", "STATE", "SINCE", "LAST ERROR"]);
    let mut all = Vec::new();
    for (channel, sagas) in &heard.answers {
        for saga in sagas {
            let standing = state(saga.state().as_str_name(), "STATE_");
            let since = when(saga.create_time.as_ref());
            table.row([&saga.name, &saga.key, standing, &since, &saga.last_error]);
            all.push(json!({ "service": channel.name(), "saga": say::json(saga)? }));
        }
    }
    let text = if all.is_empty() { "no sagas".to_owned() } else { table.to_string() };
    let text = text.trim_end().to_owned() + &heard.notes();
    Ok(Told { text, json: json!({ "sagas": all, "notAsked": heard.not_asked() }) })
}

fn shown(saga: &Saga) -> anyhow::Result<Told> {
    Ok(Told { text: told(saga).trim_end().to_owned(), json: say::json(saga)? })
}

/// A saga with its steps, for people.
pub(crate) fn told(saga: &Saga) -> String {
    let standing = state(saga.state().as_str_name(), "STATE_");
    let mut text = format!("{}  {}  {standing}\n", saga.name, saga.kind);
    let mut facts = Table::indented(2);
    facts.row(["about", &saga.key]);
    facts.row(["why", &saga.explanation]);
    if !saga.reason.is_empty() {
        facts.row(["undone for", &saga.reason]);
    }
    if !saga.last_error.is_empty() {
        facts.row(["last error", &saga.last_error]);
    }
    text.push_str(&facts.to_string());
    let mut steps = Table::indented(2);
    for it in &saga.steps {
        let way = match it.direction() {
            step::Direction::Undo => "undo",
            step::Direction::Do | step::Direction::Unspecified => "do",
        };
        let standing = state(it.state().as_str_name(), "STATE_");
        let (at, took) =
            (when(it.start_time.as_ref()), took(it.start_time.as_ref(), it.end_time.as_ref()));
        steps.row([way, &it.step_key, standing, &at, &took]);
    }
    text.push_str(&steps.to_string());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saga_is_told_with_its_steps_and_what_it_waits_for() {
        let saga = Saga {
            name: "sagas/1".to_owned(),
            kind: "orders.fulfilment.v1".to_owned(),
            key: "orders/1".to_owned(),
            state: State::Stuck.into(),
            explanation: "waits for a person".to_owned(),
            last_error: "no answer".to_owned(),
            steps: vec![proto::operator::v1::saga::Step {
                step_key: "hold_stock".to_owned(),
                direction: step::Direction::Do.into(),
                state: step::State::Ok.into(),
                ..<_>::default()
            }],
            ..Saga::default()
        };
        let text = told(&saga);
        for part in ["STUCK", "waits for a person", "no answer", "do  hold_stock  OK"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
