//! Chapter: servers that are found by names in DNS, in files and by endpoints.

mod dns;
mod endpoint;
mod file;
mod lies;
mod returns;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use portreeve::metrics::Answered;
use portreeve::units::Name;
use tokio::time::{MissedTickBehavior, interval};

use crate::stage::watch::{ADMIN, Port};
use crate::stage::{Instance, Server, eventually, say, within};

/// Servers on one port of several addresses, each of which says its address.
struct Fleet {
    port: Port,
    _servers: Vec<Server>,
}

impl Fleet {
    /// On these addresses of this machine.
    async fn on(ips: &[&'static str]) -> Self {
        let port = Port::claim();
        let mut servers = Vec::new();
        for &ip in ips {
            let address = SocketAddr::new(ip.parse().unwrap(), *port);
            servers.push(Server::start_on(address, move |stream| say(stream, ip)).await);
        }
        Self { port, _servers: servers }
    }

    /// The name of the server at an address.
    fn name(&self, ip: &str) -> String {
        format!("{ip}:{}", *self.port)
    }
}

/// A configuration with a listener `web`, an admin listener and an unchecked pool `web` with this in its table.
fn finding(pool: &str) -> String {
    format!(
        "{ADMIN}workers = 2\n[listeners.web]\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
         [pools.web]\ncheck = \"none\"\n{pool}\n"
    )
}

impl Instance {
    /// The names of the servers of the pool `web`.
    async fn names(&self) -> BTreeSet<String> {
        let pools = self.get("/api/v1/pools").await.json();
        let servers = pools[0]["servers"].as_array().unwrap().iter();
        servers.map(|server| server["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the pool `web` has these servers and no others.
    async fn has(&self, names: &[String]) {
        let wanted: BTreeSet<String> = names.iter().cloned().collect();
        let mut look = interval(Duration::from_millis(5));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        within(&format!("the servers {wanted:?}"), async {
            while self.names().await != wanted {
                look.tick().await;
            }
        })
        .await;
    }

    /// How the first source of the pool `web` does.
    async fn source(&self) -> serde_json::Value {
        self.get("/api/v1/pools").await.json()[0]["discovery"][0].clone()
    }

    /// How many answers of the pool `web` came to this.
    fn answers(&self, result: Answered) -> u64 {
        self.running.catalogue().discovery(&Name::new("web")).answers(result)
    }

    /// Waits until so many more answers came to this.
    async fn answers_again(&self, result: Answered, more: u64) {
        let before = self.answers(result);
        eventually(&format!("{more} more answers {result:?}"), || self.answers(result) >= before + more).await;
    }
}
