//! What functions do with texts.

use std::net::IpAddr;

/// A number as Go writes it.
pub(super) fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    number.to_string()
}

/// An address; those of IPv6 that stand for one of IPv4 are refused, as are zones.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    match ip {
        IpAddr::V6(own) if own.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

/// An address with the length of a prefix.
pub(super) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = ip(address)?;
    let plain =
        !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|_| plain)?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// An address with all bits behind the prefix gone.
pub(super) fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

/// Parts of a URL.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Url<'t> {
    pub(super) scheme: &'t str,
    pub(super) host: &'t str,
    pub(super) path: &'t str,
    pub(super) query: &'t str,
}

/// An absolute URL or an absolute path (`net/url.ParseRequestURI`).
pub(super) fn is_url(text: &str) -> bool {
    crate::resources::custom::is_uri(text)
}

/// Takes a URL apart.
pub(super) fn url(text: &str) -> Url<'_> {
    let (text, _) = text.split_once('#').unwrap_or((text, ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    if text.starts_with('/') {
        return Url { path: text, query, ..Url::default() };
    }
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    let Some(rest) = rest.strip_prefix("//") else { return Url { scheme, path: rest, query, ..Url::default() } };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Url { scheme, host, path, query }
}

/// The host without its port, and the port.
pub(super) fn host_and_port(host: &str) -> (&str, &str) {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, port) = rest.split_once(']').unwrap_or((rest, ""));
        return (name, port.strip_prefix(':').unwrap_or_default());
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// Undoes percent encoding.
pub(super) fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                plain.push(code);
                at += 3;
            }
            None => {
                plain.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The place of a needle in characters from a place on; -1 if it is not there.
pub(super) fn index_of(text: &str, needle: &str, from: usize) -> i64 {
    let Some((start, _)) = text.char_indices().chain([(text.len(), ' ')]).nth(from) else { return -1 };
    let found = text[start..].find(needle).map(|at| text[..start + at].chars().count());
    found.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1)
}

/// The last place of a needle in characters, at most at a place; -1 if it is not there.
pub(super) fn last_index_of(text: &str, needle: &str, most: usize) -> i64 {
    let place = |at: usize| text[..at].chars().count();
    let found = text.rmatch_indices(needle).map(|(at, _)| place(at)).find(|place| *place <= most);
    let found = found.or_else(|| needle.is_empty().then(|| text.chars().count().min(most)));
    found.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1)
}
