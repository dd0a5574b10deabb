//! `kmer-leader undo`: takes a saved analysis out of the database again, as kmersearch_undo_highfreq_analysis does.

use super::args::ConnectArgs;
use super::errors::failed;
use super::save::Analysis;
use super::session::Session;
use super::table::attributes;
use crate::failure::Failure;
use crate::signals::Signals;
use clap::Args;
use relation::TupleDesc;
use relation::schema::unquoted;

/// Options of `kmer-leader undo`.
#[derive(Clone, Debug, Args)]
pub struct UndoArgs {
    /// The server.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Table, as [SCHEMA.]NAME or by its OID; a table that was dropped has only its OID left
    #[arg(short = 't', long, value_name = "TABLE")]
    pub table: String,
    /// Its DNA column
    #[arg(short, long, value_name = "COLUMN")]
    pub column: String,
    /// Only the analyses with this k [default: all]
    #[arg(short = 'k', long, value_name = "K", value_parser = clap::value_parser!(u32).range(4..=32))]
    pub kmer_size: Option<u32>,
    /// Only the analyses with so many bits for the occurrence [default: all]
    #[arg(short = 'b', long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub occur_bitlen: Option<u32>,
}

/// What was removed; the fields of kmersearch_undo_highfreq_analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Analyses.
    pub analyses: i64,
    /// k-mers.
    pub kmers: i64,
    /// Bytes of their rows. The server uses the room again after the next VACUUM.
    pub bytes: i64,
}

/// Removes the analyses of a column.
///
/// # Errors
/// What the server says; when the table is not there.
pub fn undo(args: &UndoArgs, signals: &Signals) -> Result<Removed, Failure> {
    let mut session = Session::connect(&args.connect, signals)?;
    session.begin(None)?;
    let oid = oid_of(&mut session, &args.table)?;
    let (column, may_be) = column_of(&mut session, oid, &args.column)?;
    let analysis = Analysis::new(oid, &column, args.kmer_size, args.occur_bitlen);
    let (analyses, kmers, bytes) = analysis.remove(&mut session, signals)?;
    if analyses == 0 && kmers == 0 && !may_be {
        return Err(Failure::error(format!(
            "table {:?}: column {:?} does not exist, and has no analysis",
            args.table, args.column
        )));
    }
    session.commit(signals)?;
    Ok(Removed { analyses, kmers, bytes })
}

fn oid_of(session: &mut Session, name: &str) -> Result<u32, Failure> {
    if let Ok(oid) = name.parse() {
        return Ok(oid);
    }
    let action = format!("find table {name:?}");
    let oid = session.resolve(name).map_err(|e| failed(&action, &e))?;
    oid.ok_or_else(|| {
        Failure::error(format!("table {name:?} does not exist"))
            .hint("a table that was dropped is named by the OID in kmersearch_highfreq_kmer_meta")
    })
}

/// The column's name, found as a run finds it: analyses are kept by name. One that is not there any more, or whose table is not, is named as it was.
fn column_of(session: &mut Session, oid: u32, asked: &str) -> Result<(String, bool), Failure> {
    let desc = TupleDesc { attributes: attributes(session, oid, &format!("with OID {oid}"))? };
    if let Ok(at) = desc.column(asked) {
        return Ok((desc.attributes[at].name.clone(), true));
    }
    Ok((unquoted(asked).unwrap_or_else(|| asked.into()), desc.attributes.is_empty()))
}
