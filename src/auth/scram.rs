//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).
//!
//! ```text
//!  client                                           server
//!    │ gs2 header, n=, r=client nonce ───────────────► │ begin
//!    │ ◄──────────── r=both nonces, s=salt, i=rounds   │
//!    │ c=gs2 header + channel, r=both nonces, p=proof► │ finish
//!    │ ◄──────────────────────── v=server's signature  │
//! ```
//!
//! A user who is not there is answered like one who is, to the last message and in the same time: only then it is a failure,
//! and the same one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::verifier::{KEY_BYTES, Verifier, hash, random, same, sign};
use crate::error::{Error, Result};

pub const PLAIN: &str = "SCRAM-SHA-256";
/// With channel binding.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";

const NONCE_BYTES: usize = 18;

/// What is being proven.
pub struct Login {
    pub verifier: Verifier,
    /// False for a user who may not log in with a password, whatever it is.
    pub is_genuine: bool,
}

/// What the client's first message asked for.
pub struct Exchange {
    login: Login,
    /// What `c=` must say.
    channel: String,
    nonce: String,
    /// The part of what is signed that has been said already.
    signed: String,
}

/// `end_point`: the hash of the server's certificate, if the connection is encrypted. Returns the answer, too.
pub fn begin(login: Login, mechanism: &str, first: &[u8], end_point: Option<&[u8]>) -> Result<(Exchange, String)> {
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    begin_with(login, mechanism, first, end_point, &BASE64.encode(nonce))
}

fn begin_with(
    login: Login,
    mechanism: &str,
    first: &[u8],
    end_point: Option<&[u8]>,
    server_nonce: &str,
) -> Result<(Exchange, String)> {
    let first = std::str::from_utf8(first).map_err(|_| malformed("it is not text"))?;
    let (binding, rest) = first.split_once(',').ok_or_else(|| malformed("it has no channel binding"))?;
    let (authorization, bare) = rest.split_once(',').ok_or_else(|| malformed("it has no user"))?;
    if !authorization.is_empty() {
        return Err(Error::unsupported("client uses authorization identity, but it is not supported"));
    }
    let channel = channel_of(mechanism, binding, end_point)?;
    let mut channel_input = format!("{binding},,").into_bytes();
    channel_input.extend_from_slice(channel);

    let mut fields = bare.split(',');
    // The user is who the start-up message said; what is said here is not looked at.
    field(fields.next(), "n=").ok_or_else(|| malformed("it has no user"))?;
    let client_nonce = field(fields.next(), "r=").filter(|nonce| is_printable(nonce));
    let client_nonce = client_nonce.ok_or_else(|| malformed("it has no nonce"))?;

    let nonce = format!("{client_nonce}{server_nonce}");
    let Verifier { salt, iterations, .. } = &login.verifier;
    let answer = format!("r={nonce},s={},i={iterations}", BASE64.encode(salt));
    let signed = format!("{bare},{answer}");
    Ok((Exchange { login, channel: BASE64.encode(channel_input), nonce, signed }, answer))
}

/// The bytes of the channel that the client must name, by how it wants to bind.
fn channel_of<'a>(mechanism: &str, binding: &str, end_point: Option<&'a [u8]>) -> Result<&'a [u8]> {
    let disagreement = |detail: &str| Error::invalid_authorization("SCRAM channel binding negotiation error").with_detail(detail);
    match (mechanism, binding) {
        (PLUS, "p=tls-server-end-point") => end_point.ok_or_else(|| disagreement("this connection cannot be bound to a channel")),
        (PLUS, other) if other.starts_with("p=") => {
            Err(Error::protocol_violation(format!("unsupported SCRAM channel-binding type \"{}\"", printable(&other[2..]))))
        }
        (PLUS, _) => Err(malformed("the client selected SCRAM-SHA-256-PLUS without channel binding")),
        (PLAIN, "y") if end_point.is_some() => Err(disagreement(
            "the client supports SCRAM channel binding but thinks the server does not; however, this server does support it",
        )),
        (PLAIN, "n" | "y") => Ok(&[]),
        (PLAIN, _) => Err(malformed("the client selected SCRAM-SHA-256 with channel binding")),
        (other, _) => Err(Error::protocol_violation(format!(
            "client selected an invalid SASL authentication mechanism \"{}\"",
            printable(other)
        ))),
    }
}

impl Exchange {
    /// The answer, if the proof is right; `None` if it is not.
    pub fn finish(&self, last: &[u8]) -> Result<Option<String>> {
        let last = std::str::from_utf8(last).map_err(|_| malformed("it is not text"))?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or_else(|| malformed("it has no proof"))?;
        let mut fields = without_proof.split(',');
        let channel = field(fields.next(), "c=").ok_or_else(|| malformed("it has no channel binding"))?;
        let nonce = field(fields.next(), "r=").ok_or_else(|| malformed("it has no nonce"))?;
        if !same(nonce.as_bytes(), self.nonce.as_bytes()) {
            return Err(malformed("its nonce is another"));
        }
        if !same(channel.as_bytes(), self.channel.as_bytes()) {
            return Err(Error::invalid_authorization("SCRAM channel binding check failed"));
        }
        let proof: [u8; KEY_BYTES] =
            BASE64.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or_else(|| malformed("its proof is none"))?;
        let Login { verifier, is_genuine } = &self.login;
        let signed = format!("{},{without_proof}", self.signed);
        let mut key = sign(&verifier.stored_key, signed.as_bytes());
        key.iter_mut().zip(proof).for_each(|(key, proof)| *key ^= proof);
        let is_right = same(&hash(&key), &verifier.stored_key);
        let answer = format!("v={}", BASE64.encode(sign(&verifier.server_key, signed.as_bytes())));
        Ok((is_right & is_genuine).then_some(answer))
    }
}

fn field<'a>(field: Option<&'a str>, name: &str) -> Option<&'a str> {
    field?.strip_prefix(name)
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What came from outside, short and harmless.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

fn malformed(detail: &str) -> Error {
    Error::protocol_violation("malformed SCRAM message").with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3.
    fn example() -> (Exchange, String) {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = {
            let mut out = [0; KEY_BYTES];
            let rounds = std::num::NonZeroU32::new(4096).unwrap();
            ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, b"pencil", &mut out);
            out
        };
        let verifier = Verifier {
            iterations: std::num::NonZeroU32::new(4096).unwrap(),
            salt,
            stored_key: hash(&sign(&salted, b"Client Key")),
            server_key: sign(&salted, b"Server Key"),
        };
        let login = Login { verifier, is_genuine: true };
        begin_with(login, PLAIN, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", None, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap()
    }

    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_the_standard() {
        let (exchange, answer) = example();
        assert_eq!(answer, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = exchange.finish(LAST.as_bytes()).unwrap();
        assert_eq!(last.unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_wrong_proof_and_a_user_who_is_not_there_are_the_same() {
        let (mut exchange, _) = example();
        let wrong = LAST.replace("p=dHz", "p=dHy");
        assert!(exchange.finish(wrong.as_bytes()).unwrap().is_none());
        exchange.login.is_genuine = false;
        assert!(exchange.finish(LAST.as_bytes()).unwrap().is_none());
    }

    #[rstest::rstest]
    #[case::nonce("c=biws,r=another,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "08P01")]
    #[case::channel("c=eSws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzb", "28000")]
    #[case::proof("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=short", "08P01")]
    #[case::nothing("", "08P01")]
    fn last_messages_that_are_none(#[case] last: &str, #[case] state: &str) {
        assert_eq!(example().0.finish(last.as_bytes()).unwrap_err().state().code(), state);
    }

    #[rstest::rstest]
    #[case::bound(PLUS, "p=tls-server-end-point,,n=,r=x", Some(b"hash".as_slice()), "")]
    #[case::unbound(PLAIN, "n,,n=,r=x", Some(b"hash".as_slice()), "")]
    #[case::client_can_but_thinks_we_cannot(PLAIN, "y,,n=,r=x", Some(b"hash".as_slice()), "28000")]
    #[case::client_can_and_we_cannot(PLAIN, "y,,n=,r=x", None, "")]
    #[case::bound_without_encryption(PLUS, "p=tls-server-end-point,,n=,r=x", None, "28000")]
    #[case::unknown_binding(PLUS, "p=tls-unique,,n=,r=x", Some(b"hash".as_slice()), "08P01")]
    #[case::bound_by_the_other_mechanism(PLAIN, "p=tls-server-end-point,,n=,r=x", Some(b"hash".as_slice()), "08P01")]
    #[case::unknown_mechanism("PLAIN", "n,,n=,r=x", None, "08P01")]
    #[case::somebody_else(PLAIN, "n,a=other,n=,r=x", None, "0A000")]
    #[case::no_nonce(PLAIN, "n,,n=,s=x", None, "08P01")]
    #[case::extension(PLAIN, "n,,m=new,n=,r=x", None, "08P01")]
    fn first_messages(#[case] mechanism: &str, #[case] first: &str, #[case] end_point: Option<&[u8]>, #[case] state: &str) {
        let login = Login { verifier: Verifier::mock("x", &[7; KEY_BYTES]), is_genuine: true };
        let begun = begin(login, mechanism, first.as_bytes(), end_point);
        assert_eq!(begun.err().map_or("", |error| error.state().code()), state);
    }
}
