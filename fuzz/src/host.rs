//! Hosts: what is read is normal, is read as itself, and belongs to the tool whose hosts it is among.

use hearth_core::{Host, Place};

use crate::domains;

pub(crate) fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (strict, found) = (text.parse::<Host>(), Host::of_authority(text));
    if let Ok(strict) = &strict {
        assert_eq!(strict.as_str(), text);
        assert_eq!(found.as_ref().ok(), Some(strict), "what is admitted is not what is routed");
    }
    let Ok(host) = found else { return };
    let normal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    assert!(host.as_str().bytes().all(normal) && host.as_str().len() <= 253);
    assert!(!host.as_str().split('.').any(str::is_empty) && host.as_str().parse::<std::net::IpAddr>().is_err());
    // Nothing but case, one dot at the end and a port is lost.
    assert!(text.to_ascii_lowercase().starts_with(host.as_str()));
    let rest = &text[host.as_str().len()..];
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    assert!(rest.is_empty() || rest[1..].parse::<u32>().is_ok_and(|_| rest.starts_with(':')), "{rest}");
    for written in [format!("{host}."), format!("{host}:443"), host.as_str().to_ascii_uppercase()] {
        assert_eq!(Host::of_authority(&written).as_ref(), Ok(&host));
    }
    let domains = domains();
    match domains.place(&host) {
        Place::Tool(tool) => {
            assert!(domains.hosts_of(&tool).contains(&host));
            assert!(host.as_str().starts_with(&format!("{tool}.")));
        }
        Place::Legacy => assert_eq!(host, domains.legacy),
        Place::Apex => assert!(domains.public.contains(&host)),
        Place::Elsewhere => (),
    }
}
