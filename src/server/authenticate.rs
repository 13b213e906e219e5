//! Who may come in: how clients are authenticated, and how slowly those are answered who guess.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::backend;
use super::frontend::Fields;
use super::output::Fault;
use crate::auth::scram::{self, Login};
use crate::error::{Error, Result};
use crate::limits;

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// They don't. Only for the machine itself.
    Trust,
    /// By a password, which is never sent.
    Scram,
}

impl std::str::FromStr for Authentication {
    type Err = String;

    fn from_str(text: &str) -> Result<Authentication, String> {
        match text.to_ascii_lowercase().as_str() {
            "trust" => Ok(Authentication::Trust),
            "scram" | "scram-sha-256" => Ok(Authentication::Scram),
            _ => Err("write trust or scram-sha-256".to_string()),
        }
    }
}

/// Where a client is, and how its connection is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// `None`: inside of this process.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub is_encrypted: bool,
    /// What a password exchange can bind to.
    pub end_point: Option<Arc<[u8]>>,
}

/// Asks for the proof of a password. `out` holds what has to be sent before.
pub(super) async fn prove<S>(stream: &mut S, out: &mut Vec<u8>, user: &str, login: Login, peer: &Peer) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end_point = peer.end_point.as_deref();
    let mechanisms: &[&str] = if end_point.is_some() { &[scram::PLUS, scram::PLAIN] } else { &[scram::PLAIN] };
    backend::authentication_sasl(out, mechanisms);
    send(stream, out).await?;

    let mut first = Fields(answer(stream).await?);
    let mechanism = first.string()?;
    let Some(client_first) = first.value()? else {
        return Err(Error::protocol_violation("the first SASL message is empty").into());
    };
    let (exchange, challenge) = scram::begin(login, &mechanism, &client_first, end_point)?;
    backend::authentication_continue(out, challenge.as_bytes());
    send(stream, out).await?;

    match exchange.finish(&answer(stream).await?)? {
        Some(last) => backend::authentication_final(out, last.as_bytes()),
        None => return Err(Error::invalid_password(format!("password authentication failed for user \"{user}\"")).into()),
    }
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, out: &mut Vec<u8>) -> Result<(), Fault> {
    stream.write_all(out).await?;
    stream.flush().await?;
    out.clear();
    Ok(())
}

/// The body of a message about authentication: nothing else is read, and nothing long.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Bytes, Fault> {
    let tag = stream.read_u8().await?;
    if tag != b'p' {
        return Err(Error::protocol_violation(format!("expected SASL response, got message type {tag}")).into());
    }
    let length = stream.read_u32().await? as usize;
    if !(4..=limits::AUTHENTICATION_BYTES).contains(&length) {
        return Err(Error::protocol_violation("invalid length of a SASL message").into());
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(body.into())
}

/// Failures of late, by address: the more, the longer its next attempt waits. Attempts that come at once all wait.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Failures {
    /// How long an attempt from here has to wait.
    pub fn delay(&self, address: Option<IpAddr>, now: Instant) -> Duration {
        let failures = self.0.lock();
        let known = address.and_then(|address| failures.get(&network(address)));
        match known.filter(|(_, last)| now < *last + limits::FAILURES_REMEMBERED) {
            None => Duration::ZERO,
            Some((count, _)) => limits::FAILURE_DELAY.saturating_mul(1 << (count - 1).min(16)).min(limits::FAILURE_DELAY_MOST),
        }
    }

    pub fn failed(&self, address: Option<IpAddr>, now: Instant) {
        let Some(address) = address.map(network) else { return };
        let mut failures = self.0.lock();
        if failures.len() >= limits::FAILURES_COUNTED {
            failures.retain(|_, (_, last)| now < *last + limits::FAILURES_REMEMBERED);
        }
        if failures.len() < limits::FAILURES_COUNTED || failures.contains_key(&address) {
            let (count, last) = failures.entry(address).or_insert((0, now));
            let is_forgotten = now >= *last + limits::FAILURES_REMEMBERED;
            (*count, *last) = (if is_forgotten { 1 } else { count.saturating_add(1) }, now);
        }
    }

    pub fn succeeded(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.0.lock().remove(&network(address));
        }
    }
}

/// Clients that have not proven yet who they are, by address: one of other machines must not take all the room there is for them.
#[derive(Default)]
pub(super) struct Arrivals(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it has proven who it is, or goes.
pub(super) struct Arrival {
    all: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Arrivals {
    /// `None` if there are `most` from its address already.
    pub fn enter(&self, address: Option<IpAddr>, most: usize, permit: OwnedSemaphorePermit) -> Option<Arrival> {
        let address = address.map(network).filter(|address| !address.is_loopback());
        if let Some(address) = address {
            let mut all = self.0.lock();
            let waiting = all.entry(address).or_default();
            if *waiting >= most {
                return None;
            }
            *waiting += 1;
        }
        Some(Arrival { all: Arc::clone(&self.0), address, _permit: permit })
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut all = self.all.lock();
        if let Some(waiting) = all.get_mut(&address) {
            *waiting -= 1;
            if *waiting == 0 {
                all.remove(&address);
            }
        }
    }
}

/// Whoever has an IPv6 address has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_wait_longer_and_longer() {
        let failures = Failures::default();
        let (guesser, other) = (Some(IpAddr::from([192, 0, 2, 1])), Some(IpAddr::from([192, 0, 2, 2])));
        let now = Instant::now();
        assert_eq!(failures.delay(guesser, now), Duration::ZERO);
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            failures.failed(guesser, now);
            assert!(failures.delay(guesser, now) > last);
            last = failures.delay(guesser, now);
        }
        (0..100).for_each(|_| failures.failed(guesser, now));
        assert_eq!(failures.delay(guesser, now), limits::FAILURE_DELAY_MOST);
        assert_eq!(failures.delay(other, now), Duration::ZERO);
        let later = now + limits::FAILURES_REMEMBERED;
        assert_eq!(failures.delay(guesser, later), Duration::ZERO, "it is forgotten");
        failures.failed(guesser, later);
        assert_eq!(failures.delay(guesser, later), limits::FAILURE_DELAY);
        failures.succeeded(guesser);
        assert_eq!(failures.delay(guesser, later), Duration::ZERO);
    }

    #[tokio::test]
    async fn one_address_leaves_room_for_others() {
        let (room, arrivals) = (Arc::new(tokio::sync::Semaphore::new(10)), Arrivals::default());
        let arrive = |address: [u8; 4]| {
            let permit = room.clone().try_acquire_owned().expect("there is room");
            arrivals.enter(Some(IpAddr::from(address)), 2, permit)
        };
        let mut waiting = vec![arrive([192, 0, 2, 1]), arrive([192, 0, 2, 1])];
        assert!(waiting.iter().all(Option::is_some) && arrive([192, 0, 2, 1]).is_none());
        assert!(arrive([192, 0, 2, 2]).is_some());
        waiting.pop();
        assert!(arrive([192, 0, 2, 1]).is_some(), "one has gone");
        let local: Vec<_> = (0..5).map(|_| arrive([127, 0, 0, 1])).collect();
        assert!(local.iter().all(Option::is_some));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let [a, b, c] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| network(text.parse().unwrap()));
        assert!(a == b && a != c);
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
