//! A whole platform for the tests: an instance of its own, driven only from outside.
//!
//! One for the whole suite, brought up by the first test that asks and purged when the process has ended, however
//! that happened. It runs the programs and images under `HEARTH_CACHE`, and never builds them. Another instance may
//! run beside it; nothing here touches that one. Tests share the platform, so each works with tools of its own; a
//! test that stops or breaks parts of it says so by asking for it with [`disturbed`], and is alone
//! then.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Where the suite's instance lives, and its address.
const PLACE: (&str, &str) = ("/var/lib/hearth-test", "127.0.53.1");

/// The domain of the tools, and the legacy one.
pub(crate) const DOMAIN: &str = "hearth.localhost";

/// How long `up` may take on a machine that is busy: it takes about 25 s on an idle one.
const UP: Duration = Duration::from_secs(300);

/// How long the platform may take to follow a change: it takes a second or two.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// An instance, by what it is called with.
pub(crate) struct Platform {
    pub(crate) home: PathBuf,
    pub(crate) address: String,
    pub(crate) cache: PathBuf,
    /// Read by tests that share the platform, written by one that disturbs it.
    calm: RwLock<()>,
    /// What purges the instance when this process has ended.
    _keeper: Option<Keeper>,
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// An answer of the front door.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Where it redirects to, or nothing.
    pub(crate) location: String,
    pub(crate) body: String,
}

/// The platform, up, shared with other tests for as long as the guard lives.
pub(crate) fn platform() -> (&'static Platform, RwLockReadGuard<'static, ()>) {
    let platform = instance();
    let guard = platform.calm.read().unwrap_or_else(PoisonError::into_inner);
    (platform, guard)
}

/// The platform, up, for one test alone, which may stop and break parts of it.
pub(crate) fn disturbed() -> (&'static Platform, Alone) {
    let platform = instance();
    let guard = platform.calm.write().unwrap_or_else(PoisonError::into_inner);
    (platform, Alone { platform, _guard: guard })
}

/// That no other test uses the platform. When the test fails, what it broke is repaired for the others.
pub(crate) struct Alone {
    platform: &'static Platform,
    _guard: RwLockWriteGuard<'static, ()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.platform.hearth(&["up"]);
        }
    }
}

fn instance() -> &'static Platform {
    static INSTANCE: OnceLock<Platform> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let mut platform = Platform::at(PLACE.0, PLACE.1);
        platform.purge();
        platform._keeper = Some(platform.keep());
        platform.up();
        platform
    })
}

/// Looks again and again until `look` has a value, and fails with its last complaint when that takes too long.
pub(crate) fn eventually<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return value,
            Err(complaint) => assert!(Instant::now() < deadline, "{what}: not after {limit:?}: {complaint}"),
        }
        std::thread::sleep(LOOK);
    }
}

/// What purges an instance: when it is dropped, or when this process has ended without that.
pub(crate) struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Whether it could be purged shows when it is used again.
        let _ = self.0.wait();
    }
}

impl Platform {
    /// An instance that may not exist yet.
    pub(crate) fn at(home: &str, address: &str) -> Self {
        let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
        let program = cache.join("programs/hearth");
        assert!(program.exists(), "{} is not there: `make test` builds it", program.display());
        Self { home: home.into(), address: address.to_owned(), cache, calm: RwLock::default(), _keeper: None }
    }

    /// The program that `make` runs, for this instance.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.cache.join("programs/hearth"));
        command.args(arguments).env_remove("KUBECONFIG");
        command.env("HEARTH_HOME", &self.home).env("HEARTH_ADDRESS", &self.address).env("HEARTH_CACHE", &self.cache);
        command
    }

    /// Runs `hearth` with these arguments.
    pub(crate) fn hearth(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments), "")
    }

    /// Brings the instance up; how long that took.
    pub(crate) fn up(&self) -> Duration {
        let begun = Instant::now();
        let said = self.hearth(&["up"]).success("hearth up");
        assert!(said.err.contains("Hearth is up"), "{said:?}");
        assert!(begun.elapsed() < UP, "`hearth up` took {:?}", begun.elapsed());
        begun.elapsed()
    }

    /// Removes the instance and all its data. What ended before may still be at it.
    pub(crate) fn purge(&self) {
        eventually(SOON, "the instance is purged", || {
            let said = self.hearth(&["purge"]);
            if said.code == Some(0) && !self.home.exists() { Ok(()) } else { Err(format!("{said:?}")) }
        });
    }

    /// Starts a shell that waits for this process to end, by a pipe that closes with it, and then purges the
    /// instance: that happens after a panic too, and after a kill. A `hearth up` may still run then, so it tries more
    /// than once.
    pub(crate) fn keep(&self) -> Keeper {
        use std::os::unix::process::CommandExt;
        let script = "cat >/dev/null; for trial in $(seq 60); do \"$@\" && exit; sleep 1; done";
        let purge = self.command(&["purge"]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "keep"]).arg(purge.get_program()).args(purge.get_args());
        shell.envs(purge.get_envs().filter_map(|(key, value)| Some((key, value?))));
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Keeper(shell.spawn().expect("a shell can be started"))
    }

    /// A path below the instance's home, as text.
    pub(crate) fn path(&self, relative: &str) -> String {
        self.home.join(relative).display().to_string()
    }

    /// Logs in at the bastion as a person and runs `command` there; with none, types `input` into the shell.
    pub(crate) fn ssh(&self, person: &str, command: &str, input: &str) -> Said {
        let mut ssh = Command::new("ssh");
        ssh.args(["-T", "-p", "2222", "-i", &self.path(&format!("keys/{person}"))]);
        ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "IdentitiesOnly=yes"]);
        ssh.args(["-o", &format!("UserKnownHostsFile={}", self.path("keys/known_hosts"))]);
        ssh.arg(format!("{person}@{}", self.address));
        if !command.is_empty() {
            ssh.arg(command);
        }
        said(ssh, input)
    }

    /// Runs a command as a tool, on the bastion, as `member1`.
    pub(crate) fn as_tool(&self, tool: &str, command: &str) -> Said {
        assert!(!command.contains('\''), "the command is put between single quotes: {command}");
        self.ssh("member1", &format!("become {tool} bash -c '{command}'"), "")
    }

    /// Makes a tool and waits until its maintainer can become it and it can use the cluster.
    pub(crate) fn tool(&self, name: &str, maintainer: &str) {
        self.hearth(&["tool", "create", name, "--maintainer", maintainer]).success("hearth tool create");
        eventually(SOON, &format!("{maintainer} can use the new tool {name}"), || {
            let said = self.ssh(maintainer, &format!("become {name} kubectl get pods"), "");
            if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
        });
    }

    /// Gives a tool a page and puts it on the web.
    pub(crate) fn serve(&self, tool: &str, page: &str) {
        let script =
            format!("mkdir -p ~/public_html && echo \"{page}\" > ~/public_html/index.html && webservice static start");
        self.as_tool(tool, &script).success("webservice static start");
    }

    /// Runs kubectl on the host with a tool's own kubeconfig.
    pub(crate) fn kubectl(&self, tool: &str, arguments: &[&str], input: &str) -> Said {
        self.kubectl_with(&self.path(&format!("data/project/{tool}/.kube/config")), arguments, input)
    }

    /// Runs kubectl on the host as the administrator.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Said {
        self.kubectl_with(&self.path("admin.kubeconfig"), arguments, "")
    }

    /// Runs kubectl on the host with a kubeconfig.
    pub(crate) fn kubectl_with(&self, kubeconfig: &str, arguments: &[&str], input: &str) -> Said {
        let mut kubectl = Command::new(self.cache.join("bin/kubectl"));
        kubectl.args(["--kubeconfig", kubeconfig]).args(arguments);
        said(kubectl, input)
    }

    /// Asks the front door for a URL of the platform.
    pub(crate) fn get(&self, url: &str) -> Answer {
        self.try_get(url).unwrap_or_else(|complaint| panic!("{url}: {complaint}"))
    }

    /// Asks the front door for a URL of the platform; what curl says if there is no answer.
    pub(crate) fn try_get(&self, url: &str) -> Result<Answer, String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert", &self.path("ca.crt")]);
        curl.args(["--user-agent", "hearth-e2e (tests)", "--write-out", "\n%{http_code} %{redirect_url}"]);
        // Every name is at the instance's address, whatever the host resolves it to.
        curl.args(["--connect-to", &format!("::{}:", self.address), url]);
        let said = said(curl, "");
        if said.code != Some(0) {
            return Err(said.err);
        }
        let (body, last) = said.out.rsplit_once('\n').ok_or("curl wrote no status")?;
        let (status, location) = last.split_once(' ').ok_or("curl wrote no status")?;
        let status = status.parse().map_err(|_| format!("'{status}' is no status"))?;
        Ok(Answer { status, location: location.to_owned(), body: body.to_owned() })
    }

    /// The page of a tool, at its own host.
    pub(crate) fn page(&self, tool: &str) -> Answer {
        self.get(&url(tool))
    }

    /// Waits until a tool's host answers with this status, and a page with this in it.
    pub(crate) fn answers(&self, tool: &str, status: u16, text: &str) {
        eventually(SOON, &format!("https://{tool}.{DOMAIN}/ answers {status} with '{text}'"), || {
            match self.try_get(&url(tool))? {
                answer if answer.status == status && answer.body.contains(text) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

/// The URL of a tool.
pub(crate) fn url(tool: &str) -> String {
    format!("https://{tool}.{DOMAIN}/")
}

/// Runs a program with text on its standard input.
pub(crate) fn said(mut command: Command, input: &str) -> Said {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("failed to start {shown}: {error}"));
    // A program that ends without having read says why by itself.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the program can be waited for");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

impl Said {
    /// Itself, if it ended well.
    #[track_caller]
    pub(crate) fn success(self, what: &str) -> Self {
        assert_eq!(self.code, Some(0), "{what}\n{}\n{}", self.out, self.err);
        self
    }

    /// Checks that it ended with this code and that what it said has all these parts.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, parts: &[&str]) {
        let missing: Vec<_> = parts.iter().filter(|part| !self.all().contains(**part)).collect();
        assert!(self.code == Some(code) && missing.is_empty(), "wants {code}, lacks {missing:?}: {self:#?}");
    }

    /// All that it said.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
