//! Messages of clients of commands and of forwarded ports, and the ports that these ask for.
//!
//! A message is a byte that names its channel, and data, or the same as a digit and base64
//! (`k8s.io/apimachinery/pkg/util/httpstream/wsstream`).

use kubelet::fuzz::{Said, message, port_message, ports};

use crate::memory::{Bound, bounded};

pub(crate) const WORDS: &[&str] = &[
    "\0",
    "\u{1}",
    "\u{4}{\"Width\":80,\"Height\":24}",
    "0YWJj",
    "4eyJXaWR0aCI6MX0=",
    "port=80",
    ",443",
    "&port=",
    "%2C",
    "=",
];

const MESSAGE: Bound = Bound { base: 4 << 10, held: 8, ever: 32 };
const PORTS: Bound = Bound { base: 64 << 10, held: 512, ever: 2048 };

pub(crate) fn check(data: &[u8]) {
    for version in [0, 4, 5] {
        for base64 in [false, true] {
            let Some(said) = bounded(data.len(), MESSAGE, || message(version, base64, data)) else { continue };
            match said {
                Said::Stdin(bytes) if base64 => assert!(data[0] == b'0' && bytes.len() <= data.len() * 3 / 4),
                Said::Stdin(bytes) => assert_eq!([&[0][..], &bytes].concat(), data),
                Said::EndOfStdin => assert_eq!(version, 5, "{data:?}"),
                Said::Resize(..) => assert!(matches!(data[0], 4 | b'4'), "{data:?}"),
            }
        }
    }
    for base64 in [false, true] {
        let read = bounded(data.len(), MESSAGE, || port_message(base64, data));
        assert!(base64 || read.is_some() != data.is_empty());
        if let Some((channel, bytes)) = read.filter(|_| !base64) {
            assert_eq!([&[channel][..], &bytes].concat(), data);
        }
    }
    let Ok(query) = str::from_utf8(data) else { return };
    match bounded(query.len(), PORTS, || ports(query)) {
        Ok(read) => {
            assert!(!read.is_empty() && read.len() <= 32 && !read.contains(&0));
            let words: Vec<String> = read.iter().map(u16::to_string).collect();
            assert_eq!(ports(&format!("port={}", words.join(","))), Ok(read));
        }
        Err(why) => assert!(!why.is_empty()),
    }
}
