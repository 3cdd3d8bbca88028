//! A TCP proxy that can be told to do harm: to hold bytes back, to cut connections in the middle of
//! an answer, to refuse them.
//!
//! It knows nothing of what it carries. What it is told holds for connections that are open, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// They are passed on.
    None,
    /// Each piece waits so long, in both directions.
    Delay(Duration),
    /// Nothing is passed on, and nothing is said: a cable that is pulled.
    Hold,
    /// Answers are cut: after so many bytes of them the connection is reset. What the client sent
    /// arrived.
    CutAnswers { after: u64 },
    /// Connections are reset at once, open ones too.
    Refuse,
}

/// Between clients and one address, for as long as the value lives.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    harm: watch::Sender<Harm>,
    target: watch::Sender<SocketAddr>,
    cuts: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> anyhow::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (harm, told) = watch::channel(Harm::None);
        let (target, goal) = watch::channel(target);
        let stop = CancellationToken::new();
        let cuts = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (stop.clone(), cuts.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopped.cancelled() => return,
                };
                let Ok((client, _)) = accepted else { continue };
                let target = *goal.borrow();
                let carry = carry(client, target, told.clone(), counted.clone());
                let stopped = stopped.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Ok(Proxy { address, harm, target, cuts, stop })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, harm: Harm) {
        self.harm.send_replace(harm);
    }

    /// Connections to come go there.
    pub fn redirect(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Connections reset so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn carry(
    client: TcpStream,
    target: SocketAddr,
    mut harm: watch::Receiver<Harm>,
    cuts: Arc<AtomicU64>,
) {
    if *harm.borrow() == Harm::Refuse {
        reset(&client, &cuts);
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        reset(&client, &cuts);
        return;
    };
    // Latency is ours to add.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let is_cut = {
        let up = pump(&client, &server, harm.clone(), Way::Request);
        let down = pump(&server, &client, harm.clone(), Way::Answer);
        let refused = async {
            loop {
                if *harm.borrow_and_update() == Harm::Refuse || harm.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            end = up => end == End::Cut,
            end = down => end == End::Cut,
            () = refused => true,
        }
    };
    if is_cut {
        reset(&client, &cuts);
        reset(&server, &AtomicU64::new(0));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// One side has hung up.
    Closed,
    Cut,
}

async fn pump(from: &TcpStream, to: &TcpStream, mut harm: watch::Receiver<Harm>, way: Way) -> End {
    let mut buffer = vec![0; 16 << 10];
    // Of answers, since cutting began.
    let mut passed = 0;
    loop {
        let Some(mut count) = read(from, &mut buffer).await else { return End::Closed };
        loop {
            let now = *harm.borrow_and_update();
            match now {
                Harm::Hold => {
                    if harm.changed().await.is_err() {
                        return End::Closed;
                    }
                    continue;
                }
                Harm::Delay(time) => tokio::time::sleep(time).await,
                Harm::CutAnswers { after } if way == Way::Answer => {
                    let room = usize::try_from(after.saturating_sub(passed)).unwrap_or(usize::MAX);
                    if count > room {
                        count = room;
                        let _ = write(to, &buffer[..count]).await;
                        return End::Cut;
                    }
                    passed += count as u64;
                }
                _ => {}
            }
            break;
        }
        if write(to, &buffer[..count]).await.is_none() {
            return End::Closed;
        }
    }
}

async fn read(from: &TcpStream, buffer: &mut [u8]) -> Option<usize> {
    loop {
        from.readable().await.ok()?;
        match from.try_read(buffer) {
            Ok(0) => return None,
            Ok(count) => return Some(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> Option<()> {
    while !bytes.is_empty() {
        to.writable().await.ok()?;
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// The connection will end with a reset, not with a goodbye.
fn reset(stream: &TcpStream, cuts: &AtomicU64) {
    cuts.fetch_add(1, Ordering::Relaxed);
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger);
}
