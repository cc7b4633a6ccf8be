//! The command line: what was typed, checked as far as it can be without looking anywhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use hearth_core::names::path;
use hearth_core::webservice::{Backend, Cpu, Memory, Wishes};

use crate::exit::{Failure, Outcome};

/// Put a tool on the web: start, stop and restart its web service, and see how it is.
#[derive(Debug, Parser)]
#[command(
    name = "webservice",
    version,
    override_usage = "webservice [OPTIONS] [TYPE] start|stop|restart|status [-- EXTRA_ARGS...]",
    after_help = "Examples:
  webservice static start               serve the files in ~/public_html
  webservice python3.11 start           run the WSGI callable 'app' of ~/www/python/src/app.py
  webservice --mem 1Gi restart          give it more memory; visitors notice nothing
  webservice status                     is it running, and if not: why
  webservice stop                       take it off the web

Settings come from the command line, then from ~/service.template, then from what is
remembered in ~/service.manifest, then from the defaults.

Exit codes: 0 done; 1 not done; 2 not understood; 3 (status) failing; 4 the cluster refused
or did not answer; 5 not run as a tool, or its home is not usable."
)]
pub(crate) struct Args {
    /// The type of the web service, where it is not remembered, and what to do: start, stop, restart or status
    #[arg(value_name = "[TYPE] ACTION", required = true, num_args = 1..=2)]
    words: Vec<String>,

    /// Where to run it: kubernetes
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Backend>,

    /// How much memory it may use, such as 1Gi [default: 512Mi]
    #[arg(short, long, value_name = "AMOUNT")]
    mem: Option<Memory>,

    /// How much processor time it may use, in cores, such as 1 or 250m [default: 500m]
    #[arg(short, long, value_name = "AMOUNT")]
    cpu: Option<Cpu>,

    /// How many pods answer side by side [default: 1]
    #[arg(short, long, value_name = "NUMBER")]
    replicas: Option<u32>,

    /// A file of settings [default: service.template in ~, ~/www/python/src, ~/www/js or ~/public_html]
    #[expect(clippy::doc_markdown, reason = "this is also the help, which people read without markup")]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,

    /// How long to wait until it answers, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,

    /// Accepted for old scripts; every web service has its own host
    #[arg(long, hide = true)]
    canonical: bool,

    /// The configuration of the platform
    #[arg(long, value_name = "FILE", hide = true, env = "HEARTH_PLATFORM", default_value = path::PLATFORM)]
    platform: PathBuf,

    /// The platform's certificate authority, which the front door's certificate may be of
    #[arg(long, value_name = "FILE", hide = true, env = "HEARTH_CA", default_value = path::CA)]
    ca: PathBuf,

    /// Given to the tool's program beside its own arguments
    #[arg(last = true, value_name = "EXTRA_ARGS")]
    extra_args: Vec<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Stop,
    Restart,
    Status,
}

/// What was typed, parsed.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) action: Action,
    pub(crate) wishes: Wishes,
    pub(crate) template: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) platform: PathBuf,
    pub(crate) ca: PathBuf,
}

impl Args {
    /// The request that was typed.
    pub(crate) fn request(self) -> Outcome<Request> {
        let Self { words, backend, mem, cpu, replicas, template, timeout, canonical: _, platform, ca, extra_args } =
            self;
        let (kind, action) = type_and_action(words)?;
        let wishes = Wishes {
            backend,
            kind,
            cpu,
            memory: mem,
            replicas,
            extra_args: (!extra_args.is_empty()).then_some(extra_args),
        };
        Ok(Request { action, wishes, template, timeout: Duration::from_secs(timeout.into()), platform, ca })
    }
}

/// The action among the words, and the type, in either order.
fn type_and_action(words: Vec<String>) -> Outcome<(Option<String>, Action)> {
    let mut kind = None;
    let mut action = None;
    for word in words {
        match Action::of(&word) {
            Some(found) if action.is_none() => action = Some(found),
            Some(_) => {
                return Err(Failure::usage("two actions are given; give one of start, stop, restart and status"));
            }
            None => kind = kind.or(Some(word)),
        }
    }
    match (kind, action) {
        (kind, Some(action)) => Ok((kind, action)),
        (Some(word), None) => Err(Failure::usage(format!(
            "'{word}' is not an action: say start, stop, restart or status, as in `webservice static start`"
        ))),
        (None, None) => Err(Failure::usage("say what to do: start, stop, restart or status")),
    }
}

impl Action {
    fn of(word: &str) -> Option<Self> {
        match word {
            "start" => Some(Self::Start),
            "stop" => Some(Self::Stop),
            "restart" => Some(Self::Restart),
            "status" => Some(Self::Status),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        let args = Args::try_parse_from(line.split(' ')).map_err(|e| e.to_string())?;
        args.request().map_err(|failure| failure.text)
    }

    #[test]
    fn type_and_action_in_either_order() {
        for line in ["webservice static start", "webservice start static", "webservice --mem 1Gi static start"] {
            let request = parse(line).unwrap();
            assert_eq!((request.action, request.wishes.kind.as_deref()), (Action::Start, Some("static")), "{line}");
        }
        let request = parse("webservice --canonical -r 2 -c 250m restart -- --index a").unwrap();
        assert_eq!((request.action, request.wishes.kind), (Action::Restart, None));
        assert_eq!(request.wishes.extra_args, Some(vec!["--index".to_owned(), "a".to_owned()]));
        assert_eq!(request.wishes.replicas, Some(2));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |line: &str, expected: &str| {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        };
        check("webservice static", "'static' is not an action: say start");
        check("webservice start stop", "two actions are given");
        check("webservice static php", "'static' is not an action");
        check("webservice start --mem 512m", "did you mean 512Mi?");
        check("webservice start --backend docker", "it is kubernetes or gridengine");
        check("webservice", "required");
        check("webservice a b start", "unexpected");
    }
}
