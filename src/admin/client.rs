//! The other side: asking a running instance whether it is ready, as the health check of a container does.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use crate::net::address::{Endpoint, ServerAddr};
use crate::net::dial::{First, dial};
use crate::net::stream::Stream;

const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// How much of the answer is read at most; its first line is all that matters.
const LONGEST_ANSWER: usize = 256;

/// Asks the admin listener at `address` whether connections may be sent to its process: `false` while that is draining.
///
/// # Errors
/// Says why there is no answer within `timeout`, or none of an admin listener.
pub async fn is_ready(address: SocketAddr, timeout: Duration) -> Result<bool, String> {
    match tokio::time::timeout(timeout, ask(address, timeout)).await {
        Ok(answer) => answer.map_err(|problem| format!("{address}: {problem}")),
        Err(_elapsed) => Err(format!("{address}: no answer in time")),
    }
}

async fn ask(address: SocketAddr, timeout: Duration) -> Result<bool, String> {
    let stream =
        dial(&ServerAddr(Endpoint::Tcp(address)), None, timeout, First::Us).await.map_err(|error| error.to_string())?;
    send(&stream, REQUEST).await?;
    status(&receive_line(&stream).await?)
}

async fn send(stream: &Stream, mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| stream.poll_send(cx, bytes, false)).await.map_err(|errno| errno.to_string())?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// What comes up to the end of the first line, the end of the stream or [`LONGEST_ANSWER`].
async fn receive_line(stream: &Stream) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut buffer = [0; LONGEST_ANSWER];
    while line.len() < LONGEST_ANSWER && !line.contains(&b'\n') {
        let read = poll_fn(|cx| stream.poll_recv(cx, &mut buffer)).await.map_err(|errno| errno.to_string())?;
        match buffer.get(..read.bytes) {
            None | Some([]) => break,
            Some(bytes) => line.extend_from_slice(bytes),
        }
    }
    Ok(line)
}

/// What an answer says, by its status line (RFC 9112 §4).
fn status(answer: &[u8]) -> Result<bool, String> {
    match answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.split_at_checked(3)) {
        Some((b"200", _)) => Ok(true),
        Some((b"503", _)) => Ok(false),
        Some((code, _)) if code.iter().all(u8::is_ascii_digit) => {
            Err(format!("answers with status {}", String::from_utf8_lossy(code)))
        }
        Some(_) | None => Err("answers with something that is not HTTP/1.1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_status() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Ok(true));
        assert_eq!(status(b"HTTP/1.1 503 Service Unavailable\r\n"), Ok(false));
        assert_eq!(status(b"HTTP/1.1 404 Not Found\r\n"), Err("answers with status 404".to_owned()));
        for nonsense in [&b""[..], b"HTTP/1.1 ", b"HTTP/1.1 \x1b[2", b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n"] {
            assert!(status(nonsense).is_err_and(|problem| problem.contains("not HTTP/1.1")), "{nonsense:?}");
        }
    }

    #[tokio::test]
    async fn one_that_accepts_and_says_nothing_is_given_up_in_time() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let problem = is_ready(address, Duration::from_millis(50)).await.unwrap_err();
        assert!(problem.contains("no answer in time"), "{problem}");
    }

    #[tokio::test]
    async fn where_nobody_listens_the_reason_is_told() {
        // An address of its own, so that no other test is given the port in between.
        let closed = std::net::TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
        let problem = is_ready(closed, Duration::from_secs(10)).await.unwrap_err();
        assert!(problem.contains("refused"), "{problem}");
    }
}
