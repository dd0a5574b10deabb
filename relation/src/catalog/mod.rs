//! Finds tables in a data directory without its server: from names to files, columns and transaction logs.
//!
//! ```text
//! PG_VERSION, global/pg_control       the version; whether the server is at rest
//! global/pg_filenode.map              -> pg_database: the database's oid and tablespace
//! base/DB/pg_filenode.map             -> pg_class: every relation's file, and those of the catalogs below
//! pg_namespace, pg_inherits, pg_type  schemas, partitions, types
//! pg_attribute                        columns
//! ```
//!
//! Promises
//! - Catalogs are ordinary relations and are read like them: pages checked, tuples checked, transactions looked up in `pg_xact`.
//! - A server at work, a base backup that was never recovered and a crashed server are told apart, and refused unless forced.
//! - Nothing below the data directory is written to.
//!
//! What it does not do: replay WAL, or know what a running server has in its memory.
//!
//! Its tree: [`control`] and `filenode_map` read those two files, `major` knows what differs between versions, `scan` reads a catalog,
//! [`directory`] opens a data directory, `lookup` finds a table, `columns` its columns, [`table`] says what was found.

mod columns;
pub mod control;
pub mod directory;
mod error;
mod filenode_map;
mod lookup;
mod major;
mod missing;
pub mod name;
mod scan;
pub mod table;

pub use directory::{DataDirectory, Database};
pub use error::{Error, Result, Unrest};
pub use major::{Catalog, Major};
pub use table::{LeafTable, Table};
