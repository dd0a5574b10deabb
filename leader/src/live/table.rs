//! The table, its column, and the relations with files of their own that make it up, as the server's catalogs have them.

use super::Request;
use super::errors::failed;
use super::session::Session;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::source::TableName;
use relation::{Align, AttLen, Attribute, DnaType, TupleDesc};
use std::time::Duration;

/// After so long the user learns what is waited for.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// A table that was found.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name; the attnum is not known yet.
    pub name: TableName,
    /// Its name as SQL has it.
    pub quoted: String,
    /// Whether it is partitioned.
    pub partitioned: bool,
}

/// The DNA column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type's name.
    pub type_name: String,
    /// Its number in the table (a partition may have another).
    pub attnum: i16,
    /// How its values hold bases.
    pub dna: DnaType,
}

/// A relation with files of its own.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// OID.
    pub oid: u32,
    /// Its name, for people.
    pub name: String,
    /// Path of its first file below the data directory.
    pub path: String,
    /// The same of its TOAST relation.
    pub toast: Option<String>,
    /// Its columns.
    pub desc: TupleDesc,
    /// The DNA column, counted from 0.
    pub column: usize,
}

const FIND: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text,
       row_security_active(c.oid), EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";

impl Table {
    /// Finds a table by name or OID and refuses what cannot be read from files.
    ///
    /// # Errors
    /// When there is none, or it is something else.
    pub fn find(session: &mut Session, name: &str) -> Result<Self, Failure> {
        let action = format!("find table {name:?}");
        let by_oid = name.parse::<u32>().ok();
        let oid = match by_oid {
            Some(oid) => Some(oid),
            None => session.resolve(name).map_err(|e| failed(&action, &e))?,
        };
        let found = session.client().query_opt(FIND, &[&oid]);
        let row = found.map_err(|e| failed(&action, &e))?.ok_or_else(|| {
            let failure = Failure::error(format!("table {name:?} does not exist"));
            if by_oid.is_some() {
                return failure;
            }
            failure.hint("give its schema too, and quotes where SQL needs them: 'lab.\"Reads\"'; another database is named with --dbname")
        })?;
        let get = |i: usize| row.try_get::<_, String>(i).map_err(|e| failed(&action, &e));
        let (schema, relname, quoted, kind, persistence) = (get(1)?, get(2)?, get(3)?, get(4)?, get(5)?);
        let flag = |i: usize| row.try_get::<_, bool>(i).map_err(|e| failed(&action, &e));
        refuse_kind(&quoted, &kind)?;
        refuse_persistence(&quoted, &persistence)?;
        if flag(6)? {
            let text = format!("table {quoted}: row security hides rows from this user, and files hide none");
            return Err(Failure::error(text).hint("connect as the table's owner or as a user with BYPASSRLS"));
        }
        let partitioned = kind == "p";
        if flag(7)? && !partitioned {
            let text =
                format!("table {quoted}: expected a table without children, found some that inherit from it");
            return Err(Failure::error(text)
                .hint("count the children one by one; partitions are counted as one table"));
        }
        let oid = row.try_get(0).map_err(|e| failed(&action, &e))?;
        Ok(Self { name: TableName { oid, schema, name: relname, attnum: 0 }, quoted, partitioned })
    }

    /// Locks it, and makes sure that its name still stands for it.
    ///
    /// # Errors
    /// When it cannot be locked.
    pub fn lock(
        &self,
        session: &mut Session,
        signals: &Signals,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        // All partitions within the time, not each of them.
        let limit = if self.partitioned {
            "SELECT set_config('statement_timeout', current_setting('lock_timeout'), true); "
        } else {
            ""
        };
        let statement = format!("LOCK TABLE {} IN SHARE MODE", self.quoted);
        let action = format!("lock table {}", self.quoted);
        let waiting = format!("waiting for a lock on table {}", self.quoted);
        session.run_patiently(&action, signals, LONG_WAIT, &mut || say(&waiting), |c| {
            c.batch_execute(limit)?;
            c.batch_execute(&statement)?;
            c.batch_execute("SELECT set_config('statement_timeout', '0', true)")
        })?;
        let now = session.client().query_one("SELECT to_regclass($1)::oid", &[&self.quoted]);
        let now: Option<u32> = now.and_then(|row| row.try_get(0)).map_err(|e| failed(&action, &e))?;
        if now != Some(self.name.oid) {
            let text = format!("table {}: it was renamed or dropped while it was waited for", self.quoted);
            return Err(Failure::error(text).hint("run it again"));
        }
        // Whatever was refused before may have come meanwhile: children, row security, another kind. Behind the lock nothing of it comes.
        let locked = Self::find(session, &self.name.oid.to_string())?;
        if locked.partitioned != self.partitioned {
            let text = format!("table {}: it was made another while it was waited for", self.quoted);
            return Err(Failure::error(text).hint("run it again"));
        }
        Ok(())
    }

    /// Finds the column, by name or attnum, or the only DNA column there is.
    ///
    /// # Errors
    /// When there is none, it is of another type, or this user may not read it.
    pub fn column(&self, session: &mut Session, request: &Request<'_>) -> Result<Column, Failure> {
        let attributes = attributes(session, self.name.oid, &self.quoted)?;
        let desc = TupleDesc { attributes };
        let at = match request.column {
            Some(name) => desc.column(name).map_err(|e| {
                let failure = Failure::from(e);
                let text = failure.message().map(|m| m.error.clone()).unwrap_or_default();
                Failure::error(format!("table {}: {text}", self.quoted))
            })?,
            None => self.only_column(&desc)?,
        };
        let attribute = &desc.attributes[at];
        let as_asked = request.varbit_as.filter(|_| attribute.type_name == "varbit");
        if let (Some(asked), None, Some(dna)) = (request.varbit_as, as_asked, attribute.dna_type())
            && asked != dna
        {
            let (name, found) = (&attribute.name, &attribute.type_name);
            let text = format!(
                "table {}: column {name:?}: expected type bit varying with --type, found {found}",
                self.quoted
            );
            return Err(
                Failure::error(text).hint("do without --type: the column's own type says how it holds bases")
            );
        }
        let dna = as_asked.or(attribute.dna_type()).ok_or_else(|| {
            let (name, found) = (&attribute.name, &attribute.type_name);
            let text = format!(
                "table {}: column {name:?}: expected type dna2, dna4 or bit varying, found {found}",
                self.quoted
            );
            Failure::error(text)
        })?;
        // There are at most 1600.
        let attnum = i16::try_from(at + 1).unwrap_or(i16::MAX);
        let query = "SELECT has_column_privilege($1::oid, $2::int2, 'SELECT')";
        let may = session.client().query_one(query, &[&self.name.oid, &attnum]);
        let may: bool = may.and_then(|row| row.try_get(0)).map_err(|e| failed("ask for privileges", &e))?;
        if !may {
            let text = format!("table {}: column {:?}: permission denied", self.quoted, attribute.name);
            return Err(Failure::error(text).hint("its files are read only for those who may SELECT from it"));
        }
        Ok(Column { name: attribute.name.clone(), type_name: attribute.type_name.clone(), attnum, dna })
    }

    fn only_column(&self, desc: &TupleDesc) -> Result<usize, Failure> {
        let dna: Vec<usize> =
            (0..desc.attributes.len()).filter(|i| desc.attributes[*i].dna_type().is_some()).collect();
        let [only] = dna[..] else {
            let names: Vec<_> = dna.iter().map(|i| format!("{:?}", desc.attributes[*i].name)).collect();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let text = format!(
                "table {}: expected one column of type dna2, dna4 or bit varying, found {found}",
                self.quoted
            );
            return Err(Failure::error(text).hint("name the column with --column"));
        };
        Ok(only)
    }

    /// The relations with files that make it up: itself, or its partitions down to the last.
    ///
    /// # Errors
    /// When one of them has no files that can be read, or the column is another there.
    pub fn leaves(&self, session: &mut Session, column: &Column) -> Result<Vec<Leaf>, Failure> {
        const FIELDS: &str = "c.oid, format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text,
            pg_relation_filepath(c.oid), CASE WHEN c.reltoastrelid <> 0 THEN pg_relation_filepath(c.reltoastrelid) END
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace";
        let query = if self.partitioned {
            format!(
                "SELECT {FIELDS} JOIN pg_partition_tree($1::oid) p ON p.relid = c.oid WHERE p.isleaf AND c.relkind <> 'p' ORDER BY c.oid"
            )
        } else {
            format!("SELECT {FIELDS} WHERE c.oid = $1")
        };
        let action = format!("find the files of table {}", self.quoted);
        let rows = session.client().query(&query, &[&self.name.oid]).map_err(|e| failed(&action, &e))?;
        rows.iter().map(|row| self.leaf(session, column, row)).collect()
    }

    fn leaf(&self, session: &mut Session, column: &Column, row: &postgres::Row) -> Result<Leaf, Failure> {
        let action = format!("find the files of table {}", self.quoted);
        let text = |i: usize| row.try_get::<_, Option<String>>(i).map_err(|e| failed(&action, &e));
        let oid: u32 = row.try_get(0).map_err(|e| failed(&action, &e))?;
        let name = text(1)?.unwrap_or_default();
        refuse_kind(&name, &text(2)?.unwrap_or_default())?;
        refuse_persistence(&name, &text(3)?.unwrap_or_default())?;
        let path = text(4)?.ok_or_else(|| Failure::error(format!("table {name}: it has no files")))?;
        let attributes = attributes(session, oid, &name)?;
        let at = attributes.iter().position(|a| !a.dropped && a.name == column.name);
        let at = at.filter(|at| attributes[*at].type_name == column.type_name).ok_or_else(|| {
            Failure::error(format!("table {name}: expected a column {:?} as in {}", column.name, self.quoted))
        })?;
        let mut desc = TupleDesc { attributes };
        desc.attributes[at].missing = super::files::missing(session, oid, at, column.dna, &name)?;
        Ok(Leaf { oid, name, path, toast: text(5)?, desc, column: at })
    }
}

/// The columns of a relation, dropped ones included. A domain is taken as the type below it.
pub(super) fn attributes(session: &mut Session, oid: u32, table: &str) -> Result<Vec<Attribute>, Failure> {
    const QUERY: &str = "
        WITH RECURSIVE base(attnum, typ) AS (
            SELECT attnum, atttypid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0
            UNION ALL SELECT b.attnum, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typ WHERE t.typtype = 'd')
        SELECT a.attname::text, a.attisdropped, a.attlen, a.attalign::text, t.typname::text, a.attgenerated = 'v'
        FROM pg_attribute a
        LEFT JOIN base b ON b.attnum = a.attnum AND NOT EXISTS (SELECT FROM pg_type d WHERE d.oid = b.typ AND d.typtype = 'd')
        LEFT JOIN pg_type t ON t.oid = b.typ
        WHERE a.attrelid = $1 AND a.attnum > 0 ORDER BY a.attnum";
    let action = format!("ask for the columns of table {table}");
    let rows = session.client().query(QUERY, &[&oid]).map_err(|e| failed(&action, &e))?;
    let attribute = |row: &postgres::Row| -> Result<Attribute, postgres::Error> {
        let (dropped, len, align): (bool, i16, String) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (type_name, is_virtual): (Option<String>, bool) = (row.try_get(4)?, row.try_get(5)?);
        Ok(Attribute {
            name: row.try_get(0)?,
            // What is not stored (PostgreSQL 18) has no bytes to be read: it is of no type of ours.
            type_name: match type_name {
                _ if dropped => "dropped".into(),
                _ if is_virtual => "virtual".into(),
                name => name.unwrap_or_else(|| "raw".into()),
            },
            len: match len {
                -1 => AttLen::Varlena,
                -2 => AttLen::CString,
                fixed => AttLen::Fixed(fixed.unsigned_abs()),
            },
            align: match align.as_str() {
                "c" => Align::Byte,
                "s" => Align::Short,
                "i" => Align::Int,
                _ => Align::Double,
            },
            dropped,
            missing: None,
        })
    };
    rows.iter().map(|row| attribute(row).map_err(|e| failed(&action, &e))).collect()
}

fn refuse_kind(table: &str, kind: &str) -> Result<(), Failure> {
    let (what, hint) = match kind {
        "r" | "p" => return Ok(()),
        "v" => ("a view", "count the table below it, or make a table of it: CREATE TABLE ... AS TABLE ..."),
        "m" => {
            ("a materialized view", "it cannot be locked; make a table of it: CREATE TABLE ... AS TABLE ...")
        }
        "f" => ("a foreign table", "its rows are not in this server's files; count it where they are"),
        "i" | "I" => ("an index", "name the table"),
        "S" => ("a sequence", "name a table"),
        "t" => ("a TOAST table", "name the table that it belongs to"),
        _ => ("something else", "name a table"),
    };
    Err(Failure::error(format!("{table}: expected a table, found {what}")).hint(hint))
}

fn refuse_persistence(table: &str, persistence: &str) -> Result<(), Failure> {
    let (what, hint) = match persistence {
        "p" => return Ok(()),
        "u" => (
            "an unlogged one",
            "a checkpoint does not write it out; ALTER TABLE ... SET LOGGED, or stop the server and read it with -D",
        ),
        _ => ("a temporary one", "its pages are in its session's memory; make a table of it"),
    };
    Err(Failure::error(format!("table {table}: expected a permanent table, found {what}")).hint(hint))
}
