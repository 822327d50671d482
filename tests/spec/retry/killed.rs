//! Servers in processes of their own that are killed and come back under traffic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use tokio::task::JoinSet;

use crate::stage::http::{Client, serving};
use crate::stage::http2::{Asked, Client as Http2, Version};
use crate::stage::victim::Victim;
use crate::stage::{Instance, eventually};

/// Requests that have to be answered between one event and the next, so that it was met by traffic.
const BETWEEN: usize = 100;
/// Connections of clients of each version.
const CLIENTS: usize = 4;
/// Requests at once on each connection of HTTP/2.
const STREAMS: usize = 3;

/// What a request came to: its path, its status, and the reason if it was not answered by a server.
type Outcome = (String, u16, String);

/// Clients of both versions that ask one thing after another, each for a path of its own.
struct Crowd {
    clients: JoinSet<Vec<Outcome>>,
    answered: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
}

impl Crowd {
    async fn of(instance: &Instance, method: &Method) -> Self {
        let (answered, enough) = <(Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let mut crowd = Self { clients: JoinSet::new(), answered, enough };
        for connection in 0..CLIENTS {
            let one = Arc::new(tokio::sync::Mutex::new(Client::of(instance).await));
            crowd.joined(format!("/one/{connection}"), {
                let method = method.clone();
                move |path| {
                    let (one, method) = (Arc::clone(&one), method.clone());
                    async move {
                        let mut one = one.lock().await;
                        one.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
                        let response = one.response().await;
                        let reason = response.one("x-portreeve-reason").unwrap_or_default().to_owned();
                        (path, response.status(), reason)
                    }
                }
            });
            let two = Http2::connect(instance.address("web")).await;
            for stream in 0..STREAMS {
                let (two, method) = (two.clone(), method.clone());
                crowd.joined(format!("/two/{connection}/{stream}"), move |path| {
                    let (two, method) = (two.clone(), method.clone());
                    async move {
                        let asked = Asked { method, ..Asked::get(&path) };
                        let answer = two.ask(asked).await.unwrap();
                        (path, answer.status, answer.message.field("x-portreeve-reason").to_owned())
                    }
                });
            }
        }
        crowd
    }

    fn joined<F>(&mut self, name: String, ask: impl Fn(String) -> F + Send + 'static)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (answered, enough) = (Arc::clone(&self.answered), Arc::clone(&self.enough));
        self.clients.spawn(async move {
            let mut outcomes = Vec::new();
            while !enough.load(Ordering::SeqCst) {
                outcomes.push(ask(format!("{name}/{}", outcomes.len())).await);
                answered.fetch_add(1, Ordering::SeqCst);
            }
            outcomes
        });
    }

    /// Waits for more answers.
    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        eventually("answers", || self.answered.load(Ordering::SeqCst) >= before + BETWEEN).await;
    }

    async fn over(self) -> Vec<Outcome> {
        self.enough.store(true, Ordering::SeqCst);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

/// Every server of three is killed and comes back, twice, under requests of this method. What those came to, and how often
/// the servers saw each.
async fn kill_each_twice(behind: Version, method: Method) -> (Vec<Outcome>, HashMap<String, usize>) {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Vec::new();
    for number in 0..3 {
        servers.push(Victim::start(behind, folder.path().join(number.to_string())).await);
    }
    let addresses: Vec<_> = servers.iter().map(Victim::address).collect();
    let pool = format!("retries = 2\nretry_on = [\"connect\", \"reset\"]\n{}", behind.of_pool());
    let instance = Instance::start(&serving(&addresses, "", &pool).replace("workers = 1", "workers = 2")).await;
    let crowd = Crowd::of(&instance, &method).await;
    crowd.goes_on().await;
    for _ in 0..2 {
        for server in &mut servers {
            server.is_killed().await;
            crowd.goes_on().await;
            server.come_back().await;
            let before = server.saw().len();
            crowd.goes_on().await;
            assert!(server.saw().len() > before, "it has its part again");
        }
    }
    let outcomes = crowd.over().await;
    assert!(outcomes.len() >= 13 * BETWEEN);
    let mut saw = HashMap::new();
    for (request, times) in servers.iter().flat_map(Victim::saw) {
        *saw.entry(request).or_default() += times;
    }
    (outcomes, saw)
}

#[tokio::test]
async fn killed_servers_cost_no_idempotent_request() {
    for behind in Version::each() {
        let (outcomes, saw) = kill_each_twice(behind, Method::GET).await;
        for outcome in outcomes {
            let (path, status, reason) = &outcome;
            assert_eq!((*status, reason.as_str()), (200, ""), "{path}");
            assert!(saw.contains_key(&format!("GET {path}")), "{path}");
        }
    }
}

#[tokio::test]
async fn killed_servers_have_no_request_sent_twice_that_is_not_idempotent() {
    for behind in Version::each() {
        let (outcomes, saw) = kill_each_twice(behind, Method::POST).await;
        for (path, status, reason) in outcomes {
            let times = saw.get(&format!("POST {path}")).copied().unwrap_or(0);
            match status {
                200 => assert_eq!(times, 1, "{path}"),
                // Its server was killed with it in hand: nobody knows whether it acted on it.
                502 => {
                    assert!(matches!(reason.as_str(), "server_closed" | "server_reset"), "{path}: {reason}");
                    assert!(times <= 1, "{path} was seen {times} times");
                }
                other => panic!("{path}: {other} {reason}"),
            }
        }
    }
}
