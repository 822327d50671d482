//! ClientHellos of a real client and of no client that ever was, whole, in pieces and wrong.

use super::*;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

const EITHER: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The first bytes of rustls' own client.
fn client(
    name: &str,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
    max_fragment: Option<usize>,
) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.max_fragment_size = max_fragment;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// A message in records of at most `size` bytes.
fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1], &vector(2, part)[..]].concat()).collect()
}

/// A vector behind its length in `width` bytes.
fn vector(width: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - width..], content].concat()
}

/// A ClientHello message with this body.
fn message(body: &[u8]) -> Vec<u8> {
    [&[1], &vector(3, body)[..]].concat()
}

/// The body of a ClientHello up to its extensions.
fn opening(session_id: usize, cipher_suites: usize, compressions: usize) -> Vec<u8> {
    [
        vec![3; 34],
        vector(1, &vec![0; session_id]),
        vector(2, &vec![0; cipher_suites]),
        vector(1, &vec![0; compressions]),
    ]
    .concat()
}

/// A whole ClientHello with these extensions.
fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let extensions =
        extensions.iter().flat_map(|(kind, content)| [&kind.to_be_bytes(), &vector(2, content)[..]].concat());
    message(&[opening(32, 4, 1), vector(2, &extensions.collect::<Vec<u8>>())].concat())
}

/// A server_name extension with these types and names.
fn names(list: &[(u8, &[u8])]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = list.iter().flat_map(|(kind, name)| [&[*kind], &vector(2, name)[..]].concat()).collect();
    (0, vector(2, &list))
}

/// An ALPN extension with these protocols.
fn protocols(list: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = list.iter().flat_map(|protocol| vector(1, protocol)).collect();
    (16, vector(2, &list))
}

fn at_once(bytes: &[u8]) -> Sniffed {
    Sniffer::new().look(bytes)
}

/// What the message comes to in one record.
fn sniffed(message: &[u8]) -> Sniffed {
    at_once(&in_records(message, LONGEST_RECORD))
}

/// The server name of a ClientHello whose server_name extension holds this one.
fn name_of(name: &[u8]) -> Result<Option<String>, &'static str> {
    match sniffed(&hello(&[names(&[(0, name)])])) {
        Sniffed::Hello(hello) => Ok(hello.server_name.map(String::from)),
        Sniffed::Malformed(why) => Err(why),
        other @ (Sniffed::Incomplete | Sniffed::NotTls) => panic!("{other:?}"),
    }
}

/// What a hello with this name and these protocols is read as.
fn wants(name: Option<&str>, alpn: &[&str]) -> Sniffed {
    let alpn = alpn.iter().map(|protocol| Box::from(protocol.as_bytes())).collect();
    Sniffed::Hello(Hello { server_name: name.map(Box::from), alpn, prefers_chacha: false })
}

/// Gives the bytes one by one and expects nothing to be known before the last of them.
fn one_by_one(bytes: &[u8]) -> Sniffed {
    let mut sniffer = Sniffer::new();
    for end in 0..bytes.len() {
        assert_eq!(sniffer.look(&bytes[..end]), Sniffed::Incomplete, "after {end} of {} bytes", bytes.len());
    }
    sniffer.look(bytes)
}

/// How many bytes it takes to tell.
fn told_after(bytes: &[u8]) -> usize {
    let mut sniffer = Sniffer::new();
    (0..=bytes.len()).find(|end| sniffer.look(&bytes[..*end]) != Sniffed::Incomplete).expect("it was never told")
}

#[test]
fn a_real_client_is_heard_with_its_name_and_its_protocols_in_order() {
    for versions in [EITHER, &[&TLS13], &[&TLS12]] {
        let sniff = |name, alpn: &[&str]| at_once(&client(name, alpn, versions, None));
        assert_eq!(sniff("www.example.com", &["h2", "http/1.1"]), wants(Some("www.example.com"), &["h2", "http/1.1"]));
        assert_eq!(sniff("example.com", &["http/1.1", "h2"]), wants(Some("example.com"), &["http/1.1", "h2"]));
        assert_eq!(sniff("a_b.xn--bcher-kva.example.", &[]), wants(Some("a_b.xn--bcher-kva.example"), &[]));
        assert_eq!(sniff("192.0.2.1", &["h2"]), wants(None, &["h2"]));
        assert_eq!(sniff("2001:db8::1", &[]), wants(None, &[]));
    }
}

#[test]
fn an_offer_is_the_whole_name_of_a_protocol() {
    let Sniffed::Hello(hello) = at_once(&client("a.example", &["h2", "http/1.1"], EITHER, None)) else { panic!() };
    assert!(hello.offers(b"h2") && hello.offers(b"http/1.1"));
    assert!(!hello.offers(b"h") && !hello.offers(b"h2c") && !hello.offers(b"H2") && !hello.offers(b""));
}

#[test]
fn nothing_is_known_before_the_last_byte() {
    let bytes = client("www.example.com", &["h2"], EITHER, None);
    assert_eq!(one_by_one(&bytes), wants(Some("www.example.com"), &["h2"]));
}

#[test]
fn the_message_may_be_cut_into_any_records() {
    let wanted = wants(Some("www.example.com"), &["h2"]);
    let bytes = client("www.example.com", &["h2"], EITHER, None);
    for size in [1, 2, 3, 4, 5, 100, bytes.len() - 6] {
        let bytes = in_records(&bytes[RECORD_HEADER..], size);
        assert_eq!(at_once(&bytes), wanted, "records of {size}");
        assert_eq!(one_by_one(&bytes), wanted, "records of {size}");
    }
    assert_eq!(one_by_one(&client("www.example.com", &["h2"], EITHER, Some(64))), wanted);
}

#[test]
fn a_message_in_one_record_is_read_in_place() {
    let bytes = client("www.example.com", &["h2"], EITHER, None);
    let mut sniffer = Sniffer::new();
    sniffer.look(&bytes[..bytes.len() - 1]);
    assert!(matches!(sniffer.look(&bytes), Sniffed::Hello(_)));
    assert_eq!(sniffer.joined.capacity(), 0);
}

#[test]
fn what_follows_in_records_of_its_own_is_not_looked_at() {
    let bytes = client("www.example.com", &[], EITHER, None);
    let early_data = vec![0; 2 * MOST_RECEIVED];
    for more in [&b"\x17\x03\x03\x00\x05early"[..], b"\x14\x03\x03\x00\x01\x01", b"nonsense", &early_data] {
        assert_eq!(at_once(&[&bytes, more].concat()), wants(Some("www.example.com"), &[]));
    }
    let mut sniffer = Sniffer::new();
    let verdict = sniffer.look(&bytes);
    assert_eq!(sniffer.look(&[&bytes, &b"more"[..]].concat()), verdict, "a verdict stays");
}

#[test]
fn what_is_not_tls_is_told_by_the_first_byte_that_cannot_be() {
    assert_eq!(at_once(b""), Sniffed::Incomplete);
    for (bytes, told) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], 1),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 1),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 1),
        (b"\x80\x2e\x01\x00\x02", 1), // a hello of SSL 2
        (b"\x15\x03\x03\x00\x02\x01\x00", 1),
        (b"\x16GET", 2),
        (b"\x16\x02\x00", 2),
        (b"\x16\x03\x05\x00", 3),
    ] {
        assert_eq!(at_once(bytes), Sniffed::NotTls, "{bytes:?}");
        assert_eq!(told_after(bytes), told, "{bytes:?}");
    }
}

#[test]
fn a_record_has_between_one_byte_and_16_kib() {
    for length in [0_u16, 16_385, 65_535] {
        let bytes = [&[22, 3, 1], &length.to_be_bytes()[..]].concat();
        assert_eq!(at_once(&bytes), Sniffed::Malformed("in a record of a forbidden length"));
    }
    assert_eq!(at_once(&[22, 3, 1, 0x40, 0]), Sniffed::Incomplete);
    let second = [&in_records(&hello(&[])[..9], 9), &[22, 3, 3, 0, 0][..]].concat();
    assert_eq!(at_once(&second), Sniffed::Malformed("in a record of a forbidden length"));
}

#[test]
fn no_other_record_stands_between_the_records_of_a_message() {
    let message = hello(&[]);
    let begun = in_records(&message[..20], 20);
    for other in [&[23, 3, 3, 0, 1, 0][..], &[22, 2], &[22, 3, 5], b"GET /"] {
        let bytes = [&begun, other].concat();
        assert_eq!(at_once(&bytes), Sniffed::Malformed("interrupted by another record"), "{other:?}");
    }
    let versions_differ = [&begun[..], &[22, 3, 4], &vector(2, &message[20..])].concat();
    assert_eq!(at_once(&versions_differ), wants(None, &[]));
}

#[test]
fn another_message_is_refused_by_its_first_byte() {
    for kind in [0, 2, 11, 20] {
        let bytes = [22, 3, 3, 0, 50, kind];
        assert_eq!(at_once(&bytes), Sniffed::Malformed("replaced by another handshake message"));
    }
}

#[test]
fn a_message_that_will_be_too_long_is_refused_when_it_says_so() {
    let says = |length: usize| [&[22, 3, 1, 0x40, 0, 1], &length.to_be_bytes()[5..]].concat();
    assert_eq!(at_once(&says(Sniffer::MOST - 3)), Sniffed::Malformed("too long"));
    assert_eq!(at_once(&says(0x00ff_ffff)), Sniffed::Malformed("too long"));
    assert_eq!(at_once(&says(Sniffer::MOST - 4)), Sniffed::Incomplete);
    let padded = |padding| hello(&[(21, vec![0; padding])]);
    let most = padded(Sniffer::MOST - padded(0).len());
    assert_eq!(most.len(), Sniffer::MOST);
    assert_eq!(sniffed(&most), wants(None, &[]));
    assert_eq!(at_once(&in_records(&most, 256)), wants(None, &[]), "64 records are allowed");
    assert_eq!(at_once(&in_records(&most, 252)), Sniffed::Malformed(TOO_MANY_RECORDS), "66 are not");
}

#[test]
fn a_message_in_crumbs_is_refused_when_the_headers_outweigh_it() {
    let crumbs = in_records(&hello(&[(21, vec![0; 10_000])]), 1);
    assert_eq!(told_after(&crumbs), MOST_RECEIVED);
    assert_eq!(at_once(&crumbs), Sniffed::Malformed(TOO_MANY_RECORDS));
    let padded = |padding| hello(&[(21, vec![0; padding])]);
    let most = padded(MOST_RECEIVED / (RECORD_HEADER + 1) - padded(0).len());
    let crumbs = in_records(&most, 1);
    assert_eq!((crumbs.len(), one_by_one(&crumbs)), (MOST_RECEIVED, wants(None, &[])));
    let mut sniffer = Sniffer::new();
    sniffer.look(&crumbs);
    assert!(sniffer.joined.capacity() <= 2 * most.len(), "{} bytes", sniffer.joined.capacity());
}

#[test]
fn nothing_shares_the_last_record_with_the_message() {
    let message = hello(&[]);
    let excess = Sniffed::Malformed("followed by other data in its record");
    assert_eq!(sniffed(&[&message[..], &[0]].concat()), excess);
    assert_eq!(sniffed(&[&message[..], &message].concat()), excess);
    // Told from the lengths, before any of the excess was received.
    assert_eq!(told_after(&in_records(&[&message[..], &[0]].concat(), LONGEST_RECORD)), RECORD_HEADER + MESSAGE_HEADER);
    let split = [in_records(&message[..30], 30), in_records(&[&message[30..], &[0]].concat(), 16_000)].concat();
    assert_eq!((at_once(&split), told_after(&split)), (excess, 2 * RECORD_HEADER + 30));
}

#[test]
fn the_fixed_fields_keep_their_bounds() {
    for (session_id, cipher_suites, compressions, fine) in [
        (0, 2, 1, true),
        (32, 2, 255, true),
        (33, 2, 1, false),
        (0, 0, 1, false),
        (0, 3, 1, false),
        (0, 8_190, 1, true),
        (0, 2, 0, false),
    ] {
        let bare = opening(session_id, cipher_suites, compressions);
        for extensions in [&[][..], &[0, 0]] {
            let verdict = sniffed(&message(&[&bare, extensions].concat()));
            assert_eq!(verdict == wants(None, &[]), fine, "{session_id} {cipher_suites} {compressions}: {verdict:?}");
            assert!(fine || matches!(verdict, Sniffed::Malformed(_)), "{verdict:?}");
        }
    }
}

#[test]
fn every_length_fits_what_it_is_in_and_nothing_is_left_over() {
    let whole = hello(&[names(&[(0, b"a.example")]), protocols(&[b"h2"])]);
    let body = &whole[MESSAGE_HEADER..];
    let without_extensions = opening(32, 4, 1).len();
    for end in (0..body.len()).filter(|end| *end != without_extensions) {
        assert_eq!(sniffed(&message(&body[..end])), Sniffed::Malformed(OVERRUN), "{end} of {} bytes", body.len());
    }
    assert_eq!(sniffed(&message(&[body, &[0]].concat())), Sniffed::Malformed(LEFT_OVER));
    for kind in [0, 16] {
        let (_, content) = if kind == 0 { names(&[(0, b"a.example")]) } else { protocols(&[b"h2"]) };
        let longer = [&content[..], &[0]].concat();
        assert_eq!(sniffed(&hello(&[(kind, longer)])), Sniffed::Malformed(LEFT_OVER));
        for end in 0..content.len() {
            assert_eq!(sniffed(&hello(&[(kind, content[..end].to_vec())])), Sniffed::Malformed(OVERRUN));
        }
    }
}

#[test]
fn the_two_extensions_that_are_read_come_once_and_others_as_they_like() {
    let twice = Sniffed::Malformed("with the same extension twice");
    let (name, alpn, other) = (names(&[(0, b"a.example")]), protocols(&[b"h2"]), (0x0a0a, vec![1]));
    assert_eq!(sniffed(&hello(&[name.clone(), alpn.clone(), name.clone()])), twice);
    assert_eq!(sniffed(&hello(&[alpn.clone(), alpn.clone()])), twice);
    assert_eq!(sniffed(&hello(&[other.clone(), alpn, other, name])), wants(Some("a.example"), &["h2"]));
}

#[test]
fn a_name_is_dns_in_lower_case_without_its_last_dot() {
    let found = |name: &str| Ok(Some(name.to_owned()));
    assert_eq!(name_of(b"WWW.Example.COM"), found("www.example.com"));
    assert_eq!(name_of(b"example.com."), found("example.com"));
    assert_eq!(name_of(b"_dns.a-b.1"), found("_dns.a-b.1"));
    assert_eq!(name_of(b"localhost"), found("localhost"));
    let label = "a".repeat(63);
    let longest = [&label[..], &label, &label, &label[..61]].join(".");
    assert_eq!(longest.len(), 253);
    assert_eq!(name_of(longest.as_bytes()), found(&longest));
    assert_eq!(name_of(format!("{longest}.").as_bytes()), found(&longest));
    let (long_label, too_long) = (format!("{label}a.example"), format!("{longest}a"));
    for name in ["", ".", "a..b", ".a", "a..", "a b", "a.example:443", "*.example", "bücher.example", "a\0.example"] {
        assert!(name_of(name.as_bytes()).is_err(), "{name:?} was accepted");
    }
    for name in [long_label.as_bytes(), too_long.as_bytes(), b"a\xff.example", b"[::1]", b"fe80::1%eth0"] {
        assert!(name_of(name).is_err(), "{name:?} was accepted");
    }
}

#[test]
fn an_ip_address_is_no_name() {
    for address in ["192.0.2.1", "255.255.255.255", "::1", "2001:DB8::1", "::ffff:192.0.2.1"] {
        assert_eq!(name_of(address.as_bytes()), Ok(None), "{address}");
    }
}

#[test]
fn one_host_name_is_found_among_names_of_other_types() {
    let sniff = |list: &[(u8, &[u8])]| sniffed(&hello(&[names(list)]));
    assert_eq!(sniff(&[(7, b"\xff"), (0, b"a.example"), (8, b"")]), wants(Some("a.example"), &[]));
    assert_eq!(sniff(&[(7, b"a.example")]), wants(None, &[]));
    assert_eq!(sniff(&[(0, b"a.example"), (0, b"a.example")]), Sniffed::Malformed("with two server names"));
    assert_eq!(sniff(&[(0, b"192.0.2.1"), (0, b"a.example")]), Sniffed::Malformed("with two server names"));
    assert_eq!(sniff(&[]), Sniffed::Malformed("with an empty list of server names"));
}

#[test]
fn a_protocol_has_a_name_of_up_to_255_bytes() {
    let long = "x".repeat(255);
    assert_eq!(sniffed(&hello(&[protocols(&[long.as_bytes(), b"\x0a"])])), wants(None, &[&long, "\n"]));
    assert_eq!(sniffed(&hello(&[protocols(&[b"h2", b""])])), Sniffed::Malformed("with a protocol without a name"));
    assert_eq!(sniffed(&hello(&[protocols(&[])])), Sniffed::Malformed("with an empty list of protocols"));
}
