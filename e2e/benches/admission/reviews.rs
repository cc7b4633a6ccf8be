//! The webhook's processor time for a whole review, beside controllers of other make that are given as programs.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::body::Bytes;

use crate::control_role::Role;
use crate::load::{Shape, ask};
use crate::objects::{ingress, pod, review};
use crate::{process, summary};

/// How long a controller may take to listen.
const READY: Duration = Duration::from_secs(30);

/// As the API server asks when much is created at once, and when one thing is created after another.
const SHAPES: &[(&str, Shape)] = &[
    ("2 connections, 32 at once", Shape { connections: 2, streams: 32 }),
    ("1 connection, 1 at once", Shape { connections: 1, streams: 1 }),
];

/// A review that both sides allow.
struct Subject {
    name: &'static str,
    review: Bytes,
    /// Where the environment names the program of the other side.
    variable: &'static str,
    /// What is said of our figure and of the ratio where the load is as the aim was measured.
    limits: (&'static str, &'static str),
}

/// A controller of the article's kind: one program, configured by its environment.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    /// Starts the program that the environment names; nothing where it names none.
    fn start(variable: &str, pki: &Path) -> anyhow::Result<Option<Self>> {
        let Some(program) = std::env::var_os(variable).filter(|program| !program.is_empty()) else { return Ok(None) };
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(&program)
            .env_clear()
            .env("LISTENON", address.to_string())
            .env("TLSCERT", pki.join("server.crt"))
            .env("TLSKEY", pki.join("server.key"))
            .env("DEBUG", "false")
            .env("DOMAINS", "hearth.localhost")
            .env("REGISTRIES", "registry.hearth.internal")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {}, which {variable} names", program.display()))?;
        let mut peer = Self { child, address };
        let deadline = Instant::now() + READY;
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(peer.child.try_wait()?.is_none(), "{} has ended", program.display());
            ensure!(Instant::now() < deadline, "{} does not listen on {address}", program.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(peer))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures and prints.
pub(crate) async fn run(role: &Role, rounds: usize, count: usize) -> anyhow::Result<()> {
    let pki = role.folder.path();
    for subject in subjects() {
        let peer = Peer::start(subject.variable, pki)?;
        if peer.is_none() {
            println!("({} names no program: no controller beside ours for the {})", subject.variable, subject.name);
        }
        for &(load, shape) in SHAPES {
            let (count, is_aim) = (count / if shape.streams == 1 { 4 } else { 1 }, shape.streams > 1);
            let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            // The first round warms both up.
            for round in 0..=rounds {
                let one = cost(role.child.id(), role.address, pki, shape, count, &subject.review).await?;
                let other = match &peer {
                    Some(peer) => Some(cost(peer.child.id(), peer.address, pki, shape, count, &subject.review).await?),
                    None => None,
                };
                if round > 0 {
                    ours.push(one);
                    theirs.extend(other);
                    ratios.extend(other.map(|other| other / one));
                }
            }
            let name = |what: &str| format!("{} of {} B, {load}: {what}", subject.name, subject.review.len());
            let limits = if is_aim { subject.limits } else { ("", "") };
            summary(&name("ours"), "µs", limits.0, &ours);
            if let Some(peer) = &peer {
                summary(&name("the other"), "µs", "", &theirs);
                summary(&name("the other / ours"), "", limits.1, &ratios);
                summary(&name("the other's memory"), "MiB", "", &[process::memory(peer.child.id())?]);
            }
        }
    }
    Ok(())
}

/// Microseconds of processor time for each review.
async fn cost(
    pid: u32,
    address: SocketAddr,
    pki: &Path,
    shape: Shape,
    count: usize,
    review: &Bytes,
) -> anyhow::Result<f64> {
    let before = process::processor_time(pid)?;
    ask(address, pki, shape, count, review).await?;
    let spent = process::processor_time(pid)? - before;
    Ok(Duration::from_nanos(spent).as_secs_f64() * 1e6 / count as f64)
}

fn subjects() -> [Subject; 2] {
    [
        Subject {
            name: "Ingress",
            review: review("networking.k8s.io", "ingresses", ingress()),
            variable: "INGRESS_CONTROLLER",
            limits: ("at most 20", "at least 8"),
        },
        Subject {
            name: "Pod",
            review: review("", "pods", pod()),
            variable: "REGISTRY_CONTROLLER",
            limits: ("at most 20", "at least 20"),
        },
    ]
}
