//! Many bytes: sending them, and telling whether they have arrived.

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::within;

/// A mebibyte.
pub const MIB: usize = 1024 * 1024;

/// Sends so many MiB, no two alike, and the end; returns their hash.
pub async fn pour(mut writer: impl AsyncWrite + Unpin, mebibytes: u64, seed: u64) -> [u8; 32] {
    let mut piece: Vec<u8> = (0..MIB).map(|place| (place % 251) as u8).collect();
    let mut hash = Sha256::new();
    for number in 0..mebibytes {
        piece[..16].copy_from_slice(&((u128::from(seed) << 64) + u128::from(number)).to_le_bytes());
        hash.update(&piece);
        within("a write", writer.write_all(&piece)).await.unwrap();
    }
    writer.shutdown().await.unwrap();
    hash.finalize().into()
}

/// Reads to the end, at most so many bytes at once; returns the hash of what came.
pub async fn swallow(mut reader: impl AsyncRead + Unpin, at_once: usize) -> [u8; 32] {
    let mut piece = vec![0; at_once];
    let mut hash = Sha256::new();
    while let read @ 1.. = within("a read", reader.read(&mut piece)).await.unwrap() {
        hash.update(&piece[..read]);
    }
    hash.finalize().into()
}

/// The most bytes that can be on their way from a server to a client that reads nothing: in the buffers of two connections
/// in a row, as large as the kernel lets them grow, and a pipe.
pub fn most_under_way() -> u64 {
    2 * (largest("tcp_rmem") + largest("tcp_wmem")) + MIB as u64
}

/// The most a buffer of a TCP socket may grow to (tcp(7)).
fn largest(setting: &str) -> u64 {
    let sizes = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{setting}")).unwrap();
    sizes.split_whitespace().last().unwrap().parse().unwrap()
}
