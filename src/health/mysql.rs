//! The `mysql` check: MySQL or MariaDB is asked whether it takes clients, and with a user whether it is primary or replica,
//! which is whether it can be written to (MySQL's "Client/Server Protocol", MariaDB's "Clients & Utilities").

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use tokio::time::Instant;

use super::Account;
use super::probe::{Problem, Seen};
use super::reach::{Opened, Reach, within};
use crate::backend::Role;
use crate::logging::told;
use crate::net::dial::First;

/// The most bytes of a packet of the server's.
const LONGEST_PACKET: usize = 64 * 1024;
/// The most packets of an answer; it has five.
const MOST_PACKETS: usize = 16;
/// What we can: long passwords, the newer protocol and its authentication, kinds of it that can be chosen
/// (`CLIENT_LONG_PASSWORD`, `CLIENT_PROTOCOL_41`, `CLIENT_SECURE_CONNECTION`, `CLIENT_PLUGIN_AUTH`).
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x8000 | 0x8_0000;
/// That TLS is spoken (`CLIENT_SSL`).
const TLS: u32 = 0x800;
/// That a database is named (`CLIENT_CONNECT_WITH_DB`).
const WITH_DATABASE: u32 = 0x8;
/// utf8mb4 with the collation that both know.
const CHARACTERS: u8 = 45;
/// The kinds of authentication there are.
const NATIVE: &str = "mysql_native_password";
const CACHING: &str = "caching_sha2_password";
const CLEAR: &str = "mysql_clear_password";
/// What is asked. It is on at replicas that are kept from being written to, and off at a primary.
const QUESTION: &[u8] = b"\x03SELECT @@global.read_only";
/// The first byte of an answer that is a success, more of the authentication, an end, or an error.
const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// Probes once.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(account: Option<&Account>, reach: &Reach, until: Instant) -> Result<Seen, Problem> {
    let capabilities = CAPABILITIES | if reach.upgrades() { TLS } else { 0 };
    let opened = reach.open(First::PerhapsServer, until).await?;
    let mut talk = Talk { opened, number: 0, capabilities };
    let greeting = within(until, async {
        let greeting = talk.next().await?;
        let greeting = Greeting::read(&greeting)?;
        if reach.upgrades() {
            if !greeting.speaks_tls {
                return Err("it does not speak TLS".to_owned());
            }
            // Behind it TLS begins (`SSLRequest`).
            talk.send(&beginning(capabilities)).await?;
        }
        Ok(greeting)
    });
    let greeting = greeting.await?;
    if reach.upgrades() {
        talk.opened = reach.upgrade(talk.opened, until).await?;
    }
    let seen = within(until, async {
        match account {
            None => Ok(Seen::default()),
            Some(account) => talk.ask(&greeting, account, reach.is_private()).await,
        }
    });
    let seen = seen.await?;
    talk.opened.close(until).await;
    Ok(seen)
}

/// What a server begins with.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    /// What the password is mixed with.
    salt: Vec<u8>,
    /// The kind of authentication it would like.
    method: String,
    speaks_tls: bool,
}

impl Greeting {
    fn read(packet: &[u8]) -> Result<Self, String> {
        refused(packet)?;
        let read = || {
            let rest = packet.strip_prefix(&[10])?;
            let (_version, rest) = text(rest)?;
            let (salt, rest) = rest.get(4..)?.split_at_checked(8)?;
            // A filler, half of what it can, the character set, its status, the other half, the length of all the salt, ten
            // bytes that mean nothing: of MariaDB, some of those say what else it can.
            let (can, rest) = rest.get(1..)?.split_first_chunk::<2>()?;
            let speaks_tls = u32::from(u16::from_le_bytes(*can)) & TLS != 0;
            let rest = rest.get(1 + 2 + 2..)?;
            let (length, rest) = rest.split_first()?;
            let more = usize::from(*length).saturating_sub(8).max(13);
            let (second, rest) = rest.get(10..)?.split_at_checked(more)?;
            let method = text(rest).map_or(rest, |(method, _)| method);
            let salt = [salt, second.strip_suffix(&[0]).unwrap_or(second)].concat();
            Some(Self { salt, method: String::from_utf8_lossy(method).into_owned(), speaks_tls })
        };
        read().ok_or_else(|| "it does not speak MySQL".to_owned())
    }
}

/// A text up to the zero byte that ends it, and what follows.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// An error that the server sends in place of what was asked for: a number, perhaps `#` and five characters, and words.
fn refused(packet: &[u8]) -> Result<(), String> {
    let Some([low, high, rest @ ..]) = packet.strip_prefix(&[ERROR]) else { return Ok(()) };
    let words = rest.strip_prefix(b"#").and_then(|rest| rest.get(5..)).unwrap_or(rest);
    Err(format!("{} ({})", told(words), u16::from_le_bytes([*low, *high])))
}

struct Talk {
    opened: Opened,
    /// Of the next packet.
    number: u8,
    /// What the server is told that we can, but for naming a database.
    capabilities: u32,
}

impl Talk {
    /// Logs in and asks which of the two it is.
    async fn ask(&mut self, greeting: &Greeting, account: &Account, is_private: bool) -> Result<Seen, String> {
        self.log_in(greeting, account, is_private).await?;
        self.number = 0;
        self.send(QUESTION).await?;
        let role = self.role().await?;
        self.number = 0;
        // COM_QUIT
        self.send(&[1]).await?;
        Ok(Seen { role: Some(role), ..Seen::default() })
    }

    async fn log_in(&mut self, greeting: &Greeting, account: &Account, is_private: bool) -> Result<(), String> {
        let password = account.password.as_ref().map(crate::units::Secret::expose).unwrap_or_default();
        // One that is not known here is asked to choose another.
        let method = if greeting.method == CACHING { CACHING } else { NATIVE };
        let proof = proof(method, password, &greeting.salt).unwrap_or_default();
        let login = self.login(account, method, &proof);
        self.send(&login).await?;
        for _ in 0..MOST_PACKETS {
            let packet = self.next().await?;
            refused(&packet)?;
            match packet.as_slice() {
                [OK, ..] => return Ok(()),
                // AuthSwitchRequest
                [END, rest @ ..] => {
                    let (method, rest) = text(rest).ok_or("it asks for an older authentication than checks have")?;
                    let salt = rest.strip_suffix(&[0]).unwrap_or(rest);
                    let method = String::from_utf8_lossy(method);
                    let answer = match proof_of(&method, password, salt, is_private) {
                        Some(proof) => proof?,
                        None => {
                            return Err(format!("it asks for {}, which checks do not have", told(method.as_bytes())));
                        }
                    };
                    self.send(&answer).await?;
                }
                // Of CACHING: it knows the user, and all is well.
                [MORE, 3] => {}
                // It does not, and has to see the password itself once.
                [MORE, 4] if is_private => self.send(&[password, &[0]].concat()).await?,
                [MORE, 4] => return Err(IN_THE_CLEAR.to_owned()),
                _ => return Err("it does not speak MySQL".to_owned()),
            }
        }
        Err("it does not come to the point".to_owned())
    }

    /// The one value of the one row of an answer, after the number of columns, the column and an end.
    async fn role(&mut self) -> Result<Role, String> {
        let mut ends = 0;
        for _ in 0..MOST_PACKETS {
            let packet = self.next().await?;
            refused(&packet)?;
            match packet.as_slice() {
                [END, ..] if packet.len() < 9 => ends += 1,
                [length, value @ ..] if ends == 1 && usize::from(*length) == value.len() => {
                    // The end of the rows.
                    self.next().await?;
                    return Ok(if matches!(value, b"0" | b"OFF") { Role::Primary } else { Role::Replica });
                }
                _ if ends == 0 => {}
                _ => break,
            }
        }
        Err("it does not say whether it is read-only".to_owned())
    }

    /// The answer to a greeting (`HandshakeResponse41`).
    fn login(&self, account: &Account, method: &str, proof: &[u8]) -> Vec<u8> {
        let with_database = if account.database.is_some() { WITH_DATABASE } else { 0 };
        let mut out = beginning(self.capabilities | with_database);
        out.extend_from_slice(account.user.as_bytes());
        out.push(0);
        out.push(u8::try_from(proof.len()).unwrap_or_default());
        out.extend_from_slice(proof);
        if let Some(database) = &account.database {
            out.extend_from_slice(database.as_bytes());
            out.push(0);
        }
        out.extend_from_slice(method.as_bytes());
        out.push(0);
        out
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        let [a, b, c, _] = length;
        let packet = [&[a, b, c, self.number], payload].concat();
        self.number = self.number.wrapping_add(1);
        self.opened.say(&packet).await
    }

    /// The next packet, without its head.
    async fn next(&mut self) -> Result<Vec<u8>, String> {
        let mut head = Vec::new();
        self.opened.hear_up_to(&mut head, 4).await?;
        let &[a, b, c, number] = head.as_slice() else { return Err("it does not speak MySQL".to_owned()) };
        let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(usize::MAX);
        if length == 0 || length > LONGEST_PACKET {
            return Err(format!("it sends a packet of {length} bytes, or does not speak MySQL"));
        }
        self.number = number.wrapping_add(1);
        let mut payload = Vec::new();
        self.opened.hear_up_to(&mut payload, length).await?;
        Ok(payload)
    }
}

/// What the answer to a greeting begins with, and a request for TLS is.
fn beginning(capabilities: u32) -> Vec<u8> {
    let most = u32::try_from(LONGEST_PACKET).unwrap_or_default().to_le_bytes();
    [&capabilities.to_le_bytes()[..], &most, &[CHARACTERS], &[0; 23]].concat()
}

/// What is said of a server that wants to see the password.
const IN_THE_CLEAR: &str = "it asks for the password in the clear, which takes tls that is verified";

/// The same for the kinds that show the password, which is for private connections alone.
fn proof_of(method: &str, password: &[u8], salt: &[u8], is_private: bool) -> Option<Result<Vec<u8>, String>> {
    if method != CLEAR {
        return proof(method, password, salt).map(Ok);
    }
    Some(if is_private { Ok([password, &[0]].concat()) } else { Err(IN_THE_CLEAR.to_owned()) })
}

/// What proves that we know the password without showing it; nothing if the kind is not known here.
fn proof(method: &str, password: &[u8], salt: &[u8]) -> Option<Vec<u8>> {
    let (algorithm, salt_first) = match method {
        NATIVE => (&SHA1_FOR_LEGACY_USE_ONLY, true),
        CACHING => (&SHA256, false),
        _ => return None,
    };
    if password.is_empty() {
        return Some(Vec::new());
    }
    let once = digest(algorithm, password);
    let twice = digest(algorithm, once.as_ref());
    let mut mixed = Context::new(algorithm);
    let parts = if salt_first { [salt, twice.as_ref()] } else { [twice.as_ref(), salt] };
    parts.iter().for_each(|part| mixed.update(part));
    let mixed = mixed.finish();
    Some(once.as_ref().iter().zip(mixed.as_ref()).map(|(a, b)| a ^ b).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What MariaDB 10.11 begins with.
    fn greeting() -> Vec<u8> {
        let mut packet = b"\x0a5.5.5-10.11.6-MariaDB\0\x05\0\0\0abcdefgh\0".to_vec();
        packet.extend_from_slice(&[0xfe, 0xf7, 45, 2, 0, 0xff, 0x81, 21, 0, 0, 0, 0, 0, 0, 0x1d, 0, 0, 0]);
        packet.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
        packet
    }

    #[test]
    fn a_greeting_has_a_salt_in_two_parts_and_a_kind_of_authentication() {
        let read = Greeting::read(&greeting()).unwrap();
        let salt = b"abcdefghijklmnopqrst".to_vec();
        assert_eq!(read, Greeting { salt, method: NATIVE.to_owned(), speaks_tls: false });
        let whole = greeting();
        for length in 0..whole.len() - NATIVE.len() - 1 {
            assert!(Greeting::read(&whole[..length]).is_err(), "{length}");
        }
        assert_eq!(Greeting::read(b"\xff\x69\x04Too many connections").unwrap_err(), "Too many connections (1129)");
        assert_eq!(refused(b"\xff\x15\x04#28000Access denied").unwrap_err(), "Access denied (1045)");
    }

    #[test]
    fn proofs_are_those_that_servers_reckon_with() {
        // Reckoned by the formulas of the protocol in another language.
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let salt = b"abcdefghijklmnopqrst";
        assert_eq!(hex(proof(NATIVE, b"secret", salt).unwrap()), "8817c50fa779daef010ee7577825b0847df9842e");
        assert_eq!(
            hex(proof(CACHING, b"secret", salt).unwrap()),
            "c76e2898612a4cf042c77fa8c4702c4c64c0c2c557c53c4d75595aaa6abae809"
        );
        assert_eq!(proof(NATIVE, b"", salt), Some(Vec::new()));
        assert_eq!(proof("client_ed25519", b"secret", salt), None);
    }
}
