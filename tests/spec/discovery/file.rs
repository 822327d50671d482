//! Servers in a file that changes.

use std::path::Path;

use super::{Fleet, finding};
use crate::stage::Instance;

/// Replaces a file the way that nobody ever sees half of it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// What a pool has to say to read this file. An hour is longer than a test lasts, so that it is the change that is heard of.
fn reading(path: &Path) -> String {
    format!("discover = {{ type = \"file\", path = \"{}\", interval = \"1h\" }}", path.display())
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_or_is_replaced_and_kept_when_it_breaks() {
    let fleet = Fleet::on(&["127.2.1.1", "127.2.1.2"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.toml");
    let port = *fleet.port;
    std::fs::write(&path, format!("servers = [\"127.2.1.1:{port}\"]")).unwrap();
    let instance = Instance::start(&finding(&reading(&path))).await;
    assert_eq!(instance.hear().await, "127.2.1.1");
    let table = format!("[[servers]]\nname = \"b\"\naddress = \"127.2.1.2:{port}\"\nweight = 5\n");
    replace(&path, &table);
    instance.has(&["b".to_owned()]).await;
    assert_eq!(instance.hear().await, "127.2.1.2");
    for broken in ["servers = [", "servers = [\"10.0.0.1\"]", "servers = []", ""] {
        // Something usable in between, so that each is seen to be read.
        replace(&path, &table.replace('5', "6"));
        instance.has(&["b".to_owned()]).await;
        replace(&path, broken);
        crate::stage::within("an error", async { while instance.source().await["error"].is_null() {} }).await;
        assert_eq!(instance.hear().await, "127.2.1.2", "{broken}");
        replace(&path, &table);
        crate::stage::within("no error", async { while instance.source().await["error"].is_string() {} }).await;
    }
    // Written in place.
    std::fs::write(&path, format!("servers = [\"127.2.1.1:{port}\", \"127.2.1.2:{port}\"]")).unwrap();
    instance.has(&[fleet.name("127.2.1.1"), fleet.name("127.2.1.2")]).await;
    std::fs::remove_file(&path).unwrap();
    crate::stage::within("an error", async { while instance.source().await["error"].is_null() {} }).await;
    assert_eq!(instance.names().await.len(), 2);
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_is_waited_for_and_may_be_json() {
    let fleet = Fleet::on(&["127.2.2.1", "127.2.2.2"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.json");
    let instance = Instance::start(&finding(&reading(&path))).await;
    instance.refuses().await;
    assert!(instance.source().await["error"].as_str().unwrap().contains("there is none at this path"));
    let port = *fleet.port;
    replace(&path, &format!(r#"[{{"name": "a", "address": "127.2.2.1:{port}", "backup": true}}, "127.2.2.2:{port}"]"#));
    instance.has(&["a".to_owned(), fleet.name("127.2.2.2")]).await;
    for _ in 0..4 {
        assert_eq!(instance.hear().await, "127.2.2.2");
    }
}

#[tokio::test]
async fn a_server_that_moves_within_a_file_keeps_its_name_and_its_counters() {
    let fleet = Fleet::on(&["127.2.3.1", "127.2.3.2"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.json");
    let list = |ip: &str| format!(r#"{{"servers": [{{"name": "a", "address": "{}"}}]}}"#, fleet.name(ip));
    std::fs::write(&path, list("127.2.3.1")).unwrap();
    let instance = Instance::start(&finding(&reading(&path))).await;
    assert_eq!(instance.hear().await, "127.2.3.1");
    replace(&path, &list("127.2.3.2"));
    crate::stage::within("the new address", async {
        while instance.server("a").await["address"] != fleet.name("127.2.3.2") {}
    })
    .await;
    assert_eq!(instance.hear().await, "127.2.3.2");
    assert_eq!(instance.of_server("connections_total", "a", ""), 2.0);
}
