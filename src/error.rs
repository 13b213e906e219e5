//! What can go wrong, said once.
//!
//! Every failure that can reach a user is an [`Error`]: an SQLSTATE, a message that states the fact and says what to write
//! instead, and, where there is one, the position in the statement. Errors of libraries are turned into it at the edge where
//! the library is called. Messages are lower case without a full stop, as in PostgreSQL.

mod messages;
mod words;

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error as a Postgres client sees it. Boxed, so that `Result` stays small.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Fields>);

#[derive(Clone, PartialEq, Eq)]
struct Fields {
    state: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
    position: Option<u32>,
}

macro_rules! sql_states {
    ($($(#[$doc:meta])* $name:ident $constructor:ident $code:literal,)*) => {
        /// The SQLSTATE codes in use (PostgreSQL manual, appendix A).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum SqlState { $($(#[$doc])* $name,)* }

        impl SqlState {
            /// The five characters of the wire protocol.
            pub fn code(self) -> &'static str {
                match self { $(SqlState::$name => $code,)* }
            }
        }

        impl Error {
            $($(#[$doc])*
            pub fn $constructor(message: impl Into<String>) -> Error { Error::new(SqlState::$name, message) })*
        }
    };
}

sql_states! {
    /// Nothing is wrong: something the client may want to know.
    SuccessfulCompletion notice "00000",
    /// The same, of something that is not as it should be.
    Warning warning "01000",
    /// The statement does not parse.
    SyntaxError syntax "42601",
    UndefinedTable undefined_table "42P01",
    UndefinedColumn undefined_column "42703",
    UndefinedFunction undefined_function "42883",
    UndefinedDatabase undefined_database "3D000",
    UndefinedSchema undefined_schema "3F000",
    UndefinedObject undefined_object "42704",
    UndefinedParameter undefined_parameter "42P02",
    /// Nothing says of which type a parameter is.
    IndeterminateType indeterminate_type "42P18",
    AmbiguousColumn ambiguous_column "42702",
    /// Several functions fit a call, or a name, equally well.
    AmbiguousFunction ambiguous_function "42725",
    DuplicateTable duplicate_table "42P07",
    /// Several entries of FROM fit the name that qualifies a column.
    AmbiguousAlias ambiguous_alias "42P09",
    DuplicateColumn duplicate_column "42701",
    DuplicateObject duplicate_object "42710",
    DuplicateSchema duplicate_schema "42P06",
    DuplicateFunction duplicate_function "42723",
    /// Two relations of one name in a FROM or WITH.
    DuplicateAlias duplicate_alias "42712",
    DuplicateCursor duplicate_cursor "42P03",
    DuplicatePreparedStatement duplicate_prepared_statement "42P05",
    /// There is no cast between two types.
    UndefinedCast undefined_cast "42846",
    /// The types of an expression or assignment don't fit.
    DatatypeMismatch datatype_mismatch "42804",
    GroupingError grouping "42803",
    /// A window function where none can be, or a window that is defined twice.
    WindowingError windowing "42P20",
    /// A value for a column that only the server gives values.
    GeneratedAlways generated_always "428C9",
    WrongObjectType wrong_object_type "42809",
    InvalidColumnDefinition invalid_column_definition "42611",
    InvalidTableDefinition invalid_table_definition "42P16",
    InvalidObjectDefinition invalid_object_definition "42P17",
    InvalidFunctionDefinition invalid_function_definition "42P13",
    /// Something still depends on the object.
    DependentObjects dependent_objects "2BP01",
    /// Valid SQL that is not supported, here or in this form.
    FeatureNotSupported unsupported "0A000",
    InvalidParameterValue invalid_parameter "22023",
    /// A value does not have its type's text form.
    InvalidTextRepresentation invalid_text "22P02",
    InvalidBinaryRepresentation invalid_binary "22P03",
    BadCopyFormat bad_copy "22P04",
    NumericOutOfRange numeric_out_of_range "22003",
    DatetimeOverflow datetime_overflow "22008",
    InvalidDatetime invalid_datetime "22007",
    DivisionByZero division_by_zero "22012",
    InvalidLogarithm invalid_logarithm "2201E",
    InvalidPower invalid_power "2201F",
    InvalidWidthBucket invalid_width_bucket "2201G",
    InvalidNtile invalid_ntile "22014",
    InvalidFrameSize invalid_frame_size "22013",
    InvalidRowCount invalid_row_count "2201W",
    InvalidRowOffset invalid_row_offset "2201X",
    InvalidRegularExpression invalid_regular_expression "2201B",
    NegativeSubstring negative_substring "22011",
    InvalidEscape invalid_escape "22025",
    ArraySubscriptError array_subscript "2202E",
    UntranslatableCharacter untranslatable "22P05",
    /// ORDER BY or GROUP BY a place that the select list does not have.
    InvalidColumnReference invalid_column_reference "42P10",
    StringTooLong string_too_long "22001",
    /// AFTER MATCH SKIP TO a variable that the match has no row of.
    SkipToNoRow skip_to_no_row "2202K",
    /// AFTER MATCH SKIP TO the first row of the match: it would be found again and again.
    SkipToFirstRow skip_to_first_row "2202L",
    CharacterNotInRepertoire invalid_encoding "22021",
    /// All numbers of a column's type are used.
    SequenceLimitExceeded sequence_limit "2200H",
    NotNullViolation not_null_violation "23502",
    CheckViolation check_violation "23514",
    UniqueViolation unique_violation "23505",
    CardinalityViolation cardinality_violation "21000",
    /// Another transaction changed what this one read; retry.
    SerializationFailure serialization_failure "40001",
    ActiveTransaction active_transaction "25001",
    NoActiveTransaction no_active_transaction "25P01",
    /// The transaction has failed; only ROLLBACK is possible.
    InFailedTransaction in_failed_transaction "25P02",
    ReadOnlyTransaction read_only_transaction "25006",
    InvalidStatementName invalid_statement_name "26000",
    NameTooLong name_too_long "42622",
    ReservedName reserved_name "42939",
    /// Of a notice.
    PrivilegeNotGranted privilege_not_granted "01007",
    InvalidSavepoint invalid_savepoint "3B001",
    CannotChangeParameter cannot_change_parameter "55P02",
    InvalidCursorName invalid_cursor_name "34000",
    InvalidAuthorization invalid_authorization "28000",
    InvalidPassword invalid_password "28P01",
    InsufficientPrivilege insufficient_privilege "42501",
    InvalidGrantOperation invalid_grant "0LP01",
    /// A bound of this server was reached; the message names it.
    LimitExceeded limit_exceeded "54000",
    StatementTooComplex statement_too_complex "54001",
    DiskFull disk_full "53100",
    OutOfMemory out_of_memory "53200",
    TooManyConnections too_many_connections "53300",
    ObjectNotReady not_ready "55000",
    ObjectInUse object_in_use "55006",
    LockNotAvailable lock_not_available "55P03",
    /// Sessions wait for each other in a circle.
    DeadlockDetected deadlock_detected "40P01",
    QueryCanceled canceled "57014",
    AdminShutdown shutting_down "57P01",
    IdleSessionTimeout idle_session_timeout "57P05",
    IdleInTransactionSessionTimeout idle_in_transaction_timeout "25P03",
    CannotConnectNow cannot_connect_now "57P03",
    ProtocolViolation protocol_violation "08P01",
    /// Stored data is damaged; the message says where.
    DataCorrupted corrupted "XX001",
    /// Reading or writing a file failed.
    IoError io "58030",
    /// Another server cannot be reached.
    ConnectionFailed connection_failed "08001",
    /// Another server refuses what it is asked to do.
    ForeignError foreign "HV000",
    /// A fault of ours.
    InternalError internal "XX000",
}

impl Error {
    pub fn new(state: SqlState, message: impl Into<String>) -> Error {
        let (detail, hint, context, position) = (None, None, None, None);
        Error(Box::new(Fields { state, message: message.into(), detail, hint, context, position }))
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    /// What to write instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Where it happened, for example `COPY orders, line 3`.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Error {
        self.0.context = Some(context.into());
        self
    }

    /// Where in the statement's text: characters, from 1.
    #[must_use]
    pub fn at(mut self, position: u32) -> Error {
        self.0.position = Some(position);
        self
    }

    /// For a place that is not in the client's text.
    #[must_use]
    pub fn without_position(mut self) -> Error {
        self.0.position = None;
        self
    }

    pub fn state(&self) -> SqlState {
        self.0.state
    }

    /// Whether it speaks of the values of a row: SQLSTATEs of class 22.
    pub fn is_data_exception(&self) -> bool {
        self.state().code().starts_with("22")
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn context(&self) -> Option<&str> {
        self.0.context.as_deref()
    }

    pub fn position(&self) -> Option<u32> {
        self.0.position
    }
}

/// What Arrow panics with where the texts or lists of a column would together be longer than their offsets can say.
const OFFSETS: &str = "offset overflow";

impl Error {
    /// A panic of `what`, caught where nothing of what it worked on is used any more.
    pub fn of_panic(what: &str, panic: &(dyn std::any::Any + Send)) -> Error {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        match text {
            Some(text) if text.contains(OFFSETS) => Error::too_wide(),
            text => Error::internal(format!("{what} panicked: {}", text.unwrap_or("no message"))),
        }
    }

    fn too_wide() -> Error {
        Error::limit_exceeded("the values of a column are longer than 2 GiB in one batch of rows")
            .with_hint("make them shorter before they are put together")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for more in [&self.0.detail, &self.0.hint, &self.0.context].into_iter().flatten() {
            write!(f, "; {more}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.0.state.code())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::from(&error)
    }
}

impl From<&std::io::Error> for Error {
    fn from(error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Error::disk_full(error.to_string()),
            _ => Error::io(error.to_string()),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Error {
        Error::from(&error)
    }
}

impl From<&arrow::error::ArrowError> for Error {
    fn from(error: &arrow::error::ArrowError) -> Error {
        use arrow::error::ArrowError::*;
        match error {
            DivideByZero => Error::division_by_zero("division by zero"),
            ArithmeticOverflow(message) => in_words(message, SqlState::NumericOutOfRange),
            CastError(message) if message.starts_with("Can't cast value") => Error::numeric_out_of_range(message),
            CastError(message) | ParseError(message) => in_words(message, SqlState::InvalidTextRepresentation),
            NotYetImplemented(message) => in_words(message, SqlState::FeatureNotSupported),
            IoError(message, _) => Error::io(message),
            ExternalError(inner) => own_or_in_words(inner.as_ref()),
            other => in_words(other, SqlState::InternalError),
        }
    }
}

/// An error of ours that passed through a library, or one of somebody else's.
fn own_or_in_words(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Error {
    error.downcast_ref::<Error>().cloned().unwrap_or_else(|| in_words(&error, SqlState::InternalError))
}

/// An error that says what it is in words alone.
fn in_words(error: &dyn fmt::Display, otherwise: SqlState) -> Error {
    let message = words::plain(&error.to_string());
    // Also of a task that panicked and was joined.
    if message.contains(OFFSETS) {
        return Error::too_wide();
    }
    if let Some(better) = messages::better(&message) {
        return better;
    }
    Error::new(messages::state(&message).unwrap_or(otherwise), message)
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Error {
        Error::from(&error)
    }
}

impl From<&datafusion::error::DataFusionError> for Error {
    fn from(error: &datafusion::error::DataFusionError) -> Error {
        use datafusion::common::SchemaError;
        use datafusion::error::DataFusionError as E;
        match error {
            E::External(inner) => own_or_in_words(inner.as_ref()),
            E::Context(_, inner) | E::Diagnostic(_, inner) => Error::from(inner.as_ref()),
            E::Shared(inner) => Error::from(inner.as_ref()),
            E::Collection(errors) if !errors.is_empty() => Error::from(&errors[0]),
            E::ArrowError(inner, _) => Error::from(inner.as_ref()),
            E::SQL(inner, _) => Error::syntax(inner.to_string()),
            E::IoError(inner) => Error::from(inner),
            E::NotImplemented(message) => in_words(message, SqlState::FeatureNotSupported),
            E::ResourcesExhausted(message) => Error::out_of_memory("the statement needs more memory than it may take")
                .with_detail(message)
                .with_hint("sort, group or join fewer rows; SET statement_memory if that is the bound"),
            E::SchemaError(inner, _) => match inner.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => {
                    if let Some(table) = &field.relation
                        && !valid_fields.iter().any(|valid| valid.relation.as_ref().is_some_and(|t| t.resolved_eq(table)))
                    {
                        let table = table.table();
                        return Error::undefined_table(format!("missing FROM-clause entry for table \"{table}\""));
                    }
                    let hint = inner.to_string();
                    let error = Error::undefined_column(format!("column \"{}\" does not exist", field.flat_name()));
                    match hint.find("Valid fields are ") {
                        Some(at) => error.with_hint(hint[at..].trim_end_matches('.').to_string()),
                        None => error,
                    }
                }
                SchemaError::AmbiguousReference { field } => {
                    Error::ambiguous_column(format!("column reference \"{}\" is ambiguous", field.name))
                }
                SchemaError::DuplicateUnqualifiedField { name } => {
                    Error::duplicate_column(format!("column \"{name}\" specified more than once"))
                }
                SchemaError::DuplicateQualifiedField { qualifier, .. } => {
                    let message = format!("table name \"{}\" specified more than once", qualifier.table());
                    Error::duplicate_alias(message).with_hint("give one of them an alias")
                }
            },
            E::Plan(message) if message.starts_with("Invalid function") => Error::undefined_function(message),
            E::Plan(message)
                if message.contains("must appear in the GROUP BY")
                    || message.contains("could not be resolved from available columns") =>
            {
                messages::ungrouped(message)
            }
            E::Plan(message) => in_words(message, SqlState::DatatypeMismatch),
            E::Execution(message) => in_words(message, SqlState::InvalidParameterValue),
            other => in_words(other, SqlState::InternalError),
        }
    }
}

/// So that our errors pass through DataFusion and come back as they were.
impl From<Error> for datafusion::error::DataFusionError {
    fn from(error: Error) -> Self {
        datafusion::error::DataFusionError::External(Box::new(error))
    }
}
