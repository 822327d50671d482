//! Version 2: a signature, a few fixed bytes, addresses of a family, and additions of type, length and value. Section
//! 2.2.

use std::net::{IpAddr, SocketAddr};

use super::{Announcement, Family, Header, MOST, Origin, Read, TlsFacts};

/// What a header of version 2 starts with (section 2.2).
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of what follows.
pub(super) const FIXED_PART: usize = 16;

/// Version 2 and its commands.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Families, each with its transport.
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const UDP_OVER_IPV4: u8 = 0x12;
const TCP_OVER_IPV6: u8 = 0x21;
const UDP_OVER_IPV6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;

/// Types of the additions (TLVs) behind the addresses.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;

/// The longest unique ID (section 2.2.5).
const LONGEST_UNIQUE_ID: usize = 128;
/// The longest name of a host (RFC 1035, section 2.3.4) and of a protocol in ALPN (RFC 7301, section 3.1). The other
/// texts that we send are held to it as well.
const LONGEST_TEXT: usize = 255;

/// Reads a header that starts with the signature: field by field up to the length, then, once it is there, as a whole.
pub(super) fn read(bytes: &[u8]) -> Read {
    let fixed = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    let [command, rest @ ..] = fixed else { return Ok(None) };
    match *command {
        LOCAL | PROXY => {}
        0x22..=0x2f => return Err("a command that is neither LOCAL nor PROXY"),
        _ => return Err("a version that is not 2"),
    }
    let [family, rest @ ..] = rest else { return Ok(None) };
    let addresses = match (*command, *family) {
        (LOCAL, _) | (_, UNSPECIFIED) => 0,
        (_, TCP_OVER_IPV4 | UDP_OVER_IPV4) => 2 * 4 + 2 * 2,
        (_, TCP_OVER_IPV6 | UDP_OVER_IPV6) => 2 * 16 + 2 * 2,
        (_, UNIX_STREAM | UNIX_DATAGRAM) => 2 * 108,
        _ => return Err("a family or a transport that does not exist"),
    };
    let [high, low, body @ ..] = rest else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if FIXED_PART + length > MOST {
        return Err("a length of over 16 KiB");
    }
    const SHORT: &str = "a length that does not hold the addresses";
    if length < addresses {
        return Err(SHORT);
    }
    let (Some(body), Some(whole)) = (body.get(..length), bytes.get(..FIXED_PART + length)) else { return Ok(None) };
    let (addresses, additions) = body.split_at_checked(addresses).ok_or(SHORT)?;
    let origin = match (*command, *family) {
        // What follows is the sender's own, and has no known place after an address block of no known length.
        (LOCAL, _) => return Ok(Some((Header::of(Origin::Local), whole.len()))),
        (_, UNSPECIFIED) => return Ok(Some((Header::of(Origin::Unknown), whole.len()))),
        (_, TCP_OVER_IPV4) => read_addresses::<4>(addresses).ok_or(SHORT)?,
        (_, TCP_OVER_IPV6) => read_addresses::<16>(addresses).ok_or(SHORT)?,
        (_, UNIX_STREAM) => Origin::Unix,
        _ => Origin::Unknown,
    };
    let mut header = Header::of(origin);
    read_additions(&mut header, whole, additions)?;
    Ok(Some((header, whole.len())))
}

/// Two IP addresses of `N` bytes, then two ports.
fn read_addresses<const N: usize>(block: &[u8]) -> Option<Origin>
where
    IpAddr: From<[u8; N]>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (source_port, block) = block.split_first_chunk()?;
    let (destination_port, _) = block.split_first_chunk()?;
    let address =
        |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(IpAddr::from(*ip).to_canonical(), u16::from_be_bytes(*port));
    Some(Origin::Tcp { source: address(source, source_port), destination: address(destination, destination_port) })
}

/// Reads the additions that `whole` ends with, and holds the header against its checksum if it has one.
fn read_additions(header: &mut Header, whole: &[u8], mut additions: &[u8]) -> Result<(), &'static str> {
    let mut checksum = None;
    while !additions.is_empty() {
        let [kind, high, low, rest @ ..] = additions else { return Err("fewer than 3 bytes where an addition starts") };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length).ok_or("an addition that is longer than the header")?;
        match *kind {
            ALPN => {
                header.alpn.get_or_insert_with(|| value.into());
            }
            AUTHORITY if length > LONGEST_TEXT => return Err("an authority of over 255 bytes"),
            AUTHORITY => {
                let text = std::str::from_utf8(value).map_err(|_| "an authority that is not UTF-8")?;
                header.authority.get_or_insert_with(|| text.into());
            }
            UNIQUE_ID if length > LONGEST_UNIQUE_ID => return Err("a unique ID of over 128 bytes"),
            UNIQUE_ID => {
                header.unique_id.get_or_insert_with(|| value.into());
            }
            CRC32C => {
                let stated = value.try_into().map_err(|_| "a checksum that does not have 4 bytes")?;
                if checksum.replace((u32::from_be_bytes(stated), rest)).is_some() {
                    return Err("two checksums");
                }
            }
            SSL if length < 5 => return Err("an addition about TLS of under 5 bytes"),
            // About TLS, padding, and what this program does not know.
            _ => {}
        }
        additions = rest;
    }
    let Some((stated, after)) = checksum else { return Ok(()) };
    let before = whole.get(..whole.len().saturating_sub(4 + after.len())).unwrap_or_default();
    if crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after) == stated {
        Ok(())
    } else {
        Err("a checksum that does not match")
    }
}

/// Writes a header. The additions go with addresses alone: after UNSPEC a receiver has to ignore what follows, since
/// the length of the addresses, and with it the place of the additions, is not defined; and a local connection has no
/// client to tell of. A client of a unix socket is unspecified too: one without a name, as they are, would take 216
/// bytes to say nothing.
pub(super) fn write(announcement: &Announcement<'_>) -> Vec<u8> {
    let Announcement { origin, authority, alpn, unique_id, tls } = *announcement;
    let (source, destination) = match origin {
        Origin::Local => return framed(LOCAL, UNSPECIFIED, &[]),
        Origin::Unknown | Origin::Unix => return framed(PROXY, UNSPECIFIED, &[]),
        Origin::Tcp { source, destination } => (source, destination),
    };
    let (family, mut body) = match Family::of(source.ip(), destination.ip()) {
        Family::V4(source, destination) => (TCP_OVER_IPV4, [source.octets(), destination.octets()].concat()),
        Family::V6(source, destination) => (TCP_OVER_IPV6, [source.octets(), destination.octets()].concat()),
    };
    body.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
    add(&mut body, ALPN, alpn, LONGEST_TEXT);
    add(&mut body, AUTHORITY, authority.map(str::as_bytes), LONGEST_TEXT);
    add(&mut body, UNIQUE_ID, unique_id, LONGEST_UNIQUE_ID);
    add(&mut body, SSL, tls.map(write_tls).as_deref(), usize::MAX);
    add(&mut body, CRC32C, Some(&[0; 4]), 4);
    let mut header = framed(PROXY, family, &body);
    let checksum = crc32c::crc32c(&header).to_be_bytes();
    header.truncate(header.len() - checksum.len());
    header.extend(checksum);
    header
}

/// The fixed part and what follows it.
fn framed(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    write_sized(&mut header, body);
    header
}

/// What is told of TLS: a bit for TLS and one for a certificate, 0 for one that was verified, then the texts (section
/// 2.2.6).
fn write_tls(facts: TlsFacts<'_>) -> Vec<u8> {
    let TlsFacts { version, common_name, certificate } = facts;
    let mut value = if certificate { vec![0x01 | 0x02, 0, 0, 0, 0] } else { vec![0x01, 0, 0, 0, 1] };
    add(&mut value, SSL_VERSION, Some(version.as_bytes()), LONGEST_TEXT);
    add(&mut value, SSL_COMMON_NAME, common_name.filter(|_| certificate).map(str::as_bytes), LONGEST_TEXT);
    value
}

/// Appends an addition, unless there is nothing to say or it is too long.
fn add(to: &mut Vec<u8>, kind: u8, value: Option<&[u8]>, longest: usize) {
    if let Some(value) = value.filter(|value| value.len() <= longest) {
        to.push(kind);
        write_sized(to, value);
    }
}

/// Appends the length of `value` in two bytes, and `value`. The longest body is far from what two bytes can say.
fn write_sized(to: &mut Vec<u8>, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_be_bytes());
    to.extend(value.iter().take(length.into()));
}
