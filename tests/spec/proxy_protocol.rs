//! Chapter: the PROXY protocol, read from proxies in front and sent to servers.

mod inbound;
mod outbound;
mod haproxy;

use std::collections::HashMap;
use std::net::SocketAddr;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The commands of version 2.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Its families.
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX: u8 = 0x31;
/// Its additions.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// From 203.0.113.7 port 12345 to 192.0.2.1 port 443.
const ADDRESSES: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0x30, 0x39, 0x01, 0xbb];

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [SIGNATURE, &[command, family], &u16::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
}

/// An addition to a header of version 2.
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

/// The additions that stand in these bytes, none of them twice.
fn tlvs(mut bytes: &[u8]) -> HashMap<u8, Vec<u8>> {
    let mut found = HashMap::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, rest) = rest.split_at(u16::from_be_bytes([*high, *low]).into());
        assert!(found.insert(*kind, value.to_vec()).is_none(), "{kind:#x} stands twice");
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half an addition: {bytes:?}");
    found
}

/// The header with a checksum behind all else.
fn with_checksum(command: u8, family: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut header = v2(command, family, &[&body.concat(), &tlv(CRC32C, &[0; 4])]);
    let checksum = crc32c(&header).to_be_bytes();
    let place = header.len() - 4;
    header[place..].copy_from_slice(&checksum);
    header
}

/// CRC-32C, a bit at a time (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// A header of version 2 as it was received, taken apart.
struct Received {
    source: SocketAddr,
    destination: SocketAddr,
    additions: HashMap<u8, Vec<u8>>,
    /// What came behind it.
    rest: Vec<u8>,
}

/// Takes apart what a server received; its header has to be one of a client over TCP and IPv4 with a good checksum.
fn received(bytes: &[u8]) -> Received {
    assert_eq!(&bytes[..14], [SIGNATURE, &[PROXY, TCP4]].concat());
    let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (mut header, rest) = (bytes[..length].to_vec(), bytes[length..].to_vec());
    let ip = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).unwrap();
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (source, destination) = (SocketAddr::from((ip(16), port(24))), SocketAddr::from((ip(20), port(26))));
    let additions = tlvs(&header[28..]);
    header[length - 4..].fill(0);
    assert_eq!(additions[&CRC32C], crc32c(&header).to_be_bytes(), "the checksum stands last and is right");
    Received { source, destination, additions, rest }
}
