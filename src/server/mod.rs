//! The Postgres face: who may connect, and what their messages do.
