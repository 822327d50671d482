//! A stream with TLS on it as tokio's traits show it, against a server that is not ours.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream as Theirs;

use super::*;
use crate::net::address::ServerAddr;
use crate::net::dial::{First, dial};
use crate::relay::WireIo;

/// Both ends of a connection.
async fn pair() -> (WireIo<TlsStream<ToServer>>, Theirs<TcpStream>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let settings =
        ServerSettings::new(&ServerVerification::None, None, None, MinVersion::default(), Vec::new()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServerAddr::parse(&listener.local_addr().unwrap().to_string(), Path::new("/")).unwrap();
    let settings = settings.for_server(&address, None, false);
    let theirs = async {
        let (socket, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(config)).accept(socket).await.unwrap()
    };
    let ours = async {
        let socket = dial(&address, None, Duration::from_secs(5), First::Us).await.unwrap();
        connect(socket, Vec::new(), &settings, First::PerhapsServer).await.unwrap().0
    };
    let (ours, theirs) = tokio::join!(ours, theirs);
    (WireIo::new(*ours), theirs)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[tokio::test]
async fn records_that_are_larger_than_what_is_asked_for_are_handed_out_in_pieces() {
    let (mut ours, mut theirs) = pair().await;
    let sent = bytes(100_000);
    let sending = async {
        theirs.write_all(&sent).await.unwrap();
        theirs.shutdown().await.unwrap();
    };
    let reading = async {
        let mut heard = Vec::new();
        let mut piece = [0; 1000];
        loop {
            match ours.read(&mut piece).await.unwrap() {
                0 => return heard,
                n => heard.extend_from_slice(&piece[..n]),
            }
        }
    };
    let ((), heard) = tokio::join!(sending, reading);
    assert!(heard == sent, "{} bytes arrived", heard.len());
    assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    assert_eq!(ours.into_inner().kept.capacity(), 0);
}

#[tokio::test]
async fn what_was_not_asked_for_yet_is_not_lost_when_the_wire_is_taken_back() {
    let (mut ours, mut theirs) = pair().await;
    theirs.write_all(b"one and another").await.unwrap();
    theirs.flush().await.unwrap();
    let mut one = [0; 3];
    ours.read_exact(&mut one).await.unwrap();
    assert_eq!((&one, ours.into_inner().kept.as_slice()), (b"one", b" and another".as_slice()));
}

#[tokio::test]
async fn all_that_is_written_arrives_and_so_does_the_end() {
    let (mut ours, mut theirs) = pair().await;
    let sent = bytes(3_000_000);
    let sending = async {
        let (small, large) = sent.split_at(50_000);
        for piece in small.chunks(999) {
            let mut slices = [IoSlice::new(&piece[..9]), IoSlice::new(&[]), IoSlice::new(&piece[9..])];
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                let written = ours.write_vectored(rest).await.unwrap();
                IoSlice::advance_slices(&mut rest, written);
            }
        }
        ours.write_all(large).await.unwrap();
        ours.flush().await.unwrap();
        ours.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let ((), read) = tokio::join!(sending, theirs.read_to_end(&mut heard));
    read.unwrap();
    assert!(heard == sent, "{} bytes arrived", heard.len());
    // Whoever has said all there is to say still listens.
    theirs.write_all(b"an answer").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut answer = String::new();
    ours.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "an answer");
}

#[tokio::test]
async fn a_connection_that_is_closed_without_a_word_is_no_end() {
    let (mut ours, mut theirs) = pair().await;
    theirs.write_all(b"half of it").await.unwrap();
    theirs.flush().await.unwrap();
    let (socket, _) = theirs.into_inner();
    drop(socket);
    let mut heard = Vec::new();
    let error = ours.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!((heard.as_slice(), error.kind()), (b"half of it".as_slice(), ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn what_cannot_be_decrypted_is_an_error_behind_what_can() {
    let (mut ours, mut theirs) = pair().await;
    theirs.write_all(b"sound").await.unwrap();
    theirs.flush().await.unwrap();
    let (mut socket, _) = theirs.into_inner();
    socket
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        .await
        .unwrap();
    let mut heard = Vec::new();
    let error = ours.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!((heard.as_slice(), error.kind()), (b"sound".as_slice(), ErrorKind::InvalidData));
    assert_eq!(ours.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::InvalidData);
}
