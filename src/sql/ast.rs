//! Our statements. Text positions are kept where an error may want them; SQL text is sliced from the source, never printed
//! from a tree.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use crate::catalog::acl::Privilege;
use crate::catalog::function::Volatility;
use crate::catalog::{Emit, Identity};
use crate::error::Error;

/// A statement and the text it was read from (without the semicolon).
#[derive(Clone, Debug)]
pub struct Parsed {
    pub statement: Statement,
    pub sql: String,
    /// Offset of `sql` in the string that the client sent, in characters: add it to positions of errors.
    pub offset: u32,
    /// What its author is to be told, whatever becomes of it.
    pub notices: Vec<Error>,
}

#[derive(Clone, Debug)]
pub enum Statement {
    CreateStream(CreateRelation),
    CreateTable(CreateRelation),
    /// `CREATE MATERIALIZED VIEW v AS`, `CREATE TABLE t AS`.
    CreateMaterializedView(CreateView),
    /// `CREATE STREAM s AS`: a derived stream.
    CreateDerivedStream(CreateView),
    /// `CREATE SINK name {FROM relation | AS query} WITH (…)`: the query's changes go to another system.
    CreateSink(CreateView),
    /// `CREATE VIEW v AS`.
    CreateView(CreateView),
    /// `ALTER MATERIALIZED VIEW v AS`: another query for it.
    AlterView(CreateView),
    AlterRelation(Box<AlterRelation>),
    Pause(sp::ObjectName),
    Resume(sp::ObjectName),
    CreateFunction(CreateFunction),
    CreateIndex(CreateIndex),
    /// CREATE SCHEMA and its like.
    Schema(SchemaStatement),
    Drop(Drop),
    DropFunctions(DropFunctions),
    AlterFunction(AlterFunction),
    Rename(Rename),
    Comment {
        on: sp::ObjectName,
        column: Option<sp::Ident>,
        comment: Option<String>,
    },
    Truncate(Vec<sp::ObjectName>),
    /// CREATE ROLE and its like.
    Role(RoleStatement),
    /// GRANT and its like.
    Grant(GrantStatement),

    /// SELECT, VALUES, WITH …; with `emit`, it runs until cancelled.
    Query {
        query: Box<sp::Query>,
        emit: Option<Emit>,
    },
    Subscribe(Subscribe),
    Explain {
        analyze: bool,
        verbose: bool,
        format: Option<String>,
        of: ExplainOf,
    },
    Verify(sp::ObjectName),
    /// `ANALYZE WATERMARK stream`
    AnalyzeWatermark(sp::ObjectName),
    Print {
        name: sp::ObjectName,
        from_beginning: bool,
        limit: Option<u64>,
    },
    /// `SHOW STREAMS`, `SHOW MATERIALIZED VIEWS`, …
    ShowObjects(ShowObjects),
    ShowCreate(sp::ObjectName),
    /// `SHOW CREATE FUNCTION f`
    ShowCreateFunction(FunctionName),
    Describe {
        extended: bool,
        name: sp::ObjectName,
    },

    /// sqlparser's INSERT, with our WITH ( … ) options.
    Insert {
        insert: Box<sp::Insert>,
        options: Options,
    },
    RunningInsert(RunningInsert),
    /// sqlparser's UPDATE, and the WITH before it.
    Update {
        with: Option<sp::With>,
        update: Box<sp::Update>,
    },
    Delete {
        with: Option<sp::With>,
        delete: Box<sp::Delete>,
    },
    /// Changes of rows in a WITH, in order, and the statement that reads what they return: as
    /// [`returned`](super::parse::returned).
    With {
        changes: Vec<Statement>,
        last: Box<Statement>,
    },
    Copy(Copy),

    Declare {
        name: sp::Ident,
        query: Box<Statement>,
        hold: bool,
    },
    Fetch {
        cursor: sp::Ident,
        count: FetchCount,
        timeout_ms: Option<u64>,
    },
    Move {
        cursor: sp::Ident,
        count: FetchCount,
    },
    Close(Option<sp::Ident>),

    Prepare {
        name: sp::Ident,
        types: Vec<sp::DataType>,
        statement: Box<Statement>,
    },
    Execute {
        name: sp::Ident,
        arguments: Vec<sp::Expr>,
    },
    Deallocate(Option<sp::Ident>),

    Begin {
        /// `START TRANSACTION`, which is answered as such.
        start: bool,
        /// `None`: as `default_transaction_read_only` says.
        read_only: Option<bool>,
    },
    Commit {
        /// AND CHAIN: another block begins, like the one that ends.
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(sp::Ident),
    RollbackTo(sp::Ident),
    Release(sp::Ident),

    Set {
        local: bool,
        name: String,
        value: SetValue,
    },
    /// `SHOW setting`; `SHOW ALL` is "all".
    ShowSetting(String),
    /// `RESET setting`; `RESET ALL` is "all".
    Reset(String),
    Discard,
    /// Accepted for clients that send them; nothing to do: LISTEN, NOTIFY, UNLISTEN, ANALYZE, VACUUM, LOCK, …
    NoOperation(&'static str),
    /// Make what was written so far visible to reads of all sessions before this returns.
    Flush,
}

/// WITH ( key = value, … ): keys in lower case, values as text without quotes.
pub type Options = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub struct CreateRelation {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: sp::ObjectName,
    /// Name, type and sqlparser's column options (NOT NULL, DEFAULT, GENERATED, PRIMARY KEY, COLLATE …); a computed column in
    /// Flink's spelling (`c AS e`) comes as GENERATED ALWAYS AS, its type `None` when not written.
    pub columns: Vec<ColumnDef>,
    pub primary_key: Vec<sp::Ident>,
    pub checks: Vec<CheckDef>,
    pub watermark: Option<WatermarkDef>,
    pub partition_by: Vec<sp::Ident>,
    pub partitions: Option<u32>,
    pub append_only: bool,
    pub options: Options,
}

#[derive(Clone, Debug)]
pub struct ColumnDef {
    pub name: sp::Ident,
    pub data_type: Option<sp::DataType>,
    pub not_null: bool,
    pub default: Option<SqlExpr>,
    pub generated: Option<SqlExpr>,
    pub identity: Option<Identity>,
    pub comment: Option<String>,
}

/// `[CONSTRAINT name] CHECK (e)`.
#[derive(Clone, Debug)]
pub struct CheckDef {
    pub name: Option<sp::Ident>,
    pub expression: SqlExpr,
}

/// An expression and its text.
#[derive(Clone, Debug)]
pub struct SqlExpr {
    pub expr: sp::Expr,
    pub sql: String,
}

#[derive(Clone, Debug)]
pub struct WatermarkDef {
    pub column: sp::Ident,
    /// `None`: `WATERMARK FOR ts` alone, ascending time.
    pub expression: Option<SqlExpr>,
}

#[derive(Clone, Debug)]
pub struct CreateView {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: sp::ObjectName,
    /// `CREATE … name (a, b) AS`: names for the query's columns.
    pub columns: Vec<sp::Ident>,
    pub options: Options,
    pub partition_by: Vec<sp::Ident>,
    pub partitions: Option<u32>,
    pub query: Box<sp::Query>,
    /// Text of `query`, as written, without EMIT.
    pub query_sql: String,
    pub emit: Emit,
    /// Of a derived stream: `( …, WATERMARK FOR column [AS expression] )`.
    pub watermark: Option<WatermarkDef>,
    /// `AS CHANGELOG OF query`: its changes are the rows.
    pub changelog: bool,
}

/// `CREATE INDEX name ON relation (column, …)`.
#[derive(Clone, Debug)]
pub struct CreateIndex {
    /// `None`: one is made of the names of the relation and the columns.
    pub name: Option<sp::Ident>,
    pub if_not_exists: bool,
    pub unique: bool,
    pub on: sp::ObjectName,
    pub columns: Vec<sp::Ident>,
    /// INCLUDE, DISTRIBUTED BY: they are to exist, and mean nothing.
    pub mentioned: Vec<sp::Ident>,
}

/// `INSERT INTO … SELECT … EMIT CHANGES`: runs until it is dropped.
#[derive(Clone, Debug)]
pub struct RunningInsert {
    pub insert: Box<sp::Insert>,
    pub options: Options,
    /// Text of the query, as written, without EMIT.
    pub query_sql: String,
    pub emit: Emit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectType {
    Stream,
    Table,
    MaterializedView,
    View,
    Index,
    Sink,
    /// A running INSERT.
    Query,
}

/// `ALTER STREAM s …`, `ALTER TABLE t …`.
#[derive(Clone, Debug)]
pub struct AlterRelation {
    pub name: sp::ObjectName,
    pub if_exists: bool,
    pub action: AlterAction,
}

#[derive(Clone, Debug)]
pub enum AlterAction {
    AddColumn {
        column: Box<ColumnDef>,
        if_not_exists: bool,
    },
    RenameColumn {
        from: sp::Ident,
        to: sp::Ident,
    },
    SetOptions(Options),
    AddCheck {
        check: Box<CheckDef>,
        /// NOT VALID: the rows that are there are not looked at.
        not_valid: bool,
    },
    ValidateConstraint(sp::Ident),
    DropConstraint {
        name: sp::Ident,
        if_exists: bool,
    },
    /// `None`: DROP DEFAULT.
    SetDefault {
        column: sp::Ident,
        default: Option<Box<SqlExpr>>,
    },
}

/// What is done to schemas.
#[derive(Clone, Debug)]
pub enum SchemaStatement {
    Create {
        /// `None`: that of its owner.
        name: Option<sp::Ident>,
        if_not_exists: bool,
        /// AUTHORIZATION; `None`: the current role.
        owner: Option<RoleName>,
    },
    Rename {
        name: sp::Ident,
        to: sp::Ident,
    },
    Comment {
        on: sp::Ident,
        comment: Option<String>,
    },
    Drop {
        names: Vec<sp::Ident>,
        if_exists: bool,
        cascade: bool,
    },
}

/// `ALTER VIEW v RENAME TO w`, `ALTER VIEW v SET SCHEMA s`
#[derive(Clone, Debug)]
pub struct Rename {
    pub object: ObjectType,
    pub if_exists: bool,
    pub name: sp::ObjectName,
    pub to: NewName,
}

#[derive(Clone, Debug)]
pub enum NewName {
    Name(sp::Ident),
    Schema(sp::Ident),
}

#[derive(Clone, Debug)]
pub struct Drop {
    pub object: ObjectType,
    pub if_exists: bool,
    pub names: Vec<sp::ObjectName>,
    pub cascade: bool,
}

/// A function in SQL: an expression over its parameters.
#[derive(Clone, Debug)]
pub struct CreateFunction {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: sp::ObjectName,
    pub parameters: Vec<ParameterDef>,
    pub returns: sp::DataType,
    /// `None`: that of the body.
    pub volatility: Option<Volatility>,
    pub strict: bool,
    /// An expression, or `SELECT expression`.
    pub body: String,
    /// Where the body begins, for positions of errors in it.
    pub body_at: u32,
}

#[derive(Clone, Debug)]
pub struct ParameterDef {
    pub name: Option<sp::Ident>,
    pub data_type: sp::DataType,
    pub default: Option<SqlExpr>,
    pub position: u32,
}

/// A function as statements name it; without types, the only one of its name.
#[derive(Clone, Debug)]
pub struct FunctionName {
    pub name: sp::ObjectName,
    pub types: Option<Vec<sp::DataType>>,
}

#[derive(Clone, Debug)]
pub struct DropFunctions {
    pub if_exists: bool,
    pub names: Vec<FunctionName>,
    pub cascade: bool,
}

#[derive(Clone, Debug)]
pub struct AlterFunction {
    pub function: FunctionName,
    pub change: FunctionChange,
}

#[derive(Clone, Debug)]
pub enum FunctionChange {
    Rename(sp::Ident),
    Comment(Option<String>),
}

/// What is done to roles.
#[derive(Clone, Debug)]
pub enum RoleStatement {
    Create {
        name: sp::Ident,
        options: RoleOptions,
    },
    Alter {
        role: RoleName,
        options: RoleOptions,
    },
    Rename {
        role: RoleName,
        to: sp::Ident,
    },
    /// `ALTER ROLE … SET setting`; no value: RESET, without a name of all.
    Set {
        role: RoleName,
        name: Option<String>,
        value: SetValue,
    },
    Drop {
        roles: Vec<RoleName>,
        if_exists: bool,
    },
    /// `GRANT role TO role`, `REVOKE role FROM role`.
    Member(MemberChange),
    ReassignOwned {
        from: Vec<RoleName>,
        to: RoleName,
    },
    DropOwned {
        roles: Vec<RoleName>,
        cascade: bool,
    },
}

/// A role as statements name it.
#[derive(Clone, Debug, PartialEq)]
pub enum RoleName {
    Name(sp::Ident),
    /// CURRENT_USER, CURRENT_ROLE
    Current,
    /// SESSION_USER
    Session,
    /// Everybody.
    Public,
}

/// What CREATE ROLE and ALTER ROLE say; `None` is not said.
#[derive(Clone, Debug, Default)]
pub struct RoleOptions {
    pub login: Option<bool>,
    pub superuser: Option<bool>,
    pub inherit: Option<bool>,
    pub create_role: Option<bool>,
    pub create_db: Option<bool>,
    pub connection_limit: Option<Option<u32>>,
    /// `Some(None)`: PASSWORD NULL.
    pub password: Option<Option<Password>>,
    pub valid_until: Option<String>,
    /// IN ROLE: groups that it becomes a member of.
    pub in_roles: Vec<RoleName>,
    /// ROLE: members that it gets; ADMIN: those that may pass it on.
    pub members: Vec<RoleName>,
    pub admins: Vec<RoleName>,
}

/// Text that is never printed.
#[derive(Clone)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

#[derive(Clone, Debug)]
pub struct MemberChange {
    pub grant: bool,
    pub roles: Vec<RoleName>,
    pub members: Vec<RoleName>,
    /// GRANT … WITH ADMIN OPTION, REVOKE ADMIN OPTION FOR …
    pub admin: bool,
}

/// What is done to privileges and owners.
#[derive(Clone, Debug)]
pub enum GrantStatement {
    Privileges {
        change: GrantChange,
        on: GrantTarget,
    },
    /// `ALTER DEFAULT PRIVILEGES`; no roles: the current one, no schemas: everywhere.
    Default {
        roles: Vec<RoleName>,
        schemas: Vec<sp::Ident>,
        change: GrantChange,
    },
    /// `ALTER … OWNER TO`
    Owner {
        of: GrantTarget,
        to: RoleName,
    },
}

#[derive(Clone, Debug)]
pub struct GrantChange {
    pub grant: bool,
    /// `None`: ALL
    pub privileges: Option<Vec<Privilege>>,
    pub roles: Vec<RoleName>,
    /// WITH GRANT OPTION, GRANT OPTION FOR
    pub option: bool,
    pub cascade: bool,
}

#[derive(Clone, Debug)]
pub enum GrantTarget {
    /// Streams, tables and views of any kind.
    Relations(Vec<sp::ObjectName>),
    AllIn(Vec<sp::Ident>),
    Schemas(Vec<sp::Ident>),
    Databases(Vec<sp::Ident>),
    Functions(Vec<FunctionName>),
    AllFunctionsIn(Vec<sp::Ident>),
}

#[derive(Clone, Debug)]
pub struct Subscribe {
    pub target: SubscribeTarget,
    pub snapshot: bool,
    pub progress: bool,
    pub as_of: Option<u64>,
    pub up_to: Option<u64>,
}

#[derive(Clone, Debug)]
pub enum SubscribeTarget {
    Name(sp::ObjectName),
    Query(Box<sp::Query>),
}

#[derive(Clone, Debug)]
pub enum ExplainOf {
    /// `EXPLAIN name` of a view.
    Name(sp::ObjectName),
    Statement(Box<Statement>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShowObjects {
    Streams,
    Tables,
    MaterializedViews,
    Views,
    Queries,
    Sources,
    Sinks,
    Functions,
}

#[derive(Clone, Debug)]
pub struct Copy {
    pub target: CopyTarget,
    /// FROM STDIN, otherwise TO STDOUT.
    pub from: bool,
    pub format: CopyFormat,
    pub header: bool,
    /// `HEADER MATCH`: names must be the columns'.
    pub header_match: bool,
    pub delimiter: Option<u8>,
    pub null: Option<String>,
    pub quote: Option<u8>,
    pub escape: Option<u8>,
    pub force_quote: Vec<String>,
    pub force_null: Vec<String>,
    pub force_not_null: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum CopyTarget {
    Relation {
        name: sp::ObjectName,
        columns: Vec<sp::Ident>,
    },
    /// `COPY ( … ) TO STDOUT`: a query, also one with EMIT, or SUBSCRIBE.
    Query(Box<Statement>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCount {
    Rows(u64),
    All,
    /// The row of this number, from 1; 0 is before the first.
    Absolute(u64),
    /// The row so many behind the last one that was fetched.
    Relative(u64),
}

#[derive(Clone, Debug)]
pub enum SetValue {
    Default,
    Value(String),
}

/// The one form that all spellings of a time window take after parsing: a table function in FROM,
/// `TableFactor::Table { name: <one of these>, args: Some(…) }` (with its alias), whose arguments are, in this order:
///
/// 1. the input: an unnamed argument, `Expr::Identifier`/`Expr::CompoundIdentifier` (a relation's name) or `Expr::Subquery`;
/// 2. named arguments: `ts => column` (absent in ksqlDB's spelling: the stream's event-time column), `size => INTERVAL …`,
///    `slide => INTERVAL …` (HOP; `step` of CUMULATE), `gap => INTERVAL …`, `offset => INTERVAL …`, `zone => 'Europe/Berlin'`,
///    `lateness => INTERVAL …`, `partition_by => (a, b)` (SESSION).
pub const WINDOW_FUNCTIONS: [&str; 4] = ["tumble", "hop", "cumulate", "session"];

/// `Expr::Prefixed` with this prefix, an argument of a function in FROM: `TABLE name`.
pub const TABLE_MARK: &str = "TABLE";
/// `Expr::Prefixed` with this prefix: a tuple of the input and the columns of its PARTITION BY.
pub const PARTITION_MARK: &str = "PARTITION BY";

/// Marks in a join's condition: what was written between its relation and ON ([`crate::sql::plan::marks`]). `$within(before, after,
/// grace)`: the times of the right side are at most so far before and after those of the left.
pub const WITHIN_MARK: &str = "$within";
/// `$nearest(comparison)`, or `$nearest()` where the comparison is among the conditions: only the nearest row of the right side.
pub const NEAREST_MARK: &str = "$nearest";
/// `$as_of(time)`: the rows that the right side, a table, had then.
pub const AS_OF_MARK: &str = "$as_of";

/// `name(args)`.
pub fn function_call(name: sp::Ident, args: Vec<sp::Expr>) -> sp::Function {
    let args = args.into_iter().map(|arg| sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(arg))).collect();
    sp::Function {
        name: sp::ObjectName::from(vec![name]),
        uses_odbc_syntax: false,
        parameters: sp::FunctionArguments::None,
        args: sp::FunctionArguments::List(sp::FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

/// A condition with a mark before it.
pub fn marked(mark: sp::Expr, condition: sp::Expr) -> sp::Expr {
    let right = Box::new(sp::Expr::Nested(Box::new(condition)));
    sp::Expr::BinaryOp { left: Box::new(mark), op: sp::BinaryOperator::And, right }
}

/// MATCH_RECOGNIZE is sqlparser's, and what that has no place for stands in its definitions, under names that nobody writes:
/// the interval of WITHIN, and each `name = (variables)` of SUBSET. The pattern is one quoted name, the text of it.
pub const PATTERN_WITHIN: &str = "$within";
pub const PATTERN_SUBSET: &str = "$subset";
/// A function in FROM that gives the rows of the query that is its argument.
pub const PATTERN_INPUT: &str = "$rows";

/// Changes the expressions of a part of a query, the inner ones first, but for those of its subqueries.
pub fn change_outside_subqueries(part: &mut impl VisitMut, change: impl FnMut(&mut sp::Expr)) {
    let _ = part.visit(&mut Outside { depth: 0, change });
}

struct Outside<F> {
    /// Of subqueries around an expression.
    depth: usize,
    change: F,
}

impl<F: FnMut(&mut sp::Expr)> VisitorMut for Outside<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.change)(expr);
        }
        ControlFlow::Continue(())
    }
}
