//! Text and bytes somebody garbled: what reads them never panics, and what it accepts it prints in a form that it reads
//! as the same.

use std::fmt::{Debug, Display};
use std::net::SocketAddr;
use std::path::Path;

use fastrand::Rng;
use portreeve::config::{Environment, FULL, load_text};
use portreeve::metrics::Catalogue;
use portreeve::net::address::{BindAddr, ServerAddr};
use portreeve::net::proxy_protocol::{Announcement, Header, Origin, TlsFacts, Verdict, Version, encode, parse};
use portreeve::snapshot::Snapshot;
use portreeve::units::{format_duration, parse_duration, parse_port};

/// Words a careless or an evil hand puts in.
const WORDS: [&str; 40] = [
    "0",
    "-1",
    "65535",
    "65536",
    "18446744073709551616",
    "1e9",
    "0x1F",
    "1_000",
    "nan",
    "true",
    "\"",
    "'",
    "\"\"\"",
    "\\u0000",
    "\\",
    "\n",
    "\r\n",
    "\t",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    ":",
    "-",
    "::",
    "[::]",
    "%",
    "unix:",
    "ms",
    "3650d",
    "\u{feff}",
    "ß",
    "𝄞",
    "\u{202e}",
    "\0",
];
const ADDRESSES: [&str; 14] = [
    "127.0.0.1:8080",
    "[2001:db8::1]:443",
    "[::]:8080",
    "[::1]:0",
    "8080",
    ":https",
    "*:80",
    "0.0.0.0:http-alt",
    "10.0.0.1:20000-20010",
    ":7000-7003",
    "unix:/run/web.sock",
    "unix:run/web.sock",
    "[::ffff:10.0.0.1]:80",
    "255.255.255.255:65535",
];
const DURATIONS: [&str; 9] = ["0s", "500ms", "5s", "1m30s", "2h", "1d", "3650d", "1d2h3m4s5ms", " 10s "];
const PORTS: [&str; 8] = ["0", "80", "65535", "https", "http-alt", "ms-sql-s", "domain", "00080"];

/// A text with a few changes that a text editor could make in a bad hour.
fn garbled(random: &mut Rng, text: &str, most_changes: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.usize(1..=most_changes) {
        let from = random.usize(..=bytes.len());
        let to = (from + random.usize(..=16)).min(bytes.len());
        match random.u8(..8) {
            0 => drop(bytes.drain(from..to)),
            1 => {
                let copy = bytes[from..to].to_vec();
                let at = random.usize(..=bytes.len());
                bytes.splice(at..at, copy);
            }
            2 => bytes[from..to].reverse(),
            3 => bytes.truncate(from.max(1)),
            4 | 5 => {
                let word = WORDS[random.usize(..WORDS.len())].bytes();
                drop(bytes.splice(from..from, word));
            }
            6 if from < bytes.len() => bytes[from] = random.u8(b' '..=b'~'),
            _ if from < bytes.len() => bytes[from] ^= 1 << random.u8(..8),
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Garbles each text many times; what `read` accepts, `print` writes in a form that is read as the same.
fn holds<T: PartialEq + Debug>(
    random: &mut Rng,
    texts: &[&str],
    read: impl Fn(&str) -> Result<Vec<T>, String>,
    print: impl Fn(&T) -> String,
) -> usize {
    let mut accepted = 0;
    for text in texts {
        assert!(read(text).is_ok_and(|values| !values.is_empty()), "{text:?} was refused before it was garbled");
    }
    for _ in 0..250 {
        let text = texts[random.usize(..texts.len())];
        let text = garbled(random, text, 3);
        match read(&text) {
            Ok(values) => {
                accepted += 1;
                // Of a range of ports the ends tell enough.
                for value in values.first().into_iter().chain(values.last()) {
                    let printed = print(value);
                    let again = read(&printed).unwrap_or_else(|why| panic!("{text:?} prints as {printed:?}: {why}"));
                    assert_eq!(again.as_slice(), std::slice::from_ref(value), "{text:?} prints as {printed:?}");
                }
            }
            Err(why) => assert!(!why.is_empty(), "{text:?} was refused without a word"),
        }
    }
    accepted
}

fn shown(value: &impl Display) -> String {
    value.to_string()
}

/// Whether it is the one address that prints as another: see [`every_address_prints_as_itself`].
fn is_known_to_confuse(address: &BindAddr) -> bool {
    matches!(address, BindAddr::Tcp(SocketAddr::V6(address)) if address.ip().is_unspecified())
}

#[test]
fn small_words_print_as_what_they_were_read_from() {
    let mut accepted = [0; 4];
    let base = Path::new("/base");
    for (seed, _witness) in seeds() {
        let random = &mut Rng::with_seed(seed);
        let bind = |text: &str| {
            let all = BindAddr::parse(text, base)?;
            let all: Vec<BindAddr> = all.into_iter().filter(|address| !is_known_to_confuse(address)).collect();
            Ok(all)
        };
        accepted[0] += holds(random, &ADDRESSES, bind, shown);
        let servers: Vec<&str> = ADDRESSES.into_iter().filter(|text| ServerAddr::parse(text, base).is_ok()).collect();
        accepted[1] += holds(random, &servers, |text| ServerAddr::parse(text, base).map(|one| vec![one]), shown);
        let duration = |text: &str| parse_duration(text).map(|one| vec![one]);
        accepted[2] += holds(random, &DURATIONS, duration, |duration| format_duration(*duration));
        accepted[3] += holds(random, &PORTS, |text| parse_port(text).map(|one| vec![one]), shown);
    }
    println!("{accepted:?} garbled binds, servers, durations and ports were accepted all the same");
    assert!(accepted.iter().all(|count| *count > 0), "nothing was ever accepted: {accepted:?}");
}

fn seeds() -> impl Iterator<Item = (u64, super::seeds::Witness)> {
    super::seeds::all("parsers", super::seeds::FEW)
}

#[test]
fn no_text_makes_the_configuration_panic() {
    let environment = Environment { descriptor_limit: 65_536, cores: 2 };
    let load = |text: &str| load_text(text, "garbled.toml", Path::new("/base"), &environment);
    assert!(load(FULL).is_ok());
    // Without its comments, or most changes would only change those; and with them, since those are text as well.
    let bare: Vec<&str> = FULL.lines().map(|line| line.split(" #").next().unwrap().trim_end()).collect();
    let bare: String = bare.into_iter().filter(|l| !l.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(load(&bare).unwrap().model, load(FULL).unwrap().model);
    let (mut accepted, mut refused) = (0, 0);
    for (seed, _witness) in seeds() {
        let mut random = Rng::with_seed(seed);
        for round in 0..60 {
            let text = garbled(&mut random, if round % 4 == 0 { FULL } else { &bare }, 1 + round % 6);
            match load(&text) {
                Ok(loaded) => {
                    accepted += 1;
                    assert_eq!(loaded.warnings.errors(), 0, "{text}");
                    assert_eq!(load(&text).unwrap().model, loaded.model, "{text}");
                    let snapshot = Snapshot::build(loaded.model, None, &Catalogue::new(1));
                    snapshot.take_over();
                    for listener in &snapshot.model.listeners {
                        let pool = &snapshot.pool_of(snapshot.listener(&listener.name).unwrap()).expect(&text).pool;
                        let written = snapshot.model.pools.iter().find(|written| written.name == *pool.name()).unwrap();
                        // An address may have become a name, by which its servers have still to be found.
                        assert_eq!(pool.open_servers() > 0, !written.servers.is_empty(), "{text}");
                        assert!(!written.servers.is_empty() || !written.discover.is_empty(), "{text}");
                    }
                }
                Err(problems) => {
                    refused += 1;
                    assert!(problems.errors() > 0, "refused without a problem: {text}");
                    let told =
                        [problems.human(true), problems.human(false), problems.summary(), problems.json().to_string()];
                    assert!(told.iter().all(|told| !told.is_empty()));
                    for problem in problems.iter().filter_map(|problem| problem.place) {
                        assert!(problem.line >= 1 && problem.line <= text.lines().count() + 1, "{problem:?} of {text}");
                    }
                }
            }
        }
    }
    println!("{accepted} garbled configurations were accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}

#[test]
fn every_address_prints_as_itself() {
    let parse = |text: &str| BindAddr::parse(text, Path::new("/")).unwrap().remove(0);
    for text in ["[::]:80", "[::0]:80", "[0:0:0:0:0:0:0:0]:80"] {
        assert_eq!(parse(&parse(text).to_string()), parse(text), "{text}");
    }
}

/// How many bytes a checksum takes: type, length and value.
const CHECKSUM: u8 = 7;

/// A header of each kind; the last three carry a checksum.
fn headers() -> Vec<Vec<u8>> {
    let tls = TlsFacts { version: "TLSv1.3", common_name: Some("anna"), certificate: true };
    let told = |source: &str, destination: &str| Announcement {
        origin: Origin::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() },
        authority: Some("example.com"),
        alpn: Some(b"h2"),
        unique_id: Some(b"7f3a"),
        tls: Some(tls),
    };
    let v4 = told("192.0.2.1:56324", "198.51.100.2:443");
    let v6 = told("[2001:db8::1]:56324", "[2001:db8::2]:443");
    let mixed = told("192.0.2.1:1", "[2001:db8::2]:0");
    let mut headers = vec![b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec()];
    for origin in [Origin::Local, Origin::Unknown] {
        headers.push(encode(Version::V2, &Announcement { origin, ..v4 }));
    }
    for told in [v4, v6, mixed] {
        headers.push(encode(Version::V1, &told));
        // Behind a checksum hardly a change gets through, so that the additions are tried without one as well.
        let mut without = encode(Version::V2, &told);
        without.truncate(without.len() - usize::from(CHECKSUM));
        without[15] -= CHECKSUM;
        headers.push(without);
    }
    headers.extend([v4, v6, mixed].map(|told| encode(Version::V2, &told)));
    headers
}

/// Bytes that mean something in a line of version 1.
const TELLING: &[u8] = b" \r\n\0.:0129fFT";

/// A header with a few changes that keep most of it a header.
fn altered(random: &mut Rng, header: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    for _ in 0..random.usize(1..=3) {
        let at = random.usize(..bytes.len());
        let to = (at + random.usize(..=8)).min(bytes.len());
        match random.u8(..8) {
            0 | 1 => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes[at] = random.u8(..),
            3 => bytes[at] = bytes[at].wrapping_add(random.u8(..3)).wrapping_sub(1),
            4 => bytes[at] = TELLING[random.usize(..TELLING.len())],
            5 => bytes.insert(at, random.u8(..)),
            6 if bytes.len() > 1 => drop(bytes.drain(at..to.min(at + bytes.len() - 1))),
            _ => bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(to - at)),
        }
    }
    bytes
}

/// The origin and the additions of a header, as they would be passed on.
fn passed_on(header: &Header) -> Announcement<'_> {
    let Header { origin, authority, alpn, unique_id } = header;
    Announcement {
        origin: *origin,
        authority: authority.as_deref(),
        alpn: alpn.as_deref(),
        unique_id: unique_id.as_deref(),
        tls: None,
    }
}

#[test]
fn no_bytes_make_the_proxy_header_parser_panic_and_what_it_has_said_stands_whatever_comes_next() {
    let headers = headers();
    for bytes in &headers {
        assert!(matches!(parse(bytes), Verdict::Header { length, .. } if length == bytes.len()), "{bytes:?}");
    }
    let (mut accepted, mut refused) = (0, 0);
    for (seed, _witness) in seeds() {
        let random = &mut Rng::with_seed(seed);
        for _ in 0..2000 {
            let header = &headers[random.usize(..headers.len())];
            let bytes = altered(random, header);
            let verdict = parse(&bytes);
            let mut longer = bytes.clone();
            for _ in 0..random.usize(1..=40) {
                longer.push(random.u8(..));
            }
            let stands = verdict == Verdict::NeedMore || parse(&longer) == verdict;
            assert!(stands, "{verdict:?} of {bytes:?}, but {:?} of {longer:?}", parse(&longer));
            match verdict {
                Verdict::Header { header, length } => {
                    accepted += 1;
                    assert!(length <= bytes.len(), "{length} of {bytes:?}");
                    let part = &bytes[..random.usize(..length)];
                    assert_eq!(parse(part), Verdict::NeedMore, "{part:?} of {bytes:?}");
                    is_read_as_it_was(&header);
                }
                Verdict::Bad(why) => {
                    refused += 1;
                    assert!(!why.is_empty(), "{bytes:?} was refused without a word");
                }
                Verdict::NeedMore | Verdict::Absent => {}
            }
        }
    }
    println!("{accepted} altered headers were accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}

/// Passes a header on and reads it again.
fn is_read_as_it_was(header: &Header) {
    let told = passed_on(header);
    let Verdict::Header { header: again, .. } = parse(&encode(Version::V2, &told)) else { panic!("{header:?}") };
    let mut expected = header.clone();
    // A proxy's own connection is told of in version 2 alone, one over a unix socket in neither, and a name of a
    // protocol that TLS does not have room for is left out.
    expected.alpn = expected.alpn.filter(|alpn| alpn.len() <= 255);
    if !matches!(header.origin, Origin::Tcp { .. }) {
        let origin = if header.origin == Origin::Local { Origin::Local } else { Origin::Unknown };
        expected = Header { origin, authority: None, alpn: None, unique_id: None };
    }
    assert_eq!(again, expected);
    let Verdict::Header { header: again, .. } = parse(&encode(Version::V1, &told)) else { panic!("{header:?}") };
    let is_tcp = matches!(header.origin, Origin::Tcp { .. });
    assert_eq!(again.origin, if is_tcp { header.origin } else { Origin::Unknown });
}

#[test]
fn no_changed_byte_gets_another_origin_past_the_checksum_of_a_proxy_header() {
    // The command and the family are no part of it: those of a connection without addresses have all else skipped.
    const ADDRESSES: usize = 16;
    let headers = headers();
    let with_checksum = &headers[headers.len() - 3..];
    let mut refused = 0;
    for (seed, _witness) in seeds() {
        let random = &mut Rng::with_seed(seed);
        for _ in 0..500 {
            let mut bytes = with_checksum[random.usize(..with_checksum.len())].clone();
            let Verdict::Header { header: before, .. } = parse(&bytes) else { panic!("{bytes:?}") };
            let at = random.usize(ADDRESSES..bytes.len());
            bytes[at] ^= random.u8(1..);
            match parse(&bytes) {
                Verdict::Header { header, .. } => assert_eq!(header.origin, before.origin, "byte {at} of {bytes:?}"),
                Verdict::Bad(_) => refused += 1,
                verdict @ (Verdict::NeedMore | Verdict::Absent) => panic!("{verdict:?}: byte {at} of {bytes:?}"),
            }
        }
    }
    assert!(refused > 0, "nothing was refused");
}
