//! Functions that wait, for time or for a lock, and hold no thread meanwhile; and those that only look at the locks.

use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt, select};

use super::super::value::Value;
use super::{Body, Call, Spec, int, stable};
use crate::error::{Error, Result};
use crate::locks::{Key, Mode, Request, Until};

/// What has been waited for.
pub(in crate::sql::system) type Wait = BoxFuture<'static, Result<()>>;

const NONE: &[&[&str]] = &[&[]];
const LOCK: &[&[&str]] = &[&["int8"], &["int4", "int4"]];

pub(super) const FUNCTIONS: &[Spec] = &[
    waits("pg_sleep", &[&["float8"]], sleep),
    waits("pg_advisory_lock", LOCK, |call, key| lock(call, key, Mode::Exclusive, Until::Unlocked)),
    waits("pg_advisory_lock_shared", LOCK, |call, key| lock(call, key, Mode::Shared, Until::Unlocked)),
    waits("pg_advisory_xact_lock", LOCK, |call, key| lock(call, key, Mode::Exclusive, Until::TransactionEnds)),
    waits("pg_advisory_xact_lock_shared", LOCK, |call, key| lock(call, key, Mode::Shared, Until::TransactionEnds)),
    tries("pg_try_advisory_lock", |call, key| try_lock(call, key, Mode::Exclusive, Until::Unlocked)),
    tries("pg_try_advisory_lock_shared", |call, key| try_lock(call, key, Mode::Shared, Until::Unlocked)),
    tries("pg_try_advisory_xact_lock", |call, key| try_lock(call, key, Mode::Exclusive, Until::TransactionEnds)),
    tries("pg_try_advisory_xact_lock_shared", |call, key| try_lock(call, key, Mode::Shared, Until::TransactionEnds)),
    tries("pg_advisory_unlock", |call, key| unlock(call, key, Mode::Exclusive)),
    tries("pg_advisory_unlock_shared", |call, key| unlock(call, key, Mode::Shared)),
    stable("pg_advisory_unlock_all", NONE, "void", |call, _| {
        call.context.server.locks().unlock_all(call.context.pid);
        Ok("".into())
    })
    .volatile(),
    stable("pg_blocking_pids", &[&["int4"]], "int4[]", |call, values| {
        let session = i32::try_from(int(values, 0)).unwrap_or_default();
        let blockers = call.context.server.locks().blockers(session);
        Ok(Value::List(blockers.into_iter().map(Value::from).collect()))
    })
    .volatile(),
];

const fn waits(name: &'static str, forms: &'static [&'static [&'static str]], call: super::Waits) -> Spec {
    Spec { body: Body::Waits(call), ..stable(name, forms, "void", |_, _| Ok(Value::Null)).volatile() }
}

const fn tries(name: &'static str, call: super::Asks) -> Spec {
    stable(name, LOCK, "bool", call).volatile()
}

fn sleep(call: &Call<'_>, values: &[Value]) -> Result<Wait> {
    let Some(Value::Float(seconds)) = values.first().filter(|seconds| matches!(seconds, Value::Float(s) if *s > 0.0)) else {
        return Ok(futures::future::ready(Ok(())).boxed());
    };
    let time = Duration::try_from_secs_f64(*seconds);
    let time = time.map_err(|_| Error::invalid_parameter(format!("cannot sleep for {seconds} seconds")))?;
    Ok(call.context.server.sleep(time).map(Ok).boxed())
}

fn request(call: &Call<'_>, values: &[Value], mode: Mode, until: Until) -> Result<Request> {
    let part = |at| i32::try_from(int(values, at)).map_err(|_| Error::numeric_out_of_range("integer out of range"));
    let key = if values.len() == 1 { Key::One(int(values, 0)) } else { Key::Two(part(0)?, part(1)?) };
    Ok(Request { session: call.context.pid, key, mode, until })
}

/// Until the lock is there, or `lock_timeout` is over. Whatever ends the statement ends the wait.
fn lock(call: &Call<'_>, values: &[Value], mode: Mode, until: Until) -> Result<Wait> {
    let server = &call.context.server;
    let locked = server.locks().lock(request(call, values, mode, until)?);
    let Some(limit) = call.context.settings.duration("lock_timeout") else { return Ok(locked.boxed()) };
    let late = server.sleep(limit);
    Ok(async move {
        match select(locked, late).await {
            Either::Left((locked, _)) => locked,
            Either::Right(_) => Err(Error::lock_not_available("canceling statement due to lock timeout")),
        }
    }
    .boxed())
}

fn try_lock(call: &Call<'_>, values: &[Value], mode: Mode, until: Until) -> Result<Value> {
    call.context.server.locks().try_lock(request(call, values, mode, until)?).map(Value::Bool)
}

fn unlock(call: &Call<'_>, values: &[Value], mode: Mode) -> Result<Value> {
    let Request { session, key, .. } = request(call, values, mode, Until::Unlocked)?;
    Ok(Value::Bool(call.context.server.locks().unlock(session, key, mode)))
}
