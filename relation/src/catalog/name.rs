//! Reads the name of a table as people type it: `reads`, `public.reads`, `"My Schema"."Reads"`, or its oid.

/// A table as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableName {
    /// By its oid.
    Oid(u32),
    /// By its name, perhaps with a schema.
    Name {
        /// The schema; [`SEARCH_PATH`] if none was given.
        schema: Option<Part>,
        /// The table.
        table: Part,
    },
}

/// Where a table without a schema is looked for.
pub const SEARCH_PATH: &str = "public";

/// Bytes that PostgreSQL keeps of a name (NAMEDATALEN less the NUL behind it).
const MAX_NAME: usize = 63;

/// A part of a name. Quoted it is taken as it is; otherwise as SQL has it, folded to lower case, and if there is none as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    text: String,
    quoted: bool,
}

impl Part {
    /// The spellings to try, in their order.
    pub fn spellings(&self) -> Vec<String> {
        // scansup.c, downcase_identifier: in UTF-8 only the letters of ASCII.
        let (text, folded) = (kept(&self.text), kept(&self.text).to_ascii_lowercase());
        if self.quoted || folded == text { vec![text.to_owned()] } else { vec![folded, text.to_owned()] }
    }
}

/// What PostgreSQL keeps of a name: whole characters.
fn kept(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

impl TableName {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow "table NAME: ".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let oid = text.parse().ok().filter(|&oid| oid > 0);
            return oid.map(Self::Oid).ok_or("expected an oid from 1 to 4294967295");
        }
        let (first, rest) = part(text)?;
        let Some(rest) = rest else { return Ok(Self::Name { schema: None, table: first }) };
        match part(rest)? {
            (table, None) => Ok(Self::Name { schema: Some(first), table }),
            (_, Some(_)) => Err("expected at most a schema and a table, with one dot between them"),
        }
    }
}

/// The part in front, and what follows the dot behind it.
fn part(text: &str) -> Result<(Part, Option<&str>), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (name, rest) = text.split_once('.').map_or((text, None), |(name, rest)| (name, Some(rest)));
        if name.is_empty() {
            return Err("expected a name");
        }
        return Ok((Part { text: name.to_owned(), quoted: false }, rest));
    };
    let (mut name, mut chars) = (String::new(), quoted.char_indices().peekable());
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|&(_, next)| next == '"').is_some() {
            name.push('"');
        } else {
            let rest = &quoted[at + 1..];
            let part = Part { text: name, quoted: true };
            return match rest.strip_prefix('.') {
                _ if part.text.is_empty() => Err("expected a name between the quotes"),
                Some(rest) => Ok((part, Some(rest))),
                None if rest.is_empty() => Ok((part, None)),
                None => Err("expected a dot behind the closing quote"),
            };
        }
    }
    Err("expected a closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(text: &str) -> Result<(Option<Vec<String>>, Vec<String>), &'static str> {
        match TableName::parse(text)? {
            TableName::Oid(oid) => Ok((None, vec![format!("#{oid}")])),
            TableName::Name { schema, table } => Ok((schema.map(|s| s.spellings()), table.spellings())),
        }
    }

    #[test]
    fn names_as_people_type_them() {
        let strings = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let table = |names: &[&str]| Ok((None, strings(names)));
        assert_eq!(spelled("reads"), table(&["reads"]));
        assert_eq!(spelled("Reads"), table(&["reads", "Reads"]));
        assert_eq!(spelled("ÄB"), table(&["Äb", "ÄB"]));
        assert_eq!(spelled(&format!("{}ä", "x".repeat(62))), table(&["x".repeat(62).as_str()]));
        assert_eq!(spelled("\"Reads\""), table(&["Reads"]));
        assert_eq!(spelled("16384"), table(&["#16384"]));
        assert_eq!(spelled("\"16384\""), table(&["16384"]));
        assert_eq!(spelled("a.b"), Ok((Some(strings(&["a"])), strings(&["b"]))));
        assert_eq!(spelled("\"a.\"\"b\".\"c d\""), Ok((Some(strings(&["a.\"b"])), strings(&["c d"]))));
        for wrong in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "\"\"", "0", "4294967296", "a.\"b\".c"] {
            assert!(spelled(wrong).is_err(), "{wrong:?}");
        }
    }
}
