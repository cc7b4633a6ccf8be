//! The root file system of the directory's image, unpacked from the archive that `cargo xtask build` makes.
//!
//! It is kept beside the archive's cache under the digest of the image, so that only the first run after a change
//! unpacks. Whoever unpacks at the same time does so in a folder of its own; the first to rename it wins.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Where the root file system lies: in the folder that `HEARTH_DIRECTORY_ROOTFS` names, or unpacked from
/// `$HEARTH_CACHE/images/directory/current/image.tar`.
pub(crate) fn rootfs() -> &'static Path {
    static ROOTFS: OnceLock<PathBuf> = OnceLock::new();
    ROOTFS.get_or_init(|| {
        let rootfs = std::env::var_os("HEARTH_DIRECTORY_ROOTFS").map_or_else(unpacked, PathBuf::from);
        let entrypoint = rootfs.join("usr/local/sbin/directory-entrypoint");
        assert!(entrypoint.exists(), "the directory's image in {} has no entrypoint", rootfs.display());
        rootfs
    })
}

fn unpacked() -> PathBuf {
    let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| "/var/cache/hearth".into(), PathBuf::from);
    let current = cache.join("images/directory/current");
    // The link may change while the tests run: what it leads to now stays as it is.
    let Ok(image) = current.canonicalize() else {
        panic!("there is no image of the directory in {}; make it by: cargo xtask build", current.display());
    };
    let archive = image.join("image.tar");
    let Ok(digest) = std::fs::read_to_string(image.join("digest")) else {
        panic!("the image in {} has no digest; make it anew by: cargo xtask build", image.display());
    };
    let Some(digest) = digest.trim().strip_prefix("sha256:").filter(|hex| is_hex(hex)) else {
        panic!("{} does not have a digest of SHA-256 but {digest:?}", image.join("digest").display());
    };
    let folder = cache.join("test");
    let done = folder.join(format!("directory-{digest}"));
    if !done.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let beside = TempDir::with_prefix_in(".directory-", &folder).unwrap();
        let rootfs = beside.path().join("root");
        std::fs::create_dir(&rootfs).unwrap();
        unpack(&archive, digest, &rootfs);
        // Another run may have been first; it unpacked the same.
        if let Err(error) = std::fs::rename(&rootfs, &done) {
            assert!(done.exists(), "failed to rename {} to {}: {error}", rootfs.display(), done.display());
        }
    }
    done
}

/// Unpacks the layers of an OCI image layout, the lowest first.
fn unpack(archive: &Path, digest: &str, rootfs: &Path) {
    let index = json(&member(archive, "index.json"));
    assert_eq!(index["manifests"][0]["digest"], format!("sha256:{digest}"), "{}", archive.display());
    let manifest = json(&member(archive, &blob(index["manifests"][0]["digest"].as_str().unwrap())));
    for layer in manifest["layers"].as_array().unwrap() {
        let name = blob(layer["digest"].as_str().unwrap());
        let listing = from_archive(archive, &name, &["--list", "--gunzip", "--file=-"]);
        for path in String::from_utf8(listing).unwrap().lines() {
            take_away(rootfs, Path::new(path));
        }
        let into = format!("--directory={}", rootfs.display());
        let keep = ["--extract", "--gunzip", "--numeric-owner", "--same-owner", "--same-permissions", "--xattrs"];
        let rest = ["--xattrs-include=*", "--exclude=.wh.*", &into, "--file=-"];
        from_archive(archive, &name, &[&keep[..], &rest].concat());
    }
}

/// Does what the entry of a layer says of the layers below it: `.wh..wh..opq` takes everything out of its folder,
/// `.wh.NAME` takes NAME away. Other entries say nothing of them.
fn take_away(rootfs: &Path, entry: &Path) {
    let Some(name) = entry.file_name().and_then(|name| name.to_str()?.strip_prefix(".wh.")) else { return };
    let Ok(folder) = rootfs.join(entry.parent().unwrap()).canonicalize() else { return };
    // A link in an image leads elsewhere when it is followed from outside.
    assert!(folder.starts_with(rootfs.canonicalize().unwrap()), "{} leads out of the image", entry.display());
    for found in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if name == ".wh..opq" || found.file_name() == name {
            match found.file_type().unwrap().is_dir() {
                true => std::fs::remove_dir_all(found.path()).unwrap(),
                false => std::fs::remove_file(found.path()).unwrap(),
            }
        }
    }
}

/// A file of the archive.
fn member(archive: &Path, name: &str) -> Vec<u8> {
    finished(tar(&["--extract", "--to-stdout", "--file"]).arg(archive).arg(name))
}

/// What tar prints when it is given a file of the archive, which is one too.
fn from_archive(archive: &Path, name: &str, inner: &[&str]) -> Vec<u8> {
    let mut outer = tar(&["--extract", "--to-stdout", "--file"]);
    let mut outer = outer.arg(archive).arg(name).stdout(Stdio::piped()).spawn().unwrap();
    let printed = finished(tar(inner).stdin(outer.stdout.take().unwrap()));
    assert!(outer.wait().unwrap().success(), "failed to read {name} of {}", archive.display());
    printed
}

fn tar(words: &[&str]) -> Command {
    let mut tar = Command::new("tar");
    tar.args(words);
    tar
}

fn finished(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).unwrap()
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
