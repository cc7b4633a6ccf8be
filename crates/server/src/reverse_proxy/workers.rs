//! The threads that serve: each accepts from the same sockets and keeps connections of its own, from the browser to the
//! pod, so that a request and its answer are never handed from thread to thread.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{oneshot, watch};

use super::Door;
use super::listener::{Course, Listeners, serve};
use super::tls::Tls;

/// The sockets as every thread is given them.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For TLS.
    pub https: Vec<TcpListener>,
    /// For redirects to TLS.
    pub http: Vec<TcpListener>,
}

/// The threads of one door.
#[derive(Debug)]
pub struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    served: oneshot::Receiver<()>,
    closed: oneshot::Receiver<()>,
}

impl Workers {
    /// Starts `count` threads, which serve until the course changes.
    pub fn start(
        count: usize,
        sockets: &Sockets,
        tls: &Tls,
        door: &Arc<Door>,
        course: &watch::Receiver<Course>,
    ) -> anyhow::Result<Self> {
        let worker = |_| {
            let sockets = sockets.try_clone().context("failed to share the sockets")?;
            Worker::start(sockets, tls.clone(), door.beside(), course.clone())
        };
        (0..count.max(1)).map(worker).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Completes when every request was answered, or has had its time.
    pub async fn served(&mut self) -> anyhow::Result<()> {
        for Worker { served, .. } in &mut self.0 {
            served.await.context("a thread that served has ended before its time")?;
        }
        Ok(())
    }

    /// Completes when nothing is open any more, tunnels included.
    pub async fn closed(self) -> anyhow::Result<()> {
        for Worker { closed, .. } in self.0 {
            closed.await.context("a thread that served has ended before its time")?;
        }
        Ok(())
    }
}

// === impl Worker ===

impl Worker {
    fn start(sockets: Sockets, tls: Tls, door: Arc<Door>, course: watch::Receiver<Course>) -> anyhow::Result<Self> {
        let (has_served, served) = oneshot::channel();
        let (has_closed, closed) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("failed to start a thread that serves")?;
        let listeners = {
            let _inside = runtime.enter();
            sockets.listeners().context("failed to listen")?
        };
        let work = move || {
            runtime.block_on(async {
                let tunnels = serve(listeners, tls, door, course.clone()).await;
                // Whoever waited is gone: then nobody needs to be told.
                let _ = has_served.send(());
                tunnels.closed(course).await;
                let _ = has_closed.send(());
            });
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("worker".to_owned()).spawn(work)?;
        Ok(Self { served, closed })
    }
}

// === impl Sockets ===

impl Sockets {
    fn try_clone(&self) -> std::io::Result<Self> {
        let cloned =
            |sockets: &[TcpListener]| sockets.iter().map(TcpListener::try_clone).collect::<std::io::Result<_>>();
        Ok(Self { https: cloned(&self.https)?, http: cloned(&self.http)? })
    }

    fn listeners(self) -> std::io::Result<Listeners> {
        let watched = |sockets: Vec<TcpListener>| {
            sockets.into_iter().map(tokio::net::TcpListener::from_std).collect::<std::io::Result<_>>()
        };
        Ok(Listeners { https: watched(self.https)?, http: watched(self.http)? })
    }
}
