//! Faults in a random order, for `SOAK_MINUTES` minutes; without it, a few. `SOAK_SEED` replays an order.

#![expect(clippy::print_stdout, reason = "what was done, and by which seed, is what a failed run leaves behind")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::platform::{Platform, disturbed};
use crate::platform_repair::{kill, processes};

/// How many faults there are in the short form.
const FEW: usize = 3;

/// A fault, and what an operator does about it, if anything.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A process of the instance is killed.
    Process,
    /// The supervisor is killed, and somebody runs `make up`.
    Supervisor,
    /// All pods of the platform's namespaces are deleted.
    Pods,
    /// Everything is stopped and started.
    Restart,
}

/// Numbers that look random and are the same for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn faults_in_a_random_order_are_survived() {
    #[expect(clippy::disallowed_methods, reason = "a seed that differs from run to run; it is printed")]
    let seed = number("SOAK_SEED").unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    println!("SOAK_SEED={seed}");
    let mut random = Random(seed | 1);
    let (platform, _alone) = disturbed();
    let deadline = number("SOAK_MINUTES").map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut done = 0;
    while deadline.map_or(done < FEW, |deadline| Instant::now() < deadline) {
        let faults = [Fault::Process, Fault::Process, Fault::Process, Fault::Pods, Fault::Supervisor, Fault::Restart];
        let fault = faults[random.below(faults.len())];
        println!("{done}: {fault:?}");
        inflict(platform, fault, &mut random);
        platform.answers("hello", 200, "<html");
        platform.answers("nosuchtool", 404, "there is none with the name");
        done += 1;
    }
    println!("{done} faults survived");
}

fn inflict(platform: &Platform, fault: Fault, random: &mut Random) {
    match fault {
        Fault::Process => {
            let names: Vec<_> = processes(platform).into_iter().filter(|(name, _)| name != "supervisor").collect();
            let (name, pid) = &names[random.below(names.len())];
            println!("   {name}");
            kill(*pid);
        }
        Fault::Supervisor => {
            if let Some(pid) = processes(platform).get("supervisor") {
                kill(*pid);
            }
            platform.up();
        }
        Fault::Pods => {
            for namespace in ["hearth-system", "kube-system", "tool-fourohfour", "tool-hello"] {
                // It may be that the API server was the last fault; then there is nothing to delete pods with.
                let _ = platform.admin(&["--namespace", namespace, "delete", "pods", "--all", "--wait=false"]);
            }
        }
        Fault::Restart => {
            platform.hearth(&["down"]).success("hearth down");
            platform.up();
        }
    }
}
