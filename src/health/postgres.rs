//! The `postgres` check: PostgreSQL is asked whether it takes clients, and with a user whether it is primary or replica
//! (PostgreSQL's documentation, "Frontend/Backend Protocol").

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Header, Message};
use postgres_protocol::message::frontend;
use tokio::time::Instant;

use super::Account;
use super::probe::{Problem, Seen};
use super::reach::{Opened, Reach, within};
use crate::backend::Role;
use crate::logging::{told, words};
use crate::net::dial::First;
use crate::units::Secret;

/// What is offered by ALPN where TLS is spoken.
pub(super) const OFFERS: &[&[u8]] = &[b"postgresql"];
/// The most bytes of a message of the server's.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// The most messages before the one that is waited for; a server tells some twenty of its parameters first.
const MOST_MESSAGES: usize = 1000;
/// Who asks when nobody is named. Nobody has to know it.
const ANYBODY: &str = "portreeve";
/// What a server answers with that takes nobody for now: it starts, it stops (`cannot_connect_now`, `admin_shutdown`,
/// `crash_shutdown`), or it is full (`too_many_connections`).
const NOT_NOW: &[&str] = &["57P03", "57P01", "57P02", "53300"];
/// The characters of each such code (SQLSTATE).
const LENGTH_OF_CODE: usize = 5;
/// What is said of a server that answers with something else.
const STRANGER: &str = "it does not speak PostgreSQL";
/// What is asked.
const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// Probes once.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(account: Option<&Account>, reach: &Reach, until: Instant) -> Result<Seen, Problem> {
    let mut opened = reach.open(First::Us, until).await?;
    if reach.upgrades() {
        within(until, ask_for_tls(&mut opened)).await?;
        opened = reach.upgrade(opened, until).await?;
    }
    let mut talk = Talk { opened, heard: BytesMut::new(), left: MOST_MESSAGES };
    let seen = within(until, async {
        match account {
            None => talk.knock().await,
            Some(account) => talk.ask(account, reach.is_private()).await,
        }
    });
    let seen = seen.await?;
    talk.opened.close(until).await;
    Ok(seen)
}

/// Asks whether TLS may begin (PostgreSQL's documentation, "SSL Session Encryption").
async fn ask_for_tls(opened: &mut Opened) -> Result<(), String> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    opened.say(&request).await?;
    let mut answer = Vec::new();
    opened.hear_up_to(&mut answer, 1).await?;
    match answer.as_slice() {
        b"S" => Ok(()),
        b"N" => Err("it does not speak TLS".to_owned()),
        // Of a server that cannot even say so, in words that nobody vouches for.
        b"E" => Err("it answers the request for TLS with an error".to_owned()),
        _ => Err(STRANGER.to_owned()),
    }
}

struct Talk {
    opened: Opened,
    heard: BytesMut,
    /// How many messages more are listened to.
    left: usize,
}

#[allow(clippy::wildcard_enum_match_arm, reason = "of thirty messages that a server has, a few mean something here")]
impl Talk {
    /// Asks for nothing but an answer. Like pg_isready(1): that somebody is not let in is a good sign.
    async fn knock(&mut self) -> Result<Seen, String> {
        self.begin(ANYBODY, "postgres").await?;
        match self.next().await? {
            Message::ErrorResponse(body) => {
                let (code, words) = refusal(&body);
                if code.len() != LENGTH_OF_CODE {
                    return Err(STRANGER.to_owned());
                }
                if NOT_NOW.contains(&code.as_str()) { Err(words) } else { Ok(Seen::default()) }
            }
            Message::AuthenticationOk
            | Message::AuthenticationCleartextPassword
            | Message::AuthenticationMd5Password(_)
            | Message::AuthenticationSasl(_)
            | Message::AuthenticationGss
            | Message::AuthenticationSspi
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential => Ok(Seen::default()),
            _ => Err(STRANGER.to_owned()),
        }
    }

    /// Logs in and asks which of the two it is.
    async fn ask(&mut self, account: &Account, is_private: bool) -> Result<Seen, String> {
        self.begin(&account.user, account.database.as_deref().unwrap_or("postgres")).await?;
        self.authenticate(account, is_private).await?;
        self.send(|out| frontend::query(QUESTION, out)).await?;
        let mut role = None;
        loop {
            match self.next().await? {
                Message::DataRow(body) => role = role_in(body.buffer()),
                Message::ErrorResponse(body) => return Err(refusal(&body).1),
                // The first is for the login.
                Message::ReadyForQuery(_) if role.is_some() => break,
                Message::CommandComplete(_) if role.is_none() => {
                    return Err("it does not say whether it is primary or replica".to_owned());
                }
                _ => {}
            }
        }
        self.send(|out| {
            frontend::terminate(out);
            Ok(())
        })
        .await?;
        Ok(Seen { role, ..Seen::default() })
    }

    async fn begin(&mut self, user: &str, database: &str) -> Result<(), String> {
        let parameters = [("user", user), ("database", database), ("application_name", "portreeve")];
        self.send(|out| frontend::startup_message(parameters, out)).await
    }

    async fn authenticate(&mut self, account: &Account, is_private: bool) -> Result<(), String> {
        const UNKNOWN: &str = "it asks for a kind of authentication that checks do not have";
        let password = || account.password.as_ref().ok_or_else(|| "it asks for a password".to_owned());
        loop {
            match self.next().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword if is_private => {
                    let password = password()?;
                    self.send(|out| frontend::password_message(password.expose(), out)).await?;
                }
                Message::AuthenticationCleartextPassword => {
                    return Err("it asks for the password in the clear, which takes tls that is verified".to_owned());
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(account.user.as_bytes(), password()?.expose(), body.salt());
                    self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                Message::AuthenticationSasl(_) => self.scram(password()?).await?,
                Message::ErrorResponse(body) => return Err(refusal(&body).1),
                _ => return Err(UNKNOWN.to_owned()),
            }
        }
    }

    /// SCRAM-SHA-256 (RFC 7677), by which the server proves too that it knows the password.
    async fn scram(&mut self, password: &Secret) -> Result<(), String> {
        let mut scram = ScramSha256::new(password.expose(), ChannelBinding::unsupported());
        self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out)).await?;
        let challenge = match self.next().await? {
            Message::AuthenticationSaslContinue(body) => body.data().to_vec(),
            Message::ErrorResponse(body) => return Err(refusal(&body).1),
            _ => return Err("it does not speak SCRAM-SHA-256".to_owned()),
        };
        // It takes a while, since a server may ask for up to 100 000 rounds of it, and other checks go on meanwhile.
        let hashed = tokio::task::spawn_blocking(move || scram.update(&challenge).map(|()| scram)).await;
        let mut scram = hashed.map_err(|error| words(&error))?.map_err(|error| words(&error))?;
        self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
        match self.next().await? {
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(|error| words(&error)),
            Message::ErrorResponse(body) => Err(refusal(&body).1),
            _ => Err("it does not speak SCRAM-SHA-256".to_owned()),
        }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<(), String> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|error| words(&error))?;
        self.opened.say(&out).await
    }

    /// The next message.
    async fn next(&mut self) -> Result<Message, String> {
        self.left = self.left.checked_sub(1).ok_or("it does not come to the point")?;
        loop {
            // The length is looked at before the parser makes room for it.
            if let Some(header) = Header::parse(&self.heard).map_err(|error| words(&error))? {
                let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
                if length > LONGEST_MESSAGE {
                    return Err(format!("it sends a message of {length} bytes, or does not speak PostgreSQL"));
                }
                if let Some(message) = Message::parse(&mut self.heard).map_err(|error| words(&error))? {
                    return Ok(message);
                }
            }
            let mut more = Vec::new();
            if !self.opened.hear(&mut more, LONGEST_MESSAGE).await? {
                return Err("the server closed the connection".to_owned());
            }
            self.heard.extend_from_slice(&more);
        }
    }
}

/// The code and the words of a refusal (PostgreSQL's documentation, "Error and Notice Message Fields").
fn refusal(body: &ErrorResponseBody) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        match field.type_() {
            b'C' => code = told(field.value_bytes()),
            b'M' => message = told(field.value_bytes()),
            _ => {}
        }
    }
    let words = format!("{message} ({code})");
    (code, words)
}

/// What a row of one truth value says: its length, and `t` or `f`.
fn role_in(row: &[u8]) -> Option<Role> {
    match row {
        [0, 0, 0, 1, b't'] => Some(Role::Replica),
        [0, 0, 0, 1, b'f'] => Some(Role::Primary),
        _ => None,
    }
}
