//! The engine as all others see it: its snapshots, and what it is asked to do between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures_channel::oneshot;
use parking_lot::Mutex;

use super::progress::ProgressList;
use super::swap::Prepare;
use super::{Compiler, Engine, Intake, Makers, Options, Recovery, Source, Span, Subscribe, Subscription, subscribe};
use crate::error::{Error, Result};
use crate::log::{CommitId, LogHandle};
use crate::state::StateStore;
use crate::view::Snapshot;

/// The engine seen from outside; clones are the same engine.
#[derive(Clone)]
pub struct EngineHandle {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) log: LogHandle,
    pub(super) snapshot: ArcSwap<Snapshot>,
    waiters: Mutex<Vec<Waiter>>,
    pub(super) commands: Mutex<Vec<Command>>,
    pub(super) closing: AtomicBool,
    pub(super) thread: Mutex<Option<std::thread::JoinHandle<Result<()>>>>,
    pub(super) next_query: AtomicU64,
    /// Why the engine stopped, if it did.
    pub(super) stopped: Mutex<Option<Error>>,
    pub(super) progress: ProgressList,
}

struct Waiter {
    when: Box<dyn Fn(&Snapshot) -> bool + Send>,
    tell: oneshot::Sender<Arc<Snapshot>>,
}

pub(super) enum Command {
    Subscribe(Box<Subscribe>),
    Prepare(Box<Prepare>),
    Checkpoint(oneshot::Sender<Result<CommitId>>),
    /// Tell when all that follows from the commits up to here is in the log, or cannot be brought there.
    Drain(CommitId, oneshot::Sender<()>),
}

impl EngineHandle {
    /// Recover from the state store and the log, then go on in a thread. Returns when everything is at the log's end.
    pub fn start(
        log: LogHandle,
        store: Box<dyn StateStore>,
        compiler: Arc<dyn Compiler>,
        intake: Arc<dyn Intake>,
        options: Options,
    ) -> Result<(EngineHandle, Recovery)> {
        let shared = Arc::new(Shared {
            log: log.clone(),
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            waiters: Mutex::default(),
            commands: Mutex::default(),
            closing: AtomicBool::new(false),
            thread: Mutex::new(None),
            next_query: AtomicU64::new(1),
            stopped: Mutex::new(None),
            progress: ProgressList::default(),
        });
        let (mut engine, mut recovery) = Engine::recover(Arc::clone(&shared), store, Makers { compiler, intake }, options)?;
        let from = engine.commit;
        engine.catch_up(log.end())?;
        recovery.replayed = engine.commit - from;
        engine.build_stopped()?;
        let own = Arc::clone(&shared);
        let run = move || {
            let result = engine.run();
            if let Err(error) = &result {
                tracing::error!(%error, "the engine has stopped; views stay at their last commit");
                *own.stopped.lock() = Some(error.clone());
                own.waiters.lock().clear();
                own.commands.lock().clear();
            }
            result
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(run)?;
        *shared.thread.lock() = Some(thread);
        let handle = EngineHandle { shared };
        // What the last process read and did not come to write.
        handle.drain();
        Ok((handle, recovery))
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The first snapshot from now on for which `when` holds.
    pub async fn wait_until(&self, when: impl Fn(&Snapshot) -> bool + Send + 'static) -> Result<Arc<Snapshot>> {
        let receiver = {
            // The lock is held while looking, so that no snapshot is published in between.
            let mut waiters = self.shared.waiters.lock();
            let now = self.snapshot();
            if when(&now) {
                return Ok(now);
            }
            if let Some(error) = &*self.shared.stopped.lock() {
                return Err(Error::not_ready(format!("the engine has stopped: {error}")));
            }
            let (tell, receiver) = oneshot::channel();
            waiters.push(Waiter { when: Box::new(when), tell });
            receiver
        };
        receiver.await.map_err(|_| Error::shutting_down("the engine has stopped"))
    }

    /// A snapshot that covers this commit, and what running queries have written because of it.
    pub async fn wait_for(&self, commit: CommitId) -> Result<Arc<Snapshot>> {
        self.wait_until(move |snapshot| snapshot.complete >= commit).await
    }

    /// Let running queries write what follows from the log as it is, as long as the log takes it. Blocks.
    pub fn drain(&self) {
        let (tell, receiver) = oneshot::channel();
        self.shared.command(Command::Drain(self.shared.log.end(), tell));
        if self.shared.stopped.lock().is_none() && !self.shared.closing.load(Ordering::SeqCst) {
            // An engine that stops meanwhile drops what it was told.
            let _ = futures::executor::block_on(receiver);
        }
    }

    /// Follow a relation or a query.
    pub fn subscribe(&self, source: Source, span: Span) -> Subscription {
        let query = self.shared.next_number();
        let (request, subscription) = subscribe::channel(query, source, span, Arc::downgrade(&self.shared));
        self.shared.command(Command::Subscribe(Box::new(request)));
        subscription
    }

    /// Write a checkpoint now, and return its commit when it is on disk.
    pub async fn checkpoint(&self) -> Result<CommitId> {
        let (tell, receiver) = oneshot::channel();
        self.shared.command(Command::Checkpoint(tell));
        receiver.await.map_err(|_| Error::shutting_down("the engine has stopped"))?
    }

    /// Work off the log, write a checkpoint, stop.
    pub fn close(&self) -> Result<()> {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.log.wake();
        match self.shared.thread.lock().take().map(std::thread::JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::internal("the engine panicked")),
        }
    }
}

impl Shared {
    pub(super) fn command(&self, command: Command) {
        self.commands.lock().push(command);
        self.log.wake();
    }

    /// A number for a query.
    pub(super) fn next_number(&self) -> u64 {
        self.next_query.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let mut waiters = self.waiters.lock();
        self.snapshot.store(Arc::clone(&snapshot));
        let (ready, waiting): (Vec<_>, Vec<_>) =
            waiters.drain(..).filter(|w| !w.tell.is_canceled()).partition(|w| (w.when)(&snapshot));
        *waiters = waiting;
        drop(waiters);
        for waiter in ready {
            // Who no longer waits is not told.
            let _ = waiter.tell.send(Arc::clone(&snapshot));
        }
    }
}
