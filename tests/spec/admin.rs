//! Chapter: the admin listener.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::watch::{Answer, get_as};
use crate::stage::{ClosedPort, Instance, Server, balancing, eventually, within};
use portreeve::ending::Reason;
use serde_json::{Value, json};

/// The fields of an object that are not numbers, which differ from run to run, and the names of those that are.
fn assert_fields(value: &Value, fields: &[&str]) {
    let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut fields = fields.to_vec();
    fields.sort_unstable();
    assert_eq!(names, fields);
}

async fn healthcheck(admin: std::net::SocketAddr) -> std::process::Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_portreeve"));
    command.args(["healthcheck", "--admin", &admin.to_string()]).stdin(Stdio::null());
    within("the health check", command.output()).await.unwrap()
}

/// An established connection through which five bytes went each way, and were counted.
async fn greeted(instance: &Instance) -> TcpStream {
    let mut client = instance.connect().await;
    client.write_all(b"hello").await.unwrap();
    within("the echo", client.read_exact(&mut [0; 5])).await.unwrap();
    eventually("the count", || instance.listener("web").bytes() == (5, 5)).await;
    client
}

#[tokio::test]
async fn a_healthy_instance_says_so() {
    let instance = Instance::watched(&balancing(&[ClosedPort::new().address], "")).await;
    let (healthy, ready) = (instance.get("/healthz").await, instance.get("/readyz").await);
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok"));
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready"));
}

#[tokio::test]
async fn the_status_shows_what_runs() {
    let server = Server::silent().await;
    let text = format!("max_connections = 77\ndrain_timeout = \"90s\"\n{}", balancing(&[server.address], ""));
    let instance = Instance::watched(&text).await;
    let _client = instance.connect().await;
    eventually("the connection", || server.accepted() == 1).await;
    let status = instance.get("/api/v1/status").await.json();
    assert_eq!((&status["version"], &status["generation"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(1)));
    assert_eq!((&status["draining"], &status["connections_active"]), (&json!(false), &json!(1)));
    assert_eq!(status["limits"]["max_connections"], 77);
    assert_eq!(status["limits"]["drain_timeout"], "1m30s");
    assert_eq!((status["workers"].as_array().unwrap().len(), &status["last_reload"]), (2, &Value::Null));
    assert!(status["uptime_seconds"].is_u64() && status["started"].as_str().unwrap().ends_with('Z'), "{status}");
    instance.running.reload_text(&text.replace("= 77", "= 78")).await.unwrap();
    let status = instance.get("/api/v1/status").await.json();
    assert_eq!((&status["generation"], &status["limits"]["max_connections"]), (&json!(2), &json!(78)));
    assert_eq!(status["last_reload"]["applied"], true);
    assert_eq!(status["last_reload"]["message"], "listener web changed, max_connections 77 -> 78");
}

#[tokio::test]
async fn listeners_are_shown_with_what_they_carry() {
    let server = Server::echo().await;
    let instance = Instance::watched(&balancing(&[server.address], "")).await;
    let client = greeted(&instance).await;
    let listeners = instance.get("/api/v1/listeners").await.json();
    let [web] = &listeners.as_array().unwrap()[..] else { panic!("{listeners}") };
    assert_eq!((&web["name"], &web["pool"], &web["protocol"]), (&json!("web"), &json!("web"), &json!("tcp")));
    assert_eq!(web["bind"], json!(["127.0.0.1:0"]));
    assert_eq!(web["endpoints"], json!([instance.address("web").to_string()]));
    assert_eq!(web["timeouts"], json!({ "handshake": "5s", "idle": "5m", "half_close": "30s", "max_age": "0s" }));
    assert_eq!((&web["connections_active"], &web["connections_total"]), (&json!(1), &json!(1)));
    assert_eq!((&web["bytes_in"], &web["bytes_out"]), (&json!(5), &json!(5)));
    drop(client);
    instance.ended(Reason::Done, 1).await;
    let web = &instance.get("/api/v1/listeners").await.json()[0];
    assert_eq!((&web["connections_active"], &web["connections_total"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn pools_are_shown_with_the_state_of_each_server_and_what_it_carries() {
    let (server, spare) = (Server::echo().await, ClosedPort::new());
    let servers = format!(
        "[{{ name = \"a\", address = \"{}\", weight = 7, max_connections = 9 }}, \
         {{ name = \"spare\", address = \"{}\", backup = true }}]",
        server.address, spare.address
    );
    let text = balancing(&[], "balance = \"least_conn\"").replace("servers = []", &format!("servers = {servers}"));
    let instance = Instance::watched(&text).await;
    let _client = greeted(&instance).await;
    let pools = instance.get("/api/v1/pools").await.json();
    assert_eq!((&pools[0]["name"], &pools[0]["balance"]), (&json!("web"), &json!("least_conn")));
    assert_eq!(pools[0]["servers_open"], 2);
    let (a, spare) = (instance.server("a").await, instance.server("spare").await);
    assert_fields(
        &a,
        &[
            "name",
            "address",
            "weight",
            "priority",
            "backup",
            "zone",
            "max_connections",
            "state",
            "since",
            "until",
            "reason",
            "warming",
            "connections_active",
            "connections_total",
            "connect_failures",
            "bytes_in",
            "bytes_out",
            "role",
            "standby",
            "share",
            "source_ports",
        ],
    );
    assert_eq!((&a["address"], &a["weight"]), (&json!(server.address.to_string()), &json!(7)));
    assert_eq!((&a["backup"], &spare["backup"]), (&json!(false), &json!(true)));
    assert_eq!((&a["max_connections"], &spare["max_connections"]), (&json!(9), &Value::Null));
    assert_eq!((&a["state"], &a["connections_active"], &a["connections_total"]), (&json!("up"), &json!(1), &json!(1)));
    assert_eq!((&a["bytes_in"], &a["bytes_out"], &a["connect_failures"]), (&json!(5), &json!(5), &json!(0)));
    assert_eq!((&a["role"], &a["standby"], &a["share"]), (&Value::Null, &json!(false), &json!(100)));
    assert_eq!((&spare["connections_active"], &spare["connections_total"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn what_is_not_there_and_who_asks_in_another_name_is_refused() {
    let instance = Instance::watched(&balancing(&[ClosedPort::new().address], "")).await;
    let admin = instance.running.admin().unwrap();
    let missing = instance.get("/api/v1/secrets").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].is_string());
    let refused: Answer = get_as(admin, "/api/v1/status", "evil.example").await;
    assert_eq!(refused.status, 421);
    assert!(refused.json()["error"].as_str().unwrap().contains("Host"), "{refused:?}");
    assert_eq!(get_as(admin, "/healthz", "localhost").await.status, 200);
}

#[tokio::test]
async fn without_an_address_there_is_no_admin_listener() {
    let instance = Instance::balancing(&[ClosedPort::new().address], "").await;
    assert_eq!(instance.running.admin(), None);
}

#[tokio::test]
async fn the_healthcheck_command_tells_by_its_exit_code() {
    let server = Server::silent().await;
    let instance = Instance::watched(&balancing(&[server.address], "")).await;
    let admin = instance.running.admin().unwrap();
    assert_eq!(healthcheck(admin).await.status.code(), Some(0));
    let client = instance.connect().await;
    eventually("the connection", || server.accepted() == 1).await;
    let draining = async {
        eventually("closed listeners", || instance.running.address("web").is_none()).await;
        let output = healthcheck(admin).await;
        drop(client);
        output
    };
    let (_, output) = within("the stop", async { tokio::join!(instance.running.stop(), draining) }).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not ready"));
    let output = healthcheck(ClosedPort::new().address).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("refused"));
}
