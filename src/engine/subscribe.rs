//! Subscriptions: a client follows the changes of a relation or of a query of its own.
//!
//! What a subscriber has not taken yet is bounded; one that falls further behind is cut off with an error that names the commit
//! to resume from. The engine never waits for a subscriber; only the replay that builds a subscriber's own query does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{Stream, StreamExt};
use futures_channel::mpsc;

use super::{Engine, Shared};
use crate::catalog::RelationId;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::Fragment;
use crate::flow::sink::{Sink, Target};
use crate::limits;
use crate::log::CommitId;
use crate::time::Micros;
use crate::view::{Store, Version};

/// What to follow.
pub enum Source {
    /// The rows of a table, view or late-row relation.
    Relation(RelationId),
    /// The result of a query over them and over streams.
    Query(Box<Fragment>),
}

/// Changes of one commit, or the rows as of it.
#[derive(Clone, Debug)]
pub struct Update {
    pub commit: CommitId,
    pub time: Micros,
    pub delta: Delta,
    /// Part of the rows that were there at the beginning.
    pub snapshot: bool,
}

/// A request to follow.
pub struct Subscribe {
    query: u64,
    source: Source,
    snapshot: bool,
    outlet: Outlet,
}

/// The engine's end of a subscription.
#[derive(Clone)]
struct Outlet {
    send: mpsc::UnboundedSender<Result<Update>>,
    /// Bytes sent and not taken.
    behind: Arc<AtomicUsize>,
}

/// The client's end: a stream of updates, in commit order. Dropping it ends the subscription.
pub struct Subscription {
    receive: mpsc::UnboundedReceiver<Result<Update>>,
    behind: Arc<AtomicUsize>,
    engine: Weak<Shared>,
}

pub(super) fn channel(query: u64, source: Source, snapshot: bool, engine: Weak<Shared>) -> (Subscribe, Subscription) {
    let (send, receive) = mpsc::unbounded();
    let behind = Arc::new(AtomicUsize::new(0));
    let outlet = Outlet { send, behind: Arc::clone(&behind) };
    (Subscribe { query, source, snapshot, outlet }, Subscription { receive, behind, engine })
}

/// What an update counts for, however few its bytes.
fn weight(update: &Update) -> usize {
    update.delta.bytes().max(limits::SUBSCRIBER_BYTES / limits::SUBSCRIBER_STEPS)
}

impl Stream for Subscription {
    type Item = Result<Update>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        let polled = self.receive.poll_next_unpin(cx);
        if let std::task::Poll::Ready(Some(Ok(update))) = &polled {
            self.behind.fetch_sub(weight(update), Ordering::SeqCst);
        }
        polled
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.receive.close();
        if let Some(engine) = self.engine.upgrade() {
            engine.log.wake();
        }
    }
}

impl Outlet {
    /// Hand over an update, or end the subscription if it is too far behind. Says whether it goes on.
    fn send(&self, update: Update) -> bool {
        if self.behind.load(Ordering::SeqCst) > limits::SUBSCRIBER_BYTES {
            let resume = update.commit.saturating_sub(1);
            let error = Error::limit_exceeded("the subscriber is too slow and was cut off")
                .with_hint(format!("everything up to commit {resume} was sent; resume with SUBSCRIBE … AS OF {resume}"));
            self.fail(error);
            return false;
        }
        self.behind.fetch_add(weight(&update), Ordering::SeqCst);
        self.send.unbounded_send(Ok(update)).is_ok()
    }

    fn fail(&self, error: Error) {
        // The client may have gone already.
        let _ = self.send.unbounded_send(Err(error));
        self.send.close_channel();
    }
}

/// Passes the changes of a replay on.
pub(super) struct Tap(Outlet);

impl Tap {
    /// If `patient`, wait for a client that is slower than the log instead of cutting it off.
    pub fn pass(&self, commit: CommitId, time: Micros, changes: Vec<(Target, Delta)>, patient: bool) -> Result<()> {
        for (_, delta) in changes {
            while patient && !self.0.send.is_closed() && self.0.behind.load(Ordering::SeqCst) > limits::SUBSCRIBER_BYTES / 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !self.0.send(Update { commit, time, delta, snapshot: true }) {
                return Err(Error::canceled("the subscriber has gone"));
            }
        }
        Ok(())
    }
}

struct Subscriber {
    query: u64,
    outlet: Outlet,
    /// It wants the rows that are there when its query is ready.
    wants_rows: bool,
}

#[derive(Default)]
pub(super) struct Subscribers {
    by_target: BTreeMap<Target, Vec<Subscriber>>,
}

impl Subscribers {
    fn add(&mut self, target: Target, subscriber: Subscriber) {
        self.by_target.entry(target).or_default().push(subscriber);
    }

    /// Changes of a step to those who follow them.
    pub fn tell(&mut self, commit: CommitId, time: Micros, changes: &[(Target, Delta)]) {
        for (target, delta) in changes {
            if let Some(subscribers) = self.by_target.get_mut(target) {
                subscribers.retain(|s| s.outlet.send(Update { commit, time, delta: delta.clone(), snapshot: false }));
            }
        }
    }

    /// A query's nodes run in the engine now, and these are its rows, if it keeps them.
    pub fn adopted(&mut self, target: Target, commit: CommitId, time: Micros, version: Option<Arc<Version>>) -> Result<()> {
        let Some(version) = version else { return Ok(()) };
        for subscriber in self.by_target.get_mut(&target).into_iter().flatten().filter(|s| s.wants_rows) {
            subscriber.wants_rows = false;
            send_rows(&subscriber.outlet, commit, time, &version)?;
        }
        Ok(())
    }

    pub fn fail(&mut self, query: u64, error: Error) {
        for subscriber in self.by_target.remove(&Target::Query(query)).into_iter().flatten() {
            subscriber.outlet.fail(error.clone());
        }
    }

    pub fn fail_relation(&mut self, id: RelationId) {
        for subscriber in self.by_target.remove(&Target::Relation(id)).into_iter().flatten() {
            subscriber.outlet.fail(Error::undefined_table("the relation was dropped"));
        }
    }

    /// Queries whose client has gone.
    pub fn take_abandoned(&mut self) -> Vec<u64> {
        self.by_target.values_mut().for_each(|s| s.retain(|s| !s.outlet.send.is_closed()));
        let gone = |(target, s): (&Target, &Vec<Subscriber>)| match target {
            Target::Query(query) if s.is_empty() => Some(*query),
            _ => None,
        };
        let queries: Vec<u64> = self.by_target.iter().filter_map(gone).collect();
        self.by_target.retain(|_, s| !s.is_empty());
        queries
    }
}

fn send_rows(outlet: &Outlet, commit: CommitId, time: Micros, version: &Version) -> Result<()> {
    for rows in version.scan(None)? {
        // The rows are shared with the view, so they cost the engine nothing however slow the client is.
        let update = Update { commit, time, delta: Delta::append(rows), snapshot: true };
        outlet.behind.fetch_add(weight(&update), Ordering::SeqCst);
        if outlet.send.unbounded_send(Ok(update)).is_err() {
            break;
        }
    }
    Ok(())
}

impl Engine {
    pub(super) fn start_subscription(&mut self, request: Subscribe) {
        let outlet = request.outlet.clone();
        if let Err(error) = self.try_start_subscription(request) {
            outlet.fail(error);
        }
    }

    fn try_start_subscription(&mut self, request: Subscribe) -> Result<()> {
        let Subscribe { query, source, snapshot, outlet } = request;
        let mut subscriber = Subscriber { query, outlet: outlet.clone(), wants_rows: false };
        match source {
            Source::Relation(id) => {
                let target = Target::Relation(id);
                let version = self.graph.version(target).ok_or_else(|| Error::not_ready("the relation has no rows yet"))?;
                if snapshot {
                    send_rows(&outlet, self.commit, self.next.time, &version)?;
                }
                self.subscribers.add(target, subscriber);
            }
            Source::Query(fragment) => {
                let target = Target::Query(subscriber.query);
                let schema = Arc::clone(&fragment.edge.schema);
                // Changes of an append-only query are passed on as they are found. Others are followed from their rows, so that
                // the client never sees what was only so in between.
                let (sink, tap) = match fragment.edge.append_only {
                    true => (Sink::changes(query, schema), snapshot.then(|| Tap(outlet))),
                    false => (Sink::query(query, Store::new("rows", schema, Vec::new())), None),
                };
                subscriber.wants_rows = snapshot && tap.is_none();
                self.subscribers.add(target, subscriber);
                let output = fragment.output.clone();
                self.begin(target, *fragment, vec![(output, sink)], None, tap)?;
            }
        }
        Ok(())
    }
}
