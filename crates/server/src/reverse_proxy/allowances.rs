//! What visitors and tools make use of, so that one crawler or one tool that hangs cannot take the platform.
//!
//! A few locked maps, each for a part of the keys. What says no more than a new meter would is forgotten when a map has
//! grown; while all of a full map is in use whoever comes new is not counted: nobody can shut others out by being many.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hearth_core::limit::{Allowance, Meter, Over};
use tokio::time::Instant;

use super::Door;
use super::metrics::KindLabel;

/// How many maps there are, and the most keys of each: about 12 MiB altogether for visitors.
const MAPS: usize = 16;
const MOST: usize = 8192;

/// The meters of all keys of a kind. Clones share them.
pub(super) struct Meters<K>(Arc<Shared<K>>);

struct Shared<K> {
    allowance: Allowance,
    begun: Instant,
    hasher: RandomState,
    maps: [Mutex<HashMap<K, Meter>>; MAPS],
}

/// A request that has begun; it ends when this is dropped.
pub(super) struct Pass<K: Hash + Eq>(Option<(Arc<Shared<K>>, K)>);

impl<K> Clone for Meters<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Hash + Eq + Clone> Meters<K> {
    /// Nobody has begun anything.
    pub(super) fn new(allowance: Allowance) -> Self {
        let (begun, hasher) = (Instant::now(), RandomState::new());
        Self(Arc::new(Shared { allowance, begun, hasher, maps: std::array::from_fn(|_| Mutex::default()) }))
    }

    /// Begins a request of this key, if it is within the allowance.
    pub(super) fn begin(&self, key: K) -> Result<Pass<K>, Over> {
        self.begin_at(key, self.0.begun.elapsed())
    }

    fn begin_at(&self, key: K, now: Duration) -> Result<Pass<K>, Over> {
        let allowance = self.0.allowance;
        let counted = self.0.with(&key, |map| {
            if map.len() >= MOST && !map.contains_key(&key) {
                map.retain(|_, meter| !meter.is_idle(allowance, now));
                if map.len() >= MOST {
                    return Ok(false);
                }
            }
            let meter = map.entry(key.clone()).or_insert_with(|| Meter::new(allowance, now));
            meter.begin(allowance, now).map(|()| true)
        });
        let counted = counted.transpose()?.unwrap_or(false);
        Ok(Pass(counted.then(|| (self.0.clone(), key))))
    }
}

impl<K: Hash + Eq> Shared<K> {
    fn with<T>(&self, key: &K, work: impl FnOnce(&mut HashMap<K, Meter>) -> T) -> Option<T> {
        // The remainder is below the number of maps.
        let index = (self.hasher.hash_one(key) % MAPS as u64) as usize;
        let map = self.maps.get(index)?;
        Some(work(&mut map.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<K: Hash + Eq> Drop for Pass<K> {
    fn drop(&mut self) {
        if let Some((shared, key)) = self.0.take() {
            shared.with(&key, |map| map.get_mut(&key).map(Meter::end));
        }
    }
}

impl<K: Hash + Eq> fmt::Debug for Pass<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pass").finish_non_exhaustive()
    }
}

impl Door {
    /// A connection of this visitor, if one more is allowed.
    pub(super) fn admit_connection(&self, address: IpAddr) -> Option<Option<Pass<IpAddr>>> {
        if self.is_inside() || !self.front_door.limits_visitor(address) {
            return Some(None);
        }
        let begun = self.connections.begin(visitor(address));
        if begun.is_err() {
            self.metrics.limited.get_or_create(&KindLabel { kind: "connections" }).inc();
        }
        begun.ok().map(Some)
    }
}

/// Whom an address stands for: one customer has a whole 64-bit network of IPv6.
pub(super) fn visitor(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { per_second: 1, burst: 2, at_once: 2 };

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn keys_do_not_share_and_what_ends_is_free() {
        let meters = Meters::new(ALLOWANCE);
        let passes = [meters.begin_at("a", second(0)).unwrap(), meters.begin_at("a", second(0)).unwrap()];
        assert_eq!(meters.begin_at("a", second(0)).unwrap_err(), Over::AtOnce);
        assert!(meters.begin_at("b", second(0)).is_ok());
        drop(passes);
        assert_eq!(meters.begin_at("a", second(0)).unwrap_err(), Over::Rate);
        assert!(meters.begin_at("a", second(1)).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_nobody_is_shut_out() {
        let meters = Meters::new(ALLOWANCE);
        let held: Vec<_> = (0..MAPS * MOST * 2).map(|key| meters.begin_at(key, second(0)).unwrap()).collect();
        let kept = || meters.0.maps.iter().map(|map| map.lock().unwrap().len()).sum::<usize>();
        assert_eq!(kept(), MAPS * MOST);
        drop(held);
        // What is idle makes room, in each map with the next who comes there.
        for key in 0..MAPS * 100 {
            drop(meters.begin_at(usize::MAX - key, second(2)).unwrap());
        }
        assert!(kept() <= MAPS * 100, "{}", kept());
    }

    #[test]
    fn a_network_of_ipv6_is_one_visitor() {
        let same = |a: &str, b: &str| visitor(a.parse().unwrap()) == visitor(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1") && !same("192.0.2.1", "192.0.2.2"));
    }
}
