//! The facts of a tool as bytes: how they rest in memory, and how the proxy keeps them on disk.
//!
//! Facts are written one after another, each as a tag, the object's name and what it says; texts with their length
//! before them, and without the tool's name where they begin with it, as most do; numbers seven bits at a time. Whatever else stands there, too much of it or too little, is no record.
//! A change of the format is another version of the file that holds records (the proxy's module `snapshot`).
//!
//! It never reads less or more than was written: what has been read and is written again is the same.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use super::facts::{
    GridFact, IngressFact, Kind, NamespaceFact, PathFact, PortFact, PortRef, Protocol, ServiceFact, SliceFact,
};
use super::known::Known;
use crate::ToolName;

const NAMESPACE: u8 = 0;
const INGRESS: u8 = 1;
const SERVICE: u8 = 2;
const SLICE: u8 = 3;
const GRID: u8 = 4;

/// On a tag: a list that has begun did not show the object yet.
const UNSEEN: u8 = 0x80;

/// What is known of a tool, as bytes.
pub(super) fn write(tool: &ToolName, known: &Known) -> Box<[u8]> {
    let mut to = Writer { tool: tool.as_str(), bytes: Vec::with_capacity(256) };
    let doubt = |kind: Kind, name: &str| {
        let is_unseen = !known.unseen.is_empty() && known.unseen.contains(&(kind, name.to_owned()));
        if is_unseen { UNSEEN } else { 0 }
    };
    if let Some(NamespaceFact { disabled }) = &known.namespace {
        to.byte(NAMESPACE | doubt(Kind::Namespace, ""));
        to.byte(u8::from(*disabled));
    }
    for (name, fact) in &known.ingresses {
        to.byte(INGRESS | doubt(Kind::Ingress, name));
        to.text(name);
        to.ingress(fact);
    }
    for (name, ServiceFact { ports, prefers_ipv6 }) in &known.services {
        to.byte(SERVICE | doubt(Kind::Service, name));
        to.text(name);
        to.byte(u8::from(*prefers_ipv6));
        to.ports(ports);
    }
    for (name, SliceFact { service, ports, ready, draining }) in &known.slices {
        to.byte(SLICE | doubt(Kind::EndpointSlice, name));
        to.text(name);
        to.text(service);
        to.ports(ports);
        to.addresses(ready);
        to.addresses(draining);
    }
    if let Some((name, GridFact { address, ready })) = &known.grid {
        to.byte(GRID | doubt(Kind::EndpointSlice, name));
        to.text(name);
        to.address(address.ip());
        to.number(address.port().into());
        to.byte(u8::from(*ready));
    }
    to.bytes.into_boxed_slice()
}

/// Reads what [`write`] wrote.
pub(super) fn read(tool: &ToolName, bytes: &[u8]) -> Option<Known> {
    let mut from = Reader { tool: tool.as_str(), bytes };
    let mut known = Known::default();
    while !from.bytes.is_empty() {
        let tag = from.byte()?;
        let name = if tag & !UNSEEN == NAMESPACE { String::new() } else { from.text()? };
        let mut seen = |kind: Kind| {
            if tag & UNSEEN != 0 {
                known.unseen.insert((kind, name.clone()));
            }
        };
        match tag & !UNSEEN {
            NAMESPACE => {
                seen(Kind::Namespace);
                known.namespace = Some(NamespaceFact { disabled: from.truth()? });
            }
            INGRESS => {
                seen(Kind::Ingress);
                known.ingresses.insert(name, from.ingress()?);
            }
            SERVICE => {
                seen(Kind::Service);
                let prefers_ipv6 = from.truth()?;
                known.services.insert(name, ServiceFact { ports: from.ports()?, prefers_ipv6 });
            }
            SLICE => {
                seen(Kind::EndpointSlice);
                let (service, ports) = (from.text()?, from.ports()?);
                let (ready, draining) = (from.addresses()?, from.addresses()?);
                known.slices.insert(name, SliceFact { service, ports, ready, draining });
            }
            GRID => {
                seen(Kind::EndpointSlice);
                let address = SocketAddr::new(from.address()?, from.port()?);
                known.grid = Some((name, GridFact { address, ready: from.truth()? }));
            }
            _ => return None,
        }
    }
    Some(known)
}

/// A record: whose facts these are, and the facts.
pub(super) fn of_tool(tool: &ToolName, facts: &[u8]) -> Vec<u8> {
    let mut to = Writer { tool: "", bytes: Vec::with_capacity(tool.as_str().len() + 1 + facts.len()) };
    to.number(tool.as_str().len() as u64);
    to.bytes.extend_from_slice(tool.as_str().as_bytes());
    to.bytes.extend_from_slice(facts);
    to.bytes
}

/// Reads what [`of_tool`] wrote. Doubts are not kept.
pub(super) fn read_of_tool(bytes: &[u8]) -> Option<(ToolName, Known)> {
    let mut from = Reader { tool: "", bytes };
    let length = usize::try_from(from.number()?).ok()?;
    let tool: ToolName = std::str::from_utf8(from.take(length)?).ok()?.parse().ok()?;
    let mut known = read(&tool, from.bytes)?;
    known.unseen.clear();
    Some((tool, known))
}

struct Writer<'a> {
    tool: &'a str,
    bytes: Vec<u8>,
}

impl Writer<'_> {
    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    fn text(&mut self, text: &str) {
        let rest = text.strip_prefix(self.tool);
        let own = rest.unwrap_or(text);
        self.number((own.len() as u64) << 1 | u64::from(rest.is_some()));
        self.bytes.extend_from_slice(own.as_bytes());
    }

    fn ingress(&mut self, IngressFact { created, paths }: &IngressFact) {
        match created {
            None => self.byte(0),
            Some(time) => {
                self.byte(1);
                // Seconds before 1970 too, folded so that small ones of both signs stay short.
                let seconds = time.as_second();
                self.number((seconds.wrapping_shl(1) ^ (seconds >> 63)).cast_unsigned());
                self.number(
                    u64::from(time.subsec_nanosecond().unsigned_abs()) << 1 | u64::from(time.subsec_nanosecond() < 0),
                );
            }
        }
        self.number(paths.len() as u64);
        for PathFact { host, path, exact, service, port } in paths {
            self.text(host.as_str());
            self.text(path);
            self.byte(u8::from(*exact));
            self.text(service);
            match port {
                None => self.byte(0),
                Some(PortRef::Number(number)) => {
                    self.byte(1);
                    self.number((*number).into());
                }
                Some(PortRef::Name(name)) => {
                    self.byte(2);
                    self.text(name);
                }
            }
        }
    }

    fn ports(&mut self, ports: &[PortFact]) {
        self.number(ports.len() as u64);
        for PortFact { name, number, protocol } in ports {
            self.text(name);
            self.number((*number).into());
            self.byte(match protocol {
                Protocol::Http1 => 0,
                Protocol::H2c => 1,
            });
        }
    }

    fn addresses(&mut self, addresses: &[IpAddr]) {
        self.number(addresses.len() as u64);
        for address in addresses {
            self.address(*address);
        }
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(four) => {
                self.byte(4);
                self.bytes.extend_from_slice(&four.octets());
            }
            IpAddr::V6(six) => {
                self.byte(6);
                self.bytes.extend_from_slice(&six.octets());
            }
        }
    }
}

struct Reader<'a> {
    tool: &'a str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn truth(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part.leading_zeros() < shift {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let number = self.number()?;
        let own = std::str::from_utf8(self.take(usize::try_from(number >> 1).ok()?)?).ok()?;
        Some(if number & 1 == 1 { format!("{}{own}", self.tool) } else { own.to_owned() })
    }

    fn port(&mut self) -> Option<u16> {
        u16::try_from(self.number()?).ok()
    }

    /// Several of a thing. Memory is taken for what is there, not for what is promised.
    fn several<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        (0..count).map(|_| one(self)).collect()
    }

    fn ingress(&mut self) -> Option<IngressFact> {
        let created = if self.truth()? { Some(self.time()?) } else { None };
        let paths = self.several(|from| {
            let (host, path) = (from.text()?.parse().ok()?, from.text()?);
            let (exact, service) = (from.truth()?, from.text()?);
            let port = match from.byte()? {
                0 => None,
                1 => Some(PortRef::Number(from.port()?)),
                2 => Some(PortRef::Name(from.text()?)),
                _ => return None,
            };
            Some(PathFact { host, path, exact, service, port })
        })?;
        Some(IngressFact { created, paths })
    }

    fn time(&mut self) -> Option<Timestamp> {
        let folded = self.number()?;
        let seconds = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
        let folded = self.number()?;
        let part = i32::try_from(folded >> 1).ok()?;
        Timestamp::new(seconds, if folded & 1 == 1 { -part } else { part }).ok()
    }

    fn ports(&mut self) -> Option<Vec<PortFact>> {
        self.several(|from| {
            let (name, number) = (from.text()?, from.port()?);
            let protocol = if from.truth()? { Protocol::H2c } else { Protocol::Http1 };
            Some(PortFact { name, number, protocol })
        })
    }

    fn addresses(&mut self) -> Option<Vec<IpAddr>> {
        self.several(Self::address)
    }

    fn address(&mut self) -> Option<IpAddr> {
        match self.byte()? {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(self.take(4)?).ok()?)),
            6 => Some(IpAddr::from(<[u8; 16]>::try_from(self.take(16)?).ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        "(ab)?[a-z/é]{0,12}"
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn ports() -> impl Strategy<Value = Vec<PortFact>> {
        let protocol = prop_oneof![Just(Protocol::Http1), Just(Protocol::H2c)];
        let port = (text(), any::<u16>(), protocol);
        proptest::collection::vec(port.prop_map(|(name, number, protocol)| PortFact { name, number, protocol }), 0..3)
    }

    fn ingress() -> impl Strategy<Value = IngressFact> {
        let port =
            proptest::option::of(prop_oneof![text().prop_map(PortRef::Name), any::<u16>().prop_map(PortRef::Number)]);
        let path = ("[a-z]{1,9}\\.example", text(), any::<bool>(), text(), port);
        let path = path.prop_map(|(host, path, exact, service, port)| PathFact {
            host: host.parse().unwrap(),
            path,
            exact,
            service,
            port,
        });
        let time =
            (-377_705_023_201_i64..253_402_207_200, 0..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap());
        (proptest::option::of(time), proptest::collection::vec(path, 0..3))
            .prop_map(|(created, paths)| IngressFact { created, paths })
    }

    fn known() -> impl Strategy<Value = Known> {
        let addresses = || proptest::collection::vec(address(), 0..4);
        let slice = (text(), ports(), addresses(), addresses());
        let slice = slice.prop_map(|(service, ports, ready, draining)| SliceFact { service, ports, ready, draining });
        let service = (ports(), any::<bool>()).prop_map(|(ports, prefers_ipv6)| ServiceFact { ports, prefers_ipv6 });
        let grid = (text(), address(), any::<u16>(), any::<bool>());
        let grid = grid.prop_map(|(name, address, port, ready)| {
            (format!("hearth-grid/{name}"), GridFact { address: SocketAddr::new(address, port), ready })
        });
        let maps = (
            proptest::option::of(any::<bool>()),
            proptest::collection::btree_map(text(), ingress(), 0..3),
            proptest::collection::btree_map(text(), service, 0..3),
            proptest::collection::btree_map(text(), slice, 0..3),
            proptest::option::of(grid),
            proptest::option::of(0..Kind::ALL.len()),
        );
        maps.prop_map(|(disabled, ingresses, services, slices, grid, doubt)| {
            let namespace = disabled.map(|disabled| NamespaceFact { disabled });
            let mut known = Known { namespace, ingresses, services, slices, grid, ..Known::default() };
            if let Some(at) = doubt {
                known.doubt(Kind::ALL[at]);
            }
            known
        })
    }

    fn tool() -> ToolName {
        "ab".parse().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(known in known()) {
            prop_assert_eq!(read(&tool(), &write(&tool(), &known)), Some(known.clone()));
            let mut without = known.clone();
            without.unseen.clear();
            let record = of_tool(&tool(), &write(&tool(), &known));
            prop_assert_eq!(read_of_tool(&record), Some((tool(), without)));
        }

        /// Only whole facts are read, and whatever is read would be written so.
        #[test]
        fn a_part_is_read_as_whole_facts_or_not(known in known(), at in any::<prop::sample::Index>()) {
            let bytes = write(&tool(), &known);
            let part = &bytes[..at.index(bytes.len() + 1)];
            if let Some(read) = read(&tool(), part) {
                prop_assert_eq!(&*write(&tool(), &read), part);
            }
        }

        #[test]
        fn nothing_that_is_read_can_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&tool(), &bytes);
            let _ = read_of_tool(&bytes);
        }
    }
}
