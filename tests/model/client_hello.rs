//! A ClientHello somebody garbled: what reads it says the same of it whole and in pieces, and the same as TLS itself.

use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use portreeve::tls::hello::{Hello, Sniffed, Sniffer};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup, aws_lc_rs,
};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Error, NamedGroup, RootCertStore, SupportedProtocolVersion};

/// A client's random numbers and keys, the same in every run, or a seed would replay nothing.
#[derive(Debug)]
struct Fixed;

impl SecureRandom for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        bytes.fill(b'r');
        Ok(())
    }
}

impl SupportedKxGroup for Fixed {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Fixed {
    fn complete(self: Box<Self>, _peer: &[u8]) -> Result<SharedSecret, Error> {
        Err(Error::General("no server will answer".to_owned()))
    }

    fn pub_key(&self) -> &[u8] {
        &[b'k'; 32]
    }

    fn group(&self) -> NamedGroup {
        self.name()
    }
}

/// The ClientHello of rustls' own client, without its record.
fn client_hello(name: &str, versions: &[&'static SupportedProtocolVersion]) -> Vec<u8> {
    let provider = CryptoProvider { secure_random: &Fixed, kx_groups: vec![&Fixed], ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes.split_off(5)
}

/// Changes, drops, repeats and inserts a few bytes, many of them at the beginning or near `target`.
fn spoil(random: &mut Rng, bytes: &mut Vec<u8>, target: &Range<usize>) {
    for _ in 0..random.usize(1..=3) {
        let at = match random.u8(..8) {
            0 => random.usize(..6),
            1..4 => random.usize(target.start.saturating_sub(12)..target.end + 24),
            _ => random.usize(..=bytes.len()),
        };
        let from = at.min(bytes.len());
        let to = (from + random.usize(1..=4)).min(bytes.len());
        match random.u8(..8) {
            0 => drop(bytes.drain(from..to)),
            1 => {
                let copy = bytes[from..to].to_vec();
                bytes.splice(from..from, copy);
            }
            2 => drop(bytes.splice(from..from, [random.u8(..), random.u8(..)])),
            3 if random.bool() => bytes.truncate(from),
            4 => bytes[from..to].make_ascii_uppercase(),
            5 if from < bytes.len() => bytes[from] = [b'.', b'-', 0, 1, 22, 255][random.usize(..6)],
            _ if from < bytes.len() => bytes[from] = random.u8(..),
            _ => {}
        }
    }
}

/// The message in records of random lengths, at most `most` of them.
fn in_records(random: &mut Rng, message: &[u8], most: usize) -> Vec<u8> {
    let (mut rest, mut bytes) = (message, Vec::new());
    for left in (0..random.usize(1..=most)).rev() {
        let length =
            if left == 0 { rest.len() } else { random.usize(1..=1 + 2 * message.len() / most).min(rest.len()) };
        let (record, behind) = rest.split_at(length);
        bytes.extend([22, 3, random.u8(1..=3)]);
        bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        bytes.extend(record);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    bytes
}

/// Gives a sniffer more and more of the bytes, and expects it to keep to what it has said.
fn sniffed_in_pieces(random: &mut Rng, bytes: &[u8]) -> Sniffed {
    let mut sniffer = Sniffer::new();
    let (mut end, mut said) = (0, Sniffed::Incomplete);
    let longest = [1, 7, 400][random.usize(..3)];
    while end < bytes.len() {
        end = (end + random.usize(..=longest)).min(bytes.len());
        let now = sniffer.look(&bytes[..end]);
        assert!(said == Sniffed::Incomplete || said == now, "{said:?} became {now:?} after {end} of {bytes:?}");
        said = now;
    }
    said
}

/// What TLS itself finds in the bytes, if it takes them.
fn accepted_by_rustls(mut bytes: &[u8]) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    while acceptor.read_tls(&mut bytes).is_ok_and(|read| read > 0) {
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let server_name = hello.server_name().map(|name| Box::from(name.strip_suffix('.').unwrap_or(name)));
            let alpn = hello.alpn().into_iter().flatten().map(Box::from).collect();
            let first = hello.cipher_suites().iter().find_map(|suite| match suite.as_str()? {
                name if name.contains("CHACHA20") => Some(true),
                name if name.contains("GCM") => Some(false),
                _ => None,
            });
            return Some(Hello { server_name, alpn, prefers_chacha: first.unwrap_or(false) });
        }
    }
    None
}

fn is_dns_in_lower_case(name: &str) -> bool {
    let fine = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(fine))
}

#[test]
fn a_garbled_client_hello_is_the_same_whole_in_pieces_and_to_tls() {
    const NAME: &str = "www.Example-1.com";
    let hellos = [&[&TLS12][..], &[&TLS13], &[&TLS12, &TLS13]].map(|versions| client_hello(NAME, versions));
    let (mut heard, mut malformed, mut not_tls, mut incomplete, mut taken) = (0, 0, 0, 0, 0);
    for (seed, _witness) in super::seeds::all("client_hello", super::seeds::FEW) {
        let random = &mut Rng::with_seed(seed);
        for round in 0..400 {
            let mut message = hellos[random.usize(..hellos.len())].clone();
            let name =
                message.windows(NAME.len()).position(|found| found.eq_ignore_ascii_case(NAME.as_bytes())).unwrap();
            let name = name..name + NAME.len();
            let most_records = [1, 1, 4, 100][random.usize(..4)];
            let bytes = if round % 3 == 0 {
                let mut bytes = in_records(random, &message, most_records);
                spoil(random, &mut bytes, &name);
                bytes
            } else {
                // The message's length is put right, or hardly one would be read any further.
                spoil(random, &mut message, &name);
                let body = u32::try_from(message.len().saturating_sub(4)).unwrap().to_be_bytes();
                message.splice(1.min(message.len())..4.min(message.len()), body[1..].iter().copied());
                in_records(random, &message, most_records)
            };
            let verdict = Sniffer::new().look(&bytes);
            assert_eq!(sniffed_in_pieces(random, &bytes), verdict, "{bytes:?}");
            match verdict {
                Sniffed::Hello(hello) => {
                    heard += 1;
                    assert!(hello.server_name.as_deref().is_none_or(is_dns_in_lower_case), "{hello:?} of {bytes:?}");
                    if let Some(theirs) = accepted_by_rustls(&bytes) {
                        taken += 1;
                        assert_eq!(hello, theirs, "{bytes:?}");
                    }
                }
                Sniffed::Malformed(why) => {
                    malformed += 1;
                    assert!(!why.is_empty());
                }
                Sniffed::NotTls => not_tls += 1,
                Sniffed::Incomplete => {
                    incomplete += 1;
                    assert!(accepted_by_rustls(&bytes).is_none(), "TLS needs no more than {bytes:?}");
                }
            }
        }
    }
    println!(
        "{heard} hellos ({taken} to TLS as well), {malformed} malformed, {not_tls} not TLS, {incomplete} incomplete"
    );
    let counts = [heard, taken, malformed, not_tls, incomplete];
    assert!(counts.iter().all(|count| *count > 0), "some verdict was never given: {counts:?}");
}
