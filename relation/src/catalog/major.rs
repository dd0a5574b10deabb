//! What differs between the major versions of PostgreSQL, 13 to 18: one place for all of it.
//!
//! Source of the facts: `pg_control.h` (PG_CONTROL_VERSION), `catversion.h`, `relmapper.c` (MAX_MAPPINGS), and for the columns of the catalogs
//! what servers of these versions say about themselves in `pg_attribute`.

use std::path::Path;

use super::error::{Error, PG_VERSION, Result};
use crate::error::Error as RelationError;
use crate::schema::TupleDesc;

/// A major version that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Major(u8);

/// A catalog that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catalog {
    /// `pg_database`.
    Database,
    /// `pg_class`.
    Class,
    /// `pg_attribute`.
    Attribute,
    /// `pg_type`.
    Type,
    /// `pg_namespace`.
    Namespace,
    /// `pg_inherits`.
    Inherits,
}

impl Catalog {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Database, Self::Class, Self::Attribute, Self::Type, Self::Namespace, Self::Inherits];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "pg_database",
            Self::Class => "pg_class",
            Self::Attribute => "pg_attribute",
            Self::Type => "pg_type",
            Self::Namespace => "pg_namespace",
            Self::Inherits => "pg_inherits",
        }
    }

    /// Its oid, the same in all versions.
    pub(crate) const fn oid(self) -> u32 {
        match self {
            Self::Database => 1262,
            Self::Class => 1259,
            Self::Attribute => 1249,
            Self::Type => 1247,
            Self::Namespace => 2615,
            Self::Inherits => 2611,
        }
    }
}

impl Major {
    /// Reads PG_VERSION.
    pub(crate) fn read(pgdata: &Path) -> Result<Self> {
        let path = pgdata.join("PG_VERSION");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                return Err(Error::file(
                    pgdata,
                    PG_VERSION,
                    "a data directory with the file PG_VERSION",
                    "none",
                ));
            }
            Err(e) => return Err(Error::io("cannot read", &path, e)),
        };
        let text = String::from_utf8_lossy(text.get(..text.len().min(40)).unwrap_or_default()).into_owned();
        let number = text.trim_end().parse().ok().filter(|n| (13..=18).contains(n));
        let found = || Error::file(&path, PG_VERSION, "13 to 18", format!("{:?}", text.trim_end()));
        number.map(Self).ok_or_else(found)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (13..=18).map(Self)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// PG_CONTROL_VERSION.
    pub(crate) const fn control_version(self) -> u32 {
        match self.0 {
            ..=16 => 1300,
            17 => 1700,
            _ => 1800,
        }
    }

    /// CATALOG_VERSION_NO.
    pub(crate) const fn catalog_version(self) -> u32 {
        match self.0 {
            ..=13 => 202_007_201,
            14 => 202_107_181,
            15 => 202_209_061,
            16 => 202_307_071,
            17 => 202_406_281,
            _ => 202_506_291,
        }
    }

    /// Where in `pg_control` its checksum lies, behind everything else.
    pub(crate) const fn control_crc_at(self) -> usize {
        if self.0 < 18 { 288 } else { 292 }
    }

    /// Bytes of `pg_filenode.map` before its checksum.
    pub(crate) const fn filenode_map_bytes(self) -> usize {
        if self.0 < 16 { 504 } else { 520 }
    }

    /// The columns of a catalog.
    ///
    /// # Errors
    /// None for the lists that are here.
    pub fn columns(self, catalog: Catalog) -> Result<TupleDesc, RelationError> {
        TupleDesc::parse(&match catalog {
            Catalog::Database => self.database(),
            Catalog::Class => self.class(),
            Catalog::Attribute => self.attribute(),
            Catalog::Type => self.types(),
            Catalog::Namespace => format!("oid oid, nspname name, nspowner oid, nspacl {}", self.acl()),
            Catalog::Inherits => {
                let pending = self.from(14, ", inhdetachpending bool");
                format!("inhrelid oid, inhparent oid, inhseqno int4{pending}")
            }
        })
    }

    /// `text` in this version and later ones.
    const fn from(self, major: u8, text: &'static str) -> &'static str {
        if self.0 >= major { text } else { "" }
    }

    /// `text` in versions before this.
    const fn before(self, major: u8, text: &'static str) -> &'static str {
        if self.0 < major { text } else { "" }
    }

    /// aclitem[] is aligned like its elements, which became 16 bytes long.
    const fn acl(self) -> &'static str {
        if self.0 < 16 { "raw(-1,i)" } else { "raw(-1,d)" }
    }

    fn database(self) -> String {
        let names = self.before(15, "datcollate name, datctype name, ");
        let provider = self.from(15, "datlocprovider \"char\", ");
        let events = self.from(17, "dathasloginevt bool, ");
        let last = self.before(15, "datlastsysoid oid, ");
        let texts = match self.0 {
            ..=14 => "",
            15 => "datcollate text, datctype text, daticulocale text, datcollversion text, ",
            16 => {
                "datcollate text, datctype text, daticulocale text, daticurules text, datcollversion text, "
            }
            _ => "datcollate text, datctype text, datlocale text, daticurules text, datcollversion text, ",
        };
        format!(
            "oid oid, datname name, datdba oid, encoding int4, {names}{provider}datistemplate bool, datallowconn bool, {events}\
             datconnlimit int4, {last}datfrozenxid xid, datminmxid xid, dattablespace oid, {texts}datacl {}",
            self.acl()
        )
    }

    fn class(self) -> String {
        let all_frozen = self.from(18, "relallfrozen int4, ");
        format!(
            "oid oid, relname name, relnamespace oid, reltype oid, reloftype oid, relowner oid, relam oid, relfilenode oid, \
             reltablespace oid, relpages int4, reltuples float4, relallvisible int4, {all_frozen}reltoastrelid oid, relhasindex bool, \
             relisshared bool, relpersistence \"char\", relkind \"char\", relnatts int2, relchecks int2, relhasrules bool, \
             relhastriggers bool, relhassubclass bool, relrowsecurity bool, relforcerowsecurity bool, relispopulated bool, \
             relreplident \"char\", relispartition bool, relrewrite oid, relfrozenxid xid, relminmxid xid, relacl {}, \
             reloptions text[], relpartbound raw(-1,i)",
            self.acl()
        )
    }

    fn attribute(self) -> String {
        let start = match self.0 {
            13 => {
                "attstattarget int4, attlen int2, attnum int2, attndims int4, attcacheoff int4, atttypmod int4, attbyval bool, \
                 attstorage \"char\", attalign \"char\", "
            }
            14 | 15 => {
                "attstattarget int4, attlen int2, attnum int2, attndims int4, attcacheoff int4, atttypmod int4, attbyval bool, \
                 attalign \"char\", attstorage \"char\", attcompression \"char\", "
            }
            16 | 17 => {
                "attlen int2, attnum int2, attcacheoff int4, atttypmod int4, attndims int2, attbyval bool, attalign \"char\", \
                 attstorage \"char\", attcompression \"char\", "
            }
            _ => {
                "attlen int2, attnum int2, atttypmod int4, attndims int2, attbyval bool, attalign \"char\", attstorage \"char\", \
                 attcompression \"char\", "
            }
        };
        let inherited = match self.0 {
            ..=15 => "attinhcount int4, attcollation oid, ",
            16 => "attinhcount int2, attstattarget int2, attcollation oid, ",
            _ => "attinhcount int2, attcollation oid, attstattarget int2, ",
        };
        format!(
            "attrelid oid, attname name, atttypid oid, {start}attnotnull bool, atthasdef bool, atthasmissing bool, \
             attidentity \"char\", attgenerated \"char\", attisdropped bool, attislocal bool, {inherited}attacl {}, \
             attoptions text[], attfdwoptions text[], attmissingval raw(-1,d)",
            self.acl()
        )
    }

    fn types(self) -> String {
        let subscript = self.from(14, "typsubscript oid, ");
        format!(
            "oid oid, typname name, typnamespace oid, typowner oid, typlen int2, typbyval bool, typtype \"char\", \
             typcategory \"char\", typispreferred bool, typisdefined bool, typdelim \"char\", typrelid oid, {subscript}typelem oid, \
             typarray oid, typinput oid, typoutput oid, typreceive oid, typsend oid, typmodin oid, typmodout oid, typanalyze oid, \
             typalign \"char\", typstorage \"char\", typnotnull bool, typbasetype oid, typtypmod int4, typndims int4, \
             typcollation oid, typdefaultbin raw(-1,i), typdefault text, typacl {}",
            self.acl()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // That these are the columns of servers is shown by the tests that start such servers.
    #[test]
    fn the_columns_of_every_version_can_be_read() {
        for major in Major::all() {
            for catalog in Catalog::ALL {
                let desc = major.columns(catalog).unwrap();
                assert!(desc.attributes.len() >= 3, "{} of {major:?}", catalog.name());
            }
        }
    }
}
