//! Looks a table up in the catalogs of its database.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::columns::Described;
use super::directory::{DataDirectory, Database};
use super::error::{Error, Result};
use super::filenode_map::FilenodeMap;
use super::major::Catalog;
use super::name::{Part, SEARCH_PATH, TableName};
use super::scan::Scan;
use super::table::{Table, Wanted};

/// The access method `heap` (`pg_am.dat`).
const HEAP: u32 = 2;

/// A row of `pg_class`.
#[derive(Debug, Clone)]
pub(super) struct Class {
    name: String,
    namespace: u32,
    filenode: u32,
    tablespace: u32,
    pub(super) toast: u32,
    access_method: u32,
    persistence: u8,
    kind: u8,
    pub(super) natts: i16,
    has_children: bool,
    populated: bool,
}

/// The catalogs of a database, as far as they were read.
pub(super) struct Lookup<'a> {
    directory: &'a DataDirectory,
    database: &'a Database,
    pub(super) scan: Scan<'a>,
    map: FilenodeMap,
    classes: HashMap<u32, Class>,
    namespaces: HashMap<u32, String>,
}

impl DataDirectory {
    /// Finds a table and its column.
    ///
    /// # Errors
    /// When there is none, it is not one that can be read, or the catalogs are damaged.
    pub fn table(&self, database: &Database, wanted: &Wanted<'_>) -> Result<Table> {
        let lookup = Lookup::new(self, database, wanted.verify_checksums)?;
        let root = lookup.resolve(wanted.table)?;
        let leaves = lookup.leaves_of(root)?;
        let mut columns = lookup.columns(root, &leaves)?;
        let types = lookup.types()?;
        let class = lookup.class(root)?;
        let desc = Described::new(&lookup, root, &mut columns, &types)?;
        let at = desc.choose(wanted.column)?;
        let (name, dna, attnum) = (desc.name(at), desc.dna_type(at, wanted.varbit_as)?, desc.attnum(at));
        let schema = lookup.namespaces.get(&class.namespace).cloned().unwrap_or_default();
        let mut table = Table {
            oid: root,
            schema,
            name: class.name.clone(),
            column: name,
            attnum,
            dna,
            leaves: Vec::new(),
        };
        let mut described = Some(desc);
        for oid in leaves {
            let desc = match described.take_if(|d| d.oid == oid) {
                Some(desc) => desc,
                None => Described::new(&lookup, oid, &mut columns, &types)?,
            };
            table.leaves.push(desc.leaf(&lookup, &table, wanted.varbit_as)?);
        }
        Ok(table)
    }
}

impl<'a> Lookup<'a> {
    fn new(directory: &'a DataDirectory, database: &'a Database, verify_checksums: bool) -> Result<Self> {
        let map = FilenodeMap::read(&directory.tablespace_dir(database, 0), directory.major)?;
        let mut lookup = Self {
            directory,
            database,
            scan: directory.scan(verify_checksums),
            map,
            classes: HashMap::new(),
            namespaces: HashMap::new(),
        };
        lookup.read_classes()?;
        lookup.read_namespaces()?;
        Ok(lookup)
    }

    fn read_classes(&mut self) -> Result<()> {
        let path = self.directory.tablespace_dir(self.database, 0);
        let path = path.join(self.map.get(Catalog::Class.oid())?.to_string());
        let columns = [
            "oid",
            "relname",
            "relnamespace",
            "relfilenode",
            "reltablespace",
            "reltoastrelid",
            "relam",
            "relpersistence",
            "relkind",
            "relnatts",
            "relhassubclass",
            "relispopulated",
        ];
        let Self { scan, classes, .. } = self;
        scan.rows(Catalog::Class, &path, columns, |fields| {
            let [oid, name, namespace, filenode, tablespace, toast, am, persistence, kind, natts, sub, pop] =
                fields;
            let class = Class {
                name: name.name()?,
                namespace: namespace.oid()?,
                filenode: filenode.oid()?,
                tablespace: tablespace.oid()?,
                toast: toast.oid()?,
                access_method: am.oid()?,
                persistence: persistence.char()?,
                kind: kind.char()?,
                natts: natts.int2()?,
                has_children: sub.bool()?,
                populated: pop.bool()?,
            };
            classes.insert(oid.oid()?, class);
            Ok(())
        })
    }

    fn read_namespaces(&mut self) -> Result<()> {
        let path = self.catalog_path(Catalog::Namespace)?;
        let Self { scan, namespaces, .. } = self;
        scan.rows(Catalog::Namespace, &path, ["oid", "nspname"], |[oid, name]| {
            namespaces.insert(oid.oid()?, name.name()?);
            Ok(())
        })
    }

    pub(super) fn class(&self, oid: u32) -> Result<&Class> {
        let missing = || Error::catalog(Catalog::Class, "relation", format!("one of oid {oid}"), "none");
        self.classes.get(&oid).ok_or_else(missing)
    }

    /// The first file of a relation.
    pub(super) fn path(&self, oid: u32) -> Result<PathBuf> {
        let class = self.class(oid)?;
        let file = if class.filenode == 0 { self.map.get(oid)? } else { class.filenode };
        Ok(self.directory.tablespace_dir(self.database, class.tablespace).join(file.to_string()))
    }

    pub(super) fn catalog_path(&self, catalog: Catalog) -> Result<PathBuf> {
        self.path(catalog.oid())
    }

    /// `schema.name`, for messages.
    pub(super) fn full_name(&self, oid: u32) -> String {
        let Some(class) = self.classes.get(&oid) else { return format!("oid {oid}") };
        let schema = self.namespaces.get(&class.namespace).map_or("?", String::as_str);
        format!("{schema}.{}", class.name)
    }

    /// The oid of the relation that was named.
    fn resolve(&self, table: &TableName) -> Result<u32> {
        let (schema, table) = match table {
            TableName::Oid(oid) if self.classes.contains_key(oid) => return Ok(*oid),
            TableName::Oid(oid) => {
                let text =
                    format!("table with oid {oid} does not exist in database {:?}", self.database.name);
                return Err(Error::NotFound { text, hint: None });
            }
            TableName::Name { schema, table } => (schema, table),
        };
        let schemas = schema.as_ref().map_or_else(|| vec![SEARCH_PATH.to_owned()], Part::spellings);
        let namespace = schemas
            .iter()
            .find_map(|name| self.namespaces.iter().find(|(_, found)| *found == name).map(|(oid, _)| *oid));
        let Some(namespace) = namespace else {
            let text = format!("schema {:?} does not exist", schemas.last().map_or("", String::as_str));
            let mut names: Vec<_> = self.namespaces.values().filter(|n| !n.starts_with("pg_")).collect();
            names.sort();
            return Err(Error::NotFound { text, hint: Some(format!("the schemas are {}", list(&names))) });
        };
        for name in table.spellings() {
            let found = self.classes.iter().find(|(_, c)| c.namespace == namespace && c.name == name);
            if let Some((oid, _)) = found {
                return Ok(*oid);
            }
        }
        Err(self.no_table(&table.spellings(), namespace))
    }

    fn no_table(&self, spellings: &[String], namespace: u32) -> Error {
        let schema = self.namespaces.get(&namespace).map_or("?", String::as_str);
        let typed = spellings.last().map_or("", String::as_str);
        let text = format!("table {typed:?} does not exist in schema {schema:?}");
        let mut elsewhere: Vec<&String> = self
            .classes
            .values()
            .filter(|class| spellings.contains(&class.name))
            .filter_map(|class| self.namespaces.get(&class.namespace))
            .collect();
        elsewhere.sort();
        let hint = (!elsewhere.is_empty())
            .then(|| format!("there is one in {}; write it as schema.table", list(&elsewhere)));
        Error::NotFound { text, hint }
    }

    /// Everything with files that `SELECT ... FROM` the relation reads: itself, partitions, tables that inherit from it.
    fn leaves_of(&self, root: u32) -> Result<Vec<u32>> {
        let class = self.class(root)?;
        self.check_kind(root, class)?;
        if class.kind != b'p' && !class.has_children {
            return Ok(vec![root]);
        }
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let path = self.catalog_path(Catalog::Inherits)?;
        let columns = ["inhrelid", "inhparent", "inhdetachpending"];
        self.scan.rows(Catalog::Inherits, &path, columns, |[child, parent, pending]| {
            // A partition whose detaching was begun is not a part any more.
            if !pending.bool_or_absent()? {
                children.entry(parent.oid()?).or_default().push(child.oid()?);
            }
            Ok(())
        })?;
        let (mut seen, mut todo, mut leaves) = (HashSet::from([root]), vec![root], Vec::new());
        while let Some(oid) = todo.pop() {
            let class = self.class(oid)?;
            self.check_kind(oid, class)?;
            if class.kind != b'p' {
                leaves.push(oid);
            }
            let mut below = children.remove(&oid).unwrap_or_default();
            below.retain(|child| seen.insert(*child));
            todo.extend(below);
        }
        leaves.sort_unstable();
        Ok(leaves)
    }

    /// Refuses what is no table, or whose rows are not in files that can be read.
    fn check_kind(&self, oid: u32, class: &Class) -> Result<()> {
        let name = self.full_name(oid);
        let refuse = |found: &str, hint| {
            Err(Error::not_readable(format!("table {name:?}: expected a table, found {found}"), hint))
        };
        match class.kind {
            b'r' | b'm' | b'p' => {}
            b'v' => {
                return refuse(
                    "a view",
                    Some("name the tables that it reads, or make it a materialized view"),
                );
            }
            b'f' => return refuse("a foreign table", Some("its rows are in another place; read them there")),
            b'i' | b'I' => return refuse("an index", Some("name the table that it belongs to")),
            b't' => return refuse("a toast table", Some("name the table that it belongs to")),
            b'S' => return refuse("a sequence", None),
            b'c' => return refuse("a composite type", None),
            other => return refuse(&format!("relkind {:?}", char::from(other)), None),
        }
        if class.persistence == b't' {
            return refuse("a temporary one", Some("copy it into a table that lasts"));
        }
        if class.persistence == b'u' && self.directory.unrest.is_some() {
            let hint =
                "the server empties it when it recovers; make it LOGGED, or shut the server down in order";
            return refuse("an unlogged one that its server did not leave in order", Some(hint));
        }
        if class.kind == b'm' && !class.populated {
            return refuse("a materialized view without data", Some("REFRESH it"));
        }
        if class.kind != b'p' && class.access_method != HEAP {
            return refuse(
                &format!("one of access method {}", class.access_method),
                Some("only heap tables can be read"),
            );
        }
        Ok(())
    }
}

pub(super) fn list<T: std::fmt::Debug>(names: &[T]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
