//! The host that a request names, as routes compare it.

use super::line::Fault;
use super::target::Authority;

/// The longest authority that is remembered: that of the longest name that there is, with a port.
const LONGEST: usize = 260;

/// The host and the port that a request names, if it names any.
///
/// Requests that follow one another mostly name the same host: the one that was taken apart last is not taken apart again.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    is_named: bool,
    /// What was taken apart last, if that was not long.
    text: Vec<u8>,
    /// In lower case, without port and closing dot.
    host: String,
    port: Option<u16>,
}

impl Named {
    /// Names none.
    pub(super) fn clear(&mut self) {
        self.is_named = false;
    }

    /// Names what this authority does.
    ///
    /// # Errors
    /// When it is no authority, or none that names a host; then none is named.
    pub(super) fn read(&mut self, authority: &[u8]) -> Result<(), Fault> {
        self.is_named = false;
        if authority.is_empty() || *self.text != *authority {
            self.text.clear();
            let parsed = Authority::parse(authority)?;
            parsed.write_host(&mut self.host);
            self.port = parsed.port;
            if authority.len() <= LONGEST {
                self.text.extend_from_slice(authority);
            }
        }
        self.is_named = true;
        Ok(())
    }

    /// The host in lower case, without port and closing dot; empty if none is named.
    pub(super) fn host(&self) -> &str {
        if self.is_named { &self.host } else { "" }
    }

    /// The port that is named with it.
    pub(super) fn port(&self) -> Option<u16> {
        self.port.filter(|_| self.is_named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_makes_no_difference() {
        let mut used = Named::default();
        let long = format!("{}.example:1", "a".repeat(300));
        let texts =
            ["A.example:1", "A.example:1", "", "a.example.", "bad host", "A.example:1", &long, &long, "[::1]:2"];
        for (text, next) in texts.iter().flat_map(|text| texts.iter().map(move |next| (text, next))) {
            for text in [text, next] {
                let mut fresh = Named::default();
                assert_eq!(used.read(text.as_bytes()), fresh.read(text.as_bytes()), "{text}");
                assert_eq!((used.host(), used.port()), (fresh.host(), fresh.port()), "{text}");
            }
            used.clear();
            assert_eq!((used.host(), used.port()), ("", None));
        }
    }
}
