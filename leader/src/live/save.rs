//! Writes a result into pg_kmersearch's two tables, in the transaction that holds the lock.
//!
//! The rows go by binary COPY into a temporary table and from there by one INSERT ... ON CONFLICT, so a million of them takes seconds. The tables
//! are those that `search_path` finds, or else are made as [`crate::format::sql`] has them.
//!
//! The extension has changed its tables over time, so columns and keys are taken from the catalogs: `kmer_size` and `occur_bitlen` may be absent
//! from the table of k-mers, and the primary key is whatever it is. An analysis is told from another by the key of the table of analyses.

use super::Live;
use super::errors::failed;
use super::session::Session;
use crate::failure::Failure;
use crate::format::sql::{CREATE_TABLES, HIGHFREQ, META, bigint, must_fit, quote};
use crate::plan::Plan;
use crate::report::{Entries, Entry, EntryText};
use crate::signals::Signals;
use std::io::Write;

/// What makes an analysis another one; fewer in older tables of the extension.
const KEYS: [&str; 4] = ["table_oid", "column_name", "kmer_size", "occur_bitlen"];

/// One of the two tables.
struct Stored {
    /// Its schema, and its name in it, as SQL has them.
    schema: String,
    name: String,
    columns: Vec<String>,
    /// Name of the primary key and its columns.
    key: Option<(String, Vec<String>)>,
}

/// Table, column, k and occur_bitlen, as SQL constants.
pub(super) struct Analysis {
    oid: u32,
    column: String,
    k: Option<u32>,
    occur_bitlen: Option<u32>,
}

impl Stored {
    /// Looks a table up; `None` when it is not there.
    fn find(session: &mut Session, name: &str) -> Result<Option<Self>, Failure> {
        let action = format!("save into table {name}");
        let Some(oid) = session.resolve(name).map_err(|e| failed(&action, &e))? else { return Ok(None) };
        let query = "SELECT quote_ident(n.nspname), format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = $1";
        let names = session.client().query_one(query, &[&oid]);
        let (schema, name): (String, String) =
            names.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?))).map_err(|e| failed(&action, &e))?;
        let query = "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
        let columns = session.client().query_one(query, &[&oid]).and_then(|row| row.try_get(0));
        let query = "SELECT c.conname::text, array_agg(a.attname::text) FROM pg_constraint c
            JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
            WHERE c.conrelid = $1 AND c.contype = 'p' GROUP BY c.conname";
        let key = session.client().query_opt(query, &[&oid]);
        let key = key.and_then(|row| row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose());
        Ok(Some(Self {
            schema,
            name,
            columns: columns.map_err(|e| failed(&action, &e))?,
            key: key.map_err(|e| failed(&action, &e))?,
        }))
    }

    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// The table must have these.
    fn must_have(&self, table: &str, columns: &[&str]) -> Result<(), Failure> {
        match columns.iter().find(|column| !self.has(column)) {
            None => Ok(()),
            Some(missing) => Err(Failure::error(format!("table {table}: expected a column {missing:?}, found {}", self.columns.join(", ")))
                .hint("it was made by a version of the extension that is too old; write the result with -o and load it as you need it")),
        }
    }

    /// The columns that tell analyses apart here.
    fn keys(&self) -> Vec<&'static str> {
        let in_key =
            |name: &str| self.key.as_ref().is_none_or(|(_, key)| key.iter().any(|column| column == name));
        KEYS.into_iter().filter(|name| self.has(name) && in_key(name)).collect()
    }

    /// What is done with a row that is there already: everything but its key is overwritten.
    fn on_conflict(&self, columns: &[&str]) -> String {
        let Some((name, key)) = &self.key else { return String::new() };
        let others = columns.iter().filter(|column| !key.iter().any(|k| k == *column));
        let set: Vec<String> = others.map(|column| format!("{column} = EXCLUDED.{column}")).collect();
        let name = name.replace('"', "\"\"");
        if set.is_empty() {
            return format!(" ON CONFLICT ON CONSTRAINT \"{name}\" DO NOTHING");
        }
        format!(" ON CONFLICT ON CONSTRAINT \"{name}\" DO UPDATE SET {}", set.join(", "))
    }
}

impl Analysis {
    pub(super) fn new(oid: u32, column: &str, k: Option<u32>, occur_bitlen: Option<u32>) -> Self {
        Self { oid, column: column.into(), k, occur_bitlen }
    }

    fn value(&self, key: &str) -> Option<String> {
        match key {
            "table_oid" => Some(self.oid.to_string()),
            "column_name" => Some(quote(&self.column)),
            "kmer_size" => self.k.map(|k| k.to_string()),
            _ => self.occur_bitlen.map(|b| b.to_string()),
        }
    }

    /// A condition on those of `keys` whose value is known.
    fn condition(&self, keys: &[&str]) -> String {
        let equal = |key: &&str| Some(format!("{key} = {}", self.value(key)?));
        keys.iter().filter_map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// Removes what is there: the numbers of analyses, of k-mers, and of bytes of their rows.
    pub(super) fn remove(
        &self,
        session: &mut Session,
        signals: &Signals,
    ) -> Result<(i64, i64, i64), Failure> {
        let mut removed = [(0, 0); 2];
        for (table, at) in [META, HIGHFREQ].into_iter().zip(0..) {
            let Some(stored) = Stored::find(session, table)? else { continue };
            stored.must_have(table, &KEYS[..2])?;
            let keys: Vec<&str> = KEYS.into_iter().filter(|name| stored.has(name)).collect();
            // What a table does not know it does not tell apart: its k-mers may be another analysis's.
            let unknown = KEYS.iter().find(|key| self.value(key).is_some() && !stored.has(key));
            if let (HIGHFREQ, (0, _), Some(key)) = (table, removed[0], unknown) {
                let asked = self.condition(&[key]);
                let text = format!(
                    "table {table}: expected k-mers of an analysis with {asked}, found no such analysis, and no column {key:?}"
                );
                return Err(
                    Failure::error(text).hint("do without -k and -b to remove what there is of the column")
                );
            }
            let query = format!(
                "WITH gone AS (DELETE FROM {} AS t WHERE {} RETURNING pg_column_size(t.*) AS bytes)
                 SELECT count(*), coalesce(sum(bytes), 0)::int8 FROM gone",
                stored.name,
                self.condition(&keys)
            );
            let action = format!("save the removal from table {table}");
            let row = session.run(&action, signals, |client| client.query_one(&query, &[]))?;
            let get = |i: usize| row.try_get(i).map_err(|e| failed(&action, &e));
            removed[at] = (get(0)?, get(1)?);
        }
        let [(analyses, meta_bytes), (kmers, bytes)] = removed;
        Ok((analyses, kmers, meta_bytes + bytes))
    }
}

/// Entries as rows of COPY's binary form.
struct BinaryRows;

impl EntryText for BinaryRows {
    fn append(&self, entries: &[Entry], text: &mut Vec<u8>) {
        text.reserve(entries.len() * 26);
        for (key, count) in entries {
            text.extend_from_slice(&[0, 2, 0, 0, 0, 8]);
            text.extend_from_slice(&bigint(*key).to_be_bytes());
            text.extend_from_slice(&[0, 0, 0, 8]);
            text.extend_from_slice(&i64::from(*count).to_be_bytes());
        }
    }
}

const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const BINARY_END: &[u8] = &[0xff, 0xff];

impl Live {
    fn analysis(&self, plan: &Plan) -> Analysis {
        Analysis::new(self.table.oid, &self.column, Some(plan.params.k()), Some(plan.params.occur_bitlen()))
    }

    /// Refuses before the work begins what could not be saved after it.
    ///
    /// # Errors
    /// When an analysis is there and is not to be replaced, or the tables are not ours to write.
    pub fn may_save(&mut self, plan: &Plan, replace: bool, signals: &Signals) -> Result<(), Failure> {
        must_fit(plan.rule.rate)?;
        self.may_make_temporary()?;
        let (meta, rows) =
            (Stored::find(&mut self.session, META)?, Stored::find(&mut self.session, HIGHFREQ)?);
        for stored in meta.iter().chain(&rows) {
            self.may_write(stored)?;
        }
        if let Some(rows) = &rows {
            rows.must_have(HIGHFREQ, &["table_oid", "column_name", "uintkey"])?;
        }
        if meta.is_none() || rows.is_none() {
            let missing = if meta.is_none() { META } else { HIGHFREQ };
            self.may_create(missing, meta.as_ref().or(rows.as_ref()))?;
        }
        let Some(meta) = meta else { return Ok(()) };
        meta.must_have(
            META,
            &["table_oid", "column_name", "kmer_size", "max_appearance_rate", "max_appearance_nrow"],
        )?;
        let analysis = self.analysis(plan);
        let query = format!(
            "SELECT EXISTS (SELECT FROM {} WHERE {})",
            meta.name,
            analysis.condition(&self.keys(&meta)?)
        );
        let action = "save the result";
        let there = self.session.run(action, signals, |client| client.query_one(&query, &[])?.try_get(0))?;
        if there && !replace {
            let (table, column) = (&self.quoted, &self.column);
            let (k, bits) = (plan.params.k(), plan.params.occur_bitlen());
            let text = format!(
                "table {table}: column {column:?}: an analysis with k {k} and occur_bitlen {bits} is there already"
            );
            return Err(
                Failure::error(text).hint("replace it with --replace, or remove it with kmer-leader undo")
            );
        }
        Ok(())
    }

    /// What is missing is made beside the other one, or in the first schema of `search_path`.
    fn may_create(&mut self, missing: &str, beside: Option<&Stored>) -> Result<(), Failure> {
        let first = self.session.schema().map_err(|e| failed("save the result", &e))?;
        let schema = beside.map(|stored| stored.schema.clone()).or(first);
        let query = "SELECT coalesce(has_schema_privilege($1::text::regnamespace, 'CREATE'), false)";
        if self.may(query, schema.as_deref())? {
            return Ok(());
        }
        let place =
            schema.map_or("the first schema of search_path".into(), |schema| format!("schema {schema}"));
        let text = format!("table {missing}: it is not there, and may not be made in {place}");
        Err(Failure::error(text).hint("GRANT CREATE ON SCHEMA ... TO ..., or have them made by who may"))
    }

    /// Rows go through a temporary table.
    fn may_make_temporary(&mut self) -> Result<(), Failure> {
        let query = "SELECT has_database_privilege(current_database(), 'TEMP')";
        if self.session.value("save the result", query)? {
            return Ok(());
        }
        Err(Failure::error(
            "save the result: expected the right to make temporary tables in the database, found none",
        )
        .hint("GRANT TEMPORARY ON DATABASE ... TO ..."))
    }

    fn may_write(&mut self, stored: &Stored) -> Result<(), Failure> {
        // What is there already is overwritten, if there is a key.
        let rights = ["SELECT", "INSERT", "DELETE", "UPDATE"];
        for right in &rights[..if stored.key.is_some() { 4 } else { 3 }] {
            let query = format!("SELECT has_table_privilege($1::text, '{right}')");
            if !self.may(&query, Some(&stored.name))? {
                let text = format!("table {}: expected the right to {right}, found none", stored.name);
                return Err(Failure::error(text)
                    .hint(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO ...", stored.name)));
            }
        }
        Ok(())
    }

    fn may(&mut self, query: &str, name: Option<&str>) -> Result<bool, Failure> {
        let row = self.session.client().query_one(query, &[&name]);
        row.and_then(|row| row.try_get(0)).map_err(|e| failed("save the result", &e))
    }

    /// What tells analyses apart: where k is not in the key of the k-mers' table, there can be but one a column.
    fn keys(&mut self, meta: &Stored) -> Result<Vec<&'static str>, Failure> {
        let rows = Stored::find(&mut self.session, HIGHFREQ)?;
        let known = |name: &&str| rows.as_ref().is_none_or(|rows| rows.keys().contains(name));
        Ok(meta.keys().into_iter().filter(known).collect())
    }

    /// Writes the result.
    ///
    /// # Errors
    /// What the server says, or a signal.
    pub fn save(&mut self, plan: &Plan, entries: &Entries, signals: &Signals) -> Result<(), Failure> {
        let step = |session: &mut Session, statement: &str| {
            session.run("save the result", signals, |client| client.batch_execute(statement))
        };
        // One at a time: two that make the tables would run into each other.
        step(&mut self.session, &format!("SELECT pg_advisory_xact_lock(hashtext('{META}'))"))?;
        let there = [Stored::find(&mut self.session, META)?, Stored::find(&mut self.session, HIGHFREQ)?];
        if there.iter().any(Option::is_none) {
            // One that is missing belongs beside the other.
            let beside = there.into_iter().flatten().next().map(|stored| stored.schema);
            let first = self.session.schema().map_err(|e| failed("save the result", &e))?;
            let schema = beside
                .or(first)
                .ok_or_else(|| Failure::error("search_path: expected a schema, found none"))?;
            step(&mut self.session, &CREATE_TABLES.replace(HIGHFREQ, &format!("{schema}.{HIGHFREQ}")))?;
        }
        // Somebody may have saved one while we counted.
        self.may_save(plan, plan.replace, signals)?;
        let missing = || Failure::error("save: a table vanished");
        let rows = Stored::find(&mut self.session, HIGHFREQ)?.ok_or_else(missing)?;
        let meta = Stored::find(&mut self.session, META)?.ok_or_else(missing)?;
        let analysis = self.analysis(plan);
        let keys = self.keys(&meta)?;
        for table in [&rows.name, &meta.name] {
            step(&mut self.session, &format!("DELETE FROM {table} WHERE {}", analysis.condition(&keys)))?;
        }
        self.copy(entries, signals)?;
        step(&mut self.session, &insert_rows(&rows, &analysis))?;
        step(&mut self.session, &insert_meta(&meta, &analysis, plan))
    }

    fn copy(&mut self, entries: &Entries, signals: &Signals) -> Result<(), Failure> {
        let action = "save the result";
        let create = "CREATE TEMPORARY TABLE kmer_leader_rows (uintkey bigint NOT NULL, appearance_nrow bigint NOT NULL) ON COMMIT DROP";
        let created = self.session.client().batch_execute(create);
        created.map_err(|e| failed(action, &e))?;
        let copy = "COPY pg_temp.kmer_leader_rows (uintkey, appearance_nrow) FROM STDIN (FORMAT binary)";
        let mut writer = self.session.client().copy_in(copy).map_err(|e| failed(action, &e))?;
        let io = |e: std::io::Error| Failure::error(format!("could not {action}: {e}"));
        writer.write_all(BINARY_HEADER).map_err(io)?;
        entries.stream(&BinaryRows, &mut |bytes| match signals.caught() {
            Some(signal) => Err(Failure::Signal(signal)),
            None => writer.write_all(bytes).map_err(io),
        })?;
        writer.write_all(BINARY_END).map_err(io)?;
        writer.finish().map_err(|e| failed(action, &e))?;
        Ok(())
    }
}

fn insert_rows(stored: &Stored, analysis: &Analysis) -> String {
    let mut columns: Vec<&str> = KEYS.into_iter().filter(|name| stored.has(name)).collect();
    let mut values: Vec<String> = columns.iter().filter_map(|name| analysis.value(name)).collect();
    for (name, value) in
        [("uintkey", "uintkey"), ("appearance_nrow", "appearance_nrow"), ("detection_reason", "'threshold'")]
    {
        if stored.has(name) {
            columns.push(name);
            values.push(value.into());
        }
    }
    let (names, values, conflict) = (columns.join(", "), values.join(", "), stored.on_conflict(&columns));
    let table = &stored.name;
    format!("INSERT INTO {table} ({names}) SELECT {values} FROM pg_temp.kmer_leader_rows{conflict}")
}

fn insert_meta(stored: &Stored, analysis: &Analysis, plan: &Plan) -> String {
    let mut columns: Vec<&str> = KEYS.into_iter().filter(|name| stored.has(name)).collect();
    let mut values: Vec<String> = columns.iter().filter_map(|name| analysis.value(name)).collect();
    columns.extend(["max_appearance_rate", "max_appearance_nrow"]);
    values.extend([plan.rule.rate.to_string(), plan.rule.nrow.to_string()]);
    if stored.has("analysis_timestamp") {
        columns.push("analysis_timestamp");
        values.push("now()".into());
    }
    let (names, values, conflict) = (columns.join(", "), values.join(", "), stored.on_conflict(&columns));
    format!("INSERT INTO {} ({names}) VALUES ({values}){conflict}", stored.name)
}
