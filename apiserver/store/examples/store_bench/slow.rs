//! A network that takes its time: a proxy that gives every byte on a while after it came. What is on its
//! way does not hold up what follows.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

const PIECE_BYTES: usize = 64 * 1024;
/// Pieces on their way, at most.
const PIECES: usize = 1024;

/// Listens for the life of the program; the address that leads to `target`, `delay` away in either
/// direction.
pub(crate) async fn before(target: String, delay: Duration) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect(target).await {
                    join(client, server, delay);
                }
            });
        }
    });
    Ok(address)
}

fn join(client: TcpStream, server: TcpStream, delay: Duration) {
    for stream in [&client, &server] {
        // A small piece must not wait for the one before it to be acknowledged.
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::spawn(carry(from_client, to_server, delay));
    tokio::spawn(carry(from_server, to_client, delay));
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin,
    delay: Duration,
) {
    let (pieces, mut coming) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    tokio::spawn(async move {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay;
            if pieces.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    });
    while let Some((due, piece)) = coming.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
