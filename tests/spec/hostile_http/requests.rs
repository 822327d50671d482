//! One way after the other of hiding a request in a request.

use crate::stage::Instance;
use crate::stage::http::{Client, Recorder, Stand, serving};

/// What has to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered with this status, and no server hears of it.
    Refused(u16),
    /// A server sees this one request, with this body.
    Forwarded(&'static str),
}

/// A name, the bytes, and what has to become of them.
pub type Case = (&'static str, Vec<u8>, Fate);

/// What is behind every request that has to be refused.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Sends each of these on a connection of its own, and asserts its fate.
pub async fn assert_fates(cases: Vec<Case>) {
    let server = Recorder::ok().await;
    let instance = Instance::start(&serving(&[server.address()], "", "")).await;
    let mut failures = Vec::new();
    for (name, bytes, fate) in &cases {
        if let Err(why) = fate_of(&instance, &server, bytes, *fate).await {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(server.broken().is_empty(), "{:?}", server.broken());
}

async fn fate_of(instance: &Instance, server: &Recorder, bytes: &[u8], fate: Fate) -> Result<(), String> {
    let mut client = Client::of(instance).await;
    // At once: what is good so far would be passed on before the rest has come.
    match fate {
        Fate::Refused(_) => client.send([bytes, SMUGGLED.as_bytes()].concat()).await,
        Fate::Forwarded(_) => client.send(bytes).await,
    }
    let response = client.try_response().await.map_err(|error| format!("no response: {error}"))?;
    let status = response.status();
    let expected = match fate {
        Fate::Refused(status) => status,
        Fate::Forwarded(_) => 200,
    };
    if status != expected {
        return Err(format!("answered {status}, not {expected}"));
    }
    if expected != 200 {
        let rest = client.0.rest().await.map_err(|error| format!("no good end: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("answered twice: {:?}", String::from_utf8_lossy(&rest)));
        }
    }
    // Whatever the server was to hear, it has heard before this.
    let mut marker = Client::of(instance).await;
    marker.ask("/marker").await;
    let mut seen: Vec<_> = server.seen_where().into_iter().map(|(_, request)| request).collect();
    let last = seen.pop();
    if last.as_ref().is_none_or(|last| last.asked() != "GET /marker") {
        return Err(format!("the next request came as {last:?}"));
    }
    match (fate, seen.as_slice()) {
        (Fate::Refused(_), []) => Ok(()),
        (Fate::Forwarded(body), [request]) if request.text() == body => Ok(()),
        (_, seen) => Err(format!("the server saw {seen:?}")),
    }
}

fn case(name: &'static str, bytes: impl AsRef<[u8]>, fate: Fate) -> Case {
    (name, bytes.as_ref().to_vec(), fate)
}

/// A POST with these lines and this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n{body}")
}

/// A POST with these chunks.
fn chunks(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

const BAD: Fate = Fate::Refused(400);

#[tokio::test]
async fn of_two_lengths_none_is_believed() {
    let both = "0\r\n\r\n";
    assert_fates(vec![
        case("CL.TE", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", both), BAD),
        case("TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", both), BAD),
        case("CL of nothing and TE", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", both), BAD),
        case("CL and unknown TE", post("Content-Length: 5\r\nTransfer-Encoding: x\r\n", both), BAD),
        case("CL and empty TE", post("Content-Length: 5\r\nTransfer-Encoding:\r\n", both), BAD),
        case("both with odd case", post("CONTENT-LENGTH: 5\r\ntransfer-ENCODING: chunked\r\n", both), BAD),
        case("CL twice, the same", post("Content-Length: 5\r\nContent-Length: 5\r\n", both), BAD),
        case("CL twice, another", post("Content-Length: 5\r\nContent-Length: 0\r\n", both), BAD),
        case("CL twice, one of them empty", post("Content-Length: 5\r\nContent-Length:\r\n", both), BAD),
        case("CL as a list of the same", post("Content-Length: 5, 5\r\n", both), BAD),
        case("CL as a list", post("Content-Length: 5,6\r\n", both), BAD),
        case(
            "CL and its namesake",
            post("Content_Length: 100\r\nContent-Length: 5\r\n", "abcde"),
            Fate::Forwarded("abcde"),
        ),
        case(
            "TE's namesake and CL",
            post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", both),
            Fate::Forwarded(both),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_length_is_a_number_and_nothing_else() {
    let length = |value: &str| post(&format!("Content-Length:{value}\r\n"), "abcde");
    assert_fates(vec![
        case("plus", length(" +5"), BAD),
        case("minus", length(" -5"), BAD),
        case("minus nothing", length(" -0"), BAD),
        case("hexadecimal", length(" 0x5"), BAD),
        case("hexadecimal without mark", length(" f"), BAD),
        case("with a space in it", length(" 5 5"), BAD),
        case("empty", length(""), BAD),
        case("only spaces", length("  \t"), BAD),
        case("with a parameter", length(" 5;x"), BAD),
        case("with a fraction", length(" 5.0"), BAD),
        case("with an exponent", length(" 5e0"), BAD),
        case("with an underscore", length(" 0_5"), BAD),
        case("quoted", length(" \"5\""), BAD),
        case("other digits", length(" \u{665}"), BAD),
        case("with NUL", length(" 5\0"), BAD),
        case("with a vertical tab", length(" \x0b5"), BAD),
        case("with a comma behind", length(" 5,"), BAD),
        case("one more than fits", length(" 18446744073709551616"), BAD),
        case("huge", length(&format!(" {}", "9".repeat(500))), BAD),
        case("wraps to five", length(" 36893488147419103237"), BAD),
        case("folded", length("\r\n 5"), BAD),
        case("space before the colon", post("Content-Length : 5\r\n", "abcde"), BAD),
        case("tab before the colon", post("Content-Length\t: 5\r\n", "abcde"), BAD),
        case("space before the name", post(" Content-Length: 5\r\n", "abcde"), BAD),
        case("with zeros in front", length(" 0005"), Fate::Forwarded("abcde")),
        case("with spaces around", length(" \t5 \t"), Fate::Forwarded("abcde")),
        case("without a space", length("5"), Fate::Forwarded("abcde")),
        case(
            "listed by Connection",
            post("Connection: Content-Length\r\nContent-Length: 5\r\n", "abcde"),
            Fate::Forwarded("abcde"),
        ),
        case("with GET", length(" 5").replace("POST", "GET"), Fate::Forwarded("abcde")),
        case("in HTTP/1.0", length(" 5").replace("HTTP/1.1", "HTTP/1.0"), Fate::Forwarded("abcde")),
    ])
    .await;
}

#[tokio::test]
async fn of_transfer_codings_only_a_single_chunked_is_taken() {
    let coded = |line: &str| post(&format!("{line}\r\n"), "3\r\nabc\r\n0\r\n\r\n");
    let te = |value: &str| coded(&format!("Transfer-Encoding:{value}"));
    let abc = Fate::Forwarded("abc");
    assert_fates(vec![
        case("twice in a list", te(" chunked, chunked"), BAD),
        case("twice in two lines", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), BAD),
        case("identity", te(" identity"), BAD),
        case("identity first", te(" identity, chunked"), BAD),
        case("identity last", te(" chunked, identity"), BAD),
        case("identity in another line", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), BAD),
        case("identity in the line before", coded("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"), BAD),
        case("gzip first", te(" gzip, chunked"), BAD),
        case("gzip alone", te(" gzip"), BAD),
        case("unknown", te(" xchunked"), BAD),
        case("cut short", te(" chunke"), BAD),
        case("with a parameter", te(" chunked;q=1"), BAD),
        case("quoted", te(" \"chunked\""), BAD),
        case("single quotes", te(" 'chunked'"), BAD),
        case("empty", te(""), BAD),
        case("comma behind", te(" chunked,"), BAD),
        case("comma in front", te(" ,chunked"), BAD),
        case("space in it", te(" chun ked"), BAD),
        case("vertical tab", te(" \x0bchunked"), BAD),
        case("form feed behind", te(" chunked\x0c"), BAD),
        case("NUL behind", te(" chunked\0"), BAD),
        case("no-break space", te(" \u{a0}chunked"), BAD),
        case("bare CR in front", te(" \rchunked"), BAD),
        case("bare CR behind", te(" chunked\r"), BAD),
        case("folded", te("\r\n chunked"), BAD),
        case("folded behind", te(" chunked\r\n , identity"), BAD),
        case("as a folded line", coded("X: y\r\n Transfer-Encoding: chunked"), BAD),
        case("space before the colon", coded("Transfer-Encoding : chunked"), BAD),
        case("tab before the colon", coded("Transfer-Encoding\t: chunked"), BAD),
        case("NUL in the name", coded("Transfer-\0Encoding: chunked"), BAD),
        case("behind a bare CR", coded("X: y\rTransfer-Encoding: chunked"), BAD),
        case("behind a bare LF", coded("X: y\nTransfer-Encoding: chunked"), BAD),
        case("in HTTP/1.0", te(" chunked").replace("HTTP/1.1", "HTTP/1.0"), BAD),
        case("capitals", te(" CHUNKED"), abc),
        case("spaces around", te(" \tchunked\t "), abc),
        case("without a space", te("chunked"), abc),
        case("capitals in the name", coded("TRANSFER-encoding: chunked"), abc),
        case("listed by Connection", coded("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked"), abc),
        case("with GET", te(" chunked").replace("POST", "GET"), abc),
    ])
    .await;
}

#[tokio::test]
async fn chunks_are_read_strictly() {
    let behind = "0\r\n\r\n";
    let size = |size: &str| chunks(&format!("{size}\r\nabcde\r\n{behind}"));
    assert_fates(vec![
        case("minus", size("-5"), BAD),
        case("plus", size("+5"), BAD),
        case("space in front", size(" 5"), BAD),
        case("space behind", size("5 "), BAD),
        case("tab behind", size("5\t"), BAD),
        case("marked as hexadecimal", size("0x5"), BAD),
        case("underscore", size("0_5"), BAD),
        case("no size", size(""), BAD),
        case("no size but an extension", size(";x"), BAD),
        case("no hexadecimal digit", size("g"), BAD),
        case("sixteen digits", size("ffffffffffffffff"), BAD),
        case("seventeen digits", size("10000000000000005"), BAD),
        case("many zeros", size(&format!("{}5", "0".repeat(16))), BAD),
        case("LF alone behind the size", chunks("5\nabcde\r\n0\r\n\r\n"), BAD),
        case("CR alone behind the size", chunks("5\rabcde\r\n0\r\n\r\n"), BAD),
        case("CR twice behind the size", chunks("5\r\r\nabcde\r\n0\r\n\r\n"), BAD),
        case("LF in an extension", size("5;x\ny"), BAD),
        case("CR in an extension", size("5;x\ry"), BAD),
        case("NUL in an extension", size("5;x\0"), BAD),
        case("an extension that is too long", size(&format!("5;{}", "x".repeat(300))), BAD),
        case("nothing behind the data", chunks("5\r\nabcde0\r\n\r\n"), BAD),
        case("LF alone behind the data", chunks("5\r\nabcde\n0\r\n\r\n"), BAD),
        case("CR alone behind the data", chunks("5\r\nabcde\r0\r\n\r\n"), BAD),
        case("more data than the size says", chunks("3\r\nabcde\r\n0\r\n\r\n"), BAD),
        case("less data than the size says", chunks("7\r\nabcde\r\n0\r\n\r\n"), BAD),
        case("LF alone behind the last", chunks("0\n\r\n"), BAD),
        case("LF alone at the end", chunks("0\r\n\n"), BAD),
        case("a request for a trailer", chunks("0\r\n"), BAD),
        case("a folded trailer", chunks("0\r\nA: b\r\n c\r\n\r\n"), BAD),
        case("a space before the colon of a trailer", chunks("0\r\nA : b\r\n\r\n"), BAD),
        case("a bare LF in a trailer", chunks("0\r\nA: b\nC: d\r\n\r\n"), BAD),
        case("NUL in a trailer", chunks("0\r\nA: \0\r\n\r\n"), BAD),
        case("too large a trailer", chunks(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(20_000))), Fate::Refused(431)),
        case("too many trailers", chunks(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(200))), Fate::Refused(431)),
        case("many sizes of no data", chunks("00\r\n\r\n"), Fate::Forwarded("")),
        case("capitals", chunks("A\r\n0123456789\r\n0\r\n\r\n"), Fate::Forwarded("0123456789")),
        case("fifteen digits", size(&format!("{}5", "0".repeat(14))), Fate::Forwarded("abcde")),
        case("an extension", size("5;a=b;c=\"d e\" ;f"), Fate::Forwarded("abcde")),
        case(
            "trailers that frame",
            chunks("0\r\nContent-Length: 50\r\nTransfer-Encoding: x\r\n\r\n"),
            Fate::Forwarded(""),
        ),
        case("what follows is another body's", chunks("5\r\nGET /\r\n0\r\n\r\n"), Fate::Forwarded("GET /")),
    ])
    .await;
}

#[tokio::test]
async fn a_request_whose_chunks_go_bad_on_the_way_breaks_off_at_the_server() {
    let stand = Stand::new().await;
    let instance = Instance::start(&serving(&[stand.address], "", "")).await;
    for bad in ["zz\r\n", "-1\r\n", "5 \r\n", "0\r\nA : b\r\n\r\n", "1\r\nxy\r\n"] {
        let mut client = Client::of(&instance).await;
        client.send(chunks("4\r\ngood\r\n")).await;
        let mut server = stand.visit().await;
        let mut request = server.head().await.unwrap().unwrap();
        assert_eq!(server.chunk().await.unwrap(), b"good");
        client.send([bad, SMUGGLED].concat()).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (400, "bad_request"), "{bad}");
        client.ends().await;
        server.body(&mut request).await.unwrap_err();
    }
}
