//! Servers that are found no more, and return.

use super::finding;
use crate::stage::dns::{Dns, Says};
use crate::stage::http2::{Answered, Message, Version};
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, Server};

#[tokio::test]
async fn clients_of_a_pool_that_shrinks_to_nothing_stay_connected_and_are_served_when_it_returns() {
    for version in Version::each() {
        let answer = |_| Answered::ok(Message::of("ok"));
        let server = Server::of_http_on("127.4.1.1:0".parse().unwrap(), Version::One, answer).await;
        let dns = Dns::start().await;
        dns.say("api.test", Says::ips(&["127.4.1.1"]));
        let asked = super::lies::asking(&dns, server.address.port(), "allow_loopback = true, allow_empty = true");
        let text = finding(&asked).replacen("pool = \"web\"", "pool = \"web\"\nprotocol = \"http\"", 1);
        let instance = Instance::start(&text).await;
        let mut client = Speaker::of(version, &instance).await;
        assert_eq!(client.ask("/").await.text(), "ok");
        for _ in 0..2 {
            dns.say("api.test", Says::NoName);
            instance.has(&[]).await;
            let refused = client.ask("/").await;
            assert_eq!((refused.status(), refused.field("x-portreeve-reason")), (503, "no_server"));
            dns.say("api.test", Says::ips(&["127.4.1.1"]));
            instance.has(&[server.address.to_string()]).await;
            assert_eq!(client.ask("/").await.text(), "ok");
        }
    }
}
