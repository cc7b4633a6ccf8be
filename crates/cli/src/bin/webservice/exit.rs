//! How the command ends: its exit codes, and failures with what is said of them.

use std::process::ExitCode;

/// The exit codes. Scripts depend on them: 0 and 1 are the original's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: it was done; or `status` could say in which state the web service is, and that it is not failing.
    Success,
    /// 1: it was not done: an unknown type, already running, a faulty template, or it did not come up in time.
    Failed,
    /// 2: the command line cannot be understood. clap ends with the same code.
    Usage,
    /// 3: `status` found a web service that does not come up or no longer answers.
    Failing,
    /// 4: the cluster refused, could not be reached or did not answer in time.
    Cluster,
    /// 5: not run as a tool, or the tool's home, kubeconfig or the platform's configuration is not usable.
    Environment,
}

/// Why the command ends without having done what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// With which code.
    pub(crate) exit: Exit,
    /// What is said of it: sentences that a maintainer can act on.
    pub(crate) text: String,
}

/// What a stage of the command ends with.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// It was not done.
    pub(crate) fn failed(text: impl ToString) -> Self {
        Self { exit: Exit::Failed, text: text.to_string() }
    }

    /// The command line cannot be understood.
    pub(crate) fn usage(text: impl ToString) -> Self {
        Self { exit: Exit::Usage, text: text.to_string() }
    }

    /// The cluster refused or did not answer.
    pub(crate) fn cluster(text: impl ToString) -> Self {
        Self { exit: Exit::Cluster, text: text.to_string() }
    }

    /// What the command needs around it is not there.
    pub(crate) fn environment(text: impl ToString) -> Self {
        Self { exit: Exit::Environment, text: text.to_string() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Failing => 3,
            Exit::Cluster => 4,
            Exit::Environment => 5,
        })
    }
}
