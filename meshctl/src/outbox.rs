//! `meshctl outbox`: what waits to be told, service by service.

use proto::operator::v1::{GetBacklogRequest, outbox_service_client::OutboxServiceClient};
use serde_json::{Map, json};

use crate::{
    access::Mesh,
    say::{self, Table, Told, when},
};

/// What can be asked of outboxes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// How many events wait for their place in the log, and since when.
    Backlog,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self, mesh: &Mesh) -> anyhow::Result<Told> {
        match self {
            Self::Backlog => backlog(mesh).await,
        }
    }
}

async fn backlog(mesh: &Mesh) -> anyhow::Result<Told> {
    let heard = mesh
        .each(async |service, channel| {
            let mut client = OutboxServiceClient::new(channel);
            mesh.ask_if_served(service, client.get_backlog(mesh.request(GetBacklogRequest {})))
                .await
        })
        .await?;
    let mut table = Table::default();
    table.row(["SERVICE", "WAITING", "SINCE", "LOG"]);
    let mut all = Map::new();
    for (channel, backlog) in &heard.answers {
        let log = format!("{} to {}", backlog.oldest, backlog.head);
        let log = if backlog.oldest > backlog.head { "empty".to_owned() } else { log };
        let waiting = backlog.unsequenced.to_string();
        let since = when(backlog.oldest_unsequenced_time.as_ref());
        table.row([channel.name(), &waiting, &since, &log]);
        all.insert(channel.name().to_owned(), say::json(backlog)?);
    }
    let text = table.to_string().trim_end().to_owned() + &heard.notes();
    Ok(Told { text, json: json!({ "backlogs": all, "notAsked": heard.not_asked() }) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::operator::v1::{
        Backlog,
        outbox_service_server::{OutboxService, OutboxServiceServer},
    };
    use tonic::{Request, Response, Status, service::Routes};

    use super::*;

    struct Seven;

    #[tonic::async_trait]
    impl OutboxService for Seven {
        async fn get_backlog(
            &self,
            _: Request<GetBacklogRequest>,
        ) -> Result<Response<Backlog>, Status> {
            Ok(Response::new(Backlog { unsequenced: 7, head: 9, oldest: 1, ..<_>::default() }))
        }
    }

    #[tokio::test]
    async fn a_service_that_is_down_hides_no_other_and_one_without_an_outbox_is_passed_over() {
        let full = mesh::testing::channel(Routes::new(OutboxServiceServer::new(Seven))).unwrap();
        let bare = mesh::testing::channel(Routes::default()).unwrap();
        let down = mesh::testing::unreachable().unwrap();
        let channels = vec![bare, full, down];
        let mesh = Mesh::new(channels, "token", Duration::from_secs(5)).unwrap();
        let told = backlog(&mesh).await.unwrap();
        let lines: Vec<&str> = told.text.lines().collect();
        assert_eq!(lines.len(), 3, "{}", told.text);
        assert!(lines[1].contains('7') && lines[1].ends_with("1 to 9"), "{}", told.text);
        assert!(lines[2].starts_with("not asked: unreachable: "), "{}", told.text);
    }
}
