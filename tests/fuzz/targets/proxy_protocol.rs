//! A PROXY header never panics, takes no more bytes than there are, and is the same whatever follows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::net::proxy_protocol::{Verdict, parse};

fuzz_target!(|bytes: &[u8]| {
    let verdict = parse(bytes);
    match &verdict {
        Verdict::Header { length, .. } => assert!(*length <= bytes.len()),
        Verdict::NeedMore => return,
        Verdict::Absent | Verdict::Bad(_) => {}
    }
    assert_eq!(parse(&[bytes, b"and more"].concat()), verdict);
});
