//! How long a body is (RFC 9112 §6), decided once and strictly: of two lengths, none is believed.

use super::head::{Fields, Known};
use super::line::Fault;
use super::version::Version;

/// How long a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    #[default]
    None,
    /// This many bytes.
    Exactly(u64),
    /// It comes in chunks, or in frames of HTTP/2, and says when it is over.
    Unknown,
    /// It lasts until the connection is closed.
    UntilClose,
}

impl Length {
    /// How many bytes there are, if that is known.
    #[must_use]
    pub const fn known(self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Exactly(bytes) => Some(bytes),
            Self::Unknown | Self::UntilClose => None,
        }
    }

    /// Whether there is no byte of it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Exactly(0))
    }
}

/// The length of a request's body.
///
/// # Errors
/// When two readers could disagree on it.
pub fn of_request(fields: &Fields, version: Version) -> Result<Length, Fault> {
    Ok(declared(fields, version)?.unwrap_or(Length::None))
}

/// The length of the body of a response with this status to a request, be that for the head alone.
///
/// # Errors
/// When two readers could disagree on it.
pub fn of_response(fields: &Fields, version: Version, status: u16, to_head: bool) -> Result<Length, Fault> {
    let declared = declared(fields, version)?;
    if to_head || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Length::None);
    }
    Ok(declared.unwrap_or(Length::UntilClose))
}

fn declared(fields: &Fields, version: Version) -> Result<Option<Length>, Fault> {
    let mut codings = fields.values(Known::TransferEncoding);
    let coding = codings.next();
    let length = content_length(fields)?;
    match coding {
        None => Ok(length.map(Length::Exactly)),
        Some(_) if length.is_some() => Err(Fault::Malformed("it has both Content-Length and Transfer-Encoding")),
        Some(_) if version == Version::Http10 => Err(Fault::Malformed("it has Transfer-Encoding in HTTP/1.0")),
        Some(coding) if codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Some(Length::Unknown))
        }
        Some(_) => Err(Fault::Malformed("its Transfer-Encoding is not `chunked`")),
    }
}

/// What Content-Length says, if it is there.
///
/// # Errors
/// When it is there twice, even with the same number, or is no number.
pub fn content_length(fields: &Fields) -> Result<Option<u64>, Fault> {
    let mut lengths = fields.values(Known::ContentLength);
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Fault::Malformed("it has Content-Length twice"));
    }
    let number = Some(length).filter(|length| !length.is_empty()).and_then(number);
    number.map(Some).ok_or(Fault::Malformed("its Content-Length is not a number"))
}

/// A number in decimal, without a sign.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
