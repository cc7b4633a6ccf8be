//! What `hearth up` says when it cannot: one clear sentence, and nothing is started.

use std::net::TcpListener;
use std::process::Command;

use crate::platform::{Platform, Said, platform, said};

/// A place beside the suite's instance, which is not to become an instance.
fn elsewhere(name: &str) -> (tempfile::TempDir, Platform) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join(name).display().to_string();
    (folder, Platform::at(&home, "127.0.53.2"))
}

/// One sentence, as the last line, without anything of a stack.
fn one_sentence(said: &Said, parts: &[&str]) {
    said.says(1, parts);
    let errors: Vec<&str> = said.err.lines().filter(|line| !line.starts_with("  ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("hearth: "), "{said:#?}");
    assert!(!said.all().contains("is up"), "{said:#?}");
}

fn nothing_was_started(place: &Platform) {
    let run = std::fs::read_dir(place.home.join("run")).into_iter().flatten().flatten();
    let started: Vec<_> = run.map(|entry| entry.path()).filter(|path| path.extension().is_some()).collect();
    assert!(started.is_empty(), "{started:?}");
}

#[test]
fn a_port_in_use_is_named_with_its_holder() {
    let (_shared, _calm) = platform();
    let (_folder, place) = elsewhere("taken");
    for port in [443, 2222] {
        let _holder = TcpListener::bind(("127.0.53.2", port)).unwrap();
        let said = place.hearth(&["up"]);
        let holder = format!("(process {})", std::process::id());
        one_sentence(&said, &[&format!("127.0.53.2:{port} is in use by"), &holder, "HEARTH_ADDRESS"]);
        nothing_was_started(&place);
    }
    place.purge();
}

#[test]
fn a_damaged_instance_is_told() {
    let (_folder, place) = elsewhere("damaged");
    std::fs::create_dir(&place.home).unwrap();
    std::fs::write(place.home.join("instance.json"), "{\"octet\": ").unwrap();
    for action in ["up", "down"] {
        one_sentence(&place.hearth(&[action]), &["instance.json is damaged; write {\"octet\": N} into it"]);
    }
    nothing_was_started(&place);
}

#[test]
fn an_address_that_is_not_the_machines_own_is_refused() {
    let (folder, _) = elsewhere("far");
    let place = Platform::at(&folder.path().join("far").display().to_string(), "192.0.2.1");
    one_sentence(&place.hearth(&["up"]), &["HEARTH_ADDRESS is 192.0.2.1", "127.0.0.1"]);
    assert!(!place.home.exists());
}

/// A file system of its own at a folder, for as long as this lives.
struct SmallDisk<'a>(&'a std::path::Path);

impl<'a> SmallDisk<'a> {
    fn at(folder: &'a std::path::Path, size: &str) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder);
        said(mount, "").success("mount");
        Self(folder)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg(self.0);
        said(umount, "");
    }
}

#[test]
fn a_full_disk_is_told() {
    let (folder, place) = elsewhere("small");
    let _disk = SmallDisk::at(folder.path(), "64m");
    one_sentence(&place.hearth(&["up"]), &["MiB free; Hearth needs 4096", "HEARTH_HOME"]);
    nothing_was_started(&place);
    // Not even the first file can be written.
    std::fs::remove_dir_all(&place.home).unwrap();
    let filler = std::fs::write(folder.path().join("filler"), vec![0; 65 << 20]);
    assert_eq!(filler.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    one_sentence(&place.hearth(&["up"]), &["instance.json", "No space left on device"]);
    nothing_was_started(&place);
}

#[test]
fn a_kernel_without_what_is_needed_is_told() {
    let (folder, place) = elsewhere("old");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    // What this kernel has is hidden from the program, and no module can be loaded.
    let (filesystems, no) = (file("filesystems", "nodev\ttmpfs\n\text4\n"), file("no", "#!/bin/sh\nexit 1\n"));
    let script = "mount --bind $1 /proc/filesystems && for program in modprobe nft; do \
                  path=$(command -v $program) && mount --bind $2 $(readlink -f $path); done; shift 2; exec \"$@\"";
    let up = place.command(&["up"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &filesystems, &no]).arg(up.get_program()).args(up.get_args());
    command.envs(up.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let said = said(command, "");
    let parts = ["this kernel lacks what containers need:", "CONFIG_OVERLAY_FS", "CONFIG_NF_TABLES", "Boot a kernel"];
    said.says(1, &parts);
    assert!(!said.all().contains("is up"), "{said:#?}");
    nothing_was_started(&place);
}

#[test]
fn a_machine_without_rust_or_go_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let make = |programs: &[&str]| {
        let path = folder.path().join(programs.len().to_string());
        std::fs::create_dir(&path).unwrap();
        for program in programs {
            std::os::unix::fs::symlink(format!("/usr/bin/{program}"), path.join(program)).unwrap();
        }
        let mut command = Command::new("/usr/bin/make");
        command.arg("--directory").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).arg("up").env("PATH", &path);
        (path, command)
    };
    let (_, command) = make(&["id"]);
    let without = said(command, "");
    without.says(2, &["Rust is needed (cargo is not on the PATH); install it"]);
    let (path, command) = make(&["id", "env"]);
    // Stands for a Rust that is there; nothing gets as far as calling it.
    std::os::unix::fs::symlink("/bin/false", path.join("cargo")).unwrap();
    said(command, "").says(2, &["Go 1.26 or newer is needed (go is not on the PATH); install it"]);
}

#[test]
fn only_root_brings_it_up() {
    let (_folder, place) = elsewhere("nobodys");
    let program = place.command(&["up"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program.get_program()).arg("up");
    command.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
    one_sentence(&said(command, ""), &["root's", "run this as root"]);
    assert!(!place.home.exists());
}

#[test]
fn what_is_not_there_is_not_used() {
    let (_folder, place) = elsewhere("nowhere");
    one_sentence(&place.hearth(&["tool", "list"]), &["there is no instance of Hearth in", "make up"]);
    place.hearth(&["down"]).says(0, &["There is no instance of Hearth in"]);
    assert!(!place.home.exists());
}
