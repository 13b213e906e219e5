//! Bugs on purpose. A check that has never failed proves nothing: tests plant one of these and must then fail.
//!
//! Only a build with the feature `planted-bugs` can be made to misbehave; in any other, [`bug`] is constantly false.

/// Is this bug planted? `TIDEGATE_PLANTED_BUG` names at most one:
///
/// * `ack-before-flush`: a write is acknowledged before it is on disk.
/// * `skip-row`: a start leaves out one row of the newest commit that it replays.
/// * `batch-twice`: a start replays a batch of the newest commit twice.
/// * `other-commit`: in a snapshot, one relation has the rows of the commit before.
/// * `late-row`: rows of windows that are closed already are let in.
#[cfg(feature = "planted-bugs")]
pub fn bug(name: &str) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("TIDEGATE_PLANTED_BUG").ok());
    PLANTED.as_deref() == Some(name)
}

#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn bug(_: &str) -> bool {
    false
}
