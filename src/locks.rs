//! Advisory locks: numbers that sessions agree on, hold, and wait for. What they stand for is the clients' affair.
//!
//! ```text
//!  lock(7) ──► nobody else holds 7, nor waits for it ──► held ──► unlock(7), the end of the transaction or of the session
//!                      │ somebody does                                   │
//!                      └──► waits, behind those who asked before ◄───────┘ asks again
//! ```
//!
//! They are in memory, and gone with the server, as all that holds one is. A session waits for one lock at a time, so who waits for
//! whom is a graph with few edges, looked at when an edge is added: a circle is refused at once, and none waits for a timer.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::limits;

/// What is locked. Numbers alone and pairs of them never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    One(i64),
    Two(i32, i32),
}

/// With whom a lock may be held: with those that share it, or with nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Shared,
    Exclusive,
}

/// Who lets go of a lock, if its session does not end: a call, or the end of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Unlocked,
    TransactionEnds,
}

/// A lock as a session wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number of the session.
    pub session: i32,
    pub key: Key,
    pub mode: Mode,
    pub until: Until,
}

/// One row of `pg_locks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    pub session: i32,
    pub key: Key,
    pub mode: Mode,
    /// Held, and not waited for.
    pub granted: bool,
}

/// The locks of all sessions of a server.
#[derive(Default)]
pub struct Locks(Mutex<Table>);

#[derive(Default)]
struct Table {
    held: HashMap<Key, Vec<(i32, Mode)>>,
    /// The same by session, each time that one was taken, in this order. Who is not here has gone, and takes none.
    sessions: HashMap<i32, Vec<Request>>,
    count: usize,
    /// In the order in which they asked.
    waiting: Vec<Waiter>,
    next_ticket: u64,
    /// Locks that sessions were to let go of and did not hold, until they are told.
    unheld: HashMap<i32, Vec<Mode>>,
}

struct Waiter {
    ticket: u64,
    request: Request,
    waker: Option<Waker>,
}

impl Mode {
    fn conflicts_with(self, other: Mode) -> bool {
        self == Mode::Exclusive || other == Mode::Exclusive
    }

    /// As PostgreSQL calls it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Shared => "ShareLock",
            Mode::Exclusive => "ExclusiveLock",
        }
    }
}

impl Key {
    /// As `pg_locks` has it: classid, objid and objsubid.
    pub fn parts(self) -> (u32, u32, i16) {
        match self {
            Key::One(key) => ((key.cast_unsigned() >> 32) as u32, key.cast_unsigned() as u32, 1),
            Key::Two(first, second) => (first.cast_unsigned(), second.cast_unsigned(), 2),
        }
    }
}

impl Request {
    fn is_kept_by(&self, session: i32, mode: Mode) -> bool {
        self.session != session && self.mode.conflicts_with(mode)
    }
}

impl Table {
    /// Those whom a request waits for that was made before those with a later ticket: who holds the lock, and who asked before.
    fn blockers(&self, request: &Request, ticket: u64) -> Vec<i32> {
        let held = self.held.get(&request.key).map_or(&[][..], Vec::as_slice);
        let mut blockers: Vec<i32> =
            held.iter().filter(|(session, mode)| request.is_kept_by(*session, *mode)).map(|(session, _)| *session).collect();
        // Who holds it already goes before those who wait for that.
        if !held.iter().any(|(session, _)| *session == request.session) {
            let before = self.waiting.iter().filter(|waiter| waiter.ticket < ticket && waiter.request.key == request.key);
            let before = before.filter(|waiter| request.is_kept_by(waiter.request.session, waiter.request.mode));
            blockers.extend(before.map(|waiter| waiter.request.session));
        }
        blockers.sort_unstable();
        blockers.dedup();
        blockers
    }

    /// Takes the lock, unless others are before.
    fn take(&mut self, request: Request, ticket: u64) -> Result<bool> {
        if !self.blockers(&request, ticket).is_empty() {
            return Ok(false);
        }
        if self.count >= limits::ADVISORY_LOCKS {
            let message = format!("out of shared memory: there are {} advisory locks", limits::ADVISORY_LOCKS);
            return Err(Error::out_of_memory(message).with_hint("let go of those that are no longer needed"));
        }
        let own = self.sessions.get_mut(&request.session).ok_or_else(|| Error::shutting_down("the session has ended"))?;
        own.push(request);
        self.count += 1;
        self.held.entry(request.key).or_default().push((request.session, request.mode));
        Ok(true)
    }

    /// Lets go of those that a session has and that the test says; gives who is to ask again.
    fn release(&mut self, session: i32, mut goes: impl FnMut(&Request) -> bool) -> Vec<Waker> {
        let Some(own) = self.sessions.get_mut(&session) else { return Vec::new() };
        let gone: Vec<Request> = own.extract_if(.., |request| goes(request)).collect();
        self.count -= gone.len();
        for request in &gone {
            let Some(held) = self.held.get_mut(&request.key) else { continue };
            if let Some(at) = held.iter().position(|held| *held == (session, request.mode)) {
                held.swap_remove(at);
            }
            if held.is_empty() {
                self.held.remove(&request.key);
            }
        }
        self.wake(|waiter| gone.iter().any(|request| request.key == waiter.request.key))
    }

    fn wake(&mut self, which: impl Fn(&Waiter) -> bool) -> Vec<Waker> {
        self.waiting.iter_mut().filter(|waiter| which(waiter)).filter_map(|waiter| waiter.waker.take()).collect()
    }

    /// The sessions from one that waits to itself again, each waiting for the next, if there is such a circle.
    fn circle(&self, session: i32) -> Option<Vec<i32>> {
        let waits_for = |session: i32| {
            let waiter = self.waiting.iter().find(|waiter| waiter.request.session == session);
            waiter.map_or_else(Vec::new, |waiter| self.blockers(&waiter.request, waiter.ticket))
        };
        let (mut seen, mut path) = (vec![session], vec![(session, waits_for(session))]);
        while let Some((_, blockers)) = path.last_mut() {
            match blockers.pop() {
                None => drop(path.pop()),
                Some(next) if next == session => return Some(path.iter().map(|(session, _)| *session).collect()),
                Some(next) if seen.contains(&next) => {}
                Some(next) => {
                    seen.push(next);
                    path.push((next, waits_for(next)));
                }
            }
        }
        None
    }

    fn deadlock(&self, circle: &[i32]) -> Error {
        let lines = circle.iter().zip(circle.iter().cycle().skip(1)).filter_map(|(session, blocker)| {
            let waiter = self.waiting.iter().find(|waiter| waiter.request.session == *session)?;
            let (class, object, kind) = waiter.request.key.parts();
            let mode = waiter.request.mode.name();
            Some(format!(
                "Process {session} waits for {mode} on advisory lock [{class},{object},{kind}]; blocked by process {blocker}."
            ))
        });
        Error::deadlock_detected("deadlock detected").with_detail(lines.collect::<Vec<_>>().join("\n"))
    }
}

impl Locks {
    /// A session has come; it is to [`Locks::leave`].
    pub fn enter(&self, session: i32) {
        self.0.lock().sessions.entry(session).or_default();
    }

    /// The lock, if it can be had at once.
    pub fn try_lock(&self, request: Request) -> Result<bool> {
        self.0.lock().take(request, u64::MAX)
    }

    /// The lock, when it can be had. Who drops the future no longer wants it.
    pub fn lock(self: &Arc<Self>, request: Request) -> Waiting {
        Waiting { locks: Arc::clone(self), request, ticket: None }
    }

    /// Lets go of a lock once; false if the session does not hold it so, of which it is to be told ([`Locks::take_unheld`]).
    pub fn unlock(&self, session: i32, key: Key, mode: Mode) -> bool {
        let mut found = false;
        let mut table = self.0.lock();
        let woken = table.release(session, |held| {
            let is_it = !found && held.until == Until::Unlocked && held.key == key && held.mode == mode;
            found |= is_it;
            is_it
        });
        if !found {
            let unheld = table.unheld.entry(session).or_default();
            if unheld.len() < limits::ADVISORY_WARNINGS {
                unheld.push(mode);
            }
        }
        drop(table);
        woken.into_iter().for_each(Waker::wake);
        found
    }

    /// The modes of the locks that a session was to let go of since the last call, and did not hold.
    pub fn take_unheld(&self, session: i32) -> Vec<Mode> {
        self.0.lock().unheld.remove(&session).unwrap_or_default()
    }

    /// Lets go of all that calls can let go of.
    pub fn unlock_all(&self, session: i32) {
        let woken = self.0.lock().release(session, |held| held.until == Until::Unlocked);
        woken.into_iter().for_each(Waker::wake);
    }

    /// How many the session's transaction has taken.
    pub fn taken(&self, session: i32) -> usize {
        let table = self.0.lock();
        let own = table.sessions.get(&session).map_or(&[][..], Vec::as_slice);
        own.iter().filter(|held| held.until == Until::TransactionEnds).count()
    }

    /// The session's transaction ends, or goes back to where it had taken so many.
    pub fn end_transaction(&self, session: i32, keep: usize) {
        let mut left = keep;
        let woken = self.0.lock().release(session, |held| {
            let goes = held.until == Until::TransactionEnds && left == 0;
            left = left.saturating_sub(usize::from(held.until == Until::TransactionEnds));
            goes
        });
        woken.into_iter().for_each(Waker::wake);
    }

    /// The session is gone.
    pub fn leave(&self, session: i32) {
        let mut table = self.0.lock();
        let woken = table.release(session, |_| true);
        table.sessions.remove(&session);
        table.unheld.remove(&session);
        drop(table);
        woken.into_iter().for_each(Waker::wake);
    }

    /// All that are held or waited for, once each, in order.
    pub fn all(&self) -> Vec<Shown> {
        let table = self.0.lock();
        let shown =
            |request: &Request, granted| Shown { session: request.session, key: request.key, mode: request.mode, granted };
        let held = table.sessions.values().flatten().map(|request| shown(request, true));
        let mut all: Vec<Shown> = held.chain(table.waiting.iter().map(|waiter| shown(&waiter.request, false))).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Those whom a session waits for.
    pub fn blockers(&self, session: i32) -> Vec<i32> {
        let table = self.0.lock();
        let waiter = table.waiting.iter().find(|waiter| waiter.request.session == session);
        waiter.map_or_else(Vec::new, |waiter| table.blockers(&waiter.request, waiter.ticket))
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

/// A session that waits for a lock.
pub struct Waiting {
    locks: Arc<Locks>,
    request: Request,
    /// There once it has to wait, and until it has the lock.
    ticket: Option<u64>,
}

impl Future for Waiting {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let locks = Arc::clone(&self.locks);
        let mut table = locks.0.lock();
        if table.take(self.request, self.ticket.unwrap_or(u64::MAX))? {
            if let Some(ticket) = self.ticket.take() {
                table.waiting.retain(|waiter| waiter.ticket != ticket);
                // Others may share it.
                let key = self.request.key;
                let woken = table.wake(|waiter| waiter.request.key == key);
                drop(table);
                woken.into_iter().for_each(Waker::wake);
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(ticket) = self.ticket {
            if let Some(waiter) = table.waiting.iter_mut().find(|waiter| waiter.ticket == ticket) {
                waiter.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        let ticket = table.next_ticket;
        table.next_ticket += 1;
        table.waiting.push(Waiter { ticket, request: self.request, waker: Some(context.waker().clone()) });
        if let Some(circle) = table.circle(self.request.session) {
            let deadlock = table.deadlock(&circle);
            table.waiting.pop();
            return Poll::Ready(Err(deadlock));
        }
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut table = self.locks.0.lock();
        table.waiting.retain(|waiter| waiter.ticket != ticket);
        let key = self.request.key;
        let woken = table.wake(|waiter| waiter.request.key == key);
        drop(table);
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::error::SqlState;

    fn request(session: i32, key: i64, mode: Mode) -> Request {
        Request { session, key: Key::One(key), mode, until: Until::Unlocked }
    }

    fn locks() -> Arc<Locks> {
        let locks = Arc::<Locks>::default();
        (1..=3).for_each(|session| locks.enter(session));
        locks
    }

    fn poll(waiting: &mut Waiting) -> Poll<Result<()>> {
        Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_lock_is_let_go_as_often_as_it_was_taken() {
        let locks = locks();
        assert!(locks.try_lock(request(1, 7, Mode::Exclusive)).unwrap());
        assert!(locks.try_lock(request(1, 7, Mode::Exclusive)).unwrap());
        assert!(locks.unlock(1, Key::One(7), Mode::Exclusive));
        assert!(!locks.try_lock(request(2, 7, Mode::Shared)).unwrap());
        assert!(!locks.unlock(1, Key::One(7), Mode::Shared));
        assert_eq!(locks.take_unheld(1), [Mode::Shared]);
        assert_eq!(locks.take_unheld(1), []);
        assert!(!locks.unlock(2, Key::One(7), Mode::Exclusive));
        assert!(locks.unlock(1, Key::One(7), Mode::Exclusive));
        assert!(!locks.unlock(1, Key::One(7), Mode::Exclusive));
        assert!(locks.try_lock(request(2, 7, Mode::Shared)).unwrap());
    }

    #[test]
    fn who_asked_first_is_first() {
        let locks = locks();
        assert!(locks.try_lock(request(1, 7, Mode::Shared)).unwrap());
        let mut writer = locks.lock(request(2, 7, Mode::Exclusive));
        assert!(poll(&mut writer).is_pending());
        // Nobody who would share goes before the one who waits, but for who has it already.
        assert!(!locks.try_lock(request(3, 7, Mode::Shared)).unwrap());
        let mut reader = locks.lock(request(3, 7, Mode::Shared));
        assert!(poll(&mut reader).is_pending());
        assert_eq!(locks.blockers(3), [2]);
        assert!(locks.try_lock(request(1, 7, Mode::Shared)).unwrap());
        locks.unlock_all(1);
        assert!(poll(&mut reader).is_pending());
        assert!(poll(&mut writer).is_ready());
        locks.leave(2);
        assert!(poll(&mut reader).is_ready());
        assert!(locks.try_lock(request(2, 8, Mode::Shared)).is_err());
        assert_eq!(locks.all(), [Shown { session: 3, key: Key::One(7), mode: Mode::Shared, granted: true }]);
    }

    #[test]
    fn who_no_longer_waits_is_in_nobodys_way() {
        let locks = locks();
        assert!(locks.try_lock(request(1, 7, Mode::Shared)).unwrap());
        let mut writer = locks.lock(request(2, 7, Mode::Exclusive));
        assert!(poll(&mut writer).is_pending());
        drop(writer);
        assert!(locks.try_lock(request(3, 7, Mode::Shared)).unwrap());
    }

    #[test]
    fn a_circle_is_refused_to_who_closes_it() {
        let locks = locks();
        for session in 1..=3 {
            assert!(locks.try_lock(request(session, i64::from(session), Mode::Exclusive)).unwrap());
        }
        let mut first = locks.lock(request(1, 2, Mode::Exclusive));
        let mut second = locks.lock(request(2, 3, Mode::Exclusive));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        let Poll::Ready(Err(error)) = poll(&mut locks.lock(request(3, 1, Mode::Shared))) else { panic!("a circle") };
        assert_eq!(error.state(), SqlState::DeadlockDetected);
        let detail = error.detail().unwrap();
        assert!(detail.starts_with("Process 3 waits for ShareLock on advisory lock [0,1,1]; blocked by process 1."), "{detail}");
        locks.leave(3);
        assert!(poll(&mut second).is_ready());
    }

    #[test]
    fn a_transaction_goes_back_to_what_it_had() {
        let locks = locks();
        let of_transaction = |key| Request { until: Until::TransactionEnds, ..request(1, key, Mode::Exclusive) };
        assert!(locks.try_lock(of_transaction(1)).unwrap());
        let mark = locks.taken(1);
        assert!(locks.try_lock(request(1, 2, Mode::Exclusive)).unwrap());
        assert!(locks.try_lock(of_transaction(3)).unwrap());
        let keys = |locks: &Locks| locks.all().into_iter().map(|shown| shown.key).collect::<Vec<_>>();
        locks.end_transaction(1, mark);
        assert_eq!(keys(&locks), [Key::One(1), Key::One(2)]);
        // A call lets go of none of the transaction's.
        assert!(!locks.unlock(1, Key::One(1), Mode::Exclusive));
        locks.end_transaction(1, 0);
        assert_eq!(keys(&locks), [Key::One(2)]);
        assert_eq!(Key::One(-1).parts(), (u32::MAX, u32::MAX, 1));
        assert_eq!(Key::Two(-1, 2).parts(), (u32::MAX, 2, 2));
    }
}
