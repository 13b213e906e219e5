//! Bugs on purpose. A check that has never failed proves nothing: tests plant one of these and must then fail.
//!
//! Only a build with the feature `planted-bugs` can be made to misbehave; in any other, [`bug`] is constantly false.

/// Is this bug planted? `TIDEGATE_PLANTED_BUG` names at most one:
///
/// * `ack-before-flush`: a write is acknowledged before it is on disk.
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
