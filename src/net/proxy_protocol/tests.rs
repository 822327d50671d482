//! The PROXY protocol rule by rule, then both ways.

use super::binary::FIXED_PART;
use super::*;

fn tcp(source: &str, destination: &str) -> Origin {
    Origin::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v4() -> Origin {
    tcp("192.0.2.1:56324", "198.51.100.2:443")
}

fn v6() -> Origin {
    tcp("[2001:db8::1]:56324", "[2001:db8::2]:443")
}

fn announcement(origin: Origin) -> Announcement<'static> {
    Announcement { origin, authority: None, alpn: None, unique_id: None, tls: None }
}

fn full(origin: Origin) -> Announcement<'static> {
    let tls = TlsFacts { version: "TLSv1.3", common_name: Some("anna"), certificate: true };
    Announcement {
        authority: Some("example.com"),
        alpn: Some(b"h2"),
        unique_id: Some(b"7f3a"),
        tls: Some(tls),
        ..announcement(origin)
    }
}

/// A header of version 2 with a body of any kind.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", [command, family].as_slice(), &length, body].concat()
}

/// A header of version 2 for TCP over IPv4, with these bytes behind the addresses.
fn with_additions(additions: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[&[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb], additions].concat())
}

fn addition(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], u16::try_from(value.len()).unwrap().to_be_bytes().as_slice(), value].concat()
}

/// What a header says that fills its bytes, and of which no part is taken for a whole or for a mistake.
#[track_caller]
fn header(bytes: &[u8]) -> Header {
    let verdict = parse(bytes);
    let Verdict::Header { header, length } = verdict else { panic!("{verdict:?} of {:?}", bytes.escape_ascii()) };
    assert_eq!(length, bytes.len());
    for length in 0..bytes.len() {
        assert_eq!(parse(&bytes[..length]), Verdict::NeedMore, "{length} of {:?}", bytes.escape_ascii().to_string());
    }
    header
}

#[track_caller]
fn origin(bytes: &[u8]) -> Origin {
    header(bytes).origin
}

#[track_caller]
fn bad(bytes: &[u8]) -> &'static str {
    match parse(bytes) {
        Verdict::Bad(why) => why,
        verdict @ (Verdict::NeedMore | Verdict::Absent | Verdict::Header { .. }) => {
            panic!("{verdict:?} of {:?}", bytes.escape_ascii().to_string())
        }
    }
}

// What is a header at all.

#[test]
fn what_does_not_begin_like_a_header_is_none() {
    let others: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PROXY\r\n",
        b"PROXYTCP4",
        b"proxy TCP4 ",
        b"\r\n\r\nGET",
        b"\r\n\r\n\0\r\nQUIT\r\n",
    ];
    for bytes in others {
        assert_eq!(parse(bytes), Verdict::Absent, "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn what_may_become_a_header_is_waited_for() {
    for bytes in [b"".as_slice(), b"P", b"PROXY", b"PROXY ", b"\r", b"\r\n\r\n", b"\r\n\r\n\0\r\nQUIT\n"] {
        assert_eq!(parse(bytes), Verdict::NeedMore, "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn what_comes_behind_a_header_is_no_part_of_it() {
    for version in [Version::V1, Version::V2] {
        let bytes = encode(version, &full(v4()));
        let verdict = parse(&bytes);
        assert_eq!(verdict, Verdict::Header { header: header(&bytes), length: bytes.len() });
        for more in [b"\r\n".as_slice(), b"\0", b"PROXY TCP4 ", b"GET / HTTP/1.1\r\n\r\n", &bytes] {
            assert_eq!(parse(&[&bytes, more].concat()), verdict);
        }
    }
}

// Version 1.

#[test]
fn a_line_names_the_family_the_addresses_and_the_ports() {
    assert_eq!(origin(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"), v4());
    assert_eq!(origin(b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 56324 443\r\n"), v6());
    let highest = tcp("255.255.255.255:65535", "255.255.255.255:0");
    assert_eq!(origin(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n"), highest);
    let full = ["ffff"; 8].join(":");
    let line = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    assert_eq!(line.len(), 104);
    assert_eq!(origin(line.as_bytes()), tcp(&format!("[{full}]:65535"), &format!("[{full}]:65535")));
}

#[test]
fn an_unknown_origin_may_be_followed_by_anything_up_to_the_end_of_the_line() {
    for rest in ["", " ", " ffff::1 ffff::2 1 2", " whatever  it\tis", " \u{fffd}"] {
        assert_eq!(origin(format!("PROXY UNKNOWN{rest}\r\n").as_bytes()), Origin::Unknown, "{rest:?}");
    }
    assert_eq!(bad(b"PROXY UNKNOWN a\0b\r\n"), "a NUL in the line");
    assert_eq!(bad(b"PROXY UNKNOWN a\nb\r\n"), "a line that does not end in CRLF");
}

#[test]
fn a_line_has_at_most_107_bytes() {
    let longest = format!("PROXY UNKNOWN{}\r\n", "x".repeat(92));
    assert_eq!(longest.len(), 107);
    assert_eq!(origin(longest.as_bytes()), Origin::Unknown);
    let longer = format!("PROXY UNKNOWN{}\r\n", "x".repeat(93));
    assert_eq!(parse(&longer.as_bytes()[..106]), Verdict::NeedMore);
    for length in 107..=108 {
        assert_eq!(bad(&longer.as_bytes()[..length]), "a line of over 107 bytes");
    }
    assert_eq!(bad(&[b"PROXY UNKNOWN".as_slice(), &[b'x'; 94]].concat()), "a line of over 107 bytes");
}

#[test]
fn a_line_ends_in_crlf_and_has_no_other_line_end_and_no_nul() {
    for line in
        ["PROXY UNKNOWN\n", "PROXY UNKNOWN\rx", "PROXY UNKNOWN\r\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n"]
    {
        assert_eq!(bad(line.as_bytes()), "a line that does not end in CRLF", "{line:?}");
    }
    bad(b"PROXY \r\n");
    bad(b"PROXY TCP4 192.0.2.1\r\n");
    bad(b"PROXY TCP4 192.0.2.1 198.51.100.2\n 1 2\r\n");
    bad(b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\0\r\n");
}

#[test]
fn the_words_of_a_line_have_single_spaces_between_them_and_none_behind() {
    for line in [
        "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1  2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        "PROXY TCP4\t192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2\r\n",
        "PROXY TCP4\r\n",
    ] {
        bad(line.as_bytes());
    }
}

#[test]
fn a_family_is_one_of_three_and_its_addresses_are_of_it() {
    for family in ["TCP", "TCP5", "tcp4", "UDP4", "UNIX", "unknown", "TCP44", ""] {
        let line = format!("PROXY {family} 192.0.2.1 198.51.100.2 1 2\r\n");
        assert_eq!(bad(line.as_bytes()), "a family that is not TCP4, TCP6 or UNKNOWN", "{family:?}");
    }
    for ip in ["::1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4:5", "0x1.2.3.4", "localhost", ""] {
        bad(format!("PROXY TCP4 {ip} 198.51.100.2 1 2\r\n").as_bytes());
        bad(format!("PROXY TCP4 198.51.100.2 {ip} 1 2\r\n").as_bytes());
    }
    for ip in ["1.2.3.4", "[::1]", "::1%eth0", "1:2:3", ":::", "1::2::3", "12345::", "::1/64", ""] {
        bad(format!("PROXY TCP6 {ip} ::1 1 2\r\n").as_bytes());
        bad(format!("PROXY TCP6 ::1 {ip} 1 2\r\n").as_bytes());
    }
}

#[test]
fn a_port_is_a_number_without_a_sign_or_leading_zeros() {
    for port in ["65536", "99999", "+1", "-1", "00", "080", "0x50", "http", "1.", "100000000000", ""] {
        bad(format!("PROXY TCP4 192.0.2.1 198.51.100.2 {port} 2\r\n").as_bytes());
        bad(format!("PROXY TCP4 192.0.2.1 198.51.100.2 1 {port}\r\n").as_bytes());
    }
}

#[test]
fn a_line_is_refused_at_the_first_word_that_is_wrong() {
    for line in [
        "PROXY X",
        "PROXY TCP5",
        "PROXY UNKNOX",
        "PROXY TCP4 1.2.3.x",
        "PROXY TCP4 1.2.3 ",
        "PROXY TCP4 1111111111111111",
        "PROXY TCP6 ::1 g",
        "PROXY TCP6 ::1 ::2 6553x",
        "PROXY TCP6 ::1 ::2 00 ",
        "PROXY TCP6 ::1 ::2 1 2 ",
        "PROXY TCP6 ::1 ::2 1\r",
    ] {
        let why = bad(line.as_bytes());
        assert_eq!(parse(&line.as_bytes()[..line.len() - 1]), Verdict::NeedMore, "{line:?}");
        assert_eq!(bad(format!("{line} and what is more\0\r\n").as_bytes()), why, "{line:?}");
    }
}

// Version 2.

#[test]
fn the_version_is_2_and_the_command_local_or_proxy() {
    for first in 0..=u8::MAX {
        let bytes = binary(first, 0x00, &[]);
        match first {
            0x20 => assert_eq!(origin(&bytes), Origin::Local),
            0x21 => assert_eq!(origin(&bytes), Origin::Unknown),
            0x22..=0x2f => assert_eq!(bad(&bytes[..13]), "a command that is neither LOCAL nor PROXY"),
            _ => assert_eq!(bad(&bytes[..13]), "a version that is not 2"),
        }
    }
}

#[test]
fn a_family_comes_with_a_transport_and_its_addresses_have_their_length() {
    let body = [0; 300];
    for family in 0..=u8::MAX {
        let (length, expected) = match family {
            0x00 => (0, Origin::Unknown),
            0x11 => (12, tcp("0.0.0.0:0", "0.0.0.0:0")),
            0x12 => (12, Origin::Unknown),
            0x21 => (36, tcp("[::]:0", "[::]:0")),
            0x22 => (36, Origin::Unknown),
            0x31 => (216, Origin::Unix),
            0x32 => (216, Origin::Unknown),
            _ => {
                assert_eq!(bad(&binary(0x21, family, &body)[..14]), "a family or a transport that does not exist");
                continue;
            }
        };
        assert_eq!(origin(&binary(0x21, family, &body[..length])), expected, "{family:#04x}");
        if let Some(shorter) = length.checked_sub(1) {
            let bytes = binary(0x21, family, &body[..shorter]);
            assert_eq!(bad(&bytes[..16]), "a length that does not hold the addresses", "{family:#04x}");
        }
    }
}

#[test]
fn a_local_connection_and_an_unspecified_family_make_what_follows_skipped_unread() {
    let nonsense = [0x03; 50];
    for family in 0..=u8::MAX {
        assert_eq!(header(&binary(0x20, family, &nonsense)), Header::of(Origin::Local), "{family:#04x}");
    }
    assert_eq!(header(&binary(0x21, 0x00, &nonsense)), Header::of(Origin::Unknown));
}

#[test]
fn a_header_has_at_most_16_kib_behind_its_fixed_part() {
    let longest = with_additions(&addition(0x04, &[0; 16 * 1024 - 12 - 3]));
    assert_eq!(longest.len(), MOST);
    assert!(matches!(parse(&longest), Verdict::Header { length: MOST, .. }));
    let longer = with_additions(&addition(0x04, &[0; 16 * 1024 - 12 - 2]));
    assert_eq!(bad(&longer[..16]), "a length of over 16 KiB");
    assert_eq!(bad(&binary(0x20, 0x00, &vec![0; 0xffff])), "a length of over 16 KiB");
}

#[test]
fn the_additions_tell_of_the_host_the_protocol_and_the_connection() {
    let all = [
        addition(0x04, b"padding"),
        addition(0x02, "bücher.example".as_bytes()),
        addition(0xea, b"vpce-1"),
        addition(0x01, b"http/1.1"),
        addition(0x30, b"blue"),
        addition(0x20, &[1, 0, 0, 0, 1]),
        addition(0x05, &[0xff; 128]),
        addition(0x04, b""),
    ];
    let header = header(&with_additions(&all.concat()));
    assert_eq!(header.origin, v4());
    assert_eq!(header.authority.as_deref(), Some("bücher.example"));
    assert_eq!(header.alpn.as_deref(), Some(b"http/1.1".as_slice()));
    assert_eq!(header.unique_id.as_deref(), Some([0xff; 128].as_slice()));
}

#[test]
fn of_an_addition_that_stands_twice_the_first_counts() {
    let twice = [addition(0x02, b"one"), addition(0x02, b"two"), addition(0x05, b"1"), addition(0x05, b"2")].concat();
    let header = header(&with_additions(&twice));
    assert_eq!((header.authority.as_deref(), header.unique_id.as_deref()), (Some("one"), Some(b"1".as_slice())));
    bad(&with_additions(&[addition(0x02, b"one"), addition(0x02, b"\xff")].concat()));
}

#[test]
fn an_addition_ends_where_the_header_ends() {
    const SHORT: &str = "fewer than 3 bytes where an addition starts";
    const LONG: &str = "an addition that is longer than the header";
    for rest in [b"\x04".as_slice(), b"\x04\x00"] {
        assert_eq!(bad(&with_additions(rest)), SHORT);
    }
    for rest in [b"\x04\x00\x01".as_slice(), b"\x04\x00\x03ab", b"\xff\xff\xff\x00"] {
        assert_eq!(bad(&with_additions(rest)), LONG);
    }
    // Of what comes behind the header nothing is taken.
    assert_eq!(bad(&[with_additions(&[0x04, 0, 1]).as_slice(), b"xxxx"].concat()), LONG);
}

#[test]
fn an_addition_that_breaks_a_rule_of_its_type_spoils_the_header() {
    let longest = "x".repeat(255);
    assert_eq!(header(&with_additions(&addition(0x02, longest.as_bytes()))).authority.as_deref(), Some(&*longest));
    assert_eq!(bad(&with_additions(&addition(0x02, &[b'x'; 256]))), "an authority of over 255 bytes");
    assert_eq!(bad(&with_additions(&addition(0x02, b"\xc3"))), "an authority that is not UTF-8");
    assert_eq!(bad(&with_additions(&addition(0x05, &[0; 129]))), "a unique ID of over 128 bytes");
    assert_eq!(bad(&with_additions(&addition(0x20, &[1, 0, 0, 0]))), "an addition about TLS of under 5 bytes");
}

#[test]
fn a_checksum_has_4_bytes_stands_once_and_matches() {
    assert_eq!(bad(&with_additions(&addition(0x03, &[0; 3]))), "a checksum that does not have 4 bytes");
    assert_eq!(bad(&with_additions(&addition(0x03, &[0; 5]))), "a checksum that does not have 4 bytes");
    assert_eq!(bad(&with_additions(&addition(0x03, &[0; 4]).repeat(2))), "two checksums");
    assert_eq!(bad(&with_additions(&addition(0x03, &[0; 4]))), "a checksum that does not match");
    // It may stand anywhere.
    for before in 0..4 {
        let parts = [addition(0x02, b"a").repeat(before), addition(0x03, &[0; 4]), addition(0x01, b"h2")];
        let mut bytes = with_additions(&parts.concat());
        let sum = crc32c::crc32c(&bytes).to_be_bytes();
        let at = bytes.len() - parts[2].len() - sum.len();
        bytes[at..at + sum.len()].copy_from_slice(&sum);
        assert_eq!(header(&bytes).alpn.as_deref(), Some(b"h2".as_slice()));
    }
}

#[test]
fn no_changed_bit_gets_another_address_past_a_checksum() {
    let bytes = encode(Version::V2, &full(v4()));
    for at in FIXED_PART..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            match parse(&changed) {
                Verdict::Bad(_) => {}
                // The checksum has become another addition, or a part of one. The addresses are what they were.
                Verdict::Header { header, .. } => {
                    assert!(at >= FIXED_PART + 12, "bit {bit} of byte {at}");
                    assert_eq!(header.origin, v4(), "bit {bit} of byte {at}");
                }
                verdict @ (Verdict::NeedMore | Verdict::Absent) => panic!("{verdict:?} for bit {bit} of byte {at}"),
            }
        }
    }
}

#[test]
fn an_ipv4_address_that_is_written_as_ipv6_is_read_as_what_it_is() {
    let mapped = tcp("192.0.2.1:1", "[2001:db8::2]:2");
    assert_eq!(origin(b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"), mapped);
    assert_eq!(origin(b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n"), mapped);
    let source: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
    let destination: Ipv6Addr = "2001:db8::2".parse().unwrap();
    let body = [source.octets().as_slice(), &destination.octets(), &[0, 1, 0, 2]].concat();
    assert_eq!(origin(&binary(0x21, 0x21, &body)), mapped);
}

// Writing.

#[test]
fn what_is_written_is_read_as_what_was_announced() {
    let origins = [
        v4(),
        v6(),
        tcp("192.0.2.1:1", "[2001:db8::2]:65535"),
        tcp("[2001:db8::1]:0", "198.51.100.2:2"),
        Origin::Unknown,
        Origin::Local,
    ];
    for told in origins {
        let line = origin(&encode(Version::V1, &full(told)));
        assert_eq!(line, if told == Origin::Local { Origin::Unknown } else { told });
        let header = header(&encode(Version::V2, &full(told)));
        assert_eq!(header.origin, told);
        let is_tcp = matches!(told, Origin::Tcp { .. });
        assert_eq!(header.authority.as_deref(), is_tcp.then_some("example.com"));
        assert_eq!(header.alpn.as_deref(), is_tcp.then_some(b"h2".as_slice()));
        assert_eq!(header.unique_id.as_deref(), is_tcp.then_some(b"7f3a".as_slice()));
        let short = encode(Version::V2, &announcement(told));
        assert_eq!(parse(&short), Verdict::Header { header: Header::of(told), length: short.len() });
    }
}

#[test]
fn a_line_is_written_as_the_specification_has_it() {
    let line = |origin| String::from_utf8(encode(Version::V1, &full(origin))).unwrap();
    assert_eq!(line(v4()), "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    assert_eq!(line(v6()), "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n");
    let mixed = tcp("192.0.2.1:1", "[2001:db8::2]:2");
    assert_eq!(line(mixed), "PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n");
    let mapped = tcp("[::ffff:192.0.2.1]:1", "198.51.100.2:2");
    assert_eq!(line(mapped), "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n");
    for origin in [Origin::Local, Origin::Unknown, Origin::Unix] {
        assert_eq!(line(origin), "PROXY UNKNOWN\r\n");
    }
}

#[test]
fn a_header_of_version_2_is_written_byte_by_byte_as_the_specification_has_it() {
    let expected = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x46".as_slice(),
        b"\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb",
        b"\x01\x00\x02h2",
        b"\x02\x00\x0bexample.com",
        b"\x05\x00\x047f3a",
        b"\x20\x00\x16\x03\x00\x00\x00\x00\x21\x00\x07TLSv1.3\x22\x00\x04anna",
        // Computed bit by bit by another program.
        b"\x03\x00\x04\xdc\x94\xb5\xea",
    ];
    assert_eq!(encode(Version::V2, &full(v4())), expected.concat());
}

#[test]
fn nothing_is_added_to_an_origin_without_addresses() {
    assert_eq!(encode(Version::V2, &full(Origin::Local)), binary(0x20, 0x00, &[]));
    assert_eq!(encode(Version::V2, &full(Origin::Unknown)), binary(0x21, 0x00, &[]));
    assert_eq!(encode(Version::V2, &full(Origin::Unix)), binary(0x21, 0x00, &[]));
}

#[test]
fn without_a_verified_certificate_none_is_told_of() {
    let told = |tls| encode(Version::V2, &Announcement { tls: Some(tls), ..announcement(v4()) });
    let without = told(TlsFacts { version: "TLSv1.2", common_name: None, certificate: false });
    let tls = b"\x20\x00\x0f\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.2\x03\x00\x04";
    assert_eq!(&without[28..28 + tls.len()], tls);
    assert_eq!(without, told(TlsFacts { version: "TLSv1.2", common_name: Some("anna"), certificate: false }));
}

#[test]
fn what_is_too_long_for_its_field_is_left_out() {
    let (text, id) = ("x".repeat(256), [0; 129]);
    let tls = TlsFacts { version: "TLSv1.3", common_name: Some(&text), certificate: true };
    let long = Announcement {
        origin: v4(),
        authority: Some(&text),
        alpn: Some(text.as_bytes()),
        unique_id: Some(&id),
        tls: Some(tls),
    };
    let bytes = encode(Version::V2, &long);
    assert_eq!(header(&bytes), Header::of(v4()));
    assert_eq!(bytes.len(), 28 + (3 + 5 + 3 + 7) + 7);
    let longest = Announcement {
        authority: Some(&text[1..]),
        alpn: Some(&text.as_bytes()[1..]),
        unique_id: Some(&id[1..]),
        ..long
    };
    let header = header(&encode(Version::V2, &longest));
    assert_eq!(header.authority.map(|authority| authority.len()), Some(255));
    assert_eq!(header.alpn.map(|alpn| alpn.len()), Some(255));
    assert_eq!(header.unique_id.map(|id| id.len()), Some(128));
}
