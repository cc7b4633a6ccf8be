//! Handing the front door to a successor, so that a new program takes over without one refused connection.
//!
//! The proxy that runs listens on a socket in its state directory, into which only its own user can look. A successor
//! connects there and is given the listening sockets themselves: the kernel's queue of connections is one and the same,
//! and nobody who has come is turned away. It accepts from them once its own table is complete, and says so; then the
//! predecessor accepts no more, and ends with its last connection. Until that word nothing changes for it, whatever
//! becomes of the successor.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// What the predecessor says with the sockets: which protocol this is.
const GREETING: &[u8] = b"hearth-proxy 1\n";

/// What the successor says when it accepts connections.
const READY: u8 = b'r';

/// The most sockets that are handed over.
const MOST: usize = 64;

/// Where a successor asks, in a state directory.
pub(super) fn place(state: &Path) -> PathBuf {
    state.join("handover.sock")
}

/// What a proxy that ran before has given: its sockets, by address.
#[derive(Debug, Default)]
pub struct Inheritance {
    sockets: HashMap<SocketAddr, std::net::TcpListener>,
    predecessor: Option<Predecessor>,
}

/// A proxy that goes on accepting until it is told that it need not.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Inheritance {
    /// Asks at `place`. Nothing is inherited where nobody answers.
    pub async fn ask(place: &Path) -> Result<Self> {
        let mut stream = match UnixStream::connect(place).await {
            Ok(stream) => stream,
            // Nobody runs, or somebody ended without taking the socket along.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error).with_context(|| format!("failed to ask at {}", place.display())),
        };
        let fds = receive(&mut stream).await.with_context(|| format!("failed to take over at {}", place.display()))?;
        let mut sockets = HashMap::new();
        for fd in fds {
            let socket = std::net::TcpListener::from(fd);
            socket.set_nonblocking(true)?;
            sockets.insert(socket.local_addr().context("something else than a TCP socket was handed over")?, socket);
        }
        Ok(Self { sockets, predecessor: Some(Predecessor(stream)) })
    }

    /// The socket of this address: the inherited one, or one of its own.
    pub async fn socket(&mut self, address: SocketAddr) -> Result<TcpListener> {
        match self.sockets.remove(&address) {
            Some(socket) => Ok(TcpListener::from_std(socket)?),
            None => TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}")),
        }
    }

    /// Whoever goes on accepting meanwhile. Sockets that were not asked for are closed here, and nowhere else.
    pub fn predecessor(self) -> Option<Predecessor> {
        self.predecessor
    }
}

impl Predecessor {
    /// Tells that the sockets are accepted from here.
    pub async fn relieve(mut self) {
        // One that has ended meanwhile needs no word.
        let _ = self.0.write_all(&[READY]).await;
    }
}

/// Where successors come.
#[derive(Debug)]
pub struct Desk(UnixListener);

impl Desk {
    /// Opens it, in the place of a predecessor's.
    pub fn open(place: &Path) -> Result<Self> {
        let beside = place.with_extension(format!("{}.sock", std::process::id()));
        let open = || -> io::Result<UnixListener> {
            let _ = std::fs::remove_file(&beside);
            let listener = UnixListener::bind(&beside)?;
            std::fs::rename(&beside, place)?;
            Ok(listener)
        };
        open().map(Self).with_context(|| format!("failed to listen on {}", place.display()))
    }

    /// Completes when a successor accepts from these sockets. One that asks takes the place of one that asked before.
    pub async fn relieved(self, sockets: &[OwnedFd]) {
        let mut asking: Option<UnixStream> = None;
        loop {
            tokio::select! {
                come = self.0.accept() => match come {
                    Ok((stream, _)) => match give(&stream, sockets).await {
                        Ok(()) => asking = Some(stream),
                        Err(error) => tracing::warn!(error = format!("{error:#}"), "a successor was given nothing"),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a successor could not be heard");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                },
                said = word(&mut asking) => {
                    if said {
                        return;
                    }
                    asking = None;
                    tracing::warn!("a successor has ended before it took over");
                }
            }
        }
    }
}

/// The sockets, so that they can be given: clones of what is accepted from.
pub fn cloned<'a>(listeners: impl IntoIterator<Item = &'a (impl AsFd + 'a)>) -> io::Result<Vec<OwnedFd>> {
    listeners.into_iter().map(|listener| listener.as_fd().try_clone_to_owned()).collect()
}

/// Whether whoever asked says that it is ready; for ever where nobody asked.
async fn word(asking: &mut Option<UnixStream>) -> bool {
    match asking {
        Some(stream) => stream.read_u8().await.is_ok_and(|said| said == READY),
        None => std::future::pending().await,
    }
}

async fn give(stream: &UnixStream, sockets: &[OwnedFd]) -> Result<()> {
    let (own, theirs) = (rustix::process::geteuid().as_raw(), stream.peer_cred()?.uid());
    ensure!(own == theirs, "user number {theirs} asked for the sockets");
    ensure!(sockets.len() <= MOST, "there are {} sockets, more than {MOST}", sockets.len());
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    loop {
        stream.writable().await?;
        let sent = stream.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::Error::other("the sockets do not fit"));
            }
            Ok(rustix::net::sendmsg(stream, &[IoSlice::new(GREETING)], &mut control, SendFlags::NOSIGNAL)?)
        });
        match sent {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn receive(stream: &mut UnixStream) -> Result<Vec<OwnedFd>> {
    let (mut text, mut fds) = ([0; GREETING.len()], Vec::new());
    let length = loop {
        stream.readable().await?;
        let received = stream.try_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut text)];
            let received = rustix::net::recvmsg(&*stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            Ok(received.bytes)
        });
        match received {
            Ok(length) => break length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error.into()),
        }
    };
    let rest = text.get_mut(length..).unwrap_or_default();
    stream.read_exact(rest).await.context("the greeting was cut off")?;
    ensure!(text == GREETING, "whoever answers there speaks another protocol");
    Ok(fds)
}
