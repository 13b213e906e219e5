//! Subscriptions: a client follows the changes of a relation or of a query of its own.
//!
//! What a subscriber has not taken yet is bounded; one that falls further behind is cut off with an error that names the commit
//! to resume from. The engine never waits for a subscriber; only the replay that builds a subscriber's own query does.
//!
//! What a subscriber gets of a commit may come with that of the commits after it, in one step: the engine takes several when it has
//! to catch up. But no step goes over the commit that a subscription begins or ends at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{Stream, StreamExt};
use futures_channel::mpsc;

use super::build::{Part, Plan};
use super::{Engine, Shared};
use crate::catalog::RelationId;
use crate::delta::{Delta, consolidate};
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

/// From where to where, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// First the rows as they are at the beginning.
    pub snapshot: bool,
    /// Begin with this commit, instead of the newest: what comes after it are its changes. The engine must have reached it.
    pub as_of: Option<CommitId>,
    /// End before this commit.
    pub up_to: Option<CommitId>,
    /// Say how far it has come, also when there are no changes.
    pub progress: bool,
}

impl Span {
    /// The last commit of it.
    fn last(&self) -> Option<CommitId> {
        self.up_to.map(|up_to| up_to.saturating_sub(1))
    }
}

/// Changes of a step, or the rows as of its commit.
#[derive(Clone, Debug)]
pub struct Update {
    pub commit: CommitId,
    pub time: Micros,
    /// `None`: everything up to this commit has been sent.
    pub delta: Option<Delta>,
}

/// A request to follow.
pub struct Subscribe {
    query: u64,
    source: Source,
    span: Span,
    outlet: Outlet,
}

/// The engine's end of a subscription.
#[derive(Clone)]
struct Outlet {
    send: mpsc::UnboundedSender<Result<Update>>,
    /// Bytes sent and not taken.
    behind: Arc<AtomicUsize>,
    /// The last commit of which everything was sent; 0 before the first.
    complete: Arc<AtomicU64>,
    span: Span,
}

/// The client's end: a stream of updates, in commit order. Dropping it ends the subscription.
pub struct Subscription {
    receive: mpsc::UnboundedReceiver<Result<Update>>,
    behind: Arc<AtomicUsize>,
    engine: Weak<Shared>,
}

pub(super) fn channel(query: u64, source: Source, span: Span, engine: Weak<Shared>) -> (Subscribe, Subscription) {
    let (send, receive) = mpsc::unbounded();
    let behind = Arc::new(AtomicUsize::new(0));
    let outlet = Outlet { send, behind: Arc::clone(&behind), complete: Arc::default(), span };
    (Subscribe { query, source, span, outlet }, Subscription { receive, behind, engine })
}

/// What an update counts for, however few its bytes.
fn weight(update: &Update) -> usize {
    update.delta.as_ref().map_or(0, Delta::bytes).max(limits::SUBSCRIBER_BYTES / limits::SUBSCRIBER_STEPS)
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
            let hint = match self.complete.load(Ordering::SeqCst) {
                0 => "not all rows of the beginning were sent; subscribe again".to_string(),
                commit => format!(
                    "everything up to commit {commit} was sent; resume with SUBSCRIBE … WITH (SNAPSHOT = false) AS OF {commit}"
                ),
            };
            self.fail(Error::limit_exceeded("the subscriber is too slow and was cut off").with_hint(hint));
            return false;
        }
        self.behind.fetch_add(weight(&update), Ordering::SeqCst);
        self.send.unbounded_send(Ok(update)).is_ok()
    }

    /// All of a commit has been sent. Says whether there is more to come.
    fn complete(&self, commit: CommitId, time: Micros) -> bool {
        self.complete.store(commit, Ordering::SeqCst);
        let told = !self.span.progress || self.send(Update { commit, time, delta: None });
        if self.span.last().is_some_and(|last| commit >= last) {
            self.send.close_channel();
            return false;
        }
        told
    }

    fn fail(&self, error: Error) {
        // The client may have gone already.
        let _ = self.send.unbounded_send(Err(error));
        self.send.close_channel();
    }
}

/// Passes the changes of a replay on.
pub(super) struct Tap {
    outlet: Outlet,
    /// Whose changes.
    pub(super) target: Target,
    /// The rows at the beginning are not known before its commit: no changes are passed on until then.
    waits: bool,
}

impl Tap {
    /// `keeps`: the target keeps its rows, so those of the beginning need not be put together from its changes.
    fn new(outlet: Outlet, target: Target, keeps: bool) -> Tap {
        let waits = outlet.span.as_of.is_some_and(|commit| commit > 0) && (keeps || !outlet.span.snapshot);
        Tap { outlet, target, waits }
    }

    /// Whether it begins at a former commit, and has to see all that come after it.
    pub fn looks_back(&self) -> bool {
        self.outlet.span.as_of.is_some()
    }

    /// A step that begins after `commit` must not go further than this. From the beginning on each commit's changes come by
    /// themselves: who resumes wants what it has missed, not what came of it.
    pub fn stop_after(&self, commit: CommitId) -> CommitId {
        match self.outlet.span.as_of {
            None => CommitId::MAX,
            Some(as_of) if commit < as_of => as_of,
            Some(_) => commit + 1,
        }
    }

    /// The rows as of this commit are what the subscriber is to begin with.
    pub fn begins_at(&self, commit: CommitId) -> bool {
        self.waits && self.outlet.span.snapshot && self.outlet.span.as_of == Some(commit)
    }

    /// Changes of a step up to `commit`, or the rows as of it. If `patient`, wait for a client that is slower than the log instead
    /// of cutting it off. Says whether the subscription has come to its end.
    pub fn pass(
        &mut self,
        commit: CommitId,
        time: Micros,
        changes: Vec<(Target, Delta)>,
        rows: Option<Arc<Version>>,
        patient: bool,
    ) -> Result<bool> {
        let as_of = self.outlet.span.as_of.unwrap_or(0);
        let waited = std::mem::take(&mut self.waits);
        if waited && commit <= as_of {
            self.waits = commit < as_of;
            if let Some(version) = rows {
                send_rows(&self.outlet, commit, time, &version)?;
            }
            return Ok(!self.waits && !self.outlet.complete(commit, time));
        }
        let (shown, target) = (commit.max(as_of), self.target);
        for (_, delta) in changes.into_iter().filter(|(of, _)| *of == target) {
            let closed = || self.outlet.send.is_closed();
            while patient && !closed() && self.outlet.behind.load(Ordering::SeqCst) > limits::SUBSCRIBER_BYTES / 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !self.outlet.send(Update { commit: shown, time, delta: Some(delta) }) {
                return Err(Error::canceled("the subscriber has gone"));
            }
        }
        Ok(commit >= as_of && !self.outlet.complete(commit, time))
    }
}

struct Subscriber {
    query: u64,
    outlet: Outlet,
    /// It wants the rows that are there when its query is ready.
    wants_rows: bool,
    /// It gets what the engine's steps change. Before, a replay or a build is on the way to there.
    live: bool,
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
                subscribers.retain(|s| !s.live || s.outlet.send(Update { commit, time, delta: Some(delta.clone()) }));
            }
        }
        self.by_target.values_mut().for_each(|all| all.retain(|s| !s.live || s.outlet.complete(commit, time)));
    }

    /// A step that begins after `commit` must not go further than this: a subscription ends there.
    pub fn stop_after(&self, commit: CommitId) -> CommitId {
        let all = self.by_target.values().flatten().filter(|s| s.live);
        all.filter_map(|s| s.outlet.span.last()).filter(|last| *last > commit).min().unwrap_or(CommitId::MAX)
    }

    /// Those of a query's replay go on with the changes of what they asked for.
    pub fn follow(&mut self, query: Target, target: Target) {
        let mut moved = self.by_target.remove(&query).unwrap_or_default();
        moved.iter_mut().for_each(|s| s.live = true);
        self.by_target.entry(target).or_default().append(&mut moved);
    }

    /// A query's nodes run in the engine now, and these are its rows, if it keeps them.
    pub fn adopted(&mut self, target: Target, commit: CommitId, time: Micros, version: Option<Arc<Version>>) -> Result<()> {
        for subscriber in self.by_target.get_mut(&target).into_iter().flatten().filter(|s| !s.live) {
            subscriber.live = true;
            if let (true, Some(version)) = (std::mem::take(&mut subscriber.wants_rows), &version) {
                send_rows(&subscriber.outlet, commit, time, version)?;
            }
            subscriber.outlet.complete(commit, time);
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

    /// A view has other rows from this commit on, all at once. Its subscribers get the difference; or, if it has other columns,
    /// they end.
    pub fn swapped(
        &mut self,
        id: RelationId,
        commit: CommitId,
        time: Micros,
        [old, new]: [Option<Arc<Version>>; 2],
        otherwise: &Error,
    ) {
        let Some(subscribers) = self.by_target.remove(&Target::Relation(id)) else { return };
        let same = |old: &Version, new: &Version| old.schema().fields() == new.schema().fields();
        let delta = match (&old, &new) {
            (Some(old), Some(new)) if same(old, new) => difference(old, new),
            _ => Err(otherwise.clone()),
        };
        let mut going_on = Vec::new();
        for subscriber in subscribers {
            match &delta {
                Err(error) => subscriber.outlet.fail(error.clone()),
                Ok(delta) => {
                    let goes_on =
                        delta.is_empty() || { subscriber.outlet.send(Update { commit, time, delta: Some(delta.clone()) }) };
                    going_on.extend(goes_on.then_some(subscriber));
                }
            }
        }
        self.by_target.insert(Target::Relation(id), going_on);
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

/// What makes the new rows of the old ones.
fn difference(old: &Version, new: &Version) -> Result<Delta> {
    let gone = old.scan(None)?.into_iter().map(|rows| Delta::weighted(rows, -1));
    let come = new.scan(None)?.into_iter().map(Delta::append);
    consolidate(&new.schema(), &gone.chain(come).collect::<Vec<_>>())
}

fn send_rows(outlet: &Outlet, commit: CommitId, time: Micros, version: &Version) -> Result<()> {
    for rows in version.scan(None)? {
        // The rows are shared with the view, so they cost the engine nothing however slow the client is.
        let update = Update { commit, time, delta: Some(Delta::append(rows)) };
        outlet.behind.fetch_add(weight(&update), Ordering::SeqCst);
        if outlet.send.unbounded_send(Ok(update)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Where the changes of a followed query end up.
pub(super) fn query_sink(query: u64, fragment: &Fragment) -> Sink {
    let schema = Arc::clone(&fragment.edge.schema);
    match fragment.edge.append_only {
        true => Sink::changes(Target::Query(query), schema),
        false => Sink::query(query, Store::new("rows", schema, Vec::new())),
    }
}

impl Engine {
    pub(super) fn start_subscription(&mut self, request: Subscribe) {
        let outlet = request.outlet.clone();
        if let Err(error) = self.try_start_subscription(request) {
            outlet.fail(error);
        }
    }

    fn try_start_subscription(&mut self, request: Subscribe) -> Result<()> {
        let Subscribe { query, source, span, outlet } = request;
        let snapshot = span.snapshot;
        let mut subscriber = Subscriber { query, outlet: outlet.clone(), wants_rows: false, live: false };
        match source {
            Source::Relation(id) if span.as_of.is_some_and(|commit| commit < self.commit) => {
                let replay = self.replay_of(&[id], None, &span)?;
                self.subscribers.add(Target::Query(query), subscriber);
                self.begin_replay(query, replay, Tap::new(outlet, Target::Relation(id), true))?;
            }
            Source::Relation(id) => {
                let target = Target::Relation(id);
                let version = self.graph.version(target).ok_or_else(|| Error::not_ready("the relation has no rows yet"))?;
                if snapshot {
                    send_rows(&outlet, self.commit, self.next.time, &version)?;
                }
                subscriber.live = true;
                if outlet.complete(self.commit, self.next.time) {
                    self.subscribers.add(target, subscriber);
                }
            }
            Source::Query(fragment) if span.as_of.is_some() => {
                let (target, keeps) = (Target::Query(query), !fragment.edge.append_only);
                let replay = self.replay_of(&fragment.reads(), Some((query, *fragment)), &span)?;
                self.subscribers.add(target, subscriber);
                self.begin_replay(query, replay, Tap::new(outlet, target, keeps))?;
            }
            Source::Query(fragment) => {
                let target = Target::Query(subscriber.query);
                // Changes of an append-only query are passed on as they are found. Others are followed from their rows, so that
                // the client never sees what was only so in between.
                let sink = query_sink(query, &fragment);
                let tap = (fragment.edge.append_only && snapshot).then(|| Tap::new(outlet, target, false));
                subscriber.wants_rows = snapshot && tap.is_none();
                self.subscribers.add(target, subscriber);
                let sinks = vec![(fragment.output.clone(), sink)];
                let plan = Plan { part: Part { target, fingerprint: None }, fragment: *fragment, sinks, whole: false };
                let catalog = Arc::clone(&self.next.catalog);
                self.begin(vec![plan], tap, &mut None, Arc::default(), &catalog)?;
            }
        }
        Ok(())
    }
}
