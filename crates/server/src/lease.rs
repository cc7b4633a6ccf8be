//! Which of several copies of a role acts: the one that holds a Lease of the Kubernetes API.
//!
//! As in client-go's `leaderelection`: a holder renews, and whoever has seen the same record for its whole term, by its
//! own monotonic clock, takes it. The times in the record are for people; clocks that differ or jump decide nothing.
//! Every write names the version that it replaces, so that of two who want it one gets it. A holder that cannot renew
//! stops acting before another may begin. There is no fencing: what the role does must be harmless when done twice.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// How long a record holds that is not renewed.
const TERM: Duration = Duration::from_secs(9);

/// How often a holder renews and the others look.
const INTERVAL: Duration = Duration::from_secs(3);

/// A holder that has not renewed for this long stops acting.
const DEADLINE: Duration = Duration::from_secs(7);

/// A candidate's part in an election.
#[derive(Debug)]
pub struct Candidacy {
    /// Whether this copy acts.
    pub leads: watch::Receiver<bool>,
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The record as it was last seen, and when that version was first seen.
    seen: Option<(Lease, Instant)>,
    /// When the last renewal that was granted was asked for.
    renewed: Option<Instant>,
}

/// Stands for election by a Lease. `identity` must be another for each copy; a copy that comes back with its former
/// identity goes on with what it held.
pub fn stand(client: Client, namespace: &str, name: &str, identity: String) -> Candidacy {
    let candidate = Candidate {
        api: Api::namespaced(client, namespace),
        name: name.to_owned(),
        identity,
        seen: None,
        renewed: None,
    };
    let (sender, leads) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    Candidacy { leads, task: tokio::spawn(candidate.run(sender, stopped)), stop }
}

// === impl Candidacy ===

impl Candidacy {
    /// Gives the Lease back, so that another copy need not wait for the end of its term.
    pub async fn withdraw(self) {
        let _ = self.stop.send(true);
        if self.task.await.is_err() {
            tracing::warn!("the lease was not given back; another copy of the role waits {TERM:?} for it");
        }
    }
}

// === impl Candidate ===

impl Candidate {
    async fn run(mut self, leads: watch::Sender<bool>, mut stopped: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                _ = ticks.tick() => (),
            }
            // Without an answer for this long the next attempt is the better one, and the deadline is near.
            let attempt = tokio::time::timeout(INTERVAL, self.attempt()).await;
            if let Err(error) = attempt.context("the API server did not answer in time").flatten() {
                tracing::warn!(lease = self.name, error = format!("{error:#}"), "the lease cannot be renewed or taken");
            }
            let acts = self.renewed.is_some_and(|at| at.elapsed() < DEADLINE);
            if leads.send_if_modified(|led| std::mem::replace(led, acts) != acts) {
                let what = if acts { "this copy acts" } else { "this copy acts no longer" };
                tracing::info!(lease = self.name, identity = self.identity, what);
            }
        }
        if *leads.borrow()
            && let Err(error) = self.give_back().await
        {
            tracing::warn!(lease = self.name, error = format!("{error:#}"), "the lease could not be given back");
        }
    }

    /// Renews what is held, takes what is free, or looks.
    async fn attempt(&mut self) -> Result<()> {
        let began = Instant::now();
        if self.renewed.is_none() || self.seen.is_none() {
            let found = self.api.get_opt(&self.name).await.context("failed to read the lease")?;
            let Some(found) = found else { return self.create(began).await };
            self.see(found);
        }
        let Some((lease, since)) = self.seen.clone() else { return Ok(()) };
        if !is_free(&lease, &self.identity, since.elapsed()) {
            self.renewed = None;
            return Ok(());
        }
        self.replace(lease, began).await
    }

    fn see(&mut self, lease: Lease) {
        let is_known =
            |(known, _): &(Lease, Instant)| known.metadata.resource_version == lease.metadata.resource_version;
        if !self.seen.as_ref().is_some_and(is_known) {
            self.seen = Some((lease, Instant::now()));
        }
    }

    async fn create(&mut self, began: Instant) -> Result<()> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(self.record(None)) };
        let created = self.api.create(&PostParams::default(), &lease).await;
        self.granted(created, began)
    }

    async fn replace(&mut self, lease: Lease, began: Instant) -> Result<()> {
        let spec = self.record(lease.spec.as_ref());
        let replaced = self.api.replace(&self.name, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await;
        self.granted(replaced, began)
    }

    fn granted(&mut self, answer: kube::Result<Lease>, began: Instant) -> Result<()> {
        match answer {
            Ok(lease) => {
                self.see(lease);
                self.renewed = Some(began);
                Ok(())
            }
            // Another was first, an answer was lost, or it was deleted: looked at next time.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
                self.seen = None;
                Ok(())
            }
            Err(error) => Err(error).context("failed to write the lease"),
        }
    }

    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(crate::clock::now());
        let is_own = before.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(TERM.as_secs()).ok(),
            acquire_time: before.filter(|_| is_own).and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if is_own { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&mut self) -> Result<()> {
        let Some((lease, _)) = self.seen.take() else { return Ok(()) };
        let spec = lease.spec.clone().map(|spec| LeaseSpec { holder_identity: None, ..spec });
        let written = self.api.replace(&self.name, &PostParams::default(), &Lease { spec, ..lease }).await;
        written.map(drop).context("failed to write the lease")
    }
}

/// Whether a candidate may take a record that it has seen unchanged for `unchanged`: its own, nobody's, or one whose
/// term is over.
fn is_free(lease: &Lease, identity: &str, unchanged: Duration) -> bool {
    let Some(spec) = &lease.spec else { return true };
    match spec.holder_identity.as_deref() {
        None | Some("") => true,
        Some(holder) if holder == identity => true,
        Some(_) => {
            let term = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            unchanged >= term.map_or(TERM, Duration::from_secs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_free_when_it_is_own_or_nobodys_or_its_term_was_watched_to_its_end() {
        let held = |holder: Option<&str>| Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(9),
                // What the holder's clock says does not matter.
                renew_time: Some(MicroTime("2000-01-01T00:00:00Z".parse().unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let (short, long) = (Duration::from_secs(8), Duration::from_secs(9));
        assert!(is_free(&held(Some("a")), "a", Duration::ZERO));
        assert!(is_free(&held(None), "a", Duration::ZERO));
        assert!(is_free(&held(Some("")), "a", Duration::ZERO));
        assert!(is_free(&Lease::default(), "a", Duration::ZERO));
        assert!(!is_free(&held(Some("b")), "a", short));
        assert!(is_free(&held(Some("b")), "a", long));
    }
}
