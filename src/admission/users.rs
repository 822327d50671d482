//! Names and passwords, as a file of `htpasswd` has them.
//!
//! Only hashes that are slow on purpose are taken. Verifying one therefore takes from milliseconds to seconds, which is
//! nothing for a thread that has connections to serve: [`Users::check`] sees to that.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier};
use bcrypt::HashParts;

use super::basic::Gate;

/// The highest cost of bcrypt, about a second of work.
const MOST_BCRYPT_COST: u32 = 14;
/// The most memory for Argon2, in KiB.
const MOST_ARGON2_MEMORY: u32 = 256 * 1024;
/// The most passes of Argon2 over its memory.
const MOST_ARGON2_PASSES: u32 = 10;
/// The most lanes of Argon2.
const MOST_ARGON2_LANES: u32 = 64;
/// What a hash may be.
const SUPPORTED: &str =
    "bcrypt ($2y$, $2b$ or $2a$, as of \"htpasswd -B\") and Argon2 ($argon2id$ or $argon2i$) are supported";

/// The users of a file, each with the hash of a password. Clones share what they remember; two are equal if their files
/// say the same of users.
#[derive(Clone)]
pub struct Users {
    entries: Arc<Entries>,
    pub(super) gate: Arc<Gate>,
}

#[derive(PartialEq, Eq)]
struct Entries {
    users: HashMap<Arc<str>, Hash>,
    /// A hash of the file's first kind and cost, for the passwords of users that there are not.
    stand_in: Hash,
}

impl Users {
    /// Reads `name:hash` or `name:hash:comment` lines; empty ones and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// Names the first line that is wrong, and says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        let mut stand_in = None;
        for (line, number) in text.lines().map(str::trim).zip(1_usize..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = parse_line(line).map_err(|problem| format!("line {number}: {problem}"))?;
            stand_in.get_or_insert_with(|| hash.clone());
            if users.insert(Arc::from(name), hash).is_some() {
                return Err(format!("line {number}: \"{name}\" stands there before"));
            }
        }
        let stand_in =
            stand_in.ok_or("there is no user in it, so that nobody could ask; expected lines of \"name:hash\"")?;
        Ok(Self { entries: Arc::new(Entries { users, stand_in }), gate: Arc::new(Gate::new()) })
    }

    /// Whether this is the password of the user of this name. It takes as long as the hash is made to, for a name that
    /// nobody has as for one of the file's first kind: not for a thread that serves connections.
    #[must_use]
    pub fn verify(&self, name: &[u8], password: &[u8]) -> bool {
        self.verified(name, password).is_some()
    }

    /// The same, and the name if it is.
    pub(super) fn verified(&self, name: &[u8], password: &[u8]) -> Option<Arc<str>> {
        let user = std::str::from_utf8(name).ok().and_then(|name| self.entries.users.get_key_value(name));
        match user {
            Some((name, hash)) => hash.is_of(password).then(|| Arc::clone(name)),
            None => {
                let _as_slow = std::hint::black_box(self.entries.stand_in.is_of(password));
                None
            }
        }
    }
}

impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for Users {}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.entries.users.len())
    }
}

/// The hash of a password.
#[derive(Clone, PartialEq, Eq)]
enum Hash {
    /// As its text, which is one of bcrypt.
    Bcrypt(Box<str>),
    Argon2(Box<PasswordHash>),
}

impl Hash {
    fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            // Its parameters are those of the hash, whatever the defaults are.
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
        }
    }
}

fn parse_line(line: &str) -> Result<(&str, Hash), String> {
    let (name, rest) = line.split_once(':').ok_or("expected \"name:hash\"; the colon is missing")?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("expected \"name:hash\"; a name is not empty and has no control characters".to_owned());
    }
    let text = rest.split(':').next().unwrap_or(rest).trim_end();
    let hash = match text.split('$').nth(1) {
        Some("2y" | "2b" | "2a") => parse_bcrypt(text),
        Some("argon2id" | "argon2i") => parse_argon2(text),
        _ => Err(format!("its password is {}; {SUPPORTED}", kind(text))),
    };
    Ok((name, hash.map_err(|problem| format!("user \"{name}\": {problem}"))?))
}

fn parse_bcrypt(text: &str) -> Result<Hash, String> {
    let parts = text.parse::<HashParts>().map_err(|_| "its hash looks like bcrypt and is none".to_owned())?;
    match parts.get_cost() {
        4..=MOST_BCRYPT_COST => Ok(Hash::Bcrypt(text.into())),
        cost => Err(format!("its hash has a cost of {cost}; from 4 to {MOST_BCRYPT_COST} are supported")),
    }
}

fn parse_argon2(text: &str) -> Result<Hash, String> {
    let read = || {
        let hash = PasswordHash::new(text).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let whole = hash.salt.as_ref().is_some_and(|salt| salt.len() >= argon2::MIN_SALT_LEN) && hash.hash.is_some();
        let version = hash.version.is_none_or(|version| argon2::Version::try_from(version).is_ok());
        (whole && version).then_some((hash, params))
    };
    let (hash, params) = read().ok_or("its hash looks like Argon2 and is none")?;
    for (what, is, most) in [
        ("KiB of memory", params.m_cost(), MOST_ARGON2_MEMORY),
        ("passes", params.t_cost(), MOST_ARGON2_PASSES),
        ("lanes", params.p_cost(), MOST_ARGON2_LANES),
    ] {
        if is > most {
            return Err(format!("its hash takes {is} {what}; at most {most} are supported"));
        }
    }
    Ok(Hash::Argon2(Box::new(hash)))
}

/// What a password in a form that is not supported seems to be; it is not shown, since it may be a plain one.
fn kind(text: &str) -> &'static str {
    const KINDS: [(&str, &str); 8] = [
        ("$apr1$", "hashed with MD5 ($apr1$)"),
        ("$1$", "hashed with MD5 ($1$)"),
        ("$5$", "hashed with SHA-256 ($5$)"),
        ("$6$", "hashed with SHA-512 ($6$)"),
        ("$2x$", "hashed with a faulty bcrypt ($2x$)"),
        ("$argon2d$", "hashed with Argon2d"),
        ("{SHA}", "hashed with SHA-1 ({SHA})"),
        ("{PLAIN}", "plain"),
    ];
    let known = KINDS.iter().find(|(begin, _)| text.starts_with(begin));
    known.map_or("plain, of crypt or of an unknown kind", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by libxcrypt and by the Argon2 of its authors.
    const SECRET_BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    const PASSWORD_ARGON2ID: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const PASSWORD_ARGON2I: &str =
        "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8";
    const PASSWORD_ARGON2ID_OLD: &str =
        "$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$BNNN5hUxEQkUk67iF/12o/X1a4Jvvi9IzrjXfdGe2so";
    const PAESSWORD_ARGON2ID: &str =
        "$argon2id$v=19$m=64,t=2,p=2$YW5vdGhlcnNhbHQxMjM0NQ$dodpU3SgdgDqNgOcsM2hmXv2qGklkUpixQvjbBf8JYY";

    fn users(lines: &[&str]) -> Users {
        Users::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn a_password_is_verified_against_the_hash_of_its_user_alone() {
        let users = users(&[
            &format!("bcrypt:{SECRET_BCRYPT}"),
            &format!("b:{}", SECRET_BCRYPT.replace("2y", "2b")),
            &format!("a:{}", SECRET_BCRYPT.replace("2y", "2a")),
            &format!("id:{PASSWORD_ARGON2ID}"),
            &format!("i:{PASSWORD_ARGON2I}"),
            &format!("old:{PASSWORD_ARGON2ID_OLD}"),
            &format!("jürgen:{PAESSWORD_ARGON2ID}"),
        ]);
        for (name, password) in [
            ("bcrypt", "secret"),
            ("b", "secret"),
            ("a", "secret"),
            ("id", "password"),
            ("i", "password"),
            ("old", "password"),
            ("jürgen", "pässword"),
        ] {
            assert!(users.verify(name.as_bytes(), password.as_bytes()), "{name}");
            for wrong in ["", "Secret", "secret ", "passwor", "password1"] {
                assert!(!users.verify(name.as_bytes(), wrong.as_bytes()), "{name} {wrong:?}");
            }
        }
        assert!(
            !users.verify(b"nobody", b"secret") && !users.verify(b"", b"secret") && !users.verify(b"\xff", b"secret")
        );
        assert!(!users.verify(b"ID", b"password"));
    }

    #[test]
    fn comments_empty_lines_and_what_follows_a_hash_are_passed_over() {
        let users =
            users(&["# staff", "", &format!("  a:{SECRET_BCRYPT}:Anna \r"), &format!("b:{PASSWORD_ARGON2ID}\r")]);
        assert_eq!(format!("{users:?}"), "Users(2)");
        assert!(users.verify(b"a", b"secret") && users.verify(b"b", b"password"));
    }

    #[test]
    fn what_is_no_user_is_refused_by_its_line_and_no_password_is_shown() {
        let refused = |line: &str| Users::parse(&format!("ok:{SECRET_BCRYPT}\n{line}")).unwrap_err();
        for (line, says) in [
            ("no colon", "line 2: expected \"name:hash\"; the colon"),
            (":hunter2", "line 2: expected \"name:hash\"; a name"),
            ("a\x07b:hunter2", "line 2: expected \"name:hash\"; a name"),
            ("a:", "line 2: user \"a\": its password is plain, of crypt or of an unknown kind; bcrypt ($2y$"),
            ("a:hunter2", "line 2: user \"a\": its password is plain, of"),
            ("a:$apr1$hunter2", "its password is hashed with MD5 ($apr1$); bcrypt"),
            ("a:{SHA}hunter2", "its password is hashed with SHA-1 ({SHA}); bcrypt"),
            ("a:$2x$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", "faulty bcrypt"),
            ("a:$argon2d$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "Argon2d"),
            ("a:$2y$04$hunter2", "its hash looks like bcrypt and is none"),
            ("a:$argon2id$hunter2", "its hash looks like Argon2 and is none"),
            ("a:$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", "its hash looks like Argon2 and is none"),
            ("a:$argon2id$v=18$m=64,t=1,p=1$c29tZXNhbHQ$BNNN5hUxEQkUk67iF/12o/X1a4Jvvi9IzrjXfdGe2so", "is none"),
            ("a:$argon2id$v=19$m=256,t=2,p=1$c29tZQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "is none"),
            (&format!("ok:{PASSWORD_ARGON2ID}"), "line 2: \"ok\" stands there before"),
        ] {
            let problem = refused(line);
            assert!(problem.contains(says) && !problem.contains("hunter2"), "{line:?}: {problem}");
        }
        assert!(Users::parse("# nobody\n").unwrap_err().contains("there is no user in it"));
    }

    #[test]
    fn hashes_that_would_take_too_long_or_too_much_memory_are_refused() {
        let refused = |hash: &str| Users::parse(&format!("a:{hash}")).unwrap_err();
        assert!(refused(&SECRET_BCRYPT.replace("$04$", "$15$")).contains("a cost of 15; from 4 to 14"));
        assert!(refused(&SECRET_BCRYPT.replace("$04$", "$03$")).contains("a cost of 3;"));
        let with = |params: &str| refused(&PASSWORD_ARGON2ID.replace("m=256,t=2,p=1", params));
        assert!(with("m=262145,t=2,p=1").contains("262145 KiB of memory; at most 262144"));
        assert!(with("m=256,t=11,p=1").contains("11 passes; at most 10"));
        assert!(with("m=1024,t=2,p=65").contains("65 lanes; at most 64"));
        assert!(with("m=4294967295,t=4294967295,p=16777215").contains("at most"));
        assert!(with("m=99999999999,t=1,p=1").contains("is none") && with("m=8,t=1,p=2").contains("is none"));
        assert!(with("m=0,t=0,p=0").contains("is none"));
    }

    #[test]
    fn users_are_equal_if_their_files_say_the_same_of_them_and_tell_no_secrets() {
        let (one, two) = (format!("a:{SECRET_BCRYPT}"), format!("b:{PASSWORD_ARGON2ID}"));
        assert_eq!(users(&[&one, &two]).clone(), users(&["#", &one, &two]));
        assert_ne!(users(&[&one]), users(&[&one, &two]));
        assert_ne!(users(&[&one]), users(&[&one.replace("a:", "b:")]));
        assert_ne!(users(&[&one]), users(&[&one.replace("WIrW", "WIra")]));
        assert_eq!(format!("{:?}", users(&[&one])), "Users(1)");
    }
}
