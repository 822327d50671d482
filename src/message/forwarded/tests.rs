//! What is said of whom a request is for, and who is taken for that.

use super::*;

const PEER: &str = "192.0.2.7:4711";

fn hop(peer: &str, trusted: bool) -> Hop<'static> {
    let peer = if peer == "unix" { ClientAddr::Unix } else { ClientAddr::Tcp(peer.parse().unwrap()) };
    Hop { peer, trusted, scheme: "http", port: Some(8080), host: b"example.com" }
}

fn networks(all: &[&str]) -> Networks {
    let mut networks = Networks::default();
    all.iter().for_each(|network| networks.add(network).unwrap());
    networks
}

/// What is sent after these fields were received.
fn sent(hop: &Hop<'_>, received: &[(&str, &str)]) -> Vec<String> {
    let values: Vec<Vec<&[u8]>> = NAMES
        .iter()
        .map(|name| received.iter().filter(|field| field.0 == *name).map(|field| field.1.as_bytes()).collect())
        .collect();
    let [forwarded, for_, proto, host, port] = [0, 1, 2, 3, 4].map(|place: usize| values[place].iter().copied());
    let mut forwarding = Forwarding::default();
    forwarding.write(&hop_of_another_request(), Said { forwarded, for_, proto, host, port });
    let [forwarded, for_, proto, host, port] = [0, 1, 2, 3, 4].map(|place: usize| values[place].iter().copied());
    forwarding.write(hop, Said { forwarded, for_, proto, host, port });
    let fields = forwarding.fields().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
    let fields: Vec<String> = fields.collect();
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    assert_eq!(String::from_utf8_lossy(forwarding.lines()), lines);
    fields
}

fn hop_of_another_request() -> Hop<'static> {
    Hop { host: b"another.example", ..hop("[2001:db8::ff]:1", true) }
}

const SAID: &[(&str, &str)] = &[
    ("forwarded", "for=198.51.100.1;proto=https"),
    ("x-forwarded-for", "198.51.100.1"),
    ("x-forwarded-for", " 198.51.100.2, 198.51.100.3 "),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "shop.example"),
    ("x-forwarded-port", "8443"),
];

#[test]
fn what_strangers_say_is_replaced() {
    let made = [
        "forwarded: for=192.0.2.7;host=example.com;proto=http",
        "x-forwarded-for: 192.0.2.7",
        "x-forwarded-proto: http",
        "x-forwarded-host: example.com",
        "x-forwarded-port: 8080",
    ];
    assert_eq!(sent(&hop(PEER, false), SAID), made);
    assert_eq!(sent(&hop(PEER, false), &[]), made);
    assert_eq!(sent(&hop(PEER, true), &[]), made, "a trusted peer that says nothing is the client");
}

#[test]
fn what_is_said_for_one_host_is_not_for_another_and_is_kept_unless_it_is_large() {
    let nothing = || Said {
        forwarded: std::iter::empty(),
        for_: std::iter::empty(),
        proto: std::iter::empty(),
        host: std::iter::empty(),
        port: std::iter::empty(),
    };
    let mut forwarding = Forwarding::default();
    forwarding.write(&hop(PEER, false), nothing());
    assert!(forwarding.is_for(b"example.com"));
    assert!(!forwarding.is_for(b"example.co") && !forwarding.is_for(b"Example.com") && !forwarding.is_for(b""));
    assert!(forwarding.may_be_kept());
    forwarding.write(&Hop { host: b"", ..hop(PEER, false) }, nothing());
    assert!(forwarding.is_for(b"") && !forwarding.is_for(b"example.com"));
    forwarding.write(&Hop { host: &[b'a'; 255], ..hop(PEER, false) }, nothing());
    assert!(forwarding.may_be_kept(), "no name is longer");
    forwarding.write(&Hop { host: &[b'a'; 4096], ..hop(PEER, false) }, nothing());
    assert!(!forwarding.may_be_kept());
}

#[test]
fn what_trusted_proxies_say_is_added_to_or_kept() {
    let added = [
        "forwarded: for=198.51.100.1;proto=https, for=192.0.2.7;host=example.com;proto=http",
        "x-forwarded-for: 198.51.100.1, 198.51.100.2, 198.51.100.3, 192.0.2.7",
        "x-forwarded-proto: https",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 8443",
    ];
    assert_eq!(sent(&hop(PEER, true), SAID), added);
}

#[test]
fn a_quote_that_is_left_open_hides_nothing() {
    let open = [("forwarded", "for=198.51.100.1"), ("forwarded", "for=\"198.51.100.2")];
    assert_eq!(
        sent(&hop(PEER, true), &open)[0],
        "forwarded: for=198.51.100.1, for=192.0.2.7;host=example.com;proto=http"
    );
}

#[test]
fn empty_values_are_as_good_as_none() {
    let empty: Vec<(&str, &str)> = NAMES.iter().map(|name| (*name, " ")).collect();
    assert_eq!(sent(&hop(PEER, true), &empty), sent(&hop(PEER, true), &[]));
}

#[test]
fn what_a_proxy_says_in_the_old_fields_alone_is_said_in_the_new_one_too() {
    let old: Vec<_> = SAID.iter().copied().filter(|(name, _)| *name != "forwarded").collect();
    assert_eq!(
        sent(&hop(PEER, true), &old)[0],
        "forwarded: for=198.51.100.1;host=shop.example;proto=https, for=198.51.100.2, for=198.51.100.3, \
         for=192.0.2.7;host=example.com;proto=http"
    );
    let odd = [("x-forwarded-for", "2001:db8::1, nonsense\", [2001:db8::2]:80")];
    assert_eq!(
        sent(&hop(PEER, true), &odd)[0],
        "forwarded: for=\"[2001:db8::1]\", for=unknown, for=\"[2001:db8::2]\", \
         for=192.0.2.7;host=example.com;proto=http"
    );
}

#[test]
fn the_port_goes_with_the_scheme_if_only_that_is_told() {
    for (proto, port) in [("https", "443"), ("http", "80"), ("wss", "443"), ("gopher", "8080")] {
        let sent = sent(&hop(PEER, true), &[("x-forwarded-proto", proto)]);
        assert_eq!(
            sent[2..],
            [
                format!("x-forwarded-proto: {proto}"),
                "x-forwarded-host: example.com".to_owned(),
                format!("x-forwarded-port: {port}")
            ]
        );
    }
}

#[test]
fn nodes_are_written_as_each_field_has_them() {
    for (peer, new, old) in [
        ("192.0.2.7:1", "192.0.2.7", "192.0.2.7"),
        ("[2001:db8::7]:1", "\"[2001:db8::7]\"", "2001:db8::7"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7", "192.0.2.7"),
        ("unix", "_unix", "unknown"),
    ] {
        let sent = sent(&Hop { port: None, ..hop(peer, false) }, &[]);
        assert_eq!(sent[0], format!("forwarded: for={new};host=example.com;proto=http"));
        assert_eq!(sent[1], format!("x-forwarded-for: {old}"));
        assert_eq!(sent.len(), 4, "no port is known");
    }
}

#[test]
fn a_host_is_quoted_where_it_is_no_token() {
    for (host, written) in [
        ("example.com:8080", ";host=\"example.com:8080\""),
        ("[2001:db8::1]", ";host=\"[2001:db8::1]\""),
        ("a\"b\\c", ";host=\"a\\\"b\\\\c\""),
        ("a\r\nb", ""),
        ("", ""),
    ] {
        let sent = sent(&Hop { host: host.as_bytes(), ..hop(PEER, false) }, &[]);
        assert_eq!(sent[0], format!("forwarded: for=192.0.2.7{written};proto=http"));
    }
}

#[test]
fn the_client_is_the_last_one_that_is_not_trusted() {
    let trusted = networks(&["10.0.0.0/8", "2001:db8:1::/48"]);
    let peer = ClientAddr::Tcp("10.0.0.1:5".parse().unwrap());
    for (values, client) in [
        ("", "10.0.0.1:5"),
        ("198.51.100.1", "198.51.100.1:0"),
        ("203.0.113.9, 198.51.100.1", "198.51.100.1:0"),
        ("203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1:0"),
        ("198.51.100.1|10.0.0.3|10.0.0.2", "198.51.100.1:0"),
        ("10.0.0.9, 10.0.0.2", "10.0.0.9:0"),
        ("10.0.0.9, 198.51.100.1, 10.0.0.3, 10.0.0.2", "198.51.100.1:0"),
        ("198.51.100.1:77, [2001:db8:1::5]:80", "198.51.100.1:77"),
        ("[2001:db8:2::5]", "[2001:db8:2::5]:0"),
        ("2001:db8:2::5, 2001:db8:1::5", "[2001:db8:2::5]:0"),
        ("198.51.100.1, , 10.0.0.2,", "198.51.100.1:0"),
        ("198.51.100.1, ::ffff:10.0.0.2", "198.51.100.1:0"),
    ] {
        let values = values.split('|').map(str::as_bytes);
        assert_eq!(real_client(&trusted, peer, values, std::iter::empty()).to_string(), client);
    }
}

/// The client of a request with this `X-Forwarded-For`.
fn of_old(trusted: &Networks, peer: ClientAddr, value: &[u8]) -> ClientAddr {
    real_client(trusted, peer, [value].into_iter(), [&b"for=203.0.113.1"[..]].into_iter())
}

#[test]
fn a_proxy_that_says_it_in_the_new_field_alone_is_believed_as_well() {
    let trusted = networks(&["10.0.0.0/8", "192.0.2.7"]);
    let peer = ClientAddr::Tcp("10.0.0.1:5".parse().unwrap());
    let values =
        ["for=203.0.113.9;proto=http", "for=\"[2001:db8::1]:4711\";proto=https;host=shop.example, for=10.0.0.2"];
    let client = |values: &[&str]| {
        let said = values.iter().map(|value| value.as_bytes());
        real_client(&trusted, peer, [&b" "[..]].into_iter(), said).to_string()
    };
    assert_eq!(client(&values), "[2001:db8::1]:4711");
    assert_eq!(client(&["for=198.51.100.1, for=_hidden, for=10.0.0.2"]), "10.0.0.2:0");
    assert_eq!(client(&[]), "10.0.0.1:5");
    let sent = sent(&hop(PEER, true), &[("forwarded", values[1])]);
    assert_eq!(
        sent[1..],
        [
            "x-forwarded-for: [2001:db8::1]:4711, 10.0.0.2, 192.0.2.7",
            "x-forwarded-proto: https",
            "x-forwarded-host: shop.example",
            "x-forwarded-port: 443"
        ]
    );
}

#[test]
fn what_is_no_address_ends_the_search_for_the_client() {
    let trusted = networks(&["10.0.0.0/8"]);
    let peer = ClientAddr::Tcp("10.0.0.1:5".parse().unwrap());
    for bad in
        ["unknown", "\"", "10.0.0", "10.0.0.300", "[10.0.0.1]", "2001:db8::g", "fe80::1%eth0", "\u{fc}", "10.0.0.2:"]
    {
        let client = |values: String| of_old(&trusted, peer, values.as_bytes()).to_string();
        assert_eq!(client(format!("198.51.100.1, {bad}")), "10.0.0.1:5", "{bad:?}");
        assert_eq!(client(format!("198.51.100.1, {bad}, 10.0.0.2")), "10.0.0.2:0", "{bad:?}");
        assert_eq!(client(format!("{bad}, 198.51.100.1")), "198.51.100.1:0", "{bad:?}");
    }
}

#[test]
fn a_stranger_is_the_client_whatever_it_says() {
    let peer = ClientAddr::Tcp("203.0.113.5:5".parse().unwrap());
    assert_eq!(of_old(&networks(&["10.0.0.0/8"]), peer, b"10.0.0.2"), peer);
    assert_eq!(of_old(&networks(&["10.0.0.0/8"]), ClientAddr::Unix, b"1.1.1.1"), ClientAddr::Unix);
    let client = of_old(&networks(&["unix"]), ClientAddr::Unix, b"1.1.1.1");
    assert_eq!(client.to_string(), "1.1.1.1:0");
}

#[test]
fn an_ipv4_address_is_written_as_everybody_does() {
    for octet in 0..=u8::MAX {
        let ip = Ipv4Addr::new(octet, 255, 255 - octet, 0);
        let mut written = Vec::new();
        dotted(&mut written, ip);
        assert_eq!(written, ip.to_string().as_bytes());
    }
}

#[test]
fn the_scheme_is_the_one_that_the_first_proxy_tells() {
    for (values, scheme) in [
        ("https", Some("https")),
        (" HTTP ", Some("http")),
        ("https, http|http", Some("https")),
        (",|http, https", Some("http")),
        ("wss, https", None),
        ("https://x", None),
        ("", None),
    ] {
        assert_eq!(told_scheme(values.split('|').map(str::as_bytes), std::iter::empty()), scheme, "{values}");
    }
    let told = told_scheme(std::iter::empty(), [&b"for=192.0.2.1;proto=https"[..]].into_iter());
    assert_eq!(told, Some("https"), "by one that speaks the new words alone");
}
