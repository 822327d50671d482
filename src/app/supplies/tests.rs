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
    let mut watcher =
        Watcher { catalogue: Arc::clone(&catalogue), ports: HashMap::new(), descriptors: Trend::default() };
    let to: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let [eight, nine] = ["10.0.0.8", "10.0.0.9"].map(|ip| Some(ip.parse().unwrap()));
    let seen = |more: u32| {
        let taken = HashMap::from([((to, eight), 100 + more), ((to, nine), 0), ((to, None), 950)]);
        Seen { ports: Some(Ports { all: 1000, taken }), descriptors: Some((40, 100)) }
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
    let before = see(&snapshot).ports.unwrap();
    assert_eq!((before.taken[&(to, own)], before.taken[&(to, other)]), (0, 0));
    #[expect(clippy::disallowed_methods, reason = "a client of the test's own")]
    let clients = [(); 3].map(|()| std::net::TcpStream::connect(to).unwrap());
    let Seen { ports, descriptors } = see(&snapshot);
    let after = ports.unwrap();
    assert_eq!((after.taken[&(to, own)], after.taken[&(to, other)]), (3, 0));
    assert!(after.all > 0);
    let (open, limit) = descriptors.unwrap();
    assert!(open >= 3 && open <= limit);
    drop(clients);
}

#[test]
fn what_is_left_is_told_in_words() {
    let stock = |lasts| Stock { free: 4100, total: 28_232, lasts };
    assert_eq!(Left(&stock(None)).to_string(), "4100 of 28232 are left");
    let lasts = Some(Duration::from_millis(12_345));
    assert_eq!(Left(&stock(lasts)).to_string(), "4100 of 28232 are left, for 12s at this rate");
}
