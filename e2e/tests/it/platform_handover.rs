//! A new program at the front door takes over from the old one while visitors come.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::platform::{Platform, SOON, disturbed, eventually};

/// The number of the front door's process, as it is written down.
fn proxy(platform: &Platform) -> String {
    let text = std::fs::read_to_string(platform.path("run/proxy.pid")).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_new_front_door_takes_over_without_a_failed_request() {
    let (platform, _alone) = disturbed();
    platform.tool("steady", "member1");
    platform.serve("steady", "here");
    let old = proxy(platform);
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = platform.page("steady");
                    assert_eq!((answer.status, answer.body.as_str()), (200, "here\n"), "{answer:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // As an upgrade does it: the program is another file of the same name.
        let program = platform.path("bin/hearthd");
        let beside = format!("{program}.new");
        std::fs::copy(&program, &beside).unwrap();
        std::fs::rename(&beside, &program).unwrap();
        platform.up();
        let new = proxy(platform);
        assert_ne!(new, old);
        eventually(SOON, "the old one has ended", || if runs(&old) { Err(old.clone()) } else { Ok(()) });
        let before = served.load(Ordering::Relaxed);
        eventually(SOON, "visitors come", || match served.load(Ordering::Relaxed) {
            now if now > before + 20 => Ok(()),
            now => Err(format!("{now}")),
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(proxy(platform), new);
        assert!(runs(&new) && Path::new(&platform.path("state/proxy/handover.sock")).exists());
    });
    // A supervisor looks after the new one.
    let new = proxy(platform);
    std::process::Command::new("kill").args(["-KILL", &new]).status().unwrap();
    eventually(SOON, "it is started again", || {
        let now = proxy(platform);
        if now != new && runs(&now) { Ok(()) } else { Err(now) }
    });
    platform.answers("steady", 200, "here");
}
