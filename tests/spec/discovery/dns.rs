//! Names that are what they should be, asked of dnsmasq.

use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::{Fleet, finding};
use crate::stage::watch::Port;
use crate::stage::watch::{assert_alive, established};
use crate::stage::{Instance, Server, echo, eventually, is_reset};
use tokio::io::AsyncReadExt;

/// dnsmasq, with hosts of the test's own.
struct Dnsmasq {
    port: Port,
    child: Child,
    hosts: PathBuf,
    _folder: tempfile::TempDir,
}

impl Dnsmasq {
    /// Starts it with these lines of hosts(5) and these further options.
    async fn start(hosts: &str, options: &[String]) -> Self {
        let (port, folder) = (Port::claim(), tempfile::tempdir().unwrap());
        let path = folder.path().join("hosts");
        std::fs::write(&path, hosts).unwrap();
        let child = Command::new("dnsmasq")
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--user=", "--group="])
            .args(["--listen-address=127.0.0.1", "--local=/test/", "--conf-file=/dev/null", "--pid-file="])
            .arg(format!("--port={}", *port))
            .arg(format!("--addn-hosts={}", path.display()))
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("dnsmasq, which tests/run installs");
        eventually("dnsmasq answers", || std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok()).await;
        Self { port, child, hosts: path, _folder: folder }
    }

    /// Lets it have other hosts.
    fn change(&self, hosts: &str) {
        std::fs::write(&self.hosts, hosts).unwrap();
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    /// What a pool has to say to ask it.
    fn asked(&self, more: &str) -> String {
        let resolver = *self.port;
        format!(
            "discover = {{ type = \"dns\", resolvers = [\"127.0.0.1:{resolver}\"], interval = \"50ms\", \
             allow_loopback = true, {more} }}"
        )
    }
}

#[tokio::test]
async fn every_address_of_a_name_is_a_server_and_servers_keep_their_counters_when_others_come_and_go() {
    let fleet = Fleet::on(&["127.0.1.1", "127.0.1.2", "127.0.1.3"]).await;
    let dns = Dnsmasq::start("127.0.1.1 api.test\n127.0.1.2 api.test\n", &[]).await;
    let name = format!("name = \"api.test:{}\"", *fleet.port);
    let instance = Instance::start(&finding(&dns.asked(&name))).await;
    // They are there from the first connection on.
    let mut heard = [instance.hear().await, instance.hear().await];
    heard.sort();
    assert_eq!(heard, ["127.0.1.1", "127.0.1.2"]);
    dns.change("127.0.1.1 api.test\n127.0.1.3 api.test\n");
    instance.has(&[fleet.name("127.0.1.1"), fleet.name("127.0.1.3")]).await;
    let mut heard = [instance.hear().await, instance.hear().await];
    heard.sort();
    assert_eq!(heard, ["127.0.1.1", "127.0.1.3"]);
    assert_eq!(instance.of_server("connections_total", fleet.name("127.0.1.1"), ""), 2.0);
    assert_eq!(instance.metric("portreeve_discovery_servers{pool=\"web\"}"), Some(2.0));
    assert!(instance.metric("portreeve_discovery_age_seconds{pool=\"web\"}").unwrap() < 20.0);
    assert_eq!(instance.metric("portreeve_config_generation"), Some(1.0));
    let source = instance.source().await;
    assert_eq!(source["source"], format!("dns api.test:{}", *fleet.port));
    assert!(source["servers"] == 2 && source["error"].is_null() && source["answered"].is_string(), "{source}");
}

#[tokio::test]
async fn srv_records_have_ports_weights_and_priorities() {
    let fleet = Fleet::on(&["127.0.2.1", "127.0.2.2", "127.0.2.3"]).await;
    let service = |host: &str, priority: u16, weight: u16| {
        format!("--srv-host=_web._tcp.api.test,{host}.test,{},{priority},{weight}", *fleet.port)
    };
    let dns = Dnsmasq::start(
        "127.0.2.1 a.test\n127.0.2.2 b.test\n127.0.2.3 c.test\n",
        &[service("a", 5, 30), service("b", 5, 10), service("c", 9, 0)],
    )
    .await;
    let instance = Instance::start(&finding(&dns.asked("name = \"_web._tcp.api.test\""))).await;
    let mut heard = Vec::new();
    for _ in 0..8 {
        heard.push(instance.hear().await);
    }
    let of = |ip: &str| heard.iter().filter(|heard| *heard == ip).count();
    assert_eq!([of("127.0.2.1"), of("127.0.2.2"), of("127.0.2.3")], [6, 2, 0], "{heard:?}");
    let spare = instance.server(fleet.name("127.0.2.3")).await;
    assert!(spare["priority"] == 1 && spare["weight"] == 1, "{spare}");
}

#[tokio::test]
async fn a_host_name_among_the_servers_is_resolved_and_followed_beside_those_with_addresses() {
    let fleet = Fleet::on(&["127.0.3.1", "127.0.3.2", "127.0.3.3"]).await;
    let dns = Dnsmasq::start("127.0.3.1 b.test\n127.0.3.2 b.test\n", &[]).await;
    let (port, asked) = (*fleet.port, dns.asked(""));
    let servers = format!(
        "servers = [\"127.0.3.1:{port}\", {{ name = \"b\", address = \"b.test:{port}\", weight = 2, max_connections = 7 }}]"
    );
    let instance = Instance::start(&finding(&format!("{servers}\n{asked}"))).await;
    // The address that the file has goes before the same that was found.
    let name = |ip: &str| format!("b@{}", fleet.name(ip));
    instance.has(&[fleet.name("127.0.3.1"), name("127.0.3.2")]).await;
    let found = instance.server(name("127.0.3.2")).await;
    assert!(found["weight"] == 2 && found["max_connections"] == 7, "{found}");
    dns.change("127.0.3.3 b.test\n");
    instance.has(&[fleet.name("127.0.3.1"), name("127.0.3.3")]).await;
}

#[tokio::test]
async fn connections_of_a_server_that_is_found_no_more_end_as_on_down_says() {
    let port = Port::claim();
    let [first, second] = ["127.0.4.1", "127.0.4.2"].map(|ip| format!("{ip}:{}", *port).parse().unwrap());
    let _servers = [Server::start_on(first, echo).await, Server::start_on(second, echo).await];
    let dns = Dnsmasq::start("127.0.4.1 api.test\n", &[]).await;
    for on_down in ["keep", "reset"] {
        dns.change("127.0.4.1 api.test\n");
        let asked = dns.asked(&format!("name = \"api.test:{}\"", *port));
        let instance = Instance::start(&finding(&format!("on_down = \"{on_down}\"\n{asked}"))).await;
        instance.has(&[first.to_string()]).await;
        let mut client = established(instance.address("web")).await;
        dns.change("127.0.4.2 api.test\n");
        instance.has(&[second.to_string()]).await;
        if on_down == "keep" {
            assert_alive(&mut client).await;
        } else {
            let ended = crate::stage::within("a reset", client.read_u8()).await;
            assert!(is_reset(&ended), "{ended:?}");
        }
    }
}
