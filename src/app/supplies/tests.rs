//! The watch over what is left, with a system that shows what the test says.

use super::*;
use crate::config::{Environment, load_text};
use std::path::Path;

fn snapshot(text: &str, catalogue: &Catalogue) -> Snapshot {
    let text = format!("[listeners.l]\nbind = 0\npool = \"p\"\n{text}");
    let environment = Environment { descriptor_limit: 20_000, cores: 2 };
    let loaded =
        load_text(&text, "test", Path::new("/"), &environment).unwrap_or_else(|p| panic!("{}", p.human(false)));
    Snapshot::build(loaded.model, None, catalogue)
}

#[test]
fn what_is_left_is_shown_for_each_server_and_each_address_it_is_reached_from() {
    let catalogue = Catalogue::new(1);
    let text = "[pools.p]\nservers = [\"10.0.0.1:80\", \"unix:/a\"]\nsource = [\"10.0.0.8\", \"10.0.0.9\"]\n\
                [pools.q]\nservers = [\"10.0.0.1:80\"]\n";
    let snapshot = snapshot(text, &catalogue);
    let mut watcher = Watcher::new(Arc::clone(&catalogue));
    let to: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let [eight, nine] = ["10.0.0.8", "10.0.0.9"].map(|ip| Some(ip.parse().unwrap()));
    let seen = |more: u32| {
        let taken = HashMap::from([((to, eight), 100 + more), ((to, nine), 0), ((to, None), 950)]);
        Seen { ports: Some(Ports { made: 0, all: 1000, taken }), descriptors: Some((40, 100)) }
    };
    let start = Instant::now();
    assert!(!watcher.look(&snapshot, &seen(0), start), "of one there is little");
    watcher.look(&snapshot, &seen(100), start + Duration::from_secs(1));
    let text = catalogue.expose();
    for line in [
        "portreeve_source_ports_free{pool=\"p\",server=\"10.0.0.1:80\",source=\"10.0.0.8\"} 800",
        "portreeve_source_ports_free{pool=\"p\",server=\"10.0.0.1:80\",source=\"10.0.0.9\"} 1000",
        "portreeve_source_ports_free{pool=\"q\",server=\"10.0.0.1:80\",source=\"any\"} 50",
        "portreeve_source_ports_exhausted_in_seconds{pool=\"p\",server=\"10.0.0.1:80\",source=\"10.0.0.8\"} 8",
        "portreeve_descriptors_free 60",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is missing from:\n{text}");
    }
    let count = |family: &str| text.lines().filter(|line| line.starts_with(family)).count();
    assert_eq!(count("portreeve_source_ports_free{"), 3);
    assert_eq!(count("portreeve_source_ports_exhausted_in_seconds{"), 1, "the others grow no fewer");
    let ports = catalogue.source_ports(&Name::new("p"), &Name::new("10.0.0.1:80"));
    let expected = Stock { free: 800, total: 1000, lasts: Some(Duration::from_secs(8)) };
    assert_eq!(ports.first(), Some(&SourcePorts { source: eight, ports: expected }));
    // What is not seen stays as it was seen last.
    watcher.look(&snapshot, &Seen::default(), start);
    assert_eq!(catalogue.source_ports(&Name::new("p"), &Name::new("10.0.0.1:80")), ports);
}

#[test]
fn the_system_shows_the_connections_there_are_and_how_many_descriptors_are_open() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let catalogue = Catalogue::new(1);
    let text = format!("[pools.p]\nservers = [\"{to}\"]\nsource = [\"127.0.0.1\", \"127.0.0.2\"]\n");
    let snapshot = snapshot(&text, &catalogue);
    let [own, other] = ["127.0.0.1", "127.0.0.2"].map(|ip| Some(ip.parse::<IpAddr>().unwrap()));
    let before = see(&snapshot, true).ports.unwrap();
    assert_eq!((before.taken[&(to, own)], before.taken[&(to, other)]), (0, 0));
    #[expect(clippy::disallowed_methods, reason = "a client of the test's own")]
    let clients = [(); 3].map(|()| std::net::TcpStream::connect(to).unwrap());
    let Seen { ports, descriptors } = see(&snapshot, true);
    let after = ports.unwrap();
    assert_eq!((after.taken[&(to, own)], after.taken[&(to, other)]), (3, 0));
    assert!(after.all > 0);
    let (open, limit) = descriptors.unwrap();
    assert!(open >= 3 && open <= limit);
    drop(clients);
}

#[test]
fn ports_are_looked_at_again_when_they_may_be_others_and_now_and_then() {
    let catalogue = Catalogue::new(1);
    let text = "[pools.p]\nservers = [\"10.0.0.1:80\"]\n";
    let (before, now) = (snapshot(text, &catalogue), Instant::now());
    let seen = |made, taken| {
        let way: Way = ("10.0.0.1:80".parse().unwrap(), None);
        Seen { ports: Some(Ports { made, all: 1000, taken: HashMap::from([(way, taken)]) }), descriptors: None }
    };
    let mut watcher = Watcher::new(Arc::clone(&catalogue));
    assert!(watcher.wants_ports(&before, now), "nobody has looked");
    assert!(watcher.look(&before, &seen(0, 10), now));
    assert!(!watcher.wants_ports(&before, now + CALM));
    assert!(watcher.wants_ports(&before, now + LONGEST));
    let server = before.pools().next().unwrap().pool.servers().next().unwrap().state.metrics();
    let connect = |times: u32| (0..times).for_each(|_| server.connected(0, Duration::ZERO));
    connect(9);
    assert!(!watcher.wants_ports(&before, now + CALM));
    connect(1);
    assert!(watcher.wants_ports(&before, now + CALM), "one in a hundred");
    assert!(!watcher.look(&before, &seen(10, 990), now + CALM));
    assert!(watcher.wants_ports(&before, now + CALM), "there are few");
    assert!(watcher.look(&before, &seen(0, 10), now + CALM));
    assert!(watcher.wants_ports(&before, now + CALM), "ten came while it was looked");
    assert!(watcher.look(&before, &seen(10, 10), now + CALM));
    assert!(!watcher.wants_ports(&before, now + CALM));
    let model = before.model.clone();
    let after = Snapshot::build(model, Some(&before), &catalogue);
    assert!(watcher.wants_ports(&after, now + CALM), "servers may be others");
}

#[test]
fn what_is_left_is_told_in_words() {
    let stock = |lasts| Stock { free: 4100, total: 28_232, lasts };
    assert_eq!(Left(&stock(None)).to_string(), "4100 of 28232 are left");
    let lasts = Some(Duration::from_millis(12_345));
    assert_eq!(Left(&stock(lasts)).to_string(), "4100 of 28232 are left, for 12s at this rate");
}
