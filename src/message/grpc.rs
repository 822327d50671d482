//! What a proxy has to know of gRPC (grpc/doc/PROTOCOL-HTTP2.md): deadlines, statuses, and answers that its clients read.

use std::borrow::Cow;
use std::time::Duration;

/// The media type of gRPC.
const MEDIA_TYPE: &[u8] = b"application/grpc";

/// Whether a content type is one of gRPC: `application/grpc`, also with a `+proto` or parameters. That of gRPC-Web is
/// another.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let Some((media_type, rest)) = content_type.trim_ascii().split_at_checked(MEDIA_TYPE.len()) else { return false };
    media_type.eq_ignore_ascii_case(MEDIA_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// Reads `grpc-timeout`: one to eight digits and a unit.
#[must_use]
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Writes `grpc-timeout`, in the finest of three units that has room for it. Nothing left is a nanosecond, since the value
/// is never zero.
#[must_use]
pub fn format_timeout(left: Duration) -> String {
    const ROOM: u128 = 100_000_000;
    match (left.as_micros(), left.as_millis()) {
        (0, _) => "1n".to_owned(),
        (micros @ ..ROOM, _) => format!("{micros}u"),
        (_, millis @ ..ROOM) => format!("{millis}m"),
        _ => format!("{}S", u128::from(left.as_secs()).min(ROOM - 1)),
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $number:literal $label:literal,)*) => {
        /// The status of a call (grpc/doc/statuscodes.md).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code { $($(#[$doc])* $code,)* }

        impl Code {
            /// Every one there is, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for it in logs and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$code => $label,)* }
            }

            /// Its number, as `grpc-status` has it.
            #[must_use]
            pub const fn number(self) -> &'static str {
                match self { $(Self::$code => $number,)* }
            }

            /// Its place among all, which is its number.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// Reads `grpc-status`; what is no number of a code is unknown, as it is for clients.
            #[must_use]
            pub fn parse(value: &[u8]) -> Self {
                $(if value == $number.as_bytes() {
                    return Self::$code;
                })*
                Self::Unknown
            }
        }
    };
}

codes! {
    /// The call was a success.
    Ok = "0" "ok",
    /// The caller cancelled it.
    Cancelled = "1" "cancelled",
    /// Nothing better is known.
    Unknown = "2" "unknown",
    /// What the caller sent is wrong.
    InvalidArgument = "3" "invalid_argument",
    /// The deadline passed.
    DeadlineExceeded = "4" "deadline_exceeded",
    /// What was asked for is not there.
    NotFound = "5" "not_found",
    /// What was to be made is there.
    AlreadyExists = "6" "already_exists",
    /// The caller may not.
    PermissionDenied = "7" "permission_denied",
    /// Something has run out.
    ResourceExhausted = "8" "resource_exhausted",
    /// The state of things does not allow it.
    FailedPrecondition = "9" "failed_precondition",
    /// Another call came between.
    Aborted = "10" "aborted",
    /// It reaches beyond what there is.
    OutOfRange = "11" "out_of_range",
    /// There is no such method.
    Unimplemented = "12" "unimplemented",
    /// Something that always holds did not.
    Internal = "13" "internal",
    /// Not now; another try may succeed.
    Unavailable = "14" "unavailable",
    /// Data was lost for good.
    DataLoss = "15" "data_loss",
    /// The caller has not said who it is.
    Unauthenticated = "16" "unauthenticated",
}

impl Code {
    /// What a client takes an answer of HTTP for that has no `grpc-status` (grpc/doc/http-grpc-status-mapping.md).
    #[must_use]
    pub const fn of_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// The fields of an answer that has no body and ends with its head, which has the status 200 ("Trailers-Only").
#[must_use]
pub fn trailers_only(code: Code, message: &str) -> [(&'static str, Cow<'_, [u8]>); 3] {
    [
        ("content-type", Cow::Borrowed(MEDIA_TYPE)),
        ("grpc-status", Cow::Borrowed(code.number().as_bytes())),
        ("grpc-message", percent_encoded(message)),
    ]
}

/// The message with everything that is no visible ASCII or space, and the percent sign, as `%XX`.
fn percent_encoded(message: &str) -> Cow<'_, [u8]> {
    let stays = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'%';
    if message.as_bytes().iter().all(stays) {
        return Cow::Borrowed(message.as_bytes());
    }
    let mut encoded = Vec::with_capacity(message.len() * 3);
    for byte in message.bytes() {
        if stays(&byte) {
            encoded.push(byte);
        } else {
            let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' + value - 10 };
            encoded.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        for (value, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("00000006n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), Some(timeout), "{value}");
        }
        for value in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", "1 S", " 1S", "1SS", "+1S"] {
            assert_eq!(parse_timeout(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn what_is_left_of_a_timeout_is_written_as_exactly_as_there_is_room_for() {
        for (left, value) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(999), "1n"),
            (Duration::from_micros(1500), "1500u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(u64::MAX), "99999999S"),
        ] {
            assert_eq!(format_timeout(left), value);
            assert!(parse_timeout(value.as_bytes()).is_some());
        }
    }

    #[test]
    fn a_content_type_is_one_of_grpc_or_is_not() {
        for content_type in
            ["application/grpc", "application/grpc+proto", "Application/gRPC;a=b", "application/grpc ; a=b"]
        {
            assert!(is_grpc(content_type.as_bytes()), "{content_type}");
        }
        for content_type in
            ["", "application/grp", "application/grpc-web", "application/grpc-web+proto", "application/json"]
        {
            assert!(!is_grpc(content_type.as_bytes()), "{content_type:?}");
        }
    }

    #[test]
    fn every_code_has_its_number_and_its_own_word() {
        assert_eq!(Code::COUNT, 17);
        let mut labels = std::collections::HashSet::new();
        for (number, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.number(), number.to_string());
            assert_eq!(code.index(), number);
            assert_eq!(Code::parse(number.to_string().as_bytes()), *code);
            assert!(labels.insert(code.label()), "{} stands twice", code.label());
        }
        for value in ["", "17", "-1", "00", "ok", " 0"] {
            assert_eq!(Code::parse(value.as_bytes()), Code::Unknown, "{value:?}");
        }
    }

    #[test]
    fn an_answer_of_ours_has_the_code_that_clients_would_make_of_its_status() {
        for (status, code) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (408, Code::Unknown),
            (500, Code::Unknown),
            (200, Code::Unknown),
        ] {
            assert_eq!(Code::of_http(status), code, "{status}");
        }
    }

    #[test]
    fn a_message_is_percent_encoded_where_it_has_to_be() {
        let message = |text| {
            let [_, _, (name, value)] = trailers_only(Code::Unavailable, text);
            assert_eq!(name, "grpc-message");
            String::from_utf8(value.into_owned()).unwrap()
        };
        assert_eq!(message("no_server: try again"), "no_server: try again");
        assert_eq!(message("100% ü\r\n"), "100%25 %C3%BC%0D%0A");
        let [(_, content_type), (_, status), _] = trailers_only(Code::Unavailable, "");
        assert!(is_grpc(&content_type));
        assert_eq!(&*status, b"14");
    }
}
