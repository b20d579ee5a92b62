//! `SagasService`: what operators see of sagas, and do about them.

use std::fmt;

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Error, actor, note, reason, timestamp};
use crate::{
    clock::from_micros,
    page::Pages,
    resource::parse_uuid,
    saga::{
        Direction, Record, Runner, State, StepState,
        operate::{self, Change, Filter, Kept},
    },
    store::Store,
    wire::ordermesh::operator::v1::{
        GetSagaRequest, ListSagasRequest, ListSagasResponse, PauseSagaRequest, ResumeSagaRequest,
        RetrySagaStepRequest, Saga,
        saga::{
            self as wire, Step,
            step::{Direction as WireDirection, State as WireStepState},
        },
        sagas_service_server::SagasService,
    },
};

/// Serves the sagas of one database.
pub(crate) struct Sagas {
    store: Store,
    runners: Vec<Runner>,
    pages: Pages,
}

// === impl Sagas ===

impl Sagas {
    pub(crate) fn new(store: &Store, runners: Vec<Runner>, pages: Pages) -> Self {
        Self { store: store.clone(), runners, pages }
    }

    async fn list(&self, request: &ListSagasRequest) -> Result<ListSagasResponse, Error> {
        let state = state_of(request.state()).map(State::as_str).unwrap_or_default();
        let parts = ["ListSagas", state, &request.kind, &request.key];
        let page = self.pages.page(request.page_size, &request.page_token, &parts)?;
        let filter = Filter { state, kind: request.kind.clone(), key: request.key.clone() };
        let mut found = operate::list(&self.store, &filter, &page.after, page.size + 1).await?;
        let next_page_token = self.pages.cut(&page, &mut found, |saga| saga.id.clone());
        let sagas = found.into_iter().map(|saga| encode(saga, Vec::new())).collect();
        Ok(ListSagasResponse { sagas, next_page_token })
    }

    async fn get(&self, name: &str) -> Result<Saga, Error> {
        let id = id(name)?;
        let found = operate::get(&self.store, &id.to_string()).await?;
        let (saga, steps) = found.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        Ok(encode(saga, steps))
    }

    async fn change(&self, name: &str, why: &str, change: Change) -> Result<Saga, Error> {
        let within = (id(name)?.to_string(), name.to_owned(), actor()?, reason(why)?);
        let store = self.store.clone();
        self.store
            .transaction(move |txn| {
                let (id, name, actor, reason) = within.clone();
                let store = store.clone();
                Box::pin(async move {
                    let state = operate::change(&store, txn, &id, change).await?;
                    let Some((before, changed)) = state else { return Err(Error::NotFound(name)) };
                    if !changed && !change.is_done(before) {
                        return Err(Error::SagaState(before.to_string()));
                    }
                    if changed {
                        note(txn, &actor, change.name(), &name, &reason).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        for runner in &self.runners {
            runner.nudge();
        }
        self.get(name).await
    }
}

impl fmt::Debug for Sagas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sagas").field("runners", &self.runners).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl SagasService for Sagas {
    async fn list_sagas(
        &self,
        request: Request<ListSagasRequest>,
    ) -> Result<Response<ListSagasResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref()).await?))
    }

    async fn get_saga(&self, request: Request<GetSagaRequest>) -> Result<Response<Saga>, Status> {
        Ok(Response::new(self.get(&request.get_ref().name).await?))
    }

    async fn retry_saga_step(
        &self,
        request: Request<RetrySagaStepRequest>,
    ) -> Result<Response<Saga>, Status> {
        let RetrySagaStepRequest { name, reason } = request.get_ref();
        Ok(Response::new(self.change(name, reason, Change::Retry).await?))
    }

    async fn pause_saga(
        &self,
        request: Request<PauseSagaRequest>,
    ) -> Result<Response<Saga>, Status> {
        let PauseSagaRequest { name, reason } = request.get_ref();
        Ok(Response::new(self.change(name, reason, Change::Pause).await?))
    }

    async fn resume_saga(
        &self,
        request: Request<ResumeSagaRequest>,
    ) -> Result<Response<Saga>, Status> {
        let ResumeSagaRequest { name, reason } = request.get_ref();
        Ok(Response::new(self.change(name, reason, Change::Resume).await?))
    }
}

fn id(name: &str) -> Result<Uuid, Error> {
    parse_uuid("sagas", name).map_err(Error::name)
}

fn state_of(state: wire::State) -> Option<State> {
    match state {
        wire::State::Unspecified => None,
        wire::State::Running => Some(State::Running),
        wire::State::Compensating => Some(State::Compensating),
        wire::State::Done => Some(State::Done),
        wire::State::Compensated => Some(State::Compensated),
        wire::State::Stuck => Some(State::Stuck),
        wire::State::Paused => Some(State::Paused),
    }
}

fn encode(saga: Kept, steps: Vec<Record>) -> Saga {
    let state = match saga.state {
        State::Running => wire::State::Running,
        State::Compensating => wire::State::Compensating,
        State::Done => wire::State::Done,
        State::Compensated => wire::State::Compensated,
        State::Stuck => wire::State::Stuck,
        State::Paused => wire::State::Paused,
    };
    Saga {
        name: ["sagas/", &saga.id].concat(),
        explanation: explanation(&saga, &steps),
        kind: saga.kind,
        key: saga.key,
        state: state.into(),
        reason: saga.reason.unwrap_or_default(),
        last_error: saga.last_error.unwrap_or_default(),
        attempts: i32::try_from(saga.attempts).unwrap_or(i32::MAX),
        next_run_time: Some(timestamp(from_micros(saga.next_run_at))),
        deadline_time: Some(timestamp(from_micros(saga.deadline_at))),
        create_time: Some(timestamp(from_micros(saga.created_at))),
        traceparent: saga.traceparent.unwrap_or_default(),
        steps: steps.into_iter().map(step).collect(),
    }
}

fn step(record: Record) -> Step {
    let direction = match record.direction {
        Direction::Do => WireDirection::Do,
        Direction::Undo => WireDirection::Undo,
    };
    let state = match record.state {
        StepState::Intent => WireStepState::Intent,
        StepState::Ok => WireStepState::Ok,
        StepState::Failed => WireStepState::Failed,
        StepState::Unknown => WireStepState::Unknown,
    };
    Step {
        step_key: record.step_key,
        direction: direction.into(),
        state: state.into(),
        command_id: record.command_id.to_string(),
        start_time: Some(timestamp(record.started_at)),
        end_time: record.ended_at.map(timestamp),
    }
}

/// Why it stands where it stands, for people.
fn explanation(saga: &Kept, steps: &[Record]) -> String {
    let open = steps.iter().rev().find(|step| step.state == StepState::Intent);
    let at = open.map_or_else(String::new, |step| match step.direction {
        Direction::Do => format!(" at step `{}`", step.step_key),
        Direction::Undo => format!(" at the undoing of step `{}`", step.step_key),
    });
    let heard = saga.last_error.as_deref().map_or_else(String::new, |heard| format!(": {heard}"));
    let reason = saga.reason.as_deref().unwrap_or("no reason");
    let due = from_micros(saga.next_run_at);
    match saga.state {
        State::Running if saga.last_error.is_none() => format!("works{at}"),
        State::Running => format!("waits{at} until {due}{heard}"),
        State::Compensating if saga.last_error.is_none() => {
            format!("is being undone ({reason}){at}")
        }
        State::Compensating => format!("is being undone ({reason}), waits{at} until {due}{heard}"),
        State::Stuck => format!("needs a person{at}{heard}; tried again at {due} all the same"),
        State::Paused => format!("is held by a person{at}"),
        State::Done => "every step is done".to_owned(),
        State::Compensated => format!("every step is undone ({reason})"),
    }
}
