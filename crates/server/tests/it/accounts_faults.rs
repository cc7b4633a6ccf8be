//! The role accounts under faults: it is killed at every step, every write meets a conflict, the API goes away in the
//! middle of a tool, a request is denied, a disk is full, a file is in the way. After each, all is as it should be.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use hearth_core::account::kubeconfig::{self, Found};
use hearth_core::directory_entry::ToolState;
use hearth_core::names::annotation;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;

use crate::accounts::{Running, directory, name};
use crate::accounts_api::Api;

/// How long anything may take to become right.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a tool has everything, or what is wrong.
fn whole(running: &Running, tool: &str) -> Result<(), String> {
    let (api, place, binding) = (&running.api, format!("tool-{tool}"), format!("{tool}-tool-binding"));
    for (plural, object) in [("resourcequotas", &place), ("limitranges", &place), ("rolebindings", &binding)] {
        api.get(plural, &place, object).ok_or_else(|| format!("there is no {object} of {plural}"))?;
    }
    let epoch = api.annotation(&place, annotation::EPOCH).ok_or("there is no epoch")?;
    let binding = api.get("rolebindings", &place, &binding).unwrap_or_default();
    let group = format!("hearth:tool:{tool}:{epoch}");
    if binding["subjects"][0]["name"] != group {
        return Err(format!("the binding is another epoch's: {binding}"));
    }
    let config = std::fs::read_to_string(running.path(tool, ".kube/config")).map_err(|e| e.to_string())?;
    let Found::Entry { certificate: Some(certificate), .. } = kubeconfig::find(Some(&config), &name(tool).into())
    else {
        return Err(format!("the kubeconfig is not whole:\n{config}"));
    };
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|e| e.to_string())?;
    let subject = pem.parse_x509().map_err(|e| e.to_string())?.subject().to_string();
    if !subject.contains(&group) {
        return Err(format!("the certificate is another epoch's: {subject}"));
    }
    let digest = api.annotation(&place, annotation::REGISTRY_CREDENTIAL).ok_or("there is no credential")?;
    let login = std::fs::read_to_string(running.path(tool, ".docker/config.json")).map_err(|e| e.to_string())?;
    let login = hearth_core::account::credential::login(Some(&login), "registry.example", &name(tool));
    match login {
        hearth_core::account::credential::Login::Own(password) if sha256(&password) == digest => Ok(()),
        login => Err(format!("the login is not the namespace's: {login:?}")),
    }
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A small disk, mounted until this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Path) -> Self {
        rustix::mount::mount("tmpfs", place, "tmpfs", MountFlags::empty(), Some(c"size=64k,mode=755")).unwrap();
        Self(place.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A parent of homes in which root cannot make any, as where a server of files takes root for nobody. Homes that are there
/// are the tools' to write in.
struct Squashed {
    parent: PathBuf,
    home: PathBuf,
    /// What is written in the home goes here: the rest can only be read.
    beside: tempfile::TempDir,
}

impl Squashed {
    /// The tool `a` has no home; what an operator makes for it is put in its place by [`Self::make`].
    fn mount(parent: &Path) -> Self {
        let beside = tempfile::tempdir().unwrap();
        rustix::mount::mount("tmpfs", parent, "tmpfs", MountFlags::empty(), Some(c"mode=755")).unwrap();
        rustix::mount::mount_remount(parent, MountFlags::RDONLY, c"").unwrap();
        Self { parent: parent.to_owned(), home: parent.join("a"), beside }
    }

    fn make(&self) {
        rustix::mount::mount_remount(&self.parent, MountFlags::empty(), c"").unwrap();
        let (place, begun) = (self.beside.path(), self.parent.join(".begun"));
        std::fs::create_dir(&begun).unwrap();
        for home in [place, &begun] {
            chown(home, Some(50001), Some(50001)).unwrap();
            std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o2770)).unwrap();
        }
        std::fs::rename(&begun, &self.home).unwrap();
        rustix::mount::mount_remount(&self.parent, MountFlags::RDONLY, c"").unwrap();
        rustix::mount::mount_bind(place, &self.home).unwrap();
    }
}

impl Drop for Squashed {
    fn drop(&mut self) {
        for place in [&self.home, &self.parent] {
            let _ = rustix::mount::unmount(place, UnmountFlags::DETACH);
        }
    }
}

/// A file system that answers nothing, until this is dropped: nobody reads its requests.
struct Stalled {
    place: PathBuf,
    device: Option<File>,
}

impl Stalled {
    fn mount(place: &Path) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        rustix::mount::mount("stalled", place, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self { place: place.to_owned(), device: Some(device) }
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Whoever waits for it is told that it is gone.
        drop(self.device.take());
        let _ = rustix::mount::unmount(&self.place, UnmountFlags::DETACH);
    }
}

async fn until_whole(running: &Running, when: &str) {
    until_so(running, "a", when).await;
}

async fn until_so(running: &Running, tool: &str, when: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(wrong) = whole(running, tool) {
        assert!(Instant::now() < deadline, "{when}: {wrong}; writes: {:#?}", running.api.writes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn one(running: &Running) {
    running.directory.send(directory(&[("a", 50001, ToolState::Active)])).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_loses_nothing() {
    let running = Running::start(Api::new());
    one(&running);
    until_whole(&running, "undisturbed").await;
    let writes = running.api.writes();
    running.stop().await;
    let steps = writes.iter().filter(|write| !write.ends_with("/approval")).count();
    assert!(steps >= 8, "{writes:#?}");
    for (step, is_done) in (0..steps).flat_map(|step| [(step, false), (step, true)]) {
        let api = Api::new();
        let death = api.die_at(step, is_done);
        let running = Running::start(api.clone());
        one(&running);
        let when = format!("killed at write {step}, which was done: {is_done}");
        tokio::time::timeout(PATIENCE, death).await.expect(&when).unwrap();
        let homes = running.kill().await;
        let running = Running::start_in(api, homes);
        one(&running);
        until_whole(&running, &when).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_on_every_write_is_overcome() {
    let api = Api::new();
    let met = std::sync::Mutex::new(BTreeSet::new());
    api.fail(move |method, path| {
        // What has a random name would meet one for ever.
        let is_named = !path.contains("/certificatesigningrequests/");
        (method != Method::GET && is_named && met.lock().unwrap().insert(format!("{method} {path}"))).then_some(409)
    });
    let running = Running::start(api);
    one(&running);
    until_whole(&running, "after conflicts").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_goes_away_in_the_middle_of_a_tool_is_waited_for() {
    let api = Api::new();
    let running = Running::start(api.clone());
    let watched = api.clone();
    // Gone from the moment that the quota is written until somebody brings it back.
    api.fail(move |_, _| watched.get("resourcequotas", "tool-a", "tool-a").is_some().then_some(503));
    one(&running);
    api.until("the quota is written", |api| api.get("resourcequotas", "tool-a", "tool-a").is_some()).await;
    api.cut_watches();
    assert!(whole(&running, "a").is_err());
    api.fail(|_, _| None);
    until_whole(&running, "the API server is back").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_denied_is_told_of_and_asked_for_again() {
    let api = Api::new();
    let running = Running::start(api.clone());
    // The signer's approvals fail, and somebody denies the request.
    let (denied, seen) = (api.clone(), std::sync::Mutex::new(0));
    api.fail(move |method, path| {
        if method == Method::PUT && path.ends_with("/approval") && *seen.lock().unwrap() < 2 {
            *seen.lock().unwrap() += 1;
            let request = path.trim_end_matches("/approval").rsplit('/').next().unwrap_or_default();
            let mut object = denied.get("certificatesigningrequests", "", request).unwrap();
            object["status"] = json!({ "conditions": [{ "type": "Denied", "message": "by an operator" }] });
            denied.put("certificatesigningrequests", "", object);
            return Some(409);
        }
        None
    });
    one(&running);
    let is_told = |api: &Api| {
        api.all("events", "tool-a").iter().any(|event| {
            event["reason"] == "UpdateFailed"
                && event["note"].as_str().is_some_and(|note| note.contains("by an operator"))
        })
    };
    api.until("an event says so", is_told).await;
    until_whole(&running, "the request is approved").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_signed_is_told_of_and_asked_for_again() {
    let api = Api::new();
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = is_silent.clone();
    // The signer's approvals go nowhere.
    api.fail(move |method, path| {
        let is_approval = method == Method::PUT && path.ends_with("/approval");
        (is_approval && silent.load(Ordering::Relaxed)).then_some(500)
    });
    let homes = Arc::new(tempfile::tempdir().unwrap());
    std::fs::set_permissions(homes.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let running = Running::start_with(api.clone(), homes, Duration::from_millis(300), hearth_server::clock::now);
    one(&running);
    let is_told = |api: &Api| {
        let events = api.all("events", "tool-a");
        events.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains("no certificate was issued")))
    };
    api.until("an event says so", is_told).await;
    api.until("the request is taken back", |api| api.count("certificatesigningrequests") == 0).await;
    is_silent.store(false, Ordering::Relaxed);
    until_whole(&running, "requests are signed again").await;
    running.stop().await;
}

/// So far ahead, in seconds, certificates are due that are good from 1975 to 4096, as those of these tests are.
const FAR: i64 = 1_500 * 365 * 86_400;

/// How many seconds the clock of the next test is ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn jumping_clock() -> Timestamp {
    hearth_server::clock::now() + SignedDuration::from_secs(AHEAD.load(Ordering::Relaxed))
}

/// Far ahead every certificate is due as soon as it is there: it is renewed again and again, ever more slowly.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_does_no_harm() {
    let api = Api::new();
    let homes = Arc::new(tempfile::tempdir().unwrap());
    std::fs::set_permissions(homes.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let start = |homes| Running::start_with(api.clone(), homes, Duration::from_secs(30), jumping_clock);
    let running = start(homes);
    one(&running);
    until_whole(&running, "before the jump").await;
    let requests = |api: &Api| {
        api.writes()
            .iter()
            .filter(|write| write.starts_with("POST") && write.ends_with("/certificatesigningrequests"))
            .count()
    };
    assert_eq!(requests(&api), 1, "{:#?}", api.writes());

    AHEAD.store(FAR, Ordering::Relaxed);
    let two = || directory(&[("a", 50001, ToolState::Active), ("b", 50002, ToolState::Active)]);
    let running = start(running.kill().await);
    running.directory.send(two()).unwrap();
    api.until("certificates are renewed", |api| requests(api) >= 8).await;
    until_so(&running, "a", "ahead").await;
    until_so(&running, "b", "ahead").await;
    assert!(requests(&api) < 40, "they are renewed without a pause: {:#?}", api.writes());

    AHEAD.store(-40 * 86_400, Ordering::Relaxed);
    let running = start(running.kill().await);
    let before = requests(&api);
    let three =
        directory(&[("a", 50001, ToolState::Active), ("b", 50002, ToolState::Active), ("c", 50003, ToolState::Active)]);
    running.directory.send(three).unwrap();
    for tool in ["a", "b", "c"] {
        until_so(&running, tool, "behind").await;
    }
    assert_eq!(requests(&api), before + 1, "only the new tool gets one: {:#?}", api.writes());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_home_that_was_begun_is_in_nobodys_way() {
    let running = Running::start(Api::new());
    let place = running.homes.path();
    // Cut off before the home was the tool's, and when it was and the tool had gone into it.
    for name in [".new-a", ".new-b"] {
        std::fs::create_dir_all(place.join(name).join("logs")).unwrap();
    }
    std::fs::write(place.join(".new-b/logs/mine"), "b's").unwrap();
    let tools = [("a", 50001, ToolState::Active), ("b", 50002, ToolState::Active)];
    running.directory.send(directory(&tools)).unwrap();
    until_so(&running, "a", "beside what was left").await;
    until_so(&running, "b", "beside what was left").await;
    let hidden = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let hidden: Vec<String> = hidden.filter(|name| name.starts_with('.')).collect();
    let [left] = hidden.as_slice() else { panic!("{hidden:?}") };
    assert!(left.starts_with(".new-b.left-"), "{left}");
    assert_eq!(std::fs::read_to_string(place.join(left).join("logs/mine")).unwrap(), "b's");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let homes = tempfile::tempdir().unwrap();
    let disk = Disk::mount(homes.path());
    let homes = Arc::new(homes);
    let filler = homes.path().join(".filler");
    std::fs::write(&filler, vec![0; 64 << 10]).unwrap();
    let api = Api::new();
    let running = Running::start_in(api.clone(), homes);
    one(&running);
    api.until("an event says so", |api| {
        let notes = api.all("events", "tool-a");
        notes.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains("No space left on device")))
    })
    .await;
    std::fs::remove_file(filler).unwrap();
    until_whole(&running, "there is space again").await;
    let homes = running.kill().await;
    drop((disk, homes));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_root_may_make_no_home_an_operator_makes_it() {
    let homes = tempfile::tempdir().unwrap();
    let squashed = Squashed::mount(homes.path());
    let api = Api::new();
    let running = Running::start_in(api.clone(), Arc::new(homes));
    one(&running);
    let advice = format!("install -d -o 50001 -g 50001 -m 2770 {}", squashed.home.display());
    api.until("an event says what to do", |api| {
        let notes = api.all("events", "tool-a");
        notes.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains(&advice)))
    })
    .await;
    squashed.make();
    let deadline = Instant::now() + PATIENCE;
    while !running.path("a", ".docker/config.json").exists() {
        assert!(Instant::now() < deadline, "the home is not used; writes: {:#?}", api.writes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let homes = running.kill().await;
    drop((squashed, homes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_stalls_stalls_its_tools_alone() {
    let api = Api::new();
    let running = Running::start(api.clone());
    // One whose home hangs as seen from outside, and one whose home hangs inside.
    let (outside, inside) = (running.path("b", ""), running.path("c", ".kube"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&inside).unwrap();
    for path in [inside.as_path(), inside.parent().unwrap()] {
        chown(path, Some(50003), Some(50003)).unwrap();
    }
    let stalled = [Stalled::mount(&outside), Stalled::mount(&inside)];
    let tools = |first| {
        let rest = [("b", 50002), ("c", 50003), ("d", 50004)].map(|(tool, uid)| (tool, uid, ToolState::Active));
        directory(&[&[("a", 50001, first)][..], &rest].concat())
    };
    running.directory.send(tools(ToolState::Active)).unwrap();
    until_so(&running, "a", "beside homes that hang").await;
    until_so(&running, "d", "beside homes that hang").await;
    for (place, binding) in [("tool-b", "b-tool-binding"), ("tool-c", "c-tool-binding")] {
        let has_rights = |api: &Api| api.get("rolebindings", place, binding).is_some();
        api.until("only the home waits", has_rights).await;
    }
    let since = hearth_server::clock::now();
    running.directory.send(tools(ToolState::Disabled { since })).unwrap();
    api.until("the tool is stopped", |api| api.annotation("tool-a", annotation::STOPPED).is_some()).await;
    drop(stalled);
    until_so(&running, "c", "its file system answers again").await;
    running.stop().await;
}

/// The lines of `/proc/<pid>/status` of the process that works in a home of this user number, and its number.
fn worker_of(uid: u32) -> Option<(String, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let read = |pid: &str, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let ids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let mut workers = ids.filter(|pid| read(pid, "cmdline").ends_with("\0home-work\0"));
    workers.find_map(|pid| {
        let status = read(&pid, "status");
        status.contains(&format!("\nUid:\t0\t{uid}\t0\t{uid}\n")).then_some((pid, status))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_works_in_a_home_is_its_tool_and_out_of_its_reach() {
    const UID: u32 = 57_113;
    let running = Running::start(Api::new());
    let inside = running.path("w", ".kube");
    std::fs::create_dir_all(&inside).unwrap();
    for path in [inside.as_path(), inside.parent().unwrap()] {
        chown(path, Some(UID), Some(UID)).unwrap();
    }
    let stalled = Stalled::mount(&inside);
    running.directory.send(directory(&[("w", UID, ToolState::Active)])).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (pid, status) = loop {
        if let Some(found) = worker_of(UID) {
            break found;
        }
        assert!(Instant::now() < deadline, "nobody works in the home");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let groups = format!("\nGid:\t0\t{UID}\t0\t{UID}\n");
    for line in [&groups, "\nGroups:\t \n", "\nCapEff:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nThreads:\t1\n"] {
        assert!(status.contains(line), "not {line:?}: {status}");
    }
    // It may take on users and groups again, and nothing else.
    assert!(status.contains("\nCapPrm:\t00000000000000c0\n"), "{status}");
    let as_tool = |program: &str, argument: &str| {
        let mut command = std::process::Command::new(program);
        command.arg(argument).uid(UID).gid(UID).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    assert!(!as_tool("kill", "-0").arg(&pid).status().unwrap().success(), "a tool can send it a signal");
    for file in ["environ", "maps", "mem"] {
        let read = as_tool("cat", &format!("/proc/{pid}/{file}")).status().unwrap();
        assert!(!read.success(), "a tool can read its {file}");
    }
    // Ended from outside in the middle of an order: the next one takes its place.
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    drop(stalled);
    until_so(&running, "w", "after the end of who worked in it").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_the_place_of_a_file_is_left_alone_and_holds_up_nobody() {
    let api = Api::new();
    let running = Running::start(api.clone());
    let home = running.homes.path().join("b");
    std::fs::create_dir_all(home.join(".kube")).unwrap();
    rustix::fs::mknodat(CWD, home.join(".kube/config"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o2770)).unwrap();
    for path in [home.join(".kube/config"), home.join(".kube"), home] {
        chown(path, Some(50002), Some(50002)).unwrap();
    }
    let tools = [("a", 50001, ToolState::Active), ("b", 50002, ToolState::Active)];
    running.directory.send(directory(&tools)).unwrap();
    until_whole(&running, "beside a pipe").await;
    api.until("an event says so", |api| {
        let notes = api.all("events", "tool-b");
        notes.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains("it is not a regular file")))
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_of_a_tool_whose_days_are_over_goes_into_the_archive() {
    let api = Api::new();
    let running = Running::start(api.clone());
    one(&running);
    until_whole(&running, "at first").await;
    std::fs::write(running.path("a", "work"), "years of it").unwrap();
    let since = ToolState::Disabled { since: "0000-01-01T00:00:00Z".parse().unwrap() };
    running.directory.send(directory(&[("a", 50001, since)])).unwrap();
    api.until("the namespace is gone", |api| api.get("namespaces", "", "tool-a").is_none()).await;
    assert!(!running.path("a", "").exists());
    let archive = running.homes.path().join(".archive");
    assert_eq!(std::fs::metadata(&archive).unwrap().permissions().mode() & 0o7777, 0o700);
    let kept: Vec<_> = std::fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    assert!(kept.file_name().unwrap().to_str().unwrap().starts_with("a.50001."), "{kept:?}");
    assert_eq!(std::fs::read_to_string(kept.join("work")).unwrap(), "years of it");
    let metadata = std::fs::metadata(kept).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (50001, 50001, 0o2770), "it is as it was");
    // Brought back, it begins anew; what is in the archive stays there.
    one(&running);
    until_whole(&running, "enabled again").await;
    assert!(!running.path("a", "work").exists() && kept.join("work").exists());
    // Again, by an archiving that was cut off when the home was root's for the way.
    chown(running.path("a", ""), Some(0), None).unwrap();
    let since = ToolState::Disabled { since: "0000-01-01T00:00:00Z".parse().unwrap() };
    running.directory.send(directory(&[("a", 50001, since)])).unwrap();
    api.until("the namespace is gone", |api| api.get("namespaces", "", "tool-a").is_none()).await;
    assert!(!running.path("a", "").exists());
    assert_eq!(std::fs::read_dir(&archive).unwrap().count(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_that_both_believe_that_they_act_do_no_harm() {
    let first = Running::start(Api::new());
    let second = Running::start_in(first.api.clone(), first.homes.clone());
    let tools = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let numbered = || (50001..).zip(tools).map(|(uid, tool)| (tool, uid, ToolState::Active)).collect::<Vec<_>>();
    for running in [&first, &second] {
        running.directory.send(directory(&numbered())).unwrap();
    }
    for tool in tools {
        until_so(&first, tool, "made by two").await;
    }
    // Whichever acts then finds nothing that it could not put right.
    let (api, _) = (first.api.clone(), second.kill().await);
    let third = Running::start_in(api, first.kill().await);
    third.directory.send(directory(&numbered())).unwrap();
    for tool in tools {
        until_so(&third, tool, "kept by one").await;
    }
    third.stop().await;
}
