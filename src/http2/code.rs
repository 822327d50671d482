//! Why a stream or a connection was given up (RFC 9113 §7).

/// An error code. Those without a name here are as good as [`Code::INTERNAL_ERROR`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($name:ident = $number:literal $doc:literal,)*) => {
        impl Code {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*

            /// What the RFC calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => stringify!($name),)*
                    _ => "unknown",
                }
            }
        }
    };
}

codes! {
    NO_ERROR = 0 "Nothing is wrong.",
    PROTOCOL_ERROR = 1 "The protocol was broken.",
    INTERNAL_ERROR = 2 "Something went wrong on this side.",
    FLOW_CONTROL_ERROR = 3 "More was sent than the window had room for.",
    SETTINGS_TIMEOUT = 4 "Settings were not acknowledged.",
    STREAM_CLOSED = 5 "A frame came on a stream that was closed.",
    FRAME_SIZE_ERROR = 6 "A frame had a size that it cannot have.",
    REFUSED_STREAM = 7 "The stream was not looked at.",
    CANCEL = 8 "The stream is of no more use.",
    COMPRESSION_ERROR = 9 "A header list could not be unpacked.",
    CONNECT_ERROR = 10 "The connection behind a CONNECT broke.",
    ENHANCE_YOUR_CALM = 11 "The other side asks too much.",
    INADEQUATE_SECURITY = 12 "The transport is not safe enough.",
    HTTP_1_1_REQUIRED = 13 "The request has to be made by HTTP/1.1.",
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}
