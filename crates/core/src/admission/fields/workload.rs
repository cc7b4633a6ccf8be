//! What makes pods: Deployments and their like, Jobs and `CronJobs`. Beside the template, which is judged as a pod is.
//!
//! Numbers are bounded far above what a tool's quota lets run, and low enough that a slip of the keyboard does not
//! keep the controllers busy: a controller tries again and again to make what the quota refuses, and each object of a
//! history is kept in etcd. `volumeClaimTemplates` is refused, because a controller would make the claims, with rights
//! that tools do not have; `managedBy` of a Job is, because nothing here manages Jobs but the cluster's controller; and
//! `backoffLimitPerIndex`, because with it the API server takes every bound from `backoffLimit`.

use super::super::node::{any, checked};
use super::super::{Field, Node, Rule};
use super::Section;
use super::metadata;
use super::pod::{POD, POD_METADATA};

/// Pods of one workload at once: ten times the quota that a tool starts with.
const MOST_PODS: Node = Node::AtMost(100);

/// Pods that one Job makes, one after another: each leaves an object and a log.
const MOST_COMPLETIONS: Node = Node::AtMost(10_000);

/// Failures after which a Job is given up; the API's own default is 6.
const MOST_FAILURES: Node = Node::AtMost(100);

/// Old `ReplicaSets`, revisions and Jobs that are kept: the API's own default for revisions. The quota of `ReplicaSets`
/// counts on it.
const MOST_KEPT: Node = Node::AtMost(10);

/// A template as a whole; its parts have sections of their own.
const TEMPLATE: Node = Node::Object(&[any("metadata"), any("spec")]);

const TEMPLATE_SPEC: Section = Section { at: &["spec", "template", "spec"], open: false, fields: POD };
const TEMPLATE_METADATA: Section = Section { at: &["spec", "template", "metadata"], open: true, fields: POD_METADATA };

const fn spec(fields: &'static [Field]) -> Section {
    Section { at: &["spec"], open: false, fields }
}

/// A Deployment.
pub(super) const DEPLOYMENT: &[Section] = &[
    TEMPLATE_SPEC,
    TEMPLATE_METADATA,
    spec(&[
        any("minReadySeconds"),
        any("paused"),
        any("progressDeadlineSeconds"),
        checked("replicas", Rule::Limit, MOST_PODS),
        checked("revisionHistoryLimit", Rule::Limit, MOST_KEPT),
        any("selector"),
        any("strategy"),
        checked("template", Rule::Field, TEMPLATE),
    ]),
    metadata::SECTION,
];

/// A `ReplicaSet`.
pub(super) const REPLICA_SET: &[Section] = &[
    TEMPLATE_SPEC,
    TEMPLATE_METADATA,
    spec(&[
        any("minReadySeconds"),
        checked("replicas", Rule::Limit, MOST_PODS),
        any("selector"),
        checked("template", Rule::Field, TEMPLATE),
    ]),
    metadata::SECTION,
];

/// A `ReplicationController` has what a `ReplicaSet` has.
pub(super) const REPLICATION_CONTROLLER: &[Section] = REPLICA_SET;

/// A `StatefulSet`, without storage of its own.
pub(super) const STATEFUL_SET: &[Section] = &[
    TEMPLATE_SPEC,
    TEMPLATE_METADATA,
    spec(&[
        any("minReadySeconds"),
        any("ordinals"),
        any("persistentVolumeClaimRetentionPolicy"),
        any("podManagementPolicy"),
        checked("replicas", Rule::Limit, MOST_PODS),
        checked("revisionHistoryLimit", Rule::Limit, MOST_KEPT),
        any("selector"),
        any("serviceName"),
        checked("template", Rule::Field, TEMPLATE),
        any("updateStrategy"),
    ]),
    metadata::SECTION,
];

/// A `DaemonSet`. Tools may not write one; what the platform puts into a tool's namespace is judged alike.
pub(super) const DAEMON_SET: &[Section] = &[
    TEMPLATE_SPEC,
    TEMPLATE_METADATA,
    spec(&[
        any("minReadySeconds"),
        checked("revisionHistoryLimit", Rule::Limit, MOST_KEPT),
        any("selector"),
        checked("template", Rule::Field, TEMPLATE),
        any("updateStrategy"),
    ]),
    metadata::SECTION,
];

/// A Job.
pub(super) const JOB: &[Section] = &[TEMPLATE_SPEC, TEMPLATE_METADATA, spec(JOB_SPEC), metadata::SECTION];

/// A `CronJob`.
pub(super) const CRON_JOB: &[Section] = &[
    Section { at: &["spec", "jobTemplate", "spec", "template", "spec"], open: false, fields: POD },
    Section { at: &["spec", "jobTemplate", "spec", "template", "metadata"], open: true, fields: POD_METADATA },
    Section { at: &["spec", "jobTemplate", "spec"], open: false, fields: JOB_SPEC },
    Section { at: &["spec", "jobTemplate", "metadata"], open: true, fields: &[metadata::FINALIZERS] },
    spec(&[
        any("concurrencyPolicy"),
        checked("failedJobsHistoryLimit", Rule::Limit, MOST_KEPT),
        checked("jobTemplate", Rule::Field, TEMPLATE),
        any("schedule"),
        any("startingDeadlineSeconds"),
        checked("successfulJobsHistoryLimit", Rule::Limit, MOST_KEPT),
        any("suspend"),
        any("timeZone"),
    ]),
    metadata::SECTION,
];

/// The number of pods, written by itself.
pub(super) const SCALE: &[Section] =
    &[Section { at: &["spec"], open: true, fields: &[checked("replicas", Rule::Limit, MOST_PODS)] }];

const JOB_SPEC: &[Field] = &[
    any("activeDeadlineSeconds"),
    checked("backoffLimit", Rule::Limit, MOST_FAILURES),
    any("completionMode"),
    checked("completions", Rule::Limit, MOST_COMPLETIONS),
    any("manualSelector"),
    checked("parallelism", Rule::Limit, MOST_PODS),
    any("podFailurePolicy"),
    any("podReplacementPolicy"),
    any("selector"),
    any("successPolicy"),
    any("suspend"),
    checked("template", Rule::Field, TEMPLATE),
    any("ttlSecondsAfterFinished"),
];
