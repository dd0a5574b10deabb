//! What the catalogs say about a table and its DNA column.

use std::path::PathBuf;

use super::name::TableName;
use crate::schema::{DnaType, TupleDesc};

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The table.
    pub table: &'a TableName,
    /// The column, by name or attnum; `None`: the only DNA column.
    pub column: Option<&'a str>,
    /// How a plain `bit varying` column holds bases; `None`: 2 bits each.
    pub varbit_as: Option<DnaType>,
    /// Whether the pages of catalogs must bear the right checksum.
    pub verify_checksums: bool,
}

/// A table that was found.
#[derive(Debug, Clone)]
pub struct Table {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The column's name.
    pub column: String,
    /// Its `attnum`.
    pub attnum: i16,
    /// How its values hold bases.
    pub dna: DnaType,
    /// What has files: the table itself, its partitions, the tables that inherit from it.
    pub leaves: Vec<LeafTable>,
}

/// A relation with files of its own.
#[derive(Debug, Clone)]
pub struct LeafTable {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its first file.
    pub path: PathBuf,
    /// The first file of its TOAST relation.
    pub toast: Option<PathBuf>,
    /// Its columns.
    pub desc: TupleDesc,
    /// The DNA column, counted from 0.
    pub column: usize,
}
