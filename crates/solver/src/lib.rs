//! Walks the DAG in parallel: key, look up, execute, record.

pub mod copy;
