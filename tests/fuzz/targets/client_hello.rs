//! A ClientHello is the same whole and byte by byte, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::tls::hello::{Sniffed, Sniffer};

fuzz_target!(|bytes: &[u8]| {
    let whole = Sniffer::new().look(bytes);
    let mut sniffer = Sniffer::new();
    let mut piecewise = Sniffed::Incomplete;
    for end in 1..=bytes.len() {
        let now = sniffer.look(&bytes[..end]);
        assert!(piecewise == Sniffed::Incomplete || piecewise == now);
        piecewise = now;
    }
    assert_eq!(piecewise, whole);
});
