//! Building everything: Go programs, Rust programs, container images.
//!
//! Builds that do not need each other overlap, but Rust's has the processors to itself: it keeps them busy to its end,
//! and what is computed beside it, at whatever priority, costs it a third more on processors that share a core. Go's
//! modules are downloaded meanwhile. What was built from the same inputs is not looked at again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::progress::{Board, Task};

/// What is to be there afterwards.
#[derive(PartialEq, Eq)]
pub enum Wanted {
    /// Every program and image.
    Everything,
    /// Kubernetes with etcd, and the programs that only tests need.
    ControlPlane,
}

/// A program or a set of them, built from a Go module beside this file's repository.
struct GoBuild {
    name: &'static str,
    module: &'static str,
    packages: &'static [&'static str],
    output: &'static str,
    flags: &'static [&'static str],
}

/// The version of Kubernetes, also the one in `cluster/kubernetes/go.mod`.
const KUBERNETES: &str = "1.37.2";

const GO: &[GoBuild] = &[
    GoBuild { name: "mkimage", module: "images/mkimage", packages: &["."], output: "", flags: &["-ldflags=-s -w"] },
    GoBuild {
        name: "CNI plugins",
        module: "cluster/cni",
        packages: &[
            "github.com/containernetworking/plugins/plugins/main/bridge",
            "github.com/containernetworking/plugins/plugins/main/loopback",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "github.com/containernetworking/plugins/plugins/meta/portmap",
        ],
        output: "cni/",
        flags: &["-ldflags=-s -w"],
    },
    GoBuild {
        name: "containerd",
        module: "cluster/containerd",
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
        output: "",
        flags: &[
            "-tags=no_btrfs,no_devmapper,no_zfs,no_aufs",
            "-ldflags=-s -w -X github.com/containerd/containerd/v2/version.Version=2.4.2",
        ],
    },
    GoBuild { name: "CoreDNS", module: "cluster/coredns", packages: &["."], output: "", flags: &["-ldflags=-s -w"] },
];

/// What tests ask for a second opinion, on the rulebook and on HTTP/2. No instance needs them.
const FOR_TESTS: &[GoBuild] = &[
    GoBuild { name: "oracle", module: "e2e/oracle", packages: &["."], output: "", flags: &["-ldflags=-s -w"] },
    GoBuild {
        name: "h2spec",
        module: "e2e/h2spec",
        packages: &["github.com/summerwind/h2spec/cmd/h2spec"],
        output: "",
        flags: &["-ldflags=-s -w"],
    },
];

/// Packages of Debian that building needs, each with a program that shows that it is there.
const PACKAGES: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("cmake", "cmake"),
    ("findmnt", "util-linux"),
    ("haproxy", "haproxy"),
    ("make", "make"),
    ("mmdebstrap", "mmdebstrap"),
    ("xargs", "findutils"),
];

/// Packages of Debian that tests need, likewise.
const PACKAGES_FOR_TESTS: &[(&str, &str)] = &[("chromium", "chromium"), ("testssl", "testssl.sh")];

/// Where things are.
struct Places {
    repository: PathBuf,
    cache: PathBuf,
    programs: PathBuf,
}

/// Builds what is wanted and says where the time went.
pub fn run(wanted: &Wanted) -> Result<(), String> {
    let places = Places::find()?;
    need("go", "Go 1.26 or newer is needed to build Kubernetes; install it and put `go` on the PATH")?;
    install_packages(PACKAGES)?;
    if *wanted == Wanted::ControlPlane {
        install_packages(PACKAGES_FOR_TESTS)?;
    }
    eprintln!("Building (kept in {}):", places.cache.display());
    let board = Board::new();
    let result = match wanted {
        Wanted::ControlPlane => {
            kubernetes(&places, &board).and_then(|()| FOR_TESTS.iter().try_for_each(|build| go(&places, &board, build)))
        }
        Wanted::Everything => everything(&places, &board),
    };
    board.finish();
    result
}

fn everything(places: &Places, board: &Arc<Board>) -> Result<(), String> {
    std::thread::scope(|scope| {
        scope.spawn(|| download(places));
        rust(places, board)
    })?;
    std::thread::scope(|scope| {
        let cluster = scope.spawn(|| {
            GO.iter().skip(1).try_for_each(|build| go(places, board, build)).and_then(|()| kubernetes(places, board))
        });
        let first = scope.spawn(|| {
            GO.first().map_or(Ok(()), |mkimage| go(places, board, mkimage))?;
            images(
                places,
                board,
                "images of Debian packages",
                &["directory", "pause", "python3.11", "registry", "static"],
            )
        });
        let joined = [cluster.join(), first.join()]
            .map(|r| r.unwrap_or_else(|_| Err("a build stopped unexpectedly".to_owned())));
        joined.into_iter().collect::<Result<Vec<()>, _>>()
    })?;
    images(places, board, "images with our programs", &["bastion", "coredns", "hearthd"])
}

/// Fetches the modules of all that is not built from them yet. What fails here fails again, and is told, in the build.
fn download(places: &Places) {
    let kubernetes = ("Kubernetes", "cluster/kubernetes");
    for (name, module) in GO.iter().map(|build| (build.name, build.module)).chain([kubernetes]) {
        if !places.stamp(name).exists() {
            let mut go = Command::new("go");
            go.args(["mod", "download"]).current_dir(places.repository.join(module)).envs(places.go_environment());
            let _ = go.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// Runs a build unless what it made before is of the same inputs.
fn keyed(
    places: &Places,
    board: &Board,
    name: &'static str,
    key: &str,
    work: impl FnOnce(&Task) -> Result<(), String>,
) -> Result<(), String> {
    let stamp = places.stamp(name);
    if std::fs::read_to_string(&stamp).is_ok_and(|old| old == key) {
        return Ok(());
    }
    let task = board.begin(name);
    let result = work(&task);
    board.end(&task, result.is_ok());
    result?;
    std::fs::write(&stamp, key).map_err(|e| format!("failed to write {}: {e}", stamp.display()))
}

fn go(places: &Places, board: &Board, build: &GoBuild) -> Result<(), String> {
    let key = key(places, &[build.module], &format!("{:?} {:?}", build.packages, build.flags))?;
    keyed(places, board, build.name, &key, |task| {
        let output = places.cache.join("bin").join(build.output);
        go_build(
            places,
            task,
            build.module,
            build.flags.iter().map(|f| (*f).to_owned()).collect(),
            &output,
            build.packages,
        )
    })
}

fn kubernetes(places: &Places, board: &Board) -> Result<(), String> {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let set = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].iter().map(|package| {
        format!(
            " -X {package}.gitVersion=v{KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean \
             -X {package}.gitCommit=0000000000000000000000000000000000000000 -X {package}.buildDate=2026-01-01T00:00:00Z"
        )
    });
    let flags = format!("-ldflags=-s -w{}", set.collect::<String>());
    let key = key(places, &["cluster/kubernetes"], &flags)?;
    keyed(places, board, "Kubernetes", &key, |task| {
        go_build(
            places,
            task,
            "cluster/kubernetes",
            vec![flags.clone()],
            &places.cache.join("bin"),
            &[".", "./kubectl"],
        )
    })
}

fn go_build(
    places: &Places,
    task: &Task,
    module: &str,
    flags: Vec<String>,
    output: &Path,
    packages: &[&str],
) -> Result<(), String> {
    let folder = places.repository.join(module);
    let command = |words: &[&str]| {
        let mut command = Command::new("go");
        command.args(words).current_dir(&folder).envs(places.go_environment());
        command
    };
    let listed = command(&["list", "-deps"])
        .args(flags.iter().rev().skip(1).rev())
        .args(packages)
        .output()
        .map_err(|e| format!("failed to run go: {e}"))?;
    task.set_total(listed.stdout.iter().filter(|b| **b == b'\n').count());
    std::fs::create_dir_all(output).map_err(|e| format!("failed to make {}: {e}", output.display()))?;
    // Built beside and renamed, because a program that runs cannot be written to.
    let beside = output.join(format!(".new-{}", std::process::id()));
    let mut build = command(&["build", "-v"]);
    build.args(&flags).arg("-o").arg(format!("{}/", beside.display())).args(packages);
    std::fs::create_dir_all(&beside).map_err(|e| format!("failed to make {}: {e}", beside.display()))?;
    let built = watch(build, task, |_| true).and_then(|()| {
        for entry in std::fs::read_dir(&beside).map_err(|e| e.to_string())?.flatten() {
            std::fs::rename(entry.path(), output.join(entry.file_name())).map_err(|e| e.to_string())?;
        }
        Ok(())
    });
    let _ = std::fs::remove_dir_all(&beside);
    built
}

/// Rust's own tool knows by itself what has changed.
fn rust(places: &Places, board: &Board) -> Result<(), String> {
    let task = board.begin("Rust");
    let lock = std::fs::read_to_string(places.repository.join("Cargo.lock")).unwrap_or_default();
    task.set_total(lock.lines().filter(|line| *line == "[[package]]").count());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--workspace", "--bins", "--exclude", "xtask"]).current_dir(&places.repository);
    // What this program was started with must not reach the build, or everything is built again.
    for (name, _) in std::env::vars()
        .filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME" && name != "CARGO_TARGET_DIR")
    {
        cargo.env_remove(name);
    }
    let result = watch(cargo, &task, |line| line.trim_start().starts_with("Compiling")).and_then(|()| strip(places));
    board.end(&task, result.is_ok());
    result
}

/// Copies the programs without their symbols: a third of the size in images and memory.
fn strip(places: &Places) -> Result<(), String> {
    let folder = places.cache.join("programs");
    std::fs::create_dir_all(&folder).map_err(|e| format!("failed to make {}: {e}", folder.display()))?;
    for name in ["hearth", "hearthd", "webservice"] {
        let (source, target) = (places.programs.join(name), folder.join(name));
        let time = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
        if time(&target).is_some_and(|target| time(&source).is_some_and(|source| target >= source)) {
            continue;
        }
        let beside = folder.join(format!(".{name}.new"));
        let status = Command::new("strip").arg("-o").args([&beside, &source]).status();
        if !status.is_ok_and(|s| s.success()) {
            return Err(format!("failed to strip {}", source.display()));
        }
        std::fs::rename(&beside, &target).map_err(|e| format!("failed to write {}: {e}", target.display()))?;
    }
    Ok(())
}

fn images(places: &Places, board: &Board, label: &'static str, names: &[&str]) -> Result<(), String> {
    let task = board.begin(label);
    let mut command = Command::new(places.repository.join("images/build"));
    command.args(names).env("HEARTH_CACHE", &places.cache).env("HEARTH_BIN", places.cache.join("programs"));
    command.env("MKIMAGE", places.cache.join("bin/mkimage"));
    let result = watch(command, &task, |_| false);
    board.end(&task, result.is_ok());
    result
}

/// Runs a command; each line of its standard error for which `counts` holds is a step. An error has the last lines.
fn watch(mut command: Command, task: &Task, counts: impl Fn(&str) -> bool) -> Result<(), String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("failed to start {shown}: {e}"))?;
    let mut last: Vec<String> = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if counts(&line) {
                task.step();
            }
            last.push(line);
            if last.len() > 60 {
                last.remove(0);
            }
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown} failed ({status}):\n{}", last.join("\n"))),
        Err(error) => Err(format!("failed to wait for {shown}: {error}")),
    }
}

/// A hash of what a build is made of: the tool, its flags and every file of some folders.
fn key(places: &Places, folders: &[&str], flags: &str) -> Result<String, String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    flags.hash(&mut hasher);
    let version = Command::new("go").arg("version").output().map_err(|e| format!("failed to run go: {e}"))?;
    version.stdout.hash(&mut hasher);
    let mut files: Vec<PathBuf> = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|f| places.repository.join(f)).collect();
    while let Some(folder) = open.pop() {
        for entry in
            std::fs::read_dir(&folder).map_err(|e| format!("failed to read {}: {e}", folder.display()))?.flatten()
        {
            if entry.path().is_dir() { open.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    for file in files {
        file.strip_prefix(&places.repository).unwrap_or(&file).hash(&mut hasher);
        std::fs::read(&file).map_err(|e| format!("failed to read {}: {e}", file.display()))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn install_packages(packages: &[(&str, &str)]) -> Result<(), String> {
    let missing: Vec<&str> =
        packages.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Installing {}", missing.join(" "));
    let apt = |words: &[&str]| {
        Command::new("apt-get")
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let mut install = vec!["install", "-qq", "-y", "--no-install-recommends"];
    install.extend(&missing);
    if apt(&install) || (apt(&["update", "-qq"]) && apt(&install)) {
        Ok(())
    } else {
        Err(format!(
            "these packages are needed and could not be installed: {}; on another system than Debian install their like",
            missing.join(" ")
        ))
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|folder| Path::new(folder).join(program).exists())
}

fn need(program: &str, otherwise: &str) -> Result<(), String> {
    if has(program) { Ok(()) } else { Err(otherwise.to_owned()) }
}

impl Places {
    fn find() -> Result<Self, String> {
        let repository = std::env::current_dir().map_err(|e| format!("failed to find the repository: {e}"))?;
        if !repository.join("cluster/kubernetes/go.mod").exists() {
            return Err("run this in the repository's root, or by `make`".to_owned());
        }
        let cache = PathBuf::from(std::env::var_os("HEARTH_CACHE").unwrap_or_else(|| "/var/cache/hearth".into()));
        std::fs::create_dir_all(cache.join("bin")).map_err(|e| format!("failed to make {}: {e}", cache.display()))?;
        let own = std::env::current_exe().map_err(|e| format!("failed to find this program: {e}"))?;
        let programs = own.parent().map(Path::to_owned).ok_or("this program lies in no folder")?;
        Ok(Self { repository, cache, programs })
    }

    /// Where it stands from which inputs something was built last.
    fn stamp(&self, name: &str) -> PathBuf {
        self.cache.join("bin").join(format!(".{}.key", name.replace(' ', "-")))
    }

    fn go_environment(&self) -> HashMap<&'static str, PathBuf> {
        HashMap::from([
            ("GOMODCACHE", self.cache.join("go/mod")),
            ("GOCACHE", self.cache.join("go/build")),
            ("GOFLAGS", PathBuf::from("-buildvcs=false -trimpath")),
            ("GOTOOLCHAIN", PathBuf::from("local")),
            ("CGO_ENABLED", PathBuf::from("0")),
        ])
    }
}
