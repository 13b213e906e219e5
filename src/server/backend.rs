//! What the server sends, but for rows: messages written into a buffer.

use crate::error::{Error, SqlState};
use crate::server::types::WireType;
use crate::session::TransactionStatus;

use super::frontend::Format;

/// A message: its type, its length, and what `body` writes.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Text that ends at its first zero byte, since the protocol has no way to send one.
fn string(out: &mut Vec<u8>, text: &str) {
    let end = memchr::memchr(0, text.as_bytes()).unwrap_or(text.len());
    out.extend_from_slice(&text.as_bytes()[..end]);
    out.push(0);
}

pub fn authentication_ok(out: &mut Vec<u8>) {
    message(out, b'R', |out| out.extend_from_slice(&[0; 4]));
}

/// The ways to prove a password, the best first.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        mechanisms.iter().for_each(|mechanism| string(out, mechanism));
        out.push(0);
    });
}

pub fn authentication_continue(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&11u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

pub fn authentication_final(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&12u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// What is spoken from now on: `version` at most, and none of the `unknown` protocol options.
pub fn negotiate_version(out: &mut Vec<u8>, version: u32, unknown: &[String]) {
    message(out, b'v', |out| {
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        unknown.iter().for_each(|name| string(out, name));
    });
}

pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |out| {
        string(out, name);
        string(out, value);
    });
}

pub fn backend_key(out: &mut Vec<u8>, process: i32, secret: &[u8]) {
    message(out, b'K', |out| {
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

pub fn ready(out: &mut Vec<u8>, status: TransactionStatus) {
    let letter = match status {
        TransactionStatus::Idle => b'I',
        TransactionStatus::Active => b'T',
        TransactionStatus::Failed => b'E',
    };
    message(out, b'Z', |out| out.push(letter));
}

pub fn parse_complete(out: &mut Vec<u8>) {
    message(out, b'1', |_| ());
}

pub fn bind_complete(out: &mut Vec<u8>) {
    message(out, b'2', |_| ());
}

pub fn close_complete(out: &mut Vec<u8>) {
    message(out, b'3', |_| ());
}

pub fn no_data(out: &mut Vec<u8>) {
    message(out, b'n', |_| ());
}

pub fn portal_suspended(out: &mut Vec<u8>) {
    message(out, b's', |_| ());
}

pub fn empty_query(out: &mut Vec<u8>) {
    message(out, b'I', |_| ());
}

pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| string(out, tag));
}

pub fn copy_in(out: &mut Vec<u8>, columns: usize, binary: bool) {
    copy_response(out, b'G', columns, binary);
}

pub fn copy_out(out: &mut Vec<u8>, columns: usize, binary: bool) {
    copy_response(out, b'H', columns, binary);
}

fn copy_response(out: &mut Vec<u8>, tag: u8, columns: usize, binary: bool) {
    message(out, tag, |out| {
        out.push(binary as u8);
        out.extend_from_slice(&(columns as u16).to_be_bytes());
        (0..columns).for_each(|_| out.extend_from_slice(&[0, binary as u8]));
    });
}

pub fn copy_data(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'd', |out| out.extend_from_slice(data));
}

pub fn copy_done(out: &mut Vec<u8>) {
    message(out, b'c', |_| ());
}

pub fn parameter_description(out: &mut Vec<u8>, types: &[u32]) {
    message(out, b't', |out| {
        out.extend_from_slice(&(types.len() as u16).to_be_bytes());
        types.iter().for_each(|oid| out.extend_from_slice(&oid.to_be_bytes()));
    });
}

/// A column as RowDescription tells it.
pub struct Described<'a> {
    pub name: &'a str,
    /// OID of a relation and the number of its column, or zeros.
    pub origin: (u32, i16),
    pub wire: WireType,
    pub format: Format,
}

pub fn row_description<'a>(out: &mut Vec<u8>, columns: impl ExactSizeIterator<Item = Described<'a>>) {
    message(out, b'T', |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for Described { name, origin: (relation, column), wire, format } in columns {
            string(out, name);
            out.extend_from_slice(&relation.to_be_bytes());
            out.extend_from_slice(&column.to_be_bytes());
            out.extend_from_slice(&wire.oid.to_be_bytes());
            out.extend_from_slice(&wire.size.to_be_bytes());
            out.extend_from_slice(&wire.modifier.to_be_bytes());
            out.extend_from_slice(&(format as u16).to_be_bytes());
        }
    });
}

/// An error after which the connection goes on.
pub fn error(out: &mut Vec<u8>, error: &Error) {
    report(out, b'E', "ERROR", error);
}

/// An error after which the server closes the connection.
pub fn fatal(out: &mut Vec<u8>, error: &Error) {
    report(out, b'E', "FATAL", error);
}

/// What is told beside an answer: a warning, if its SQLSTATE is one of those or an error's.
pub fn notice(out: &mut Vec<u8>, notice: &Error) {
    let state = notice.state();
    let warns = state.code().starts_with("01") || matches!(state, SqlState::ActiveTransaction | SqlState::NoActiveTransaction);
    report(out, b'N', if warns { "WARNING" } else { "NOTICE" }, notice);
}

fn report(out: &mut Vec<u8>, tag: u8, severity: &str, error: &Error) {
    let position = error.position().map(|position| position.to_string());
    let fields = [
        (b'S', Some(severity)),
        (b'V', Some(severity)),
        (b'C', Some(error.state().code())),
        (b'M', Some(error.message())),
        (b'D', error.detail()),
        (b'H', error.hint()),
        (b'P', position.as_deref()),
        (b'W', error.context()),
    ];
    message(out, tag, |out| {
        for (field, value) in fields {
            if let Some(value) = value {
                out.push(field);
                string(out, value);
            }
        }
        out.push(0);
    });
}
