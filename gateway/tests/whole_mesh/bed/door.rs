//! What stands before a process that is to hang: everything passes, until nothing does any more.

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A port that leads to a process. While it is shut, connections are taken and stay, and nothing
/// comes through.
pub struct Door {
    pub port: u16,
    pub open: watch::Sender<bool>,
}

impl Door {
    /// A door to the process that listens on `inside`.
    pub async fn before(inside: u16, running: &TaskTracker, stop: CancellationToken) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a port").port();
        let (open, opened) = watch::channel(true);
        running.spawn(stop.run_until_cancelled_owned(keep(listener, inside, opened)));
        Self { port, open }
    }
}

/// Lets in whoever comes. The connections end with it.
async fn keep(listener: TcpListener, inside: u16, open: watch::Receiver<bool>) {
    let mut passing = JoinSet::new();
    while let Ok((outside, _)) = listener.accept().await {
        let open = open.clone();
        passing.spawn(async move {
            // Nobody is in: whoever came is turned away.
            let Ok(inside) = TcpStream::connect(("127.0.0.1", inside)).await else { return };
            let (said, hears) = outside.into_split();
            let (answered, asks) = inside.into_split();
            tokio::join!(pass(said, asks, open.clone()), pass(answered, hears, open));
        });
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut open: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let opened = open.wait_for(|open| *open).await.is_ok();
        if !opened || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
