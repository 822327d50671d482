//! The body of a message of HTTP/1 on its way in: where it ends, whatever arrives behind it.

use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::buffers::Inbound;
use super::exchange::Deed;
use crate::http2::head::SHORTER;
use crate::message::chunked::Decoder;
use crate::message::framing::Length;
use crate::message::head::Fields;
use crate::message::line::{self, Limits};
use crate::relay::{Broken, Wire};

/// How much of a body is still to come.
#[derive(Debug, Default)]
pub(super) enum Body {
    /// Nothing.
    #[default]
    Over,
    /// This many bytes.
    Exactly(u64),
    /// Chunks.
    Chunked(Decoder),
    /// Chunks that have all come.
    ChunksOver(Decoder),
    /// All until the connection is closed.
    UntilClose,
}

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many bytes of it stand at the front of the buffer.
    pub(super) bytes: usize,
    /// Whether it is over with them.
    pub(super) end: bool,
}

/// A piece of a body on its way out.
pub(super) struct Outgoing<'b> {
    /// Where it stands, with room around it for what makes it a chunk.
    pub(super) buffer: &'b mut [u8],
    pub(super) place: Range<usize>,
    /// Whether the body is over with it.
    pub(super) last: bool,
    /// What comes behind it then.
    pub(super) trailers: Option<&'b Fields>,
}

impl Outgoing<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.place.clone()).unwrap_or_default()
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.place.len()
    }
}

/// Why a body goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// The connection broke.
    Broken(Broken),
    /// The connection was closed in the middle of it.
    Cut,
    /// It is not what its framing says.
    Malformed(line::Fault),
    /// HTTP/2: its stream was given up, by either side, for what the other did.
    GivenUp(Deed),
}

impl BodyFault {
    /// What is wrong with it, where that is why.
    pub(super) const fn words(self) -> Option<&'static str> {
        match self {
            // No other fields come with a body.
            Self::Malformed(line::Fault::TooLarge) => Some("its trailers are too large"),
            Self::Malformed(line::Fault::TooMany) => Some("it has too many trailers"),
            Self::Malformed(fault) => Some(fault.words()),
            Self::Broken(_) | Self::Cut | Self::GivenUp(_) => None,
        }
    }

    /// What the other side did, where that says more than how the body ended.
    pub(super) fn deed(self) -> Option<Deed> {
        match self {
            Self::GivenUp(deed) => Some(deed),
            Self::Broken(_) | Self::Cut | Self::Malformed(_) => self.words().map(Deed::Wrong),
        }
    }
}

/// How much of a body has still to go out, if its head said how long it is. Whatever its sender does, no more goes out than
/// that: what the other side would take the rest for is the next message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due(Option<u64>);

impl Due {
    /// A body that its head says to be so long.
    pub(super) fn of(length: Length) -> Self {
        Self(length.known())
    }

    /// Whether something is known to be missing.
    pub(super) fn is_owed(self) -> bool {
        self.0.is_some_and(|left| left > 0)
    }

    /// So many bytes go out now; with `last`, nothing follows them.
    ///
    /// # Errors
    /// What is wrong with that: then they may not go out.
    pub(super) fn pay(&mut self, bytes: usize, last: bool) -> Result<(), &'static str> {
        let Some(left) = &mut self.0 else { return Ok(()) };
        *left = left.checked_sub(bytes as u64).ok_or("its body is longer than it says")?;
        if last && *left > 0 { Err(SHORTER) } else { Ok(()) }
    }
}

impl Body {
    /// A body of this length.
    pub(super) fn new(length: Length) -> Self {
        match length {
            Length::None | Length::Exactly(0) => Self::Over,
            Length::Exactly(bytes) => Self::Exactly(bytes),
            Length::Unknown => Self::Chunked(Decoder::default()),
            Length::UntilClose => Self::UntilClose,
        }
    }

    /// Whether all of it has come.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over | Self::ChunksOver(_))
    }

    /// How many bytes are still to come, where that is known; else none.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Exactly(left) => *left,
            Self::Over | Self::ChunksOver(_) | Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// So many bytes of it went another way.
    pub(super) fn passed(&mut self, bytes: u64) {
        if let Self::Exactly(left) = self {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                *self = Self::Over;
            }
        }
    }

    /// The trailer section, once it is over.
    pub(super) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::ChunksOver(decoder) => decoder.trailers(),
            Self::Over | Self::Exactly(_) | Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Reads more of it. What arrived behind it stays in `inbound`.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut impl Wire,
        inbound: &mut Inbound,
        buffer: &mut [u8],
        trailers: &Limits,
    ) -> Poll<Result<Piece, BodyFault>> {
        loop {
            if self.is_over() {
                return Poll::Ready(Ok(Piece { bytes: 0, end: true }));
            }
            let read = ready!(inbound.poll_read(cx, wire, buffer)).map_err(BodyFault::Broken)?;
            let until_close = matches!(self, Self::UntilClose);
            if read == 0 {
                *self = Self::Over;
                return Poll::Ready(if until_close { Ok(Piece { bytes: 0, end: true }) } else { Err(BodyFault::Cut) });
            }
            let arrived = buffer.get_mut(..read).unwrap_or_default();
            let (bytes, used) = match self {
                Self::Over | Self::ChunksOver(_) | Self::UntilClose => (read, read),
                Self::Exactly(left) => {
                    let own = usize::try_from(*left).unwrap_or(usize::MAX).min(read);
                    (own, own)
                }
                Self::Chunked(decoder) => {
                    let decoded = decoder.decode(arrived, trailers).map_err(BodyFault::Malformed)?;
                    inbound.unread(arrived.get(decoded.used..).unwrap_or_default());
                    if decoded.end {
                        *self = Self::ChunksOver(std::mem::take(decoder));
                    }
                    (decoded.data, read)
                }
            };
            inbound.unread(buffer.get(used..read).unwrap_or_default());
            self.passed(bytes as u64);
            // Of a chunk, perhaps no byte of data has arrived.
            if bytes > 0 || self.is_over() {
                return Poll::Ready(Ok(Piece { bytes, end: self.is_over() }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_and_no_less_goes_out_than_a_head_said() {
        let sent = |length, pieces: &[(usize, bool)]| {
            let mut due = Due::of(length);
            pieces.iter().try_for_each(|(bytes, last)| due.pay(*bytes, *last))
        };
        assert_eq!(sent(Length::None, &[(0, true)]), Ok(()));
        assert_eq!(sent(Length::Exactly(5), &[(2, false), (3, true)]), Ok(()));
        assert_eq!(sent(Length::Exactly(5), &[(5, false), (0, true)]), Ok(()));
        assert_eq!(sent(Length::Unknown, &[(5, false), (9, true)]), Ok(()));
        for (length, pieces) in [
            (Length::None, &[(1, false)][..]),
            (Length::Exactly(5), &[(6, true)]),
            (Length::Exactly(5), &[(5, false), (1, true)]),
        ] {
            assert_eq!(sent(length, pieces), Err("its body is longer than it says"));
        }
        assert_eq!(sent(Length::Exactly(5), &[(4, true)]), Err(SHORTER));
        assert_eq!(sent(Length::Exactly(5), &[(4, false), (0, true)]), Err(SHORTER));
    }
}
