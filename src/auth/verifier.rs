//! What is kept of a password: salted, hashed many times, and split into the two keys of SCRAM (RFC 5802, RFC 7677).

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Rounds of hashing, as in PostgreSQL.
const ITERATIONS: u32 = 4096;

const SALT_BYTES: usize = 16;

/// The bytes of a key: SHA-256's.
pub const KEY_BYTES: usize = 32;

const PREFIX: &str = "SCRAM-SHA-256$";

/// Checks a proof that somebody knows a password. Its text form is PostgreSQL's:
/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Verifier {
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: [u8; KEY_BYTES],
    pub(super) server_key: [u8; KEY_BYTES],
}

impl Verifier {
    /// Of a new password, with a salt of its own.
    pub fn of_password(password: &str) -> Result<Verifier> {
        let mut salt = vec![0; SALT_BYTES];
        random(&mut salt)?;
        Ok(Verifier::derive(password, salt, NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN)))
    }

    fn derive(password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Verifier {
        // A password that SASLprep does not allow is taken as it is, as PostgreSQL's clients do.
        let prepared = stringprep::saslprep(password).unwrap_or(std::borrow::Cow::Borrowed(password));
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, prepared.as_bytes(), &mut salted);
        let client_key = sign(&salted, b"Client Key");
        Verifier { iterations, salt, stored_key: hash(&client_key), server_key: sign(&salted, b"Server Key") }
    }

    /// Is this the password?
    pub fn matches(&self, password: &str) -> bool {
        same(&Verifier::derive(password, self.salt.clone(), self.iterations).stored_key, &self.stored_key)
    }

    /// For a user who is not there: the same salt every time, and keys that nothing fits.
    pub fn mock(user: &str, secret: &[u8; KEY_BYTES]) -> Verifier {
        let salt = sign(secret, user.as_bytes())[..SALT_BYTES].to_vec();
        let keys = sign(secret, &salt);
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        Verifier { iterations, salt, stored_key: keys, server_key: keys }
    }

    /// Something that only this server knows, and that lasts as long as the password does: for [`Verifier::mock`].
    pub fn secret(&self) -> [u8; KEY_BYTES] {
        sign(&self.server_key, b"mock authentication")
    }

    /// Reads the text form; `None` if this is none, and so a plain password.
    pub fn parse(text: &str) -> Option<Verifier> {
        let (head, keys) = text.strip_prefix(PREFIX)?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (head.split_once(':')?, keys.split_once(':')?);
        let key = |text: &str| -> Option<[u8; KEY_BYTES]> { BASE64.decode(text).ok()?.try_into().ok() };
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Verifier { iterations: iterations.parse().ok()?, salt, stored_key: key(stored)?, server_key: key(server)? })
    }

    /// Of what PASSWORD '…' says: a verifier, or a plain password. An empty password is none.
    pub fn of_text(text: &str) -> Result<Option<Verifier>> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.starts_with("md5") && text.len() == 35 && text[3..].bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::unsupported("md5 passwords are not supported")
                .with_hint("give the password itself, or a SCRAM-SHA-256 verifier"));
        }
        match Verifier::parse(text) {
            Some(verifier) if verifier.matches("") => Ok(None),
            Some(verifier) => Ok(Some(verifier)),
            None => Verifier::of_password(text).map(Some),
        }
    }

    /// The text form, for the catalog and for superusers.
    pub fn to_text(&self) -> String {
        let [salt, stored, server] = [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        format!("{PREFIX}{}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl From<Verifier> for String {
    fn from(verifier: Verifier) -> String {
        verifier.to_text()
    }
}

impl TryFrom<String> for Verifier {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Verifier, &'static str> {
        Verifier::parse(&text).ok_or("not a SCRAM-SHA-256 verifier")
    }
}

/// Bytes that nobody can guess.
pub fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Error::internal(format!("the system gives no random bytes: {error}")))
}

/// Compares all bytes whatever they are, so that the time taken tells nothing of them.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b))) == 0
}

pub(super) fn sign(key: &[u8], message: &[u8]) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    out
}

pub(super) fn hash(message: &[u8]) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_never_printed() {
        let verifier = Verifier::of_text("correct horse").unwrap().unwrap();
        assert!(verifier.matches("correct horse") && !verifier.matches("Correct horse"));
        let text = verifier.to_text();
        assert_eq!(Verifier::of_text(&text).unwrap().unwrap(), verifier, "a verifier is taken as it is");
        assert_eq!(format!("{verifier:?}"), "Verifier(…)");
        assert!(!text.contains("horse"));
    }

    /// Both are the same string to SASLprep: a ligature, and a space that is none of ASCII's.
    #[test]
    fn passwords_are_prepared() {
        assert!(Verifier::of_password("a\u{a0}\u{fb01}").unwrap().matches("a fi"));
    }

    #[test]
    fn empty_and_foreign_passwords() {
        assert_eq!(Verifier::of_text("").unwrap(), None);
        let empty = Verifier::of_password("").unwrap().to_text();
        assert_eq!(Verifier::of_text(&empty).unwrap(), None, "the verifier of an empty password");
        assert!(Verifier::of_text("md50123456789abcdef0123456789abcdef").is_err());
        assert!(Verifier::parse("SCRAM-SHA-256$0:AAAA$AAAA:AAAA").is_none());
    }
}
