//! Knows how PostgreSQL's built-in types lie in a tuple, by all the names people write them with.
//!
//! Source of the facts: `pg_type.dat` (typlen, typalign), the grammar's spelling of type names (`gram.y`).

use crate::schema::{Align, AttLen};

use Align::{Byte, Double, Int, Short};
use AttLen::{CString, Fixed, Varlena};

/// Length and alignment of the type with this plain internal name ("int4", "varbit", "_text" for an array of text).
pub fn layout(name: &str) -> Option<(AttLen, Align)> {
    if let Some(element) = name.strip_prefix('_') {
        let (_, align) = layout(element)?;
        return Some((Varlena, align.max(Int)));
    }
    Some(match name {
        "bool" | "char" => (Fixed(1), Byte),
        "int2" => (Fixed(2), Short),
        "int4" | "float4" | "oid" | "xid" | "cid" | "date" => (Fixed(4), Int),
        "regproc" | "regprocedure" | "regoper" | "regoperator" | "regclass" | "regtype" | "regrole"
        | "regnamespace" | "regconfig" | "regdictionary" | "regcollation" => (Fixed(4), Int),
        "int8" | "float8" | "money" | "time" | "timestamp" | "timestamptz" | "pg_lsn" | "xid8" => {
            (Fixed(8), Double)
        }
        "tid" => (Fixed(6), Short),
        "macaddr" => (Fixed(6), Int),
        "macaddr8" => (Fixed(8), Int),
        "timetz" => (Fixed(12), Double),
        "interval" | "point" => (Fixed(16), Double),
        "uuid" => (Fixed(16), Byte),
        "name" => (Fixed(64), Byte),
        "circle" | "line" => (Fixed(24), Double),
        "box" | "lseg" => (Fixed(32), Double),
        "path" | "polygon" | "txid_snapshot" | "pg_snapshot" => (Varlena, Double),
        "int8range" | "tsrange" | "tstzrange" | "int8multirange" | "tsmultirange" | "tstzmultirange" => {
            (Varlena, Double)
        }
        "record" => (Varlena, Double),
        "text" | "varchar" | "bpchar" | "bytea" | "json" | "jsonb" | "xml" | "numeric" | "bit" | "varbit"
        | "inet" | "cidr" | "tsvector" | "tsquery" | "jsonpath" | "refcursor" | "int2vector"
        | "oidvector" => (Varlena, Int),
        "int4range" | "numrange" | "daterange" | "int4multirange" | "nummultirange" | "datemultirange" => {
            (Varlena, Int)
        }
        // Of common extensions, and the two this project is about.
        "dna2" | "dna4" | "citext" | "hstore" | "ltree" => (Varlena, Int),
        "cube" | "geometry" | "geography" => (Varlena, Double),
        "cstring" => (CString, Byte),
        _ => return None,
    })
}

/// The internal name of a type, from any of its spellings: "character varying(20)" gives "varchar", "int[]" gives "_int4".
/// `text` is lower case with single spaces; a type modifier and a schema are dropped. A name that is not known stays as it is.
pub fn internal_name(text: &str) -> String {
    if text == "\"char\"" {
        return "char".to_owned();
    }
    let (text, modifier) = split_modifier(text);
    if let Some((element, _)) = text.split_once('[') {
        return format!("_{}", internal_name(element.trim_end()));
    }
    if let Some(element) = text.strip_suffix(" array") {
        return format!("_{}", internal_name(element));
    }
    let text = text.rsplit('.').next().unwrap_or_default().trim_matches('"');
    spelled(text, modifier.as_deref()).to_owned()
}

fn spelled<'a>(text: &'a str, modifier: Option<&str>) -> &'a str {
    match text {
        "int" | "integer" | "serial" | "serial4" => "int4",
        "bigint" | "bigserial" | "serial8" => "int8",
        "smallint" | "smallserial" | "serial2" => "int2",
        "boolean" => "bool",
        "real" => "float4",
        "double precision" => "float8",
        "float" => match modifier.and_then(|m| m.trim().parse::<u32>().ok()) {
            Some(1..=24) => "float4",
            _ => "float8",
        },
        "decimal" | "dec" => "numeric",
        "character varying" | "char varying" | "national character varying" | "nchar varying" => "varchar",
        "character" | "char" | "nchar" | "national character" => "bpchar",
        "bit varying" => "varbit",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time with time zone" => "timetz",
        "time without time zone" => "time",
        _ if text.starts_with("interval ") => "interval",
        other => other,
    }
}

/// Takes "(...)" out of the text, wherever it stands ("timestamp(3) with time zone").
fn split_modifier(text: &str) -> (String, Option<String>) {
    match (text.find('('), text.rfind(')')) {
        (Some(open), Some(close)) if open < close => {
            let (before, inside, after) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
            let rest = match (before.trim_end(), after.trim()) {
                (before, "") => before.to_owned(),
                (before, after) if after.starts_with('[') => format!("{before}{after}"),
                (before, after) => format!("{before} {after}"),
            };
            (rest, Some(inside.to_owned()))
        }
        _ => (text.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_meet_in_one_name() {
        for (spelling, name) in [
            ("integer", "int4"),
            ("bigint", "int8"),
            ("character varying(20)", "varchar"),
            ("char(3)", "bpchar"),
            ("\"char\"", "char"),
            ("double precision", "float8"),
            ("float(24)", "float4"),
            ("float(25)", "float8"),
            ("timestamp(3) with time zone", "timestamptz"),
            ("time without time zone", "time"),
            ("interval day to second(3)", "interval"),
            ("bit varying(100)", "varbit"),
            ("numeric(10,2)", "numeric"),
            ("int[]", "_int4"),
            ("numeric(10,2)[]", "_numeric"),
            ("int4[3][4]", "_int4"),
            ("text array", "_text"),
            ("public.dna2", "dna2"),
            ("mood", "mood"),
        ] {
            assert_eq!(internal_name(spelling), name, "{spelling}");
        }
    }

    #[test]
    fn arrays_align_at_least_like_their_header() {
        assert_eq!(layout("_bool"), Some((Varlena, Int)));
        assert_eq!(layout("_int8"), Some((Varlena, Double)));
        assert_eq!(layout("mood"), None);
        assert_eq!(layout("_mood"), None);
    }
}
