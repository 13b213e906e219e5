//! Settings of a session: those that mean something here, and those that drivers set and that need only be remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::styles;
use crate::catalog::schema::identifiers;
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::limits;
use crate::sql::ast::SetValue;
use crate::sql::batch::memory::human_size;
use crate::sql::system;
use crate::time::zone::Zone;

/// How long a client may leave its session idle: in a transaction block, and outside.
pub(super) const IDLE_IN_TRANSACTION: &str = "idle_in_transaction_session_timeout";
pub(super) const IDLE_SESSION: &str = "idle_session_timeout";

/// Until when a COMMIT waits ([`Settings::waits_to_be_seen`]).
const SYNCHRONOUS_COMMIT: &str = "synchronous_commit";

const REMOTE_APPLY: &str = "remote_apply";

/// How much memory a statement may take; 0: as much as all together.
const STATEMENT_MEMORY: &str = "statement_memory";

/// Where ksqlDB's queries begin.
const AUTO_OFFSET_RESET: &str = "auto.offset.reset";

/// The schemas in which names without one are looked up.
const SEARCH_PATH: &str = "search_path";
const DEFAULT_PATH: &str = "\"$user\", public";

/// Name, value at the start, and whether the client is told when it changes.
const SETTINGS: &[(&str, &str, bool)] = &[
    ("application_name", "", true),
    ("array_nulls", "on", false),
    ("backslash_quote", "safe_encoding", false),
    ("block_size", "8192", false),
    ("bytea_output", "hex", false),
    ("check_function_bodies", "on", false),
    ("client_encoding", "UTF8", true),
    ("client_min_messages", "notice", false),
    ("DateStyle", "ISO, MDY", true),
    ("default_table_access_method", "heap", false),
    ("default_tablespace", "", false),
    ("default_text_search_config", "pg_catalog.simple", false),
    ("default_transaction_deferrable", "off", false),
    ("default_transaction_isolation", "repeatable read", false),
    ("default_transaction_read_only", "off", true),
    ("escape_string_warning", "on", false),
    ("extra_float_digits", "1", false),
    (IDLE_IN_TRANSACTION, "0", false),
    (IDLE_SESSION, "0", false),
    ("in_hot_standby", "off", true),
    ("integer_datetimes", "on", true),
    ("IntervalStyle", "postgres", true),
    ("is_superuser", "on", true),
    ("jit", "off", false),
    ("lc_collate", "C", false),
    ("lc_ctype", "C.UTF-8", false),
    ("lc_messages", "C", false),
    ("lc_monetary", "C", false),
    ("lc_numeric", "C", false),
    ("lc_time", "C", false),
    ("lock_timeout", "0", false),
    (MAX_CONNECTIONS, "256", false),
    ("max_function_args", "100", false),
    ("max_identifier_length", "63", false),
    ("max_index_keys", "32", false),
    ("max_prepared_transactions", "0", false),
    ("password_encryption", "scram-sha-256", false),
    ("plan_cache_mode", "auto", false),
    ("quote_all_identifiers", "off", false),
    ("role", "none", false),
    ("row_security", "on", false),
    (SEARCH_PATH, DEFAULT_PATH, false),
    ("server_encoding", "UTF8", true),
    ("server_version", SERVER_VERSION, true),
    ("server_version_num", "150000", false),
    ("session_authorization", "tidegate", true),
    ("standard_conforming_strings", "on", true),
    ("session_replication_role", "origin", false),
    (STATEMENT_MEMORY, "1GB", false),
    ("statement_timeout", "0", false),
    ("synchronize_seqscans", "on", false),
    (SYNCHRONOUS_COMMIT, "on", false),
    ("TimeZone", "Etc/UTC", true),
    ("transaction_deferrable", "off", false),
    ("transaction_isolation", "repeatable read", false),
    ("transaction_read_only", "off", false),
    ("xmlbinary", "base64", false),
    ("xmloption", "content", false),
];

/// How many sessions there may be at once: the server's option.
pub(super) const MAX_CONNECTIONS: &str = "max_connections";

/// What clients compare to find out what a server can do, and who answers.
pub const SERVER_VERSION: &str = concat!("15.0 (Tidegate ", env!("CARGO_PKG_VERSION"), ")");

/// Settings that cannot be set.
const FIXED: &[&str] = &[
    "block_size",
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "lc_collate",
    "lc_ctype",
    MAX_CONNECTIONS,
    "max_function_args",
    "max_identifier_length",
    "max_index_keys",
    "max_prepared_transactions",
    "role",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
];

/// Of these, those that statements of their own change: who the session is.
const IDENTITY: &[&str] = &["is_superuser", "role", "session_authorization"];

/// The settings of a session, shared with the functions of its statements.
#[derive(Clone, Default)]
pub(super) struct Settings(Arc<Mutex<Changed>>);

/// Values by name in lower case, of those that differ from the server's.
type Values = BTreeMap<String, String>;

#[derive(Default)]
struct Changed {
    values: Values,
    /// What the client has started with: RESET goes back to it.
    start: Values,
    /// There within a transaction block.
    block: Option<Block>,
    unreported: BTreeSet<&'static str>,
    /// The value of `search_path`, while it is known.
    path: Option<Arc<str>>,
}

/// What becomes of settings when their block ends.
#[derive(Clone)]
pub(super) struct Block {
    /// After ROLLBACK.
    before: Values,
    /// After COMMIT: what was set, but not for the block alone.
    kept: Values,
}

/// Settings at a savepoint.
pub(super) struct Mark {
    values: Values,
    block: Option<Block>,
}

impl Changed {
    fn insert(&mut self, name: &str, value: &str, local: bool) {
        self.path = None;
        self.values.insert(name.to_string(), value.to_string());
        if let Some(block) = self.block.as_mut().filter(|_| !local) {
            block.kept.insert(name.to_string(), value.to_string());
        }
    }

    fn replace(&mut self, values: Values) {
        self.path = None;
        let former = std::mem::replace(&mut self.values, values);
        let changed = former.keys().chain(self.values.keys()).filter(|name| former.get(*name) != self.values.get(*name));
        let told = changed.filter_map(|name| find(name).filter(|(_, _, told)| *told).map(|(name, _, _)| *name));
        self.unreported.extend(told.collect::<Vec<_>>());
    }
}

fn find(name: &str) -> Option<&'static (&'static str, &'static str, bool)> {
    SETTINGS.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name))
}

impl Settings {
    pub fn get(&self, name: &str) -> Option<String> {
        let changed = self.0.lock().values.get(&name.to_ascii_lowercase()).cloned();
        changed.or_else(|| find(name).map(|(_, value, _)| (*value).to_string()))
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> =
            SETTINGS.iter().map(|(name, _, _)| ((*name).to_string(), self.get(name).unwrap_or_default())).collect();
        // Of the clients' own: `myapp.user`.
        all.extend(
            self.0
                .lock()
                .values
                .iter()
                .filter(|(name, _)| find(name).is_none())
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        all
    }

    /// `local`: until the transaction block ends.
    pub fn set(&self, name: &str, value: &str, local: bool, notices: &mut Vec<Error>) -> Result<()> {
        let lower = name.to_ascii_lowercase();
        let value = match lower.as_str() {
            // The order stays what it was.
            AUTO_OFFSET_RESET if !value.eq_ignore_ascii_case("earliest") => {
                let error = Error::invalid_parameter(format!(
                    "{AUTO_OFFSET_RESET} is always 'earliest': queries begin with the first row"
                ));
                return Err(error.with_hint("SUBSCRIBE TO name WITH (SNAPSHOT = false) shows what comes from now on"));
            }
            "datestyle" if styles::date_style(value)?.is_none() => self.get(&lower).unwrap_or_default(),
            _ => checked(&lower, value)?,
        };
        let known = find(name);
        if known.is_none() && !name.contains('.') {
            // Clients set many that have no meaning here; refusing one would refuse the client.
            notices.push(Error::undefined_object(format!(
                "parameter \"{name}\" is not known here; it is remembered without effect"
            )));
        }
        let mut changed = self.0.lock();
        changed.insert(&lower, &value, local);
        if let Some((name, _, true)) = known {
            changed.unreported.insert(name);
        }
        Ok(())
    }

    pub fn assign(&self, name: &str, value: &SetValue, local: bool, notices: &mut Vec<Error>) -> Result<()> {
        match value {
            SetValue::Value(value) => self.set(name, value, local, notices),
            SetValue::Default => self.reset(name),
        }
    }

    pub fn reset(&self, name: &str) -> Result<()> {
        let all = name.eq_ignore_ascii_case("all");
        let mut changed = self.0.lock();
        let names: Vec<String> = {
            let wanted = |known: &&String| (all || known.eq_ignore_ascii_case(name)) && !IDENTITY.contains(&known.as_str());
            changed.values.keys().filter(wanted).cloned().collect()
        };
        for name in names {
            match changed.start.get(&name).cloned() {
                Some(value) => changed.insert(&name, &value, false),
                None => {
                    changed.path = None;
                    changed.values.remove(&name);
                    changed.block.iter_mut().for_each(|block| drop(block.kept.remove(&name)));
                }
            }
            if let Some((name, _, true)) = find(&name) {
                changed.unreported.insert(name);
            }
        }
        Ok(())
    }

    /// What is so, and not the client's to set.
    pub fn tell(&self, name: &'static str, value: &str) {
        let mut changed = self.0.lock();
        let is_new = changed.values.get(name).is_some_and(|old| old != value);
        changed.insert(name, value, false);
        if is_new && find(name).is_some_and(|(_, _, reported)| *reported) {
            changed.unreported.insert(name);
        }
    }

    /// The client has said all that it starts with.
    pub fn started(&self) {
        let mut changed = self.0.lock();
        changed.start = changed.values.clone();
    }

    pub fn begin_block(&self) {
        let mut changed = self.0.lock();
        let values = changed.values.clone();
        changed.block = Some(Block { before: values.clone(), kept: values });
    }

    pub fn end_block(&self, committed: bool) {
        let mut changed = self.0.lock();
        if let Some(Block { before, kept }) = changed.block.take() {
            changed.replace(if committed { kept } else { before });
        }
    }

    pub fn mark(&self) -> Mark {
        let changed = self.0.lock();
        Mark { values: changed.values.clone(), block: changed.block.clone() }
    }

    pub fn return_to(&self, mark: &Mark) {
        let mut changed = self.0.lock();
        changed.block.clone_from(&mark.block);
        changed.replace(mark.values.clone());
    }

    pub fn take_reported(&self) -> Vec<(String, String)> {
        let names = std::mem::take(&mut self.0.lock().unreported);
        names.into_iter().filter_map(|name| Some((name.to_string(), self.get(name)?))).collect()
    }

    /// Asked for by every look-up of a prepared statement: the same text as long as nothing changes it.
    pub fn search_path(&self) -> Arc<str> {
        let mut changed = self.0.lock();
        let Changed { values, path, .. } = &mut *changed;
        let value = || values.get(SEARCH_PATH).map_or(DEFAULT_PATH, String::as_str);
        Arc::clone(path.get_or_insert_with(|| Arc::from(value())))
    }

    /// How the session reads and writes values.
    pub fn formats(&self) -> Formats {
        let changed = self.0.lock();
        let value = |name| changed.values.get(name).map(String::as_str);
        Formats {
            zone: value("timezone").and_then(Zone::of_setting).unwrap_or_default(),
            order: value("datestyle").map(styles::date_order).unwrap_or_default(),
        }
    }

    /// A setting that is a boolean.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "on")
    }

    /// A setting that is a time; `None`: no limit.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        let value = self.get(name)?;
        milliseconds(&value).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// Whether what this session writes is answered only when all sessions see it, and the views that show it.
    ///
    /// PostgreSQL has the word for it: with `synchronous_commit = remote_apply` a COMMIT waits until it can be read wherever its
    /// cluster answers reads. Its other values are the same here: durable as each relation's `durability` says.
    pub fn waits_to_be_seen(&self) -> bool {
        self.get(SYNCHRONOUS_COMMIT).as_deref() == Some(REMOTE_APPLY)
    }

    /// Bytes of memory that a statement may take.
    pub fn statement_memory(&self) -> usize {
        match self.get(STATEMENT_MEMORY).and_then(|value| size(&value)) {
            None | Some(0) => limits::QUERY_BYTES,
            Some(bytes) => bytes,
        }
    }
}

impl system::Settings for Settings {
    fn duration(&self, name: &str) -> Option<Duration> {
        Settings::duration(self, name)
    }

    fn get(&self, name: &str) -> Option<String> {
        Settings::get(self, name)
    }

    fn set(&self, name: &str, value: &str, local: bool) -> Result<String> {
        if local && self.0.lock().block.is_none() {
            // It ends with the statement that it is in.
            return check(&name.to_ascii_lowercase(), value);
        }
        Settings::set(self, name, value, local, &mut Vec::new())?;
        Ok(Settings::get(self, name).unwrap_or_default())
    }

    fn all(&self) -> Vec<system::Setting> {
        let setting = |(name, value): (String, String)| system::Setting {
            default: find(&name).map_or_else(String::new, |(_, value, _)| (*value).to_string()),
            context: if FIXED.contains(&name.to_ascii_lowercase().as_str()) { "internal" } else { "user" },
            description: String::new(),
            name,
            value,
        };
        Settings::all(self).into_iter().map(setting).collect()
    }
}

/// The value in its usual form, if the setting, its name in lower case, may be given it.
pub(super) fn checked(name: &str, value: &str) -> Result<String> {
    if FIXED.contains(&name) {
        let error = Error::cannot_change_parameter(format!("parameter \"{name}\" cannot be changed"));
        return Err(match IDENTITY.contains(&name) {
            true => error.with_hint("use SET ROLE or SET SESSION AUTHORIZATION"),
            false => error,
        });
    }
    check(name, value)
}

/// The value in its usual form, or why it is none.
fn check(name: &str, value: &str) -> Result<String> {
    let invalid = || Error::invalid_parameter(format!("invalid value for parameter \"{name}\": \"{value}\""));
    match name {
        "timezone" => match Zone::of_setting(value) {
            Some(Zone::Named(zone)) => Ok(zone.name().to_string()),
            // A number is hours to the east; all else stays as it was written.
            Some(zone) if value.trim().parse::<f64>().is_ok() => Ok(zone.to_string()),
            Some(_) => Ok(value.to_string()),
            None => Err(invalid().with_hint("write the name of a zone, like 'Europe/Berlin', or hours east of UTC, like 2")),
        },
        // Quotes of a start-up message are part of the value; some clients send them.
        "client_encoding" => match value.to_ascii_lowercase().replace(['-', '_', '\''], "").as_str() {
            "utf8" | "unicode" | "default" => Ok("UTF8".to_string()),
            _ => Err(invalid().with_hint("the encoding is always UTF8")),
        },
        "statement_timeout" | "lock_timeout" | IDLE_IN_TRANSACTION | IDLE_SESSION => milliseconds(value)
            .map(shown_time)
            .ok_or_else(|| invalid().with_hint("write milliseconds, or a number and ms, s, min or h")),
        STATEMENT_MEMORY => {
            size(value).map(human_size).ok_or_else(|| invalid().with_hint("write kilobytes, or a number and B, kB, MB, GB or TB"))
        }
        SEARCH_PATH if !value.trim().is_empty() && identifiers(value, ',').is_none() => {
            Err(invalid().with_detail("List syntax is invalid.").with_hint("write names with commas between them"))
        }
        SYNCHRONOUS_COMMIT => {
            match ["local", "remote_write", REMOTE_APPLY].iter().find(|known| known.eq_ignore_ascii_case(value)) {
                Some(known) => Ok((*known).to_string()),
                None => switch(value)
                    .map(str::to_string)
                    .ok_or_else(|| invalid().with_hint("Available values: local, remote_write, remote_apply, on, off.")),
            }
        }
        "transaction_read_only" | "default_transaction_read_only" => {
            switch(value).map(str::to_string).ok_or_else(|| invalid().with_hint("write on or off"))
        }
        _ => styles::check(name, value).unwrap_or_else(|| Ok(value.to_string())),
    }
}

/// A boolean, of which PostgreSQL takes the beginning of a word.
fn switch(value: &str) -> Option<&'static str> {
    let value = value.trim().to_ascii_lowercase();
    let begins = |words: &[&str]| !value.is_empty() && words.iter().any(|word| word.starts_with(&value));
    match value.as_str() {
        "o" => None,
        "1" => Some("on"),
        "0" => Some("off"),
        _ if begins(&["on", "true", "yes"]) => Some("on"),
        _ if begins(&["off", "false", "no"]) => Some("off"),
        _ => None,
    }
}

/// In the largest unit that divides it, as PostgreSQL shows times.
fn shown_time(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    match UNITS.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0".to_string(),
        None => format!("{ms}ms"),
    }
}

/// Bytes, of a size as PostgreSQL's settings take them: kilobytes if nothing else is said.
fn size(value: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(value)?;
    let shift = match unit {
        "B" => 0,
        "" | "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    usize::try_from(number).ok()?.checked_mul(1 << shift)
}

fn number_and_unit(value: &str) -> Option<(u64, &str)> {
    let value = value.trim();
    let split = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    Some((value[..split].parse().ok()?, value[split..].trim()))
}

fn milliseconds(value: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(value)?;
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}
