//! The body of a message of HTTP/1 on its way in: where it ends, whatever arrives behind it.

use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::buffers::Inbound;
use crate::http2::Code;
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
    /// HTTP/2: the other side gave it up, or broke the protocol.
    Reset(Code),
}

impl BodyFault {
    /// What is wrong with it, where that is why.
    pub(super) const fn words(self) -> Option<&'static str> {
        match self {
            // No other fields come with a body.
            Self::Malformed(line::Fault::TooLarge) => Some("its trailers are too large"),
            Self::Malformed(line::Fault::TooMany) => Some("it has too many trailers"),
            Self::Malformed(fault) => Some(fault.words()),
            Self::Broken(_) | Self::Cut | Self::Reset(_) => None,
        }
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
