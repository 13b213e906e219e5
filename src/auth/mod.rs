//! Is a client who it says it is? Passwords as verifiers, and the exchange that proves one without sending it.
//!
//! A password is never stored: what the catalog keeps ([`Verifier`]) can check a proof, and cannot make one. It is never
//! printed either: its `Debug` says only that it is there.

pub mod scram;
mod verifier;

pub use verifier::{KEY_BYTES, Verifier, random, same};
