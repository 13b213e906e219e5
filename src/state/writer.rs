//! Writes checkpoints beside the engine: a thread that owns the store, with at most one checkpoint in hand.

use std::sync::mpsc;
use std::thread::JoinHandle;

use super::checkpoint::{Checkpoint, Checkpoints, Stats};
use crate::error::{Error, Result};

pub struct Writer {
    /// None once closed.
    work: Option<mpsc::SyncSender<Checkpoint>>,
    done: mpsc::Receiver<Result<Stats>>,
    busy: bool,
    thread: Option<JoinHandle<Checkpoints>>,
}

impl Writer {
    pub fn start(mut checkpoints: Checkpoints) -> Result<Writer> {
        let (work, submitted) = mpsc::sync_channel::<Checkpoint>(1);
        let (report, done) = mpsc::sync_channel(1);
        let run = move || {
            while let Ok(checkpoint) = submitted.recv() {
                let written = checkpoints.write(checkpoint);
                if report.send(written).is_err() {
                    break;
                }
            }
            checkpoints
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(run)?;
        Ok(Writer { work: Some(work), done, busy: false, thread: Some(thread) })
    }

    /// Hand over a checkpoint, unless one is being written: then it comes back.
    pub fn try_submit(&mut self, checkpoint: Checkpoint) -> Result<(), Checkpoint> {
        let Some(work) = self.work.as_ref().filter(|_| !self.busy) else { return Err(checkpoint) };
        match work.try_send(checkpoint) {
            Ok(()) => {
                self.busy = true;
                Ok(())
            }
            Err(mpsc::TrySendError::Full(checkpoint) | mpsc::TrySendError::Disconnected(checkpoint)) => Err(checkpoint),
        }
    }

    /// A checkpoint is being written, or its end was not asked for yet.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// What became of the checkpoint handed over, once.
    pub fn finished(&mut self) -> Option<Result<Stats>> {
        if !self.busy {
            return None;
        }
        let end = match self.done.try_recv() {
            Ok(end) => end,
            Err(mpsc::TryRecvError::Empty) => return None,
            Err(mpsc::TryRecvError::Disconnected) => Err(stopped()),
        };
        self.busy = false;
        Some(end)
    }

    /// As `finished`, but waits for it. `None` if nothing was handed over.
    pub fn wait(&mut self) -> Option<Result<Stats>> {
        if !self.busy {
            return None;
        }
        self.busy = false;
        Some(self.done.recv().unwrap_or_else(|_| Err(stopped())))
    }

    /// Finish what is being written, and give the checkpoints back.
    pub fn close(mut self) -> Result<Checkpoints> {
        let written = self.wait();
        self.work = None;
        let thread = self.thread.take().ok_or_else(stopped)?;
        let checkpoints = thread.join().map_err(|_| stopped())?;
        written.transpose()?;
        Ok(checkpoints)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.wait();
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // It has been reported, or nobody asked.
            let _ = thread.join();
        }
    }
}

fn stopped() -> Error {
    Error::internal("the checkpoint writer has stopped")
}
