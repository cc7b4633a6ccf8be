//! A directory that is slow, or stops in the middle of an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use hearth_directory::follow;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::reading::{DEADLINE, tool};
use crate::slapd::Slapd;

/// How what the server says is passed on.
#[derive(Clone, Copy)]
enum Manner {
    /// In pieces of some hundred bytes, with a pause between them.
    Slowly,
    /// So many bytes, and then nothing more, on the first connections; all on the others.
    UpTo(usize),
}

/// Passes connections on to a server. On the first `faulty` of them the manner counts. Gives its address.
async fn between(server: SocketAddr, manner: Manner, faulty: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_faulty = count.fetch_add(1, Ordering::Relaxed) < faulty;
            tokio::spawn(pass(client, server, is_faulty.then_some(manner)));
        }
    });
    address
}

async fn pass(client: TcpStream, server: SocketAddr, manner: Option<Manner>) {
    let server = TcpStream::connect(server).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async { drop(tokio::io::copy(&mut from_client, &mut to_server).await) };
    let down = async {
        let (mut piece, mut passed) = ([0; 400], 0);
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            match manner {
                Some(Manner::Slowly) => tokio::time::sleep(Duration::from_millis(20)).await,
                Some(Manner::UpTo(most)) if passed + length > most => return std::future::pending().await,
                _ => (),
            }
            passed += length;
            if to_client.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(up, down);
}

#[tokio::test]
async fn a_slow_directory_is_read_all_the_same() {
    let slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    writer.create_tool(&tool("a")).await.unwrap();
    let mut slow = slapd.as_reader();
    slow.connect_address = Some(between(slow.connect_address.unwrap(), Manner::Slowly, usize::MAX).await);
    let mut stream = follow(slow, Duration::from_millis(100));
    let first = timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    assert!(first.tools.contains_key(&"a".parse().unwrap()));
}

#[tokio::test]
async fn a_directory_that_stops_in_the_middle_is_asked_again() {
    let slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    writer.create_tool(&tool("a")).await.unwrap();
    let server = slapd.as_reader().connect_address.unwrap();
    // Before the handshake is over, and after the login.
    for (bytes, expected) in [(500, "no answer within 5 s"), (4_000, "")] {
        let mut faulty = slapd.as_reader();
        faulty.connect_address = Some(between(server, Manner::UpTo(bytes), 1).await);
        let mut stream = follow(faulty, Duration::from_millis(100));
        let error = timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
        let next = timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
        assert!(next.tools.contains_key(&"a".parse().unwrap()));
    }
}
