//! From which address a request comes, through proxies that we trust and past all others.

use std::net::IpAddr;

use http::HeaderMap;

use super::rate_limit::counted;
use crate::error::Error;

/// A network in the notation `address/length`; without a length it is one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u32,
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network such as 10.0.0.0/8 or fd00::/8");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_error| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(length) => length.parse().map_err(|_error| wrong())?,
        };
        if length > most { Err(wrong()) } else { Ok(Self { address, length }) }
    }
}

impl Network {
    /// Whether the address lies in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let differ = u32::from(net) ^ u32::from(address);
                differ.checked_shr(32 - self.length).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let differ = u128::from(net) ^ u128::from(address);
                differ.checked_shr(128 - self.length).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The address of the client: the peer itself, or from a trusted peer the right-most address
/// that is not trusted.
///
/// # Errors
/// [`Error::MalformedHeader`] if a trusted peer says something that cannot be read, or two
/// different things.
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Result<IpAddr, Error> {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return Ok(peer);
    }
    let legacy = hops(headers, "x-forwarded-for", |hop| Some(hop))?;
    let standard = hops(headers, "forwarded", forwarded_for)?;
    if legacy.is_some() && standard.is_some() && legacy != standard {
        return Err(malformed("forwarded", "it differs from X-Forwarded-For"));
    }
    let hops = standard.or(legacy).unwrap_or_default();
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        client = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    Ok(client)
}

/// The addresses of a header, the client first.
fn hops(
    headers: &HeaderMap,
    name: &'static str,
    address: impl Fn(&str) -> Option<&str>,
) -> Result<Option<Vec<IpAddr>>, Error> {
    let mut hops = Vec::new();
    for value in headers.get_all(name) {
        let value = value.to_str().map_err(|_error| malformed(name, "it is not ASCII"))?;
        for hop in value.split(',').map(str::trim).filter(|hop| !hop.is_empty()) {
            let hop = address(hop).and_then(parsed);
            hops.push(hop.ok_or_else(|| malformed(name, "an address is expected in each part"))?);
        }
    }
    Ok((!hops.is_empty()).then_some(hops))
}

/// The value of `for` in one part of `Forwarded` (RFC 7239).
fn forwarded_for(part: &str) -> Option<&str> {
    part.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address with or without a port; IPv6 with a port stands in brackets.
fn parsed(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

fn malformed(header: &str, problem: &'static str) -> Error {
    Error::MalformedHeader { header: header.to_owned(), problem }
}

/// Whose connection one from `peer` is, where it is not of a proxy that stands for many.
pub(crate) fn holder(peer: IpAddr, trusted: &[Network]) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    let is_many = peer.is_loopback() || trusted.iter().any(|network| network.contains(peer));
    (!is_many).then(|| counted(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_of_an_address_but_for_proxies_and_loopback() {
        let trusted = ["10.0.0.0/8".parse().expect("a network"), "fd00::/8".parse().expect("one")];
        for (peer, holder) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("2001:db8:1:2:3::4", Some("2001:db8:1:2::")),
            ("10.1.2.3", None),
            ("::ffff:10.1.2.3", None),
            ("fd00::1", None),
            ("127.0.0.2", None),
            ("::1", None),
            ("::ffff:127.0.0.1", None),
        ] {
            let holder = holder.map(|it| it.parse::<IpAddr>().expect(it));
            assert_eq!(super::holder(peer.parse().expect(peer), &trusted), holder, "{peer}");
        }
    }

    #[test]
    fn a_network_holds_the_addresses_of_its_prefix() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fe80::1", true),
            ("::/0", "1.2.3.4", false),
        ] {
            let network: Network = network.parse().expect(network);
            assert_eq!(network.contains(address.parse().expect(address)), expected, "{network:?}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "x", "10.0.0.0/"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_not_a_trusted_proxy() {
        let trusted = ["10.0.0.0/8".parse().expect("a network"), "::1".parse().expect("one")];
        for (peer, xff, forwarded, expected) in [
            ("1.2.3.4", Some("9.9.9.9"), Some("for=8.8.8.8"), Some("1.2.3.4")),
            ("::ffff:1.2.3.4", None, None, Some("1.2.3.4")),
            ("10.0.0.1", None, None, Some("10.0.0.1")),
            ("10.0.0.1", Some("9.9.9.9"), None, Some("9.9.9.9")),
            // What the client wrote itself stands left of what it really is.
            ("10.0.0.1", Some("6.6.6.6, 9.9.9.9, 10.0.0.2"), None, Some("9.9.9.9")),
            ("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), None, Some("10.0.0.3")),
            (
                "10.0.0.1",
                None,
                Some("for=9.9.9.9;proto=https, For=\"10.0.0.2:80\""),
                Some("9.9.9.9"),
            ),
            ("10.0.0.1", None, Some("for=\"[2001:db8::1]:4711\""), Some("2001:db8::1")),
            ("10.0.0.1", Some("9.9.9.9"), Some("for=9.9.9.9"), Some("9.9.9.9")),
            ("10.0.0.1", Some("9.9.9.9"), Some("for=8.8.8.8"), None),
            ("10.0.0.1", Some("unknown"), None, None),
            ("10.0.0.1", None, Some("by=1.1.1.1"), None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-forwarded-for", xff), ("forwarded", forwarded)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().expect("a header"));
                }
            }
            let found = client_ip(peer.parse().expect(peer), &headers, &trusted);
            let expected = expected.map(|address| address.parse::<IpAddr>().expect(address));
            assert_eq!(found.ok(), expected, "{peer} {xff:?} {forwarded:?}");
        }
    }
}
