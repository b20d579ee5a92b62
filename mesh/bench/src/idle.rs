//! What a server keeps for clients that are only there: memory per idle connection and per stream.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    api::echo_service_client::EchoServiceClient,
    cost::runtime,
    echo::{Seen, ping},
    figures::rounded,
    floor::Floor,
    pinned::Elsewhere,
    run::{Report, progress},
    transport::{Bare, Stack, Transport},
};

/// As many connections as a process serves unless it is told otherwise, less those of the streams.
const CONNECTIONS: u32 = 9_900;

/// Streams, and over how many connections.
const STREAMS: (u32, u32) = (1_000, 10);

/// Connections that are opened at once.
const OPENING: u32 = 100;

/// Until what opening cost is given back.
const SETTLES: Duration = Duration::from_secs(2);

/// Memory of a server, per connection and per stream.
///
/// # Errors
/// A connection or a stream cannot be opened: then the limit of open files may be the reason.
pub fn measure<R: Transport>(report: &mut Report) -> anyhow::Result<()> {
    for name in [Stack::NAME, R::NAME, Floor::NAME] {
        progress(&format!("{CONNECTIONS} idle connections: {name}"));
        let server = Elsewhere::start(name, None)?;
        runtime(Some(2))?.block_on(async {
            let (held, each) = connections(&server).await.context("idle connections")?;
            report.figure(&format!("kib_per_idle_connection_{name}"), each.into());
            if name != Floor::NAME {
                let each = streams(&server).await.context("streams")?;
                report.figure(&format!("kib_per_stream_{name}"), each.into());
            }
            drop(held);
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

type Held = Vec<SendRequest<Full<Bytes>>>;

/// Opens them, and says how many KiB each costs.
async fn connections(server: &Elsewhere) -> anyhow::Result<(Held, f64)> {
    let port = server.port;
    // The first ones pay for what is made once.
    let mut held = open(port, OPENING).await?;
    tokio::time::sleep(SETTLES).await;
    let before = server.resident()?;
    while held.len() < usize::try_from(CONNECTIONS)? {
        held.extend(open(port, OPENING).await?);
    }
    tokio::time::sleep(SETTLES).await;
    let grown = server.resident()?.saturating_sub(before);
    Ok((held, kibibytes(grown, CONNECTIONS - OPENING)))
}

async fn open(port: u16, count: u32) -> anyhow::Result<Held> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        opening.spawn(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let io = TokioIo::new(stream);
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            // It ends with its sender.
            #[expect(clippy::disallowed_methods, reason = "ends with what is measured")]
            tokio::spawn(async move { drop(connection.await) });
            sender.ready().await?;
            anyhow::Ok(sender)
        });
    }
    let mut held = Vec::new();
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    Ok(held)
}

/// Opens streams of which each has brought its first message, and says how many KiB each costs.
async fn streams(server: &Elsewhere) -> anyhow::Result<f64> {
    let mut clients = Vec::new();
    for _ in 0..STREAMS.1 {
        let mut client = Bare::connect(&[server.port], &Seen::default()).await?;
        client.echo(ping()).await?;
        clients.push(client);
    }
    tokio::time::sleep(SETTLES).await;
    let before = server.resident()?;
    let mut open = Vec::new();
    for client in &mut clients {
        for _ in 0..STREAMS.0 / STREAMS.1 {
            open.push(stream(client).await?);
        }
    }
    tokio::time::sleep(SETTLES).await;
    let grown = server.resident()?.saturating_sub(before);
    Ok(kibibytes(grown, STREAMS.0))
}

type Client = EchoServiceClient<mesh::client::Bare>;

async fn stream(client: &mut Client) -> anyhow::Result<tonic::Streaming<crate::api::Ping>> {
    let mut stream = client.hold(ping()).await?.into_inner();
    stream.message().await?.context("a stream without a message")?;
    Ok(stream)
}

fn kibibytes(bytes: u64, count: u32) -> f64 {
    let kibibytes = u32::try_from(bytes / 1_024).map_or(f64::INFINITY, f64::from);
    rounded(kibibytes / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out_in_kibibytes() {
        assert!((kibibytes(10 << 20, 1_000) - 10.24).abs() < f64::EPSILON);
    }
}
