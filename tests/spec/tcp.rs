//! Chapter: connections.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::{Instance, Server};
use portreeve::ending::Reason;

#[tokio::test]
async fn a_client_that_has_finished_writing_still_gets_the_whole_answer() {
    let server = Server::echo().await;
    let instance = Instance::balancing(&[server.address], "").await;
    let mut client = instance.connect().await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"hello");
    instance.ended(Reason::Done, 1).await;
}
