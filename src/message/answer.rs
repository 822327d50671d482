//! What is answered here and not by a server: a status and the reason for it, in a form that the client takes.

use std::borrow::Cow;

use super::list;

/// An answer of ours, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Cow<'a, [u8]>,
}

/// The forms an answer can have; of equally welcome ones the first is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Html,
}

impl Form {
    const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Html];

    const fn media_type(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Text => (b"text", b"plain"),
            Self::Json => (b"application", b"json"),
            Self::Html => (b"text", b"html"),
        }
    }
}

/// Puts an answer together: in plain text, or as JSON or HTML where the values of `Accept` prefer that. The label is the
/// word of an ending or another one of ours; `page` is what is shown in place of our own page to those who prefer HTML.
#[must_use]
pub fn answer<'a, 'v>(
    status: u16,
    label: &'static str,
    accept: impl Iterator<Item = &'v [u8]>,
    page: Option<&'a [u8]>,
) -> Answer<'a> {
    let phrase = phrase(status);
    let space = if phrase.is_empty() { "" } else { " " };
    let made = |content_type, body: String| Answer { content_type, body: Cow::Owned(body.into_bytes()) };
    match (preferred(accept), page) {
        (Form::Text, _) => made("text/plain; charset=utf-8", format!("{status}{space}{phrase}: {label}\n")),
        (Form::Json, _) => made("application/json", format!("{{\"status\":{status},\"reason\":\"{label}\"}}\n")),
        (Form::Html, None) => made(
            "text/html; charset=utf-8",
            format!(
                "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{status}{space}{phrase}</title>\n\
                 <h1>{status}{space}{phrase}</h1>\n<p>{label}</p>\n</html>\n"
            ),
        ),
        // A page in another encoding says itself in which.
        (Form::Html, Some(page)) => Answer {
            content_type: if std::str::from_utf8(page).is_ok() { "text/html; charset=utf-8" } else { "text/html" },
            body: Cow::Borrowed(page),
        },
    }
}

/// How welcome a form is: its weight, how exactly the range that gave it that names it, and how early that range stands.
type Welcome = (u16, u8, std::cmp::Reverse<usize>);

/// The form that the values of `Accept` like best (RFC 9110 §12.5.1): of equal weight, one that is named goes before one that
/// only a wildcard allows, and what is named first before the rest. Ranges that cannot be read count for nothing. One who
/// accepts none of the forms gets plain text all the same, rather than no reason.
fn preferred<'v>(accept: impl Iterator<Item = &'v [u8]>) -> Form {
    let mut found: [Option<Welcome>; Form::ALL.len()] = [None; _];
    for (place, part) in accept.flat_map(list::parts).enumerate() {
        let Some((range, weight)) = list::weighted(part) else { continue };
        for (form, found) in Form::ALL.into_iter().zip(&mut found) {
            // The most exact range decides, whatever the weights.
            if let Some(exactness) = exactness(range, form.media_type())
                && found.is_none_or(|(_, before, _)| exactness > before)
            {
                *found = Some((weight, exactness, std::cmp::Reverse(place)));
            }
        }
    }
    let mut best = (Form::Text, None);
    for (form, found) in Form::ALL.into_iter().zip(found) {
        let found = found.filter(|(weight, ..)| *weight > 0);
        if found > best.1 {
            best = (form, found);
        }
    }
    best.0
}

/// How exactly a media range names a type: by itself, by `type/*`, by `*/*`, or not at all.
fn exactness(range: &[u8], (own, sub): (&[u8], &[u8])) -> Option<u8> {
    let slash = range.iter().position(|byte| *byte == b'/')?;
    let (range, rest) = range.split_at_checked(slash)?;
    match rest.get(1..)? {
        b"*" if range == b"*" => Some(0),
        b"*" if range.eq_ignore_ascii_case(own) => Some(1),
        rest if range.eq_ignore_ascii_case(own) && rest.eq_ignore_ascii_case(sub) => Some(2),
        _ => None,
    }
}

/// The phrase for a status: those of RFC 9110 and the others that are registered; empty for the rest.
#[must_use]
pub const fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Form {
        preferred(accept.split('|').map(str::as_bytes))
    }

    #[test]
    fn one_who_says_nothing_or_takes_anything_gets_plain_text() {
        assert_eq!(preferred(std::iter::empty()), Form::Text);
        for accept in ["", "*/*", "text/*", "image/png, */*;q=0.1", "text/plain, text/html", "*/*;q=0", "image/webp"] {
            assert_eq!(form(accept), Form::Text, "{accept:?}");
        }
    }

    #[test]
    fn the_form_with_the_greatest_weight_is_taken() {
        for (accept, best) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Html),
            ("text/html;q=0.5, application/json;q=0.6", Form::Json),
            ("text/*;q=0.9, application/json;q=0.8", Form::Text),
            ("text/*;q=0.9, text/plain;q=0.1, application/json;q=0.8", Form::Html),
            ("text/plain;q=0, */*", Form::Json),
            ("image/png|TEXT/HTML", Form::Html),
            ("application/json; charset=utf-8", Form::Json),
        ] {
            assert_eq!(form(accept), best, "{accept}");
        }
    }

    #[test]
    fn of_equal_weights_what_is_named_counts_and_then_what_is_named_first() {
        assert_eq!(form("application/json, text/plain, */*"), Form::Json);
        assert_eq!(form("*/*, text/html"), Form::Html);
        assert_eq!(form("text/html, application/json"), Form::Html);
    }

    #[test]
    fn ranges_that_cannot_be_read_count_for_nothing() {
        for accept in ["text/html;q=2", "html", "/", "*/html", "text/html;q=", "text/html/x", ";q=1"] {
            assert_eq!(form(accept), Form::Text, "{accept:?}");
        }
    }

    #[test]
    fn an_answer_says_its_status_and_its_reason_in_every_form() {
        let body = |accept: &str, status| {
            let answer = answer(status, "no_server", [accept.as_bytes()].into_iter(), None);
            (answer.content_type, String::from_utf8(answer.body.into_owned()).unwrap())
        };
        assert_eq!(body("", 503), ("text/plain; charset=utf-8", "503 Service Unavailable: no_server\n".to_owned()));
        assert_eq!(body("", 599).1, "599: no_server\n");
        let (content_type, json) = body("application/json", 503);
        assert_eq!(content_type, "application/json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json, serde_json::json!({ "status": 503, "reason": "no_server" }));
        let (content_type, html) = body("text/html", 503);
        assert_eq!(content_type, "text/html; charset=utf-8");
        assert!(html.contains("<h1>503 Service Unavailable</h1>") && html.contains("no_server"));
    }

    #[test]
    fn a_page_of_the_operators_is_shown_to_those_who_prefer_html_alone() {
        let shown = |accept: &str, page| answer(502, "server_reset", [accept.as_bytes()].into_iter(), Some(page));
        let page = "<h1>Bald zurück</h1>".as_bytes();
        assert_eq!(
            shown("text/html", page),
            Answer { content_type: "text/html; charset=utf-8", body: Cow::Borrowed(page) }
        );
        assert_eq!(shown("text/html", b"zur\xfcck").content_type, "text/html");
        assert_eq!(&*shown("*/*", page).body, b"502 Bad Gateway: server_reset\n");
    }

    #[test]
    fn every_status_of_rfc_9110_has_its_phrase() {
        for status in (100..=101).chain(200..=206).chain(300..=305).chain(307..=308).chain(400..=417).chain(500..=505) {
            assert!(!phrase(status).is_empty(), "{status}");
        }
        assert_eq!((phrase(418), phrase(306), phrase(599)), ("", "", ""));
        assert_eq!(phrase(431), "Request Header Fields Too Large");
    }
}
