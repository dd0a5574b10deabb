//! Reads the columns of relations and what their types come down to.

use std::collections::HashMap;

use super::error::{Error, Result};
use super::lookup::{Lookup, list};
use super::major::Catalog;
use super::missing::missing_value;
use super::table::{LeafTable, Table};
use crate::error::value_error;
use crate::schema::{Align, AttLen, Attribute, DnaType, MAX_COLUMNS, TupleDesc};

/// The type `bit varying` (`pg_type.dat`).
const VARBIT: u32 = 1562;
/// Domains over domains, at most; a circle of damaged ones must not keep us.
const MAX_DOMAINS: usize = 64;

/// A row of `pg_type`.
#[derive(Debug)]
pub(super) struct Type {
    name: String,
    kind: u8,
    base: u32,
}

/// A row of `pg_attribute`.
#[derive(Debug)]
pub(super) struct Column {
    number: i16,
    type_oid: u32,
    stored: bool,
    attribute: Attribute,
    missing: Option<Vec<u8>>,
}

impl Lookup<'_> {
    /// The columns of the root and of all leaves, each in the order of `attnum`.
    pub(super) fn columns(&self, root: u32, leaves: &[u32]) -> Result<HashMap<u32, Vec<Column>>> {
        let mut columns: HashMap<u32, Vec<Column>> = leaves.iter().map(|oid| (*oid, Vec::new())).collect();
        columns.entry(root).or_default();
        let path = self.catalog_path(Catalog::Attribute)?;
        let names = [
            "attrelid",
            "attname",
            "atttypid",
            "attlen",
            "attnum",
            "attalign",
            "attisdropped",
            "attgenerated",
            "atthasmissing",
            "attmissingval",
        ];
        self.scan.rows(Catalog::Attribute, &path, names, |fields| {
            let [relid, name, type_oid, len, number, align, dropped, generated, has_missing, missing] =
                fields;
            let (Some(of_table), number) = (columns.get_mut(&relid.oid()?), number.int2()?) else {
                return Ok(());
            };
            if number < 1 {
                return Ok(());
            }
            let dropped = dropped.bool()?;
            let attribute = Attribute {
                name: name.name()?,
                type_name: if dropped { "dropped".into() } else { "raw".into() },
                len: att_len(len.int2()?)?,
                align: align_of(align.char()?)?,
                dropped,
                missing: None,
            };
            let (type_oid, stored) = (type_oid.oid()?, generated.char()? != b'v');
            let missing = if has_missing.bool()? { missing.varlena().map(<[u8]>::to_vec) } else { None };
            of_table.push(Column { number, type_oid, stored, attribute, missing });
            Ok(())
        })?;
        for (oid, columns) in &mut columns {
            columns.sort_unstable_by_key(|column| column.number);
            let expected = self.class(*oid)?.natts;
            let in_order = columns.iter().zip(1..).all(|(column, number)| column.number == number);
            if !in_order || columns.len() != expected.max(0) as usize || columns.len() > MAX_COLUMNS {
                let what = format!("columns 1 to {expected} of {:?}", self.full_name(*oid));
                return Err(Error::catalog(
                    Catalog::Attribute,
                    "columns",
                    what,
                    format!("{} of them", columns.len()),
                ));
            }
        }
        Ok(columns)
    }

    pub(super) fn types(&self) -> Result<HashMap<u32, Type>> {
        let mut types = HashMap::new();
        let path = self.catalog_path(Catalog::Type)?;
        let columns = ["oid", "typname", "typtype", "typbasetype"];
        self.scan.rows(Catalog::Type, &path, columns, |[oid, name, kind, base]| {
            let found = Type { name: name.name()?, kind: kind.char()?, base: base.oid()? };
            types.insert(oid.oid()?, found);
            Ok(())
        })?;
        Ok(types)
    }
}

fn att_len(len: i16) -> crate::error::Result<AttLen> {
    match len {
        -1 => Ok(AttLen::Varlena),
        -2 => Ok(AttLen::CString),
        1.. => Ok(AttLen::Fixed(len.unsigned_abs())),
        _ => Err(value_error("catalog value", "-2, -1 or at least 1", len).at_attribute("attlen")),
    }
}

fn align_of(align: u8) -> crate::error::Result<Align> {
    match align {
        b'c' => Ok(Align::Byte),
        b's' => Ok(Align::Short),
        b'i' => Ok(Align::Int),
        b'd' => Ok(Align::Double),
        _ => Err(value_error("catalog value", "c, s, i or d", char::from(align)).at_attribute("attalign")),
    }
}

/// A relation with its columns, and the types that its DNA columns come down to.
pub(super) struct Described {
    pub(super) oid: u32,
    full_name: String,
    columns: Vec<Column>,
    /// For each column the name of its type, below any domains.
    types: Vec<String>,
}

impl Described {
    pub(super) fn new(
        lookup: &Lookup<'_>,
        oid: u32,
        columns: &mut HashMap<u32, Vec<Column>>,
        types: &HashMap<u32, Type>,
    ) -> Result<Self> {
        let columns = columns.remove(&oid).unwrap_or_default();
        let types = columns.iter().map(|column| base_type(column.type_oid, types)).collect();
        Ok(Self { oid, full_name: lookup.full_name(oid), columns, types })
    }

    pub(super) fn name(&self, at: usize) -> String {
        self.columns[at].attribute.name.clone()
    }

    pub(super) fn attnum(&self, at: usize) -> i16 {
        self.columns[at].number
    }

    fn column_type(&self, at: usize) -> Option<DnaType> {
        let column = &self.columns[at];
        match self.types[at].as_str() {
            "dna2" | "varbit" if !column.attribute.dropped => Some(DnaType::Dna2),
            "dna4" if !column.attribute.dropped => Some(DnaType::Dna4),
            _ => None,
        }
    }

    /// The column that was named, or the only DNA column.
    pub(super) fn choose(&self, named: Option<&str>) -> Result<usize> {
        if let Some(named) = named {
            let attributes = self.columns.iter().map(|column| column.attribute.clone()).collect();
            return TupleDesc { attributes }.column(named).map_err(|e| Error::NotFound {
                text: format!("table {:?}: {e}", self.full_name),
                hint: None,
            });
        }
        let dna: Vec<usize> = (0..self.columns.len()).filter(|at| self.column_type(*at).is_some()).collect();
        match dna[..] {
            [only] => Ok(only),
            _ => {
                let names: Vec<String> = dna.iter().map(|at| self.name(*at)).collect();
                let found = if names.is_empty() { "none".into() } else { list(&names) };
                let text = format!("table {:?}: expected one DNA column, found {found}", self.full_name);
                let hint = (!names.is_empty()).then(|| "name the column with --column".into());
                Err(Error::NotFound { text, hint })
            }
        }
    }

    /// How the column holds bases. `varbit_as` is about plain bit strings alone.
    pub(super) fn dna_type(&self, at: usize, varbit_as: Option<DnaType>) -> Result<DnaType> {
        let (column, type_name) = (&self.columns[at], &self.types[at]);
        let wrong = |expected: &str, hint| {
            let (table, name) = (&self.full_name, &column.attribute.name);
            let text = format!("table {table:?}: column {name:?}: expected {expected}, found {type_name}");
            Err(Error::not_readable(text, hint))
        };
        let found = match self.column_type(at) {
            Some(found) if column.attribute.len == AttLen::Varlena => found,
            _ => return wrong("type dna2, dna4 or bit varying", None),
        };
        if !column.stored {
            return wrong("a stored column, found a virtual generated one", Some("make it a stored one"));
        }
        match varbit_as {
            Some(asked) if type_name == "varbit" => Ok(asked),
            Some(asked) if asked != found => {
                wrong("the type that was asked for", Some("--type is for bit varying columns"))
            }
            _ => Ok(found),
        }
    }

    /// The relation as one with files, whose column is the table's of that name.
    pub(super) fn leaf(
        mut self,
        lookup: &Lookup<'_>,
        table: &Table,
        varbit_as: Option<DnaType>,
    ) -> Result<LeafTable> {
        let of_name = |column: &Column| !column.attribute.dropped && column.attribute.name == table.column;
        let found = self.columns.iter().position(of_name);
        let Some(at) = found else {
            let what = format!("column {:?} in partition {:?}", table.column, self.full_name);
            return Err(Error::catalog(Catalog::Attribute, "columns", what, "none"));
        };
        let dna = self.dna_type(at, varbit_as)?;
        if dna != table.dna {
            let what = format!("type {:?} in partition {:?}", table.dna, self.full_name);
            return Err(Error::catalog(Catalog::Attribute, "types", what, format!("{dna:?}")));
        }
        let column = &mut self.columns[at];
        column.attribute.type_name = if dna == DnaType::Dna2 { "dna2".into() } else { "dna4".into() };
        let missing = column.missing.take();
        column.attribute.missing = missing
            .map(|array| missing_value(&array))
            .transpose()
            .map_err(|e| e.at_attribute(&table.column))?;
        let toast = match lookup.class(self.oid)?.toast {
            0 => None,
            toast => Some(lookup.path(toast)?),
        };
        let attributes = self.columns.into_iter().map(|column| column.attribute).collect();
        let desc = TupleDesc { attributes };
        Ok(LeafTable { oid: self.oid, path: lookup.path(self.oid)?, toast, desc, column: at })
    }
}

/// The name of the type that a type comes down to, below any domains.
fn base_type(oid: u32, types: &HashMap<u32, Type>) -> String {
    let mut oid = oid;
    for _ in 0..MAX_DOMAINS {
        match types.get(&oid) {
            Some(found) if found.kind == b'd' => oid = found.base,
            Some(found) if found.name == "varbit" && oid != VARBIT => {
                return format!("another type {:?}", found.name);
            }
            Some(found) => return found.name.clone(),
            None => return format!("a type of oid {oid}"),
        }
    }
    "a domain without a type".into()
}
