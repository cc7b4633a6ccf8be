//! Stopping what a disabled tool runs, and starting it again as it was.
//!
//! How many replicas a workload had is remembered in an annotation on it. What has its own count is scaled, cron jobs
//! are suspended, and jobs and pods are deleted. Done again, it changes nothing. It trusts no owner reference: a
//! tool could have written it, so every pod goes and every replica set is scaled.

use serde_json::{Value, json};

use crate::names::annotation::BEFORE_DISABLING;

/// The kinds that keep a number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalable {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 `StatefulSet`.
    StatefulSet,
    /// apps/v1 `ReplicaSet`.
    ReplicaSet,
}

/// A workload with a number of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// What it is.
    pub kind: Scalable,
    /// Its name.
    pub name: String,
    /// Whether a Deployment says that it controls it, and will therefore set its count.
    pub controlled: bool,
    /// `spec.replicas`.
    pub replicas: i32,
    /// The annotation that remembers the count, as it is.
    pub before: Option<String>,
}

/// A cron job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    /// Its name.
    pub name: String,
    /// `spec.suspend`.
    pub suspended: bool,
    /// The annotation that remembers that it ran, as it is.
    pub before: Option<String>,
}

/// What a tool has in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workloads {
    /// What can be scaled.
    pub scaled: Vec<Scaled>,
    /// Cron jobs.
    pub crons: Vec<Cron>,
    /// How many jobs there are that are not being deleted.
    pub jobs: usize,
    /// How many pods there are that are not being deleted.
    pub pods: usize,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Merge a patch into a workload.
    Scale {
        /// What it is.
        kind: Scalable,
        /// Its name.
        name: String,
        /// `spec.replicas`, where it is to change.
        replicas: Option<i32>,
        /// The annotation: `Some(None)` removes it, `None` leaves it.
        before: Option<Option<String>>,
    },
    /// Merge a patch into a cron job.
    Suspend {
        /// Its name.
        name: String,
        /// `spec.suspend`.
        suspend: bool,
    },
    /// Delete all jobs.
    DeleteJobs,
    /// Delete all pods.
    DeletePods,
}

impl Change {
    /// The JSON merge patch of a change to one object.
    pub fn patch(&self) -> Option<Value> {
        match self {
            Self::Scale { replicas, before, .. } => {
                let mut patch = json!({});
                if let (Some(replicas), Some(patch)) = (replicas, patch.as_object_mut()) {
                    patch.insert("spec".to_owned(), json!({ "replicas": replicas }));
                }
                if let (Some(before), Some(patch)) = (before, patch.as_object_mut()) {
                    patch.insert("metadata".to_owned(), json!({ "annotations": { BEFORE_DISABLING: before } }));
                }
                Some(patch)
            }
            Self::Suspend { suspend, .. } => {
                let before = suspend.then_some("running");
                Some(json!({
                    "metadata": { "annotations": { BEFORE_DISABLING: before } },
                    "spec": { "suspend": suspend },
                }))
            }
            Self::DeleteJobs | Self::DeletePods => None,
        }
    }
}

/// What stops everything. Workloads come before the pods, so that no pod is made again.
pub fn stop(workloads: &Workloads) -> Vec<Change> {
    let running = workloads.scaled.iter().filter(|w| w.replicas != 0);
    let scale = running.map(|w| Change::Scale {
        kind: w.kind,
        name: w.name.clone(),
        replicas: Some(0),
        before: (!w.controlled).then(|| Some(w.replicas.to_string())),
    });
    let crons = workloads.crons.iter().filter(|cron| !cron.suspended);
    let suspend = crons.map(|cron| Change::Suspend { name: cron.name.clone(), suspend: true });
    let mut changes: Vec<Change> = scale.chain(suspend).collect();
    if workloads.jobs > 0 {
        changes.push(Change::DeleteJobs);
    }
    if workloads.pods > 0 {
        changes.push(Change::DeletePods);
    }
    changes
}

/// What starts everything that [`stop`] stopped. A count that cannot be read is left at what it is.
pub fn start(workloads: &Workloads) -> Vec<Change> {
    let remembered = workloads.scaled.iter().filter_map(|w| Some((w, w.before.as_ref()?)));
    let scale = remembered.map(|(w, before)| {
        let count = before.parse::<i32>().ok().filter(|&count| count > 0);
        Change::Scale {
            kind: w.kind,
            name: w.name.clone(),
            replicas: count.filter(|_| w.replicas == 0),
            before: Some(None),
        }
    });
    let crons = workloads.crons.iter().filter(|cron| cron.before.is_some());
    scale.chain(crons.map(|cron| Change::Suspend { name: cron.name.clone(), suspend: false })).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Does to the workloads what the API server would.
    fn apply(workloads: &mut Workloads, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Scale { kind, name, replicas, before } => {
                    let found = workloads.scaled.iter_mut().find(|w| w.kind == *kind && w.name == *name).unwrap();
                    found.replicas = replicas.unwrap_or(found.replicas);
                    found.before = before.clone().unwrap_or_else(|| found.before.clone());
                }
                Change::Suspend { name, suspend } => {
                    let found = workloads.crons.iter_mut().find(|cron| cron.name == *name).unwrap();
                    found.suspended = *suspend;
                    found.before = suspend.then(|| "running".to_owned());
                }
                Change::DeleteJobs => workloads.jobs = 0,
                Change::DeletePods => workloads.pods = 0,
            }
        }
    }

    fn workloads() -> impl Strategy<Value = Workloads> {
        let kinds = prop_oneof![Just(Scalable::Deployment), Just(Scalable::StatefulSet), Just(Scalable::ReplicaSet),];
        let scaled = proptest::collection::vec((kinds, 0..4_i32), 0..5);
        (scaled, proptest::collection::vec(any::<bool>(), 0..4), 0..3_usize, 0..3_usize).prop_map(
            |(scaled, crons, jobs, pods)| Workloads {
                scaled: scaled
                    .into_iter()
                    .enumerate()
                    .map(|(i, (kind, replicas))| Scaled {
                        kind,
                        name: format!("w{i}"),
                        controlled: false,
                        replicas,
                        before: None,
                    })
                    .collect(),
                crons: crons
                    .into_iter()
                    .enumerate()
                    .map(|(i, suspended)| Cron { name: format!("c{i}"), suspended, before: None })
                    .collect(),
                jobs,
                pods,
            },
        )
    }

    proptest! {
        #[test]
        fn stopping_is_done_once_and_starting_undoes_it(before in workloads()) {
            let mut now = before.clone();
            apply(&mut now, &stop(&before));
            prop_assert_eq!(stop(&now), vec![]);
            prop_assert!(now.scaled.iter().all(|w| w.replicas == 0) && now.crons.iter().all(|c| c.suspended));
            apply(&mut now.clone(), &start(&now));
            let changes = start(&now);
            apply(&mut now, &changes);
            prop_assert_eq!(start(&now), vec![]);
            prop_assert_eq!((now.scaled, now.crons), (before.scaled, before.crons));
        }
    }

    #[test]
    fn a_replica_set_of_a_deployment_is_scaled_but_not_remembered() {
        let set = Scaled {
            kind: Scalable::ReplicaSet,
            name: "web-1".to_owned(),
            controlled: true,
            replicas: 2,
            before: None,
        };
        let changes = stop(&Workloads { scaled: vec![set], ..Workloads::default() });
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].patch(), Some(json!({ "spec": { "replicas": 0 } })));
    }

    #[test]
    fn a_remembered_count_that_makes_no_sense_is_forgotten() {
        for text in ["-1", "many", ""] {
            let w = Scaled {
                kind: Scalable::Deployment,
                name: "web".to_owned(),
                controlled: false,
                replicas: 0,
                before: Some(text.to_owned()),
            };
            let changes = start(&Workloads { scaled: vec![w], ..Workloads::default() });
            let forget = json!({ "metadata": { "annotations": { BEFORE_DISABLING: null } } });
            assert_eq!(changes[0].patch(), Some(forget), "{text}");
        }
    }
}
