//! Which settings hold: the command line, then the template, then what is remembered, then the defaults.

use std::fmt;
use std::str::FromStr;

use super::{Cpu, Memory};

/// Where a web service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The cluster.
    Kubernetes,
    /// The grid.
    Gridengine,
}

/// What one source asks for. What it leaves out is taken from the next source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Where to run.
    pub backend: Option<Backend>,
    /// The type, such as `static`.
    pub kind: Option<String>,
    /// The limit of processor time.
    pub cpu: Option<Cpu>,
    /// The limit of memory.
    pub memory: Option<Memory>,
    /// How many pods.
    pub replicas: Option<u32>,
    /// What the type's program is given beside its own arguments.
    pub extra_args: Option<Vec<String>>,
}

/// What a web service is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The type, such as `static`.
    pub kind: String,
    /// The limit of processor time, where one is asked for.
    pub cpu: Option<Cpu>,
    /// The limit of memory, where one is asked for.
    pub memory: Option<Memory>,
    /// How many pods; at least one.
    pub replicas: u32,
    /// What the type's program is given beside its own arguments.
    pub extra_args: Vec<String>,
}

/// Why the settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nothing says which type.
    #[error("no type of web service is given, and none is remembered")]
    NoType,
    /// The grid was asked for.
    #[error(
        "the backend 'gridengine' is not available: it comes with the platform's grid; use --backend kubernetes, and remove the backend from {MANIFEST} or the template if it stands there",
        MANIFEST = super::MANIFEST_FILE
    )]
    Grid,
    /// A number of pods that cannot be.
    #[error("{0} replicas cannot be started: ask for 1 to {LARGEST}", LARGEST = LARGEST_REPLICAS)]
    Replicas(u32),
}

/// The text is not the name of a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a backend: it is kubernetes or gridengine")]
pub struct BackendError(String);

/// More pods than this are a slip of the finger; the quota of a tool is far lower.
const LARGEST_REPLICAS: u32 = 100;

impl Wishes {
    /// This source's wishes, and where it has none, those of `next`. Extra arguments belong to a type: those of `next`
    /// do not outlive a change of the type.
    pub fn or(self, next: Self) -> Self {
        let same_type = self.kind.is_none() || next.kind.is_none() || self.kind == next.kind;
        Self {
            backend: self.backend.or(next.backend),
            kind: self.kind.or(next.kind),
            cpu: self.cpu.or(next.cpu),
            memory: self.memory.or(next.memory),
            replicas: self.replicas.or(next.replicas),
            extra_args: self.extra_args.or(next.extra_args.filter(|_| same_type)),
        }
    }

    /// The settings, with defaults for what no source asks for.
    pub fn settle(self) -> Result<Settings, SettingsError> {
        let Self { backend, kind, cpu, memory, replicas, extra_args } = self;
        if backend == Some(Backend::Gridengine) {
            return Err(SettingsError::Grid);
        }
        let replicas = replicas.unwrap_or(1);
        if replicas == 0 || replicas > LARGEST_REPLICAS {
            return Err(SettingsError::Replicas(replicas));
        }
        let kind = kind.ok_or(SettingsError::NoType)?;
        Ok(Settings { kind, cpu, memory, replicas, extra_args: extra_args.unwrap_or_default() })
    }
}

// === impl Backend ===

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self, BackendError> {
        match text {
            "kubernetes" => Ok(Self::Kubernetes),
            "gridengine" => Ok(Self::Gridengine),
            other => Err(BackendError(other.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubernetes => "kubernetes",
            Self::Gridengine => "gridengine",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, replicas: u32) -> Wishes {
        Wishes { kind: Some(kind.to_owned()), replicas: Some(replicas), ..Wishes::default() }
    }

    #[test]
    fn the_first_source_that_says_something_wins() {
        let line = Wishes { memory: Some("1Gi".parse().unwrap()), ..Wishes::default() };
        let template = Wishes { cpu: Some("1".parse().unwrap()), replicas: Some(2), ..Wishes::default() };
        let settings = line.or(template).or(of("static", 3)).settle().unwrap();
        assert_eq!(settings.kind, "static");
        assert_eq!(settings.replicas, 2);
        assert_eq!(settings.cpu, Some("1".parse().unwrap()));
        assert_eq!(settings.memory, Some("1Gi".parse().unwrap()));
        assert_eq!(settings.extra_args, Vec::<String>::new());
    }

    #[test]
    fn extra_arguments_stay_with_their_type() {
        let remembered = Wishes { extra_args: Some(vec!["--x".to_owned()]), ..of("static", 1) };
        let kept = of("static", 1).or(remembered.clone()).settle().unwrap();
        assert_eq!(kept.extra_args, ["--x"]);
        let dropped = of("python3.11", 1).or(remembered.clone()).settle().unwrap();
        assert!(dropped.extra_args.is_empty());
        assert_eq!(Wishes::default().or(remembered).settle().unwrap().extra_args, ["--x"]);
    }

    #[test]
    fn what_cannot_be() {
        assert_eq!(Wishes::default().settle(), Err(SettingsError::NoType));
        assert_eq!(of("static", 0).settle().unwrap_err().to_string(), "0 replicas cannot be started: ask for 1 to 100");
        let grid = Wishes { backend: Some(Backend::Gridengine), ..of("static", 1) };
        assert!(grid.settle().unwrap_err().to_string().contains("it comes with the platform's grid"));
        assert_eq!(
            "docker".parse::<Backend>().unwrap_err().to_string(),
            "'docker' is not a backend: it is kubernetes or gridengine"
        );
    }
}
